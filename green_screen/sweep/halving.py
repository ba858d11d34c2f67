"""The protocol `halving`: all configurations for a few epochs, a third of them for more, and so on.

Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) by thirds, one rung after the
other: who goes on is decided when all have come to the rung's end, so that it does not depend on
who came first. (Optuna's ``SuccessiveHalvingPruner`` is the asynchronous one, which compares a run
with those that ended before it.) A run goes on from its checkpoint, in its MLflow run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlflow.entities import Run

from green_screen import names, tracking
from green_screen.executors.executor import Executor
from green_screen.sweep.campaign import Campaign
from green_screen.sweep.energies import energy, used_j
from green_screen.sweep.runner import Ended
from green_screen.tracking import RunLogger
from green_screen.training import places

# Of each rung's configurations one in so many goes on.
FACTOR = 3


def rungs(epochs: int) -> tuple[int, ...]:
    """Return after how many epochs each rung ends; the last one ends with all of them."""
    return tuple(sorted({-(-epochs // FACTOR**power) for power in range(4)}))


def best(accuracies: Mapping[int, float], n: int) -> list[int]:
    """Return the `n` positions of the highest accuracy; the earlier one of two that are equal.

    One whose accuracy is not known is never among them.
    """
    known = [position for position, accuracy in accuracies.items() if math.isfinite(accuracy)]
    return sorted(known, key=lambda position: (-accuracies[position], position))[:n]


@dataclass
class HalvingCampaign(Campaign):
    """A campaign that trains in full what is good enough for it."""

    runs: dict[int, Run] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Take over what earlier attempts left."""
        super().__post_init__()
        self.runs = dict(self.done.finished)
        self._rung = 0
        self._candidates: list[int] = []
        self._so_far: dict[int, float] = {}
        self._quota = 0
        self._cut_off: list[int] = []

    def carry_out(self, executor: Executor) -> None:
        """Do the rungs that are missing.

        Raises:
            CampaignError: No run finished, or too many failed.
        """
        everyone = list(self._plan)
        first = {self._plan[position].config: position for position in reversed(everyone)}
        self._candidates = sorted(first.values())
        ends = rungs(self.design.options.epochs)
        for self._rung in ends:
            positions = everyone if self._rung == ends[0] else self._candidates
            self._quota = -(-len(self._candidates) // FACTOR) if self._rung != ends[-1] else 0
            self._do_rung(executor, positions)
            if self.failed:
                break
            if self._quota:
                self._candidates = self._decide(positions)
            if not self._candidates:
                break
        self._count()
        self._say_what_it_cost()
        self.conclude()

    def _do_rung(self, executor: Executor, positions: Sequence[int]) -> None:
        """Bring the positions to the rung's end, as far as they are not."""
        self._so_far = {}
        missing = [position for position in positions if self._trained(position) < self._rung]
        self.progress.begin_rung([self._plan[position].config for position in missing])
        self.progress.say(f"rung of {self._rung} epochs: {len(positions)} runs")
        for position in positions:
            self._compare(position)
        self._settle()
        self.do(executor, missing)
        # The decision at the rung's end is for all of it: who was cut off is not left behind for
        # that, and goes on from its checkpoint. A second time it is.
        again, self._cut_off = self._cut_off, []
        self.do(executor, again)

    def _trained(self, position: int) -> int:
        """Return how many epochs a position's run has been trained."""
        if position not in self.runs:
            return 0
        return int(self.runs[position].data.tags.get(names.TAG_EPOCHS_TRAINED, 0))

    def _accuracy(self, position: int) -> float:
        """Return the validation accuracy at the rung's end; NaN of one that diverged by then."""
        if self._trained(position) < self._rung:
            return math.nan
        run_id = self.runs[position].info.run_id
        losses = tracking.metric_values(run_id, names.LOSS)[: self._rung]
        accuracies = tracking.metric_values(run_id, names.VAL_ACCURACY)
        if not all(map(math.isfinite, losses)) or len(accuracies) < self._rung:
            return math.nan
        return accuracies[self._rung - 1]

    def _compare(self, position: int) -> None:
        """Take note of how a run has done, and drop the checkpoint of who cannot go on any more.

        Those that are still to come can only put one further back.
        """
        if self._trained(position) < self._rung or not self._quota:
            return
        if position in self._candidates:
            self._so_far[position] = self._accuracy(position)
        for other in {position, *self._so_far} - set(best(self._so_far, self._quota)):
            places.remove(self.parent.run_id, other)

    def _decide(self, positions: Sequence[int]) -> list[int]:
        """Return who goes on, and say on each other one why it does not."""
        accuracies = {position: self._accuracy(position) for position in self._candidates}
        chosen = best(accuracies, self._quota)
        order = best(accuracies, len(accuracies))
        for position in positions:
            run = self.runs.get(position)
            if run is None or position in chosen:
                continue
            if position not in accuracies:
                why = "a repeated configuration is trained to the first rung alone"
            elif position not in order:
                why = f"diverged within {self._rung} epochs"
            else:
                place = order.index(position) + 1
                why = (
                    f"validation accuracy {accuracies[position]:.4f} after {self._rung} epochs: "
                    f"{place} of {len(self._candidates)}, and {self._quota} go on"
                )
            self._prune(position, run, why)
        self._settle()
        self._count()
        return sorted(chosen)

    def _prune(self, position: int, run: Run, why: str) -> None:
        places.remove(self.parent.run_id, position)
        if names.TAG_PRUNED in run.data.tags:
            return
        run_id = run.info.run_id
        no_test = {names.TEST_ACCURACY: math.nan, names.TEST_LOSS: math.nan}

        def tell() -> None:
            logger = RunLogger(run_id)
            logger.metrics(no_test)
            logger.missing(no_test, f"pruned: {why}")
            logger.tags({names.TAG_PRUNED: why})

        tracking.patiently(tell)
        self.runs[position] = tracking.read_run(run_id)
        self._summary.add(self.runs[position])

    def _settle(self) -> None:
        """Find out which positions are done with."""
        epochs = self.design.options.epochs
        self.settled = {
            position
            for position, run in self.runs.items()
            if names.TAG_PRUNED in run.data.tags or self._trained(position) >= epochs
        }

    def run_for(self, position: int, name: str, tags: Mapping[str, object]) -> str:
        """Return the run that a rung's job logs to: the position's own, if it has one."""
        rung = {names.TAG_RUNG_EPOCHS: self._rung}
        run = self.runs.get(position)
        if run is None:
            return super().run_for(position, name, {**tags, **rung})
        tracking.reopen(run.info.run_id, rung)
        return str(run.info.run_id)

    def note(self, ended: Ended) -> None:
        """Take note of a run that came to the rung's end, or did not."""
        position = ended.result.job.position
        if ended.finished:
            self.runs[position] = ended.run
            self._compare(position)
            self._settle()
        else:
            self.runs.pop(position, None)
            if ended.run.info.status == "KILLED":
                self._cut_off.append(position)
        super().note(ended)

    def note_lost(self, ended: Ended) -> None:
        """Take note of a run that was lost; a new one goes on from its checkpoint."""
        self.runs.pop(ended.result.job.position, None)
        super().note_lost(ended)

    def _count(self) -> None:
        self._finished = len(self.settled)
        super()._count()

    def _say_what_it_cost(self) -> None:
        """Log and say what the search took, and what full training would have taken."""
        epochs = self.design.options.epochs
        search_j = sum(used_j(run) for run in self.runs.values())
        full_j = sum(
            used_j(run)
            + max(epochs - self._trained(position), 0)
            * run.data.metrics.get(names.ENERGY_PER_EPOCH_J, math.nan)
            for position, run in self.runs.items()
        )
        figures = {names.SEARCH_ENERGY_J: search_j, names.SEARCH_FORECAST_FULL_J: full_j}
        self.parent.metrics(figures)
        self.parent.missing(figures, "the energy of a run, or of its steady epochs, is not known")
        if math.isfinite(full_j):
            self.progress.say(
                f"the search took {energy(search_j)}; full training of all {len(self.runs)} runs "
                f"would have taken {energy(full_j)} by the energy of their epochs"
            )
