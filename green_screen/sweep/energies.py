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
    """Return what a run used, as far as it is known: its training, or its screening.

    What it trained twice, because a process was cut off, was used too.
    """
    metrics = run.data.metrics
    lost_j = metrics.get(names.ENERGY_LOST_J, 0.0)
    for name in (names.ENERGY_TOTAL_J, names.TRAINED_ENERGY_J, names.SCREENING_ENERGY_J):
        if math.isfinite(used := metrics.get(name, math.nan)):
            return used + (lost_j if math.isfinite(lost_j) else 0.0)
    return math.nan


class EnergyTally:
    """The sum of what runs used, as far as it is known.

    A run that goes on later, as those of a halving search, is added again and counts once.
    """

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        """Begin with `runs`."""
        self._known_j: dict[str, float] = {}
        self._estimated: set[str] = set()
        self._unknown: set[str] = set()
        self._counted: set[str] = set()
        for run in runs:
            self.add(run)

    def add(self, run: Run) -> None:
        """Add the energy of a run that ended."""
        joules = used_j(run)
        if math.isfinite(joules):
            self._known_j[run.info.run_id] = joules
            if run.data.tags.get(names.TAG_ENERGY_SOURCE) == names.SOURCE_ESTIMATE:
                self._estimated.add(run.info.run_id)
            if math.isfinite(run.data.metrics.get(names.ENERGY_LOST_J, 0.0)):
                self._counted.update(run.data.tags.get(names.TAG_CONTINUES, "").split(", "))
        else:
            self._unknown.add(run.info.run_id)

    @property
    def joules(self) -> float:
        """The sum of the runs whose energy is known; a lower bound for all."""
        return sum(self._known_j.values())

    @property
    def n_known(self) -> int:
        """How many those are."""
        return len(self._known_j)

    @property
    def n_estimated(self) -> int:
        """How many of them were estimated and not measured."""
        return len(self._estimated)

    @property
    def n_unknown(self) -> int:
        """How many other runs there are, without those that a known one has gone on with."""
        return len(self._unknown - self._counted - set(self._known_j))

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
