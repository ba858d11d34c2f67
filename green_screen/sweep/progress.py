"""What a person sees of a campaign: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from mlflow.entities import Run
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from green_screen import names
from green_screen.executors.executor import Job
from green_screen.output import can_be_live, lasting_output
from green_screen.power.nvml import Board, NvmlError
from green_screen.space import TrainingConfig
from green_screen.sweep.energies import EnergyTally, energy
from green_screen.sweep.forecast import Forecast
from green_screen.sweep.runner import Ended

# What is printed fits a terminal of so many columns, and a narrower one if that is what there is.
COLUMNS = 100
_BAR = 10
# The least of a run's name that is shown, and the most lines of a reason: the run has all of it.
_LEAST_NAME = 12
_REASON_LINES = 4


def duration(seconds: float) -> str:
    """Return a duration as ``h:mm:ss``, or a dash if it is not known."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def shortened(name: str, columns: int) -> str:
    """Return a run's name in at most so many columns: its first words, and how many are left out.

    >>> shortened("007 batch_size=64 lr=0.01 optimizer=Adam", 24)
    '007 batch_size=64 +2'
    """
    if len(name) <= columns:
        return name
    words = name.split()
    for kept in range(len(words) - 1, 0, -1):
        text = f"{' '.join(words[:kept])} +{len(words) - kept}"
        if len(text) <= columns:
            return text
    return name[:columns]


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
        planned: Sequence[TrainingConfig],
        finished: Mapping[int, Run],
        slots: int,
        boards: Sequence[Board] = (),
        console: Console | None = None,
        failed: Iterable[Run] = (),
    ) -> None:
        """Begin with what earlier attempts did.

        Args:
            planned: The configurations of all runs of the campaign, by their positions.
            finished: Position -> the run that has finished there.
            slots: How many run at once.
            boards: The GPUs that they run on, as far as they are on this host.
            console: Where to show it; the default is standard output.
            failed: Runs that have ended and are done again.
        """
        self._console = console or Console(
            soft_wrap=True, highlight=False, force_terminal=can_be_live(sys.stdout)
        )
        self._lasting = lasting_output()
        is_terminal = self._console.is_terminal
        self._columns = min(self._console.width, COLUMNS) if is_terminal else COLUMNS
        self._planned = len(planned)
        self._boards = boards
        self._slots = slots
        self._ended = len(finished)
        self._energy = EnergyTally([*finished.values(), *failed])
        took = {position: run_seconds(run) for position, run in finished.items()}
        self._forecast = Forecast(
            slots,
            [config for position, config in enumerate(planned) if position not in took],
            [(planned[position], seconds) for position, seconds in took.items()],
        )
        self._guess_said = False
        self._under_way: dict[str, str] = {}
        self._bar = Progress(
            TextColumn("run {task.fields[number]} of {task.total}"),
            BarColumn(bar_width=_BAR),
            TextColumn("{task.fields[state]}", markup=False),
            console=self._console,
            disable=not is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(
            "", total=self._planned, completed=self._ended, number=0, state=""
        )

    def __enter__(self) -> CampaignProgress:
        """Show it; whatever cannot be shown is left out."""
        self._lasting.__enter__()
        self._bar.start()
        self.poll()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away; the lines stay."""
        self._bar.stop()
        self._lasting.__exit__(None, None, None)

    def begin_rung(self, configs: Sequence[TrainingConfig]) -> None:
        """Begin to count anew, with runs that go on."""
        self._planned, self._ended = len(configs), 0
        self._forecast = Forecast(self._slots, configs)
        self._bar.update(self._task, total=self._planned, completed=0)

    def started(self, job: Job, name: str) -> None:
        """Take note of a start."""
        self._under_way[job.run_id] = name
        self._forecast.started(job)
        if not self._console.is_terminal:
            before, after = f"run {self._number()} of {self._planned}: ", f" ({self._figures()})"
            room = max(self._columns - len(before) - len(after), _LEAST_NAME)
            self._print(f"{before}{shortened(name, room)}{after}")
        self.poll()

    def ended(self, ended: Ended) -> None:
        """Take note of an end, and say how it came out."""
        name = self._under_way.pop(ended.run.info.run_id)
        self._ended += 1
        self._energy.add(ended.run)
        took_s = ended.result.wall_s if ended.finished else math.nan
        self._forecast.ended(ended.run.info.run_id, took_s)
        if ended.finished:
            self._print(_line(name, ended, self._columns))
        else:
            self._explain(ended.run.info.status.lower(), name, ended.result.reason)
        self.poll()

    def lost(self, ended: Ended) -> None:
        """Take note of a run that was lost with its node and is done again."""
        name = self._under_way.pop(ended.run.info.run_id)
        self._forecast.lost(ended.run.info.run_id)
        self._energy.add(ended.run)
        self._explain("done again", name, ended.result.reason)
        self.poll()

    def say(self, text: str) -> None:
        """Show a text above the bar, each of its lines folded to fit."""
        for line in text.splitlines():
            self._print(textwrap.fill(line, self._columns, subsequent_indent="  "))

    def poll(self) -> None:
        """Refresh power and time."""
        self._forecast.look()
        if self._console.is_terminal:
            self._bar.update(
                self._task,
                completed=self._ended,
                number=self._number(),
                state=self._state(),
                refresh=True,
            )
        elif self._forecast.guessed and not self._guess_said:
            # A file of lines would have no time left before the second run starts.
            self._guess_said = True
            self._print(f"  {self._time_left()}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False)

    def _explain(self, what: str, name: str, reason: str) -> None:
        """Say why a run is not finished, in a few lines; the run's tag has the whole reason."""
        self._print(
            textwrap.fill(
                f"{what}: {shortened(name, self._columns // 2)}: {reason}",
                self._columns,
                subsequent_indent="  ",
                max_lines=_REASON_LINES,
                placeholder=" ...",
            )
        )

    def _number(self) -> int:
        """Return which of the campaign's runs the latest one is."""
        return self._ended + len(self._under_way)

    def _state(self) -> str:
        """Return what stands beside the bar: figures, and the runs under way as far as they fit."""
        # The bar, what stands before it, and a column between any two of them.
        room = self._columns - len(f"run {self._number()} of {self._planned}") - _BAR - 2
        figures, n = self._figures(), max(len(self._under_way), 1)
        each = (room - len(figures) - 2 - 3 * (n - 1)) // n
        shown = [shortened(name, each) for name in self._under_way.values() if each >= 3]
        return f"{figures}  {' | '.join(shown)}"[:room]

    def _figures(self) -> str:
        power = power_now_w(self._boards)
        now = f"{power:.0f} W now, " if math.isfinite(power) else ""
        return f"{now}{self._energy.text()} so far, {self._time_left()}"

    def _time_left(self) -> str:
        left_s = self._forecast.left_s()
        if math.isnan(left_s):
            return "time left: after the first epochs"
        return f"{duration(left_s)} left{' (a guess)' if self._forecast.guessed else ''}"


def _line(name: str, ended: Ended, columns: int) -> str:
    """Return the line of a finished run: its name, duration, energy and accuracy below others'.

    A screening has a forecast instead of an accuracy, a run that may go on that of its validation.
    """
    metrics = ended.run.data.metrics
    accuracy = metrics.get(names.TEST_ACCURACY, math.nan)
    forecast_j = metrics.get(names.FORECAST_ENERGY_J, math.nan)
    percent = f"{100 * accuracy:.1f} %" if math.isfinite(accuracy) else "n/a"
    found = f"test accuracy {percent:>7}"
    if names.TEST_ACCURACY not in metrics and names.VAL_ACCURACY in metrics:
        found = f"validation {100 * metrics[names.VAL_ACCURACY]:>8.1f} %"
    if math.isfinite(forecast_j):
        found = f"forecast {energy(forecast_j):>12}"
    took, used = duration(ended.result.wall_s), EnergyTally([ended.run]).text()
    figures = f"  {took:>7}  {used:>18}  {found}"
    room = max(columns - len(figures), _LEAST_NAME)
    return f"{shortened(name, room):<{room}}{figures}"
