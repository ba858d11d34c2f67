"""What a person sees of a campaign: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from types import TracebackType

from mlflow.entities import Run
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from green_screen import names
from green_screen.executors.executor import Job
from green_screen.power.nvml import Board, NvmlError
from green_screen.sweep.energies import EnergyTally
from green_screen.sweep.runner import Ended


def duration(seconds: float) -> str:
    """Return a duration as ``h:mm:ss``, or a dash if it is not known."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def power_now_w(boards: Sequence[Board]) -> float:
    """Return what boards draw together, in watts; NaN without any that tell."""
    try:
        return sum(board.power_w() for board in boards) or math.nan
    except NvmlError:
        return math.nan


def run_seconds(run: Run) -> float:
    """Return how long a run took by the store; NaN while it has not ended."""
    if not run.info.end_time:
        return math.nan
    return float(run.info.end_time - run.info.start_time) / 1000.0


class CampaignProgress:
    """Shows a campaign's progress while it is open as a context manager."""

    def __init__(
        self,
        planned: int,
        done: Iterable[Run],
        slots: int,
        boards: Sequence[Board] = (),
        console: Console | None = None,
    ) -> None:
        """Begin with what earlier attempts did.

        Args:
            planned: All runs of the campaign.
            done: The runs that have ended; those that did not finish are done again.
            slots: How many run at once.
            boards: The GPUs that they run on, as far as they are on this host.
            console: Where to show it; the default is standard output.
        """
        ended = list(done)
        finished = [run for run in ended if run.info.status == "FINISHED"]
        self._console = console or Console(soft_wrap=True, highlight=False)
        self._planned = planned
        self._slots = max(slots, 1)
        self._boards = boards
        self._left = planned - len(finished)
        self._ended = len(finished)
        self._energy = EnergyTally(ended)
        seconds = [s for s in map(run_seconds, finished) if math.isfinite(s)]
        self._n_timed, self._timed_s = len(seconds), sum(seconds)
        self._under_way: dict[str, tuple[str, float]] = {}
        self._bar = Progress(
            TextColumn("run {task.fields[number]} of {task.total}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(
            "", total=planned, completed=self._ended, number=0, state=""
        )

    def __enter__(self) -> CampaignProgress:
        """Show it."""
        self._bar.start()
        self.poll()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away; the lines stay."""
        self._bar.stop()

    def started(self, job: Job, name: str) -> None:
        """Take note of a start."""
        self._under_way[job.run_id] = name, time.monotonic()
        if not self._console.is_terminal:
            self._console.print(
                f"run {self._number()} of {self._planned}: {name} ({self._figures()})",
                markup=False,
            )
        self.poll()

    def ended(self, ended: Ended) -> None:
        """Take note of an end, and say how it came out."""
        name, _ = self._under_way.pop(ended.run.info.run_id)
        self._ended += 1
        self._left -= 1
        self._energy.add(ended.run)
        self._n_timed += 1
        self._timed_s += ended.result.wall_s
        self._console.print(_line(name, ended), markup=False)
        self.poll()

    def lost(self, ended: Ended) -> None:
        """Take note of a run that was lost with its node and is done again."""
        name, _ = self._under_way.pop(ended.run.info.run_id)
        self._energy.add(ended.run)
        self._console.print(f"done again: {name}: {ended.result.reason}", markup=False)
        self.poll()

    def say(self, text: str) -> None:
        """Show a line above the bar."""
        self._console.print(text, markup=False)

    def poll(self) -> None:
        """Refresh power and time."""
        if self._console.is_terminal:
            current = " | ".join(name for name, _ in self._under_way.values())
            state = f"{self._figures()}  {current}"
            self._bar.update(
                self._task,
                completed=self._ended,
                number=self._number(),
                state=state,
                refresh=True,
            )

    def _number(self) -> int:
        """Return which of the campaign's runs the latest one is."""
        return self._ended + len(self._under_way)

    def _figures(self) -> str:
        power = power_now_w(self._boards)
        now = f"{power:.0f} W now, " if math.isfinite(power) else ""
        return f"{now}{self._energy.text()} so far, {duration(self._left_s())} left"

    def _left_s(self) -> float:
        """Return the time left if the runs to come take as long as those so far, on average."""
        if not self._n_timed:
            return math.nan
        mean = self._timed_s / self._n_timed
        since = sum(time.monotonic() - started for _, started in self._under_way.values())
        return max(mean * self._left - since, 0.0) / self._slots


def _line(name: str, ended: Ended) -> str:
    status = ended.run.info.status
    if not ended.finished:
        return f"{status.lower()}: {name}: {ended.result.reason}"
    metrics = ended.run.data.metrics
    accuracy = metrics.get(names.TEST_ACCURACY, math.nan)
    return (
        f"finished: {name}: {duration(ended.result.wall_s)}, {EnergyTally([ended.run]).text()}, "
        f"test accuracy {accuracy:.3f}"
    )
