"""How long a campaign still takes: by the runs that have ended, before that by their epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from green_screen import names, tracking
from green_screen.executors.executor import Job

# How often the store is asked for the epochs of a run under way, and after a call that failed.
_LOOK_S = 2.0
_LOOK_AFTER_FAILURE_S = 60.0


@dataclass
class _UnderWay:
    """A run under way.

    Attributes:
        epochs: How many it is to have.
        started: When it started, by ``time.monotonic``.
        n_seen: How many of its epochs had ended when the store was last asked.
        whole_s: What it will take in all, by those; NaN before the first.
    """

    epochs: int
    started: float
    n_seen: int = 0
    whole_s: float = math.nan


class Forecast:
    """The time that a campaign still takes.

    The runs to come are taken to last as long as those that have ended, on average. Until one has,
    the time is guessed from the epochs of the runs under way, which the store is asked for. The
    guess is too high at first: a first epoch is longer than the others.
    """

    def __init__(self, slots: int, seconds: Iterable[float] = ()) -> None:
        """Begin.

        Args:
            slots: How many runs are under way at once.
            seconds: How long the runs of earlier attempts took; NaN is not counted.
        """
        known = [s for s in seconds if math.isfinite(s)]
        self._n, self._sum_s = len(known), sum(known)
        self._slots = max(slots, 1)
        self._under_way: dict[str, _UnderWay] = {}
        self._not_before = 0.0

    @property
    def guessed(self) -> bool:
        """Whether :meth:`left_s` rests on epochs alone."""
        return not self._n and bool(self._guesses())

    def started(self, job: Job) -> None:
        """Take note of a start."""
        self._under_way[job.run_id] = _UnderWay(job.options.epochs, time.monotonic())

    def ended(self, run_id: str, wall_s: float) -> None:
        """Take note of an end."""
        del self._under_way[run_id]
        self._n += 1
        self._sum_s += wall_s

    def lost(self, run_id: str) -> None:
        """Take note of a run that is done again."""
        del self._under_way[run_id]

    def left_s(self, n_left: int) -> float:
        """Return the seconds left for so many runs, those under way included; NaN if unknown."""
        guesses = self._guesses()
        if not self._n and not guesses:
            return math.nan
        mean_s = self._sum_s / self._n if self._n else sum(guesses) / len(guesses)
        since_s = sum(time.monotonic() - run.started for run in self._under_way.values())
        return max(mean_s * n_left - since_s, 0.0) / self._slots

    def look(self) -> None:
        """Ask the store how far the runs under way are, while nothing better is known."""
        now = time.monotonic()
        if self._n or now < self._not_before:
            return
        self._not_before = now + _LOOK_S
        for run_id, run in self._under_way.items():
            try:
                epochs_s = tracking.metric_values(run_id, names.EPOCH_TIME_S, patience=0.0)
            except Exception:
                # What is only shown must never end a campaign.
                self._not_before = time.monotonic() + _LOOK_AFTER_FAILURE_S
                return
            if len(epochs_s) > run.n_seen:
                run.n_seen = len(epochs_s)
                one_s = epochs_s[-1]
                run.whole_s = time.monotonic() - run.started + (run.epochs - run.n_seen) * one_s

    def _guesses(self) -> list[float]:
        return [r.whole_s for r in self._under_way.values() if math.isfinite(r.whole_s)]
