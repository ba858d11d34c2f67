"""The energy of runs in words: what is not known and what is estimated is said."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mlflow.entities import Run

from green_screen import names


def energy(joules: float) -> str:
    """Return an energy with a unit that suits its size."""
    for unit, size in (("MJ", 1e6), ("kJ", 1e3)):
        if joules >= size:
            return f"{joules / size:.2f} {unit}"
    return f"{joules:.0f} J"


def used_j(run: Run) -> float:
    """Return what a run used, as far as it is known: its training, or its screening."""
    total_j = run.data.metrics.get(names.ENERGY_TOTAL_J, math.nan)
    return run.data.metrics.get(names.SCREENING_ENERGY_J, total_j)


class EnergyTally:
    """The sum of what runs used, as far as it is known.

    Attributes:
        joules: Of the runs whose energy is known; a lower bound for all.
        n_known: How many those are.
        n_estimated: How many of them were estimated and not measured.
        n_unknown: The other runs.
    """

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        """Begin with `runs`."""
        self.joules = 0.0
        self.n_known = self.n_estimated = self.n_unknown = 0
        for run in runs:
            self.add(run)

    def add(self, run: Run) -> None:
        """Add the energy of a run that ended."""
        joules = used_j(run)
        if math.isfinite(joules):
            self.joules += joules
            self.n_known += 1
            self.n_estimated += run.data.tags.get(names.TAG_ENERGY_SOURCE) == names.SOURCE_ESTIMATE
        else:
            self.n_unknown += 1

    def text(self) -> str:
        """Return the sum, such as ``at least 1.50 kJ (estimated, 2 runs unknown)``."""
        if self.n_unknown and not self.n_known:
            return "energy unknown"
        notes = []
        if self.n_estimated:
            notes.append("estimated" if self.n_estimated == self.n_known else "partly estimated")
        if self.n_unknown:
            notes.append(f"{self.n_unknown} {'runs' if self.n_unknown > 1 else 'run'} unknown")
        least = "at least " if self.n_unknown else ""
        remarks = f" ({', '.join(notes)})" if notes else ""
        return f"{least}{energy(self.joules)}{remarks}"
