"""Fits the energy law, and says what follows from it with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.optimize import least_squares

from green_screen.results.frame import EFFECTIVE
from green_screen.statistics.coding import Matrix
from green_screen.statistics.law import (
    CROSSOVER_CENTER,
    CROSSOVER_SPREAD,
    LawDesign,
    Rows,
    jacobian,
    launching_share,
    log_energy,
)

# Crossovers that the search begins at: launching decides, both, computing decides.
STARTS = (4.0, 32.0, 256.0)
# With fewer residual degrees of freedom there is hardly an estimate of the noise.
MIN_RESIDUAL_DF = 10.0
# A parameter is told by the runs if they leave less than this share of its prior's spread.
TOLD = 0.5

_FIRST_NOISE = 0.05


@dataclass(frozen=True)
class LawFit:
    """A fitted law.

    Attributes:
        design: Its parameters.
        theta: Their values, in the order of :meth:`~.law.LawDesign.names`.
        covariance: Of the parameters, scaled by the noise.
        noise: Standard deviation of the log response around the law.
        residual_df: Runs less the parameters that they determine.
        objective: Sum of squared residuals and of the prior's penalty.
        penalty_noise: The noise that the prior's penalty was weighed by.
        prior_spread: Of each parameter.
    """

    design: LawDesign
    theta: Matrix
    covariance: Matrix
    noise: float
    residual_df: float
    objective: float
    penalty_noise: float
    prior_spread: Matrix

    @property
    def overlap(self) -> float:
        """Return p."""
        step, image, _ = self.design.sizes
        return 1.0 + float(np.exp(self.theta[step + image]))

    @property
    def told(self) -> npt.NDArray[np.bool_]:
        """Return for each parameter whether the runs tell it, or its prior does."""
        sd = np.sqrt(np.diag(self.covariance))
        return np.asarray(sd < TOLD * self.prior_spread)

    def t(self, alpha: float) -> float:
        """Return the t quantile of 1 - alpha intervals."""
        return float(stats.t.ppf(1 - alpha / 2, max(self.residual_df, 1.0)))

    def log_energy(self, rows: Rows) -> Matrix:
        """Return the log response per image."""
        return log_energy(self.theta, self.design, rows)

    def launching_share(self, rows: Rows) -> Matrix:
        """Return the share of launching in each row."""
        return launching_share(self.theta, self.design, rows)

    def gradient(self, rows: Rows) -> Matrix:
        """Return the derivatives of :meth:`log_energy`."""
        return jacobian(self.theta, self.design, rows)

    def standard_error(self, contrast: Matrix) -> Matrix:
        """Return the standard error of linear combinations of the parameters, one a row."""
        return np.asarray(np.sqrt(((contrast @ self.covariance) * contrast).sum(axis=1)))

    def half_width(self, rows: Rows, alpha: float, *, new_run: bool) -> Matrix:
        """Return half the width of the interval of the log mean, or of one new run."""
        variance = self.standard_error(self.gradient(rows)) ** 2
        return np.asarray(self.t(alpha) * np.sqrt(variance + self.noise**2 * new_run))

    def log_step(self, rows: Rows) -> tuple[Matrix, Matrix]:
        """Return log a of each row, and the contrast of the parameters that it is."""
        step, _, _ = self.design.sizes
        return rows.step @ self.theta[:step], _placed(rows.step, 0, len(self.theta))

    def log_image(self, rows: Rows) -> tuple[Matrix, Matrix]:
        """Return log b of each row, and the contrast of the parameters that it is."""
        step, image, _ = self.design.sizes
        contrast = _placed(rows.image, step, len(self.theta))
        return rows.image @ self.theta[step : step + image], contrast


def fit_law(
    design: LawDesign, rows: Rows, y: Matrix, *, start: Matrix | None = None, noise: float = 0.0
) -> LawFit:
    """Fit the law to log responses by penalised least squares.

    The penalty is each parameter's distance from its prior, in units of the noise, as in a Bayesian
    fit with normal priors; the intervals are those of the linearised fit (Seber and Wild, Nonlinear
    Regression, 1989, chapter 5), whose coverage is simulated in ``benchmarks/law_calibration.py``.

    Args:
        design: The parameters.
        rows: The runs.
        y: Log of the response per image.
        start: Parameters to begin at, if a neighbouring fit is known; else several starts are made.
        noise: Of the response, for the penalty, if known; else it is estimated, in a second pass.
    """
    level = float(np.mean(y))
    center, spread = design.prior(level)
    # Nothing is known of the response's level: only the crossover ties a to b.
    ties = _penalty(design, center, spread)
    sigma = noise or _FIRST_NOISE
    begins = [start] if start is not None else _starts(design, center)
    theta = min((_search(design, rows, y, begin, ties, sigma) for begin in begins), key=_cost)[1]
    if not noise:
        sigma = _noise(design, rows, y, theta, ties, sigma)[0]
        theta = _search(design, rows, y, theta, ties, sigma)[1]
    estimate, df, inverse = _noise(design, rows, y, theta, ties, sigma)
    residual = y - log_energy(theta, design, rows)
    penalty = sigma * (ties[0] @ theta - ties[1])
    return LawFit(
        design=design,
        theta=theta,
        covariance=inverse * estimate**2,
        noise=estimate,
        residual_df=df,
        objective=float(residual @ residual + penalty @ penalty),
        penalty_noise=sigma,
        prior_spread=_spreads(design, spread),
    )


def enough(design: LawDesign, runs: pd.DataFrame) -> str:
    """Return why the law cannot be fitted to these runs; empty if it can."""
    if design.launching and runs[EFFECTIVE + "batch_size"].nunique() < 2:
        return (
            "launching and computing cannot be told apart at one batch size: the log-linear model "
            "describes such a campaign"
        )
    # A drift or a board is held by its prior and need not be paid for in full.
    step, image, _ = design.sizes
    if len(runs) < step + image + 1 + MIN_RESIDUAL_DF:
        return (
            f"{len(runs)} usable runs are too few for {step + image + 1} parameters and "
            f"{MIN_RESIDUAL_DF:.0f} residual degrees of freedom"
        )
    return ""


def prior_precision(design: LawDesign) -> Matrix:
    """Return the precision that the parameters have before any run."""
    rows, _ = _penalty(design, *design.prior(0.0))
    return np.asarray(rows.T @ rows)


def prior_starts(design: LawDesign) -> list[Matrix]:
    """Return parameters that the law may well have, from launching decides to computing decides."""
    return _starts(design, design.prior(0.0)[0])


Ties = tuple[Matrix, Matrix]


def _penalty(design: LawDesign, center: Matrix, spread: Matrix) -> Ties:
    """Return the rows of the penalty and their targets, in units of the spreads."""
    rows = np.diag(1.0 / spread)
    if design.launching:
        step, _, _ = design.sizes
        rows[0, :] = 0.0
        rows[0, [0, step]] = np.array([1.0, -1.0]) / CROSSOVER_SPREAD
        target = center / spread
        target[0] = CROSSOVER_CENTER / CROSSOVER_SPREAD
        return rows, target
    return rows, center / spread


def _spreads(design: LawDesign, spread: Matrix) -> Matrix:
    told_by = spread.copy()
    if design.launching:
        told_by[[0, design.sizes[0]]] = CROSSOVER_SPREAD
    return told_by


def _starts(design: LawDesign, center: Matrix) -> list[Matrix]:
    if not design.launching:
        return [center]
    found = []
    for crossover in STARTS:
        begin = center.copy()
        step, _, _ = design.sizes
        begin[step] = center[step] - 0.7
        begin[0] = begin[step] + np.log(crossover)
        found.append(begin)
    return found


def _search(
    design: LawDesign, rows: Rows, y: Matrix, begin: Matrix, ties: Ties, sigma: float
) -> tuple[float, Matrix]:
    penalty, target = sigma * ties[0], sigma * ties[1]
    found = least_squares(
        lambda theta: np.append(log_energy(theta, design, rows) - y, penalty @ theta - target),
        begin,
        jac=lambda theta: np.vstack([jacobian(theta, design, rows), penalty]),
        method="lm",
        xtol=1e-7,
        ftol=1e-7,
    )
    return float(found.cost), np.asarray(found.x)


def _cost(found: tuple[float, Matrix]) -> float:
    return found[0]


def _noise(
    design: LawDesign, rows: Rows, y: Matrix, theta: Matrix, ties: Ties, sigma: float
) -> tuple[float, float, Matrix]:
    """Return the noise, the residual degrees of freedom and the inverse of the information."""
    slopes = jacobian(theta, design, rows)
    information = slopes.T @ slopes
    inverse = np.linalg.inv(information + sigma**2 * ties[0].T @ ties[0])
    determined = float(np.trace(inverse @ information))
    df = len(y) - determined
    residual = y - log_energy(theta, design, rows)
    noise = np.sqrt(float(residual @ residual) / df) if df > 0 else np.nan
    return float(max(noise, 1e-6)), df, inverse


def _placed(columns: Matrix, start: int, width: int) -> Matrix:
    contrast = np.zeros((len(columns), width))
    contrast[:, start : start + columns.shape[1]] = columns
    return contrast
