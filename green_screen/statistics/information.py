"""What runs tell of the energy law, and which further run would tell most.

The law is linear in its parameters only near some values of them, and what a run tells depends on
these: one at a small batch tells what launching costs where launching decides. So information is
averaged over several values that the law may have, until runs have said which it has (Chaloner and
Verdinelli, Bayesian experimental design: a review, Statistical Science 10, 1995, section 5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from green_screen.statistics.coding import Matrix
from green_screen.statistics.law import LawDesign, Rows, jacobian
from green_screen.statistics.law_fit import LawFit, prior_precision, prior_starts

# Standard deviation of the log response that is expected of a run (replicates on H100s: 0.4 to
# 3.5 %), and of the log ratio of what cannot act: some runs are spent on seeing that it does not.
EXPECTED_NOISE = 0.03
CONTROL_SPREAD = 0.05
# Gains that differ by less are equal, so that the choice is the same on every machine.
_DECIMALS = 7


class Information:
    """The precision of the law's parameters, by the runs that were added."""

    def __init__(self, design: LawDesign, fit: LawFit | None = None) -> None:
        """Begin with what is known before any run.

        Args:
            design: The law's parameters.
            fit: A fit to the runs so far, of a design with the same effects: the values to look at.
        """
        self._design = design
        self._noise = EXPECTED_NOISE if fit is None else fit.noise
        bare = dataclasses.replace(design, controls=())
        names, thetas = bare.names(), prior_starts(bare)
        if fit is not None:
            # Of levels that no run has had yet it knows nothing.
            found = dict(zip(fit.design.names(), fit.theta, strict=True))
            thetas = [np.array([found.get(name, 0.0) for name in names])]
        n_controls = len(design.controls)
        self._thetas = [np.append(theta, np.zeros(n_controls)) for theta in thetas]
        prior = np.diag([0.0] * len(names) + [CONTROL_SPREAD**-2] * n_controls)
        prior[: len(names), : len(names)] = prior_precision(bare)
        self._covariances = [np.linalg.inv(prior) for _ in self._thetas]

    def gains(self, rows: Rows) -> Matrix:
        """Return how much each row would add: the rise of the log determinant of the precision."""
        slopes = self._slopes(rows)
        return self._gains(
            [_leverages(*each) for each in zip(slopes, self._covariances, strict=True)]
        )

    def add(self, rows: Rows) -> None:
        """Take note of runs that are done, or will be."""
        for place, slopes in enumerate(self._slopes(rows)):
            for slope in slopes:
                self._add(place, slope)

    def in_order(self, rows: Rows, n: int) -> list[int]:
        """Return `n` of the rows, each the most informative one after those before it.

        Rows are not used twice. (The greedy augmentation of a D-optimal design: Atkinson, Donev and
        Tobias, Optimum Experimental Designs, with SAS, 2007, section 12.4.)
        """
        slopes = self._slopes(rows)
        leverages = [_leverages(*each) for each in zip(slopes, self._covariances, strict=True)]
        left = np.ones(len(rows.log_batch), dtype=bool)
        chosen: list[int] = []
        for _ in range(n):
            best = int(np.argmax(np.where(left, self._gains(leverages), -np.inf)))
            chosen.append(best)
            left[best] = False
            for place, matrix in enumerate(slopes):
                leverages[place] -= (matrix @ self._add(place, matrix[best])) ** 2
        return chosen

    def _gains(self, leverages: Sequence[Matrix]) -> Matrix:
        of_each = [np.log1p(leverage / self._noise**2) for leverage in leverages]
        return np.asarray(np.round(np.mean(of_each, axis=0), _DECIMALS))

    def _add(self, place: int, slope: Matrix) -> Matrix:
        """Add a run; return the vector whose outer product the covariance loses."""
        covariance = self._covariances[place]
        lost = covariance @ slope / np.sqrt(self._noise**2 + slope @ covariance @ slope)
        self._covariances[place] = covariance - np.outer(lost, lost)
        return np.asarray(lost)

    def _slopes(self, rows: Rows) -> Sequence[Matrix]:
        return [jacobian(theta, self._design, rows) for theta in self._thetas]


def _leverages(slopes: Matrix, covariance: Matrix) -> Matrix:
    """Return the variance of each row's expected log response."""
    return np.asarray(((slopes @ covariance) * slopes).sum(axis=1))
