"""How long a campaign still takes: by what the runs that ended say of those to come."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from green_screen import names, tracking
from green_screen.executors.executor import Job
from green_screen.space import TrainingConfig

# How often the store is asked for the epochs of a run under way, and after a call that failed.
_LOOK_S = 2.0
_LOOK_AFTER_FAILURE_S = 60.0
# A first epoch traces, compiles and tunes, 10 to 50 s on a GPU: one that is shorter than this says
# nothing of the others.
_TELLING_EPOCH_S = 60.0


@dataclass
class _UnderWay:
    """A run under way.

    Attributes:
        config: What it trains.
        epochs: How many it is to have.
        started: When it started, by ``time.monotonic``.
        n_seen: How many of its epochs had ended when the store was last asked.
        whole_s: What it will take in all, by those; NaN before the first.
    """

    config: TrainingConfig
    epochs: int
    started: float
    n_seen: int = 0
    whole_s: float = math.nan


class Forecast:
    """The time that a campaign still takes.

    A run to come takes what those that have ended say of its levels: log seconds are regressed on
    them, shrunk towards the mean as far as the runs are few (scikit-learn's BayesianRidge). Until
    one has ended, the time is guessed from the epochs of the runs under way, which the store is
    asked for: from the second, or from a first one that is so long that its start hardly counts.
    """

    def __init__(
        self,
        slots: int,
        waiting: Iterable[TrainingConfig],
        took: Iterable[tuple[TrainingConfig, float]] = (),
    ) -> None:
        """Begin.

        Args:
            slots: How many runs are under way at once.
            waiting: The configurations of the runs that have not ended.
            took: Configurations of runs of earlier attempts and their seconds; NaN is not counted.
        """
        self._waiting = Counter(waiting)
        self._took = [(config, seconds) for config, seconds in took if seconds > 0]
        self._slots = max(slots, 1)
        self._under_way: dict[str, _UnderWay] = {}
        self._not_before = 0.0
        self._expected_s: dict[TrainingConfig, float] = {}
        self._renew_at = 1

    @property
    def guessed(self) -> bool:
        """Whether :meth:`left_s` rests on epochs alone."""
        return not self._took and bool(self._guesses())

    def started(self, job: Job) -> None:
        """Take note of a start."""
        now = time.monotonic()
        self._under_way[job.run_id] = _UnderWay(job.config, job.options.epochs, now)
        self._waiting[job.config] -= 1

    def ended(self, run_id: str, wall_s: float) -> None:
        """Take note of an end; NaN seconds, as of a run that failed, say nothing of others."""
        config = self._under_way.pop(run_id).config
        if wall_s > 0:
            self._took.append((config, wall_s))

    def lost(self, run_id: str) -> None:
        """Take note of a run that is done again."""
        self._waiting[self._under_way.pop(run_id).config] += 1

    def left_s(self) -> float:
        """Return the seconds left, of the runs under way too; NaN if unknown."""
        guesses, now = self._guesses(), time.monotonic()
        if not self._took and not guesses:
            return math.nan
        if len(self._took) >= self._renew_at:
            self._renew()
        mean_s = sum(guesses) / len(guesses) if guesses else math.nan

        def expected_s(config: TrainingConfig) -> float:
            return self._expected_s.get(config, mean_s)

        waiting_s = sum(n * expected_s(config) for config, n in self._waiting.items() if n)
        rest_s = sum(
            max(expected_s(run.config) - (now - run.started), 0.0)
            for run in self._under_way.values()
        )
        return (waiting_s + rest_s) / self._slots

    def _renew(self) -> None:
        """Learn from the runs that have ended."""
        # Here, as the parent of a campaign without runs needs none of it.
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.linear_model import BayesianRidge
        from sklearn.pipeline import make_pipeline

        took_s = np.array([seconds for _, seconds in self._took])
        done = [config.as_params() for config, _ in self._took]
        model = make_pipeline(DictVectorizer(sparse=False), BayesianRidge())
        model.fit(done, np.log(took_s))
        # The mean of logs is below that of seconds: all runs together took what they took.
        scale = took_s.sum() / np.exp(model.predict(done)).sum()
        configs = list({*self._waiting, *(run.config for run in self._under_way.values())})
        expected_s = scale * np.exp(model.predict([config.as_params() for config in configs]))
        self._expected_s = dict(zip(configs, expected_s.tolist(), strict=True))
        # Of many runs one more says little.
        self._renew_at = len(self._took) + 1 + len(self._took) // 20

    def look(self) -> None:
        """Ask the store how far the runs under way are, while nothing better is known."""
        now = time.monotonic()
        if self._took or now < self._not_before:
            return
        self._not_before = now + _LOOK_S
        for run_id, run in self._under_way.items():
            try:
                epochs_s = tracking.metric_values(run_id, names.EPOCH_TIME_S, patience=0.0)
            except Exception:
                # What is only shown must never end a campaign.
                self._not_before = time.monotonic() + _LOOK_AFTER_FAILURE_S
                return
            telling = len(epochs_s) > 1 or run.epochs == 1 or sum(epochs_s) >= _TELLING_EPOCH_S
            if len(epochs_s) > run.n_seen and telling:
                run.n_seen = len(epochs_s)
                one_s = epochs_s[-1]
                run.whole_s = time.monotonic() - run.started + (run.epochs - run.n_seen) * one_s

    def _guesses(self) -> list[float]:
        return [r.whole_s for r in self._under_way.values() if math.isfinite(r.whole_s)]
