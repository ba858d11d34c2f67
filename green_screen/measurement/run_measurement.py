"""The energy of one training run, phase by phase."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from green_screen.measurement.any_keras import TENSORFLOW
from green_screen.measurement.run_record import Epoch, Measured, RunRecord, RunTrace
from green_screen.measurement.steady import (
    SteadyState,
    after_the_first,
    steady_state,
    unlike_others,
)
from green_screen.measurement.summary import (
    MeasurementSummary,
    epoch_metrics,
    epoch_missing,
    summarize,
)
from green_screen.measurement.used_gpus import measurable_gpus, other_boards, synchronize_gpu
from green_screen.power import idle, rapl
from green_screen.power.heartbeat import Heartbeat
from green_screen.power.idle import Idle
from green_screen.power.meter import EnergyMeter, EnergyReading, Mark
from green_screen.power.nvml import Board, NvmlError

__all__ = ["MeasurementSummary", "RunMeasurement", "synchronize_gpu"]

logger = logging.getLogger(__name__)

PHASES = ("setup", "kernels", "checkpoint", "conversion", "evaluation", "further")
# What a run does that the training it stands for does not.
OUTSIDE = ("kernels", "further")
MIN_WINDOW_GPU_S = 5.0
MIN_WINDOW_CPU_S = 0.0


class RunMeasurement:
    """Measures a training run: phases, epochs, idle power before and after, emissions.

    Use it as a context manager around the run. :mod:`green_screen.measurement.steady` says which
    epochs are steady.

    Args:
        country: ISO 3166-1 code of three letters, for the carbon intensity.
        min_window_s: Shortest steady window to trust; ``None`` is 5 s on a GPU and 0 s on a CPU.
        synchronize: Waits until the GPU has done its work; called at the edges of phases. ``None``
            waits for the framework.
        sample_hz: How often the power is sampled.
        framework: What trains, as Keras calls its backends: ``tensorflow``, ``jax``, ``torch``.
        idle_once: Whether idle power is measured in the GPU's context alone, before data flow, and
            not before and after the run too.

    Raises:
        ValueError: CodeCarbon does not know the country.
    """

    def __init__(
        self,
        *,
        country: str,
        min_window_s: float | None = None,
        synchronize: Callable[[], None] | None = None,
        sample_hz: float = 10.0,
        framework: str = TENSORFLOW,
        idle_once: bool = False,
    ) -> None:
        """Prepare; measuring starts with the ``with`` block."""
        self._gpus, self._mismatch = measurable_gpus(framework)
        self._framework = framework
        if framework == TENSORFLOW and synchronize is None:
            # That also makes it begin with its GPU; the meter waits for those that have.
            synchronize = synchronize_gpu
        self._meter = EnergyMeter(
            sample_hz=sample_hz,
            synchronize=synchronize,
            country=country,
            gpus=self._gpus,
            unmeasured=self._mismatch,
        )
        self._heartbeat = Heartbeat()
        self._earlier = Measured(
            **dict.fromkeys((field.name for field in dataclasses.fields(Measured)), ())
        )
        self._given_min_window_s = min_window_s
        self._phases: list[EnergyReading] = []
        self._epochs: list[Epoch] = []
        self._validations: list[Epoch] = []
        self._phase: str | None = None
        self._epoch = 0
        self._fit = 0
        self._epoch_start: Mark | None = None
        # Where the parts lie that have a name, and those of them that are outside of the total.
        self._parts: list[tuple[str, Mark, Mark]] = []
        self._epoch_marks: list[tuple[Mark, Mark]] = []
        self._outside: list[tuple[Mark, Mark]] = []
        # What lies inside of those or outside of all, for the trace.
        self._inner: list[tuple[str, Mark, Mark]] = []
        self._validation: tuple[Mark, Mark] | None = None
        self._validation_start: Mark | None = None
        self._first: Mark | None = None
        self._last: Mark | None = None
        self._start_unix_s = math.nan
        self._idle_before: Idle | None = None
        self._idle_in_context: Idle | None = None
        self._idle_after: Idle | None = None
        self._idle_once = idle_once
        self._told_source = False
        self._missing: dict[str, str] = {}

    @property
    def on_gpu(self) -> bool:
        """Whether the labelled energy is that of a GPU."""
        return bool(self._meter.boards)

    @property
    def boards(self) -> tuple[Board, ...]:
        """The boards that are measured."""
        return self._meter.boards

    @property
    def idle_before(self) -> Idle | None:
        """The machine waiting before the run; ``None`` until then, or if it is not measured."""
        return self._idle_before

    @property
    def idle_after(self) -> Idle | None:
        """The machine waiting after the run; ``None`` until then, or if it is not measured."""
        return self._idle_after

    @property
    def min_window_s(self) -> float:
        """The shortest steady window to trust, in seconds."""
        if self._given_min_window_s is not None:
            return self._given_min_window_s
        # By what the training uses, measured or not.
        uses_gpu = self._gpus or self._mismatch or (self._gpus is None and self.on_gpu)
        return MIN_WINDOW_GPU_S if uses_gpu else MIN_WINDOW_CPU_S

    def __enter__(self) -> RunMeasurement:
        """Start the meter, measure idle power unless that is done once, and open the run."""
        self._meter.__enter__()
        try:
            self._heartbeat.start()
            self._start_unix_s = time.time()
            if not self._idle_once:
                self._idle_before = self._wait("idle before")
            self._first = self._last = self._meter.mark(synchronize=False)
        except BaseException:
            self.abort()
            raise
        return self

    def abort(self) -> None:
        """Stop everything at once, after a training that failed."""
        self._heartbeat.stop()
        self._meter.__exit__(None, None, None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Measure idle power again, unless the run failed, and stop everything."""
        try:
            if kind is None:
                self._measure_idle_after()
        finally:
            self.abort()

    def measure_idle(self) -> None:
        """Measure the machine waiting with the GPU's context, before data flow.

        That is what the net figures take off: a training has a context all the time, and a board
        draws more with one.
        """
        start = self._meter.mark()  # waits for the GPU, which has its context by that
        worked_until_s = self._parts[-1][2].time_s if self._parts else start.time_s
        self._idle_in_context = self._wait("idle in context", worked_until_s)
        end = self._meter.mark(synchronize=False)
        if self._parts:
            self._outside.append((start, end))
        else:
            self._first = self._last = end

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase, one of :data:`PHASES`.

        What is done in ``kernels`` and ``further`` is not part of the run's total; epochs in
        ``further`` count for the steady state and for nothing else.

        Raises:
            ValueError: The name is none of these.
            RuntimeError: Another phase is open.
        """
        if name not in PHASES:
            raise ValueError(f"phase must be one of {', '.join(PHASES)}, but got {name!r}")
        if self._phase is not None:
            raise RuntimeError(f"phase {name!r} cannot begin inside phase {self._phase!r}")
        self._phase = name
        # Before the set-up nothing is under way, and to ask would create the GPU context outside
        # the window it belongs to. Another process makes the kernels.
        start = self._meter.mark(synchronize=name not in ("kernels", "setup"))
        try:
            yield
        finally:
            self._phase = None
        end = self._meter.mark(synchronize=name != "kernels")
        self._phases.append(self._meter.between(start, end, name))
        self._parts.append((f"phase {name}", start, end))
        if name in OUTSIDE:
            self._outside.append((start, end))
        else:
            self._last = end

    def go_on(self, earlier: Measured) -> None:
        """Go on with a run of which an earlier process has measured a part."""
        self._earlier = earlier
        self._fit = max((epoch.fit for epoch in earlier.epochs), default=0)

    def begin_fit(self) -> None:
        """Begin the epochs of another call of ``fit``, of which the first is not steady."""
        self._fit += 1

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, counted from 0; one that was left open by an error is dropped."""
        self._validation = self._validation_start = None
        self._epoch = epoch
        self._epoch_start = self._mark_quickly()

    def begin_validation(self) -> None:
        """Begin the validation inside an epoch; outside of one this does nothing."""
        if self._epoch_start is not None:
            self._validation_start = self._mark_quickly()

    def end_validation(self) -> None:
        """End the validation inside an epoch."""
        if self._validation_start is not None:
            self._validation = (self._validation_start, self._mark_quickly())
            self._validation_start = None

    def end_epoch(self, *, images: int | None = None) -> dict[str, float]:
        """End an epoch and return its metrics under the names of ``names.py``.

        Args:
            images: Training images of the epoch, for ``images_per_s``.

        Raises:
            RuntimeError: No epoch has begun.
        """
        if self._epoch_start is None:
            raise RuntimeError("no epoch has begun: call begin_epoch first")
        validation = None
        if self._validation is None:
            end = self._meter.mark()
        else:
            # The validation ends the epoch: one reading of the counter serves both.
            validation = self._meter.between(*self._validation, "validation")
            self._inner.append((f"validation {self._epoch}", *self._validation))
            end = self._validation[1]
            if self.on_gpu:
                end = self._meter.with_carbon(end)
        reading = self._meter.between(self._epoch_start, end, f"epoch {self._epoch}")
        epoch = Epoch(reading, validation, further=self._phase == "further", fit=self._fit)
        self._epochs.append(epoch)
        self._epoch_marks.append((self._epoch_start, end))
        self._parts.append((reading.name, self._epoch_start, end))
        if not epoch.further:
            self._last = end
        self._epoch_start = self._validation = None
        metrics = epoch_metrics(epoch, images)
        self._missing = epoch_missing(epoch, metrics)
        return metrics

    def end_block(self, *, work: float) -> None:
        """End a block of steps where the next one begins; :meth:`begin_epoch` begins the first.

        Args:
            work: How many epochs long it was.
        """
        if self._epoch_start is None:
            raise RuntimeError("no block has begun: call begin_epoch first")
        start, end = self._epoch_start, self._mark_quickly()
        reading = self._meter.between(start, end, f"block {self._epoch}")
        self._epochs.append(Epoch(reading, None, further=False, fit=self._fit, work=work))
        self._epoch_marks.append((start, end))
        self._parts.append((reading.name, start, end))
        self._epoch, self._epoch_start, self._last = self._epoch + 1, end, end

    @contextmanager
    def validating(self, *, work: float) -> Iterator[None]:
        """Measure a block of validation outside of an epoch.

        Args:
            work: How many validations long it is.
        """
        start = self._meter.mark()
        yield
        end = self._meter.mark()
        reading = self._meter.between(start, end, f"validation block {len(self._validations)}")
        self._validations.append(Epoch(reading, None, further=False, work=work))
        self._parts.append((reading.name, start, end))
        self._last = end

    @property
    def steady_validations(self) -> SteadyState:
        """The steady blocks of validation so far."""
        return steady_state(self._validations, "blocks of validation")

    @property
    def needs_further_epoch(self) -> bool:
        """Whether another epoch would make the steady window longer than it is and too short.

        It never does when there is a GPU that cannot be measured, before any epoch, or where steady
        epochs had gaps for as long as the window should be.
        """
        if (self._mismatch and not self.on_gpu) or not self.epochs:
            return False
        seconds = {True: 0.0, False: 0.0}
        for epoch in self.steady_state.epochs:
            seconds[epoch.is_known] += epoch.reading.seconds
        return max(seconds.values()) < self.min_window_s

    @property
    def spent(self) -> EnergyReading:
        """From this process's start to now, read without waiting for the GPU; for any thread.

        Raises:
            RuntimeError: Nothing is measured now.
        """
        if self._first is None:
            raise RuntimeError("nothing was measured: use the measurement in a `with` block")
        now = self._meter.mark(synchronize=False, read_carbon=not self.on_gpu)
        return self._meter.between(self._first, now, "spent")

    @property
    def missing(self) -> Mapping[str, str]:
        """Why each metric of the last epoch that is NaN is so."""
        return self._missing

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """The epochs or blocks of steps so far, those of earlier processes included."""
        return (*self._earlier.epochs, *self._epochs)

    @property
    def validations(self) -> tuple[Epoch, ...]:
        """The blocks of validation outside of epochs so far."""
        return tuple(self._validations)

    @property
    def total_reading(self) -> EnergyReading:
        """From the start to the end of the last part so far.

        Raises:
            RuntimeError: It is not measured yet.
        """
        if self._first is None or self._last is None:
            raise RuntimeError("nothing was measured: use the measurement in a `with` block")
        return self._meter.between(self._first, self._last, "run")

    @property
    def trace(self) -> RunTrace:
        """The power that was sampled so far; a phase or an epoch that has not ended has no name."""
        parts = ((name.removeprefix("phase "), a, b) for name, a, b in self._parts)
        spans = (*self._inner, *parts)
        return RunTrace(
            start_s=min((start.time_s for _, start, _ in spans), default=math.nan),
            start_unix_s=self._start_unix_s,
            samples=self._meter.samples if spans else (),
            spans=spans,
        )

    @property
    def steady_state(self) -> SteadyState:
        """The steady epochs so far."""
        blocks = any(epoch.work != 1 for epoch in self._epochs)
        return steady_state(self.epochs, "blocks" if blocks else "epochs")

    @property
    def measured(self) -> Measured:
        """What was measured so far, by earlier processes too."""
        steady_span = self._steady_span()
        own = Measured(
            totals=(self.total_reading,),
            outside=tuple(
                self._meter.between(*marks, "outside")
                for marks in self._outside
                if self._last is not None and marks[0].time_s < self._last.time_s
            ),
            phases=tuple(self._phases),
            epochs=tuple(self._epochs),
            steady_spans=(steady_span,) if steady_span else (),
            lost=tuple(self._holes(starved=False)),
            starved=tuple(self._holes(starved=True)),
            devices=("; ".join(board.label for board in self.boards) or "no GPU",),
        )
        return self._earlier.before(own)

    def summary(
        self, images_per_epoch: int | None, validation_images: int | None = None
    ) -> MeasurementSummary:
        """Return all metrics and tags of the run, within the ``with`` block or after it.

        Args:
            images_per_epoch: Training images of one epoch; ``None`` if that is not known.
            validation_images: The same of the validation.
        """
        measured = self.measured
        self._measure_idle_after()
        boards = self._meter.boards
        # Only a process with several boards can take one for another; TensorFlow has its devices
        # by now.
        asked = self._framework == TENSORFLOW and len(boards) > 1
        mismatch = self._mismatch or (other_boards(boards) if asked else "")
        steady = self.steady_state
        # A block may be so short that its tuning takes many times as long.
        compared = steady.epochs if self._validations else after_the_first(self.epochs)
        doubts = unlike_others(compared)
        if len(ran_on := dict.fromkeys(measured.devices)) > 1:
            doubts.append(f"its parts ran on different devices: {', then '.join(ran_on)}")
        record = RunRecord(
            **vars(dataclasses.replace(measured, lost=(*measured.lost, *doubts))),
            validations=tuple(self._validations),
            steady_validations=self.steady_validations.epochs,
            steady=steady.epochs,
            left_out=steady.left_out,
            idle_before=self._idle_before,
            idle_in_context=self._idle_in_context,
            idle_after=self._idle_after,
            idle_once=self._idle_once,
            boards=boards,
            power_limits_w=tuple(_power_limit_w(board) for board in boards),
            min_window_s=self.min_window_s,
            device_mismatch=mismatch,
        )
        return summarize(record, images_per_epoch, validation_images)

    def _steady_span(self) -> EnergyReading | None:
        """Return the reading from this process's first steady epoch to its last."""
        steady = {id(epoch) for epoch in self.steady_state.epochs}
        own = zip(self._epochs, self._epoch_marks, strict=True)
        marks = [edges for epoch, edges in own if id(epoch) in steady]
        return self._meter.between(marks[0][0], marks[-1][1], "steady state") if marks else None

    def _holes(self, *, starved: bool) -> list[str]:
        """Return when the process waited for a CPU, or else was stopped, in words."""
        found, how = [], "waited for a CPU" if starved else "was stopped"
        for stop in (hole for hole in self._heartbeat.stops if hole.starved == starved):
            # It began a little after the last sign of life.
            middle_s = (stop.start_s + stop.end_s) / 2
            places = [n for n, start, end in self._parts if start.time_s < middle_s < end.time_s]
            where = places[0] if places else "between two parts of the run"
            found.append(f"the process {how} for {stop.seconds:.1f} s ({where})")
        return found

    def _mark_quickly(self) -> Mark:
        """Return a mark inside the training, where CodeCarbon is read only if it must be."""
        return self._meter.mark(read_carbon=not self.on_gpu)

    def _measure_idle_after(self) -> None:
        if not self._idle_once and self._idle_after is None and self._meter.running:
            worked_until_s = self._last.time_s if self._last else -math.inf
            self._idle_after = self._wait("idle after", worked_until_s)

    def _wait(self, name: str, worked_until_s: float = -math.inf) -> Idle:
        waited, start, end = idle.wait(self._meter, name, worked_until_s=worked_until_s)
        self._inner.append((name, start, end))
        if not self._told_source:
            self._tell_source(waited.reading)
        return waited

    def _tell_source(self, reading: EnergyReading) -> None:
        """Log what the energy is by where that is not what one would wish."""
        self._told_source = True
        if self._mismatch:
            logger.warning("the energy of GPUs is not measured: %s", self._mismatch)
        elif self._meter.no_gpu_reason:
            logger.info("energy is by %s: %s", reading.source, self._meter.no_gpu_reason)
        if reading.carbon.cpu_source != rapl.SOURCE_RAPL:
            cpu = rapl.cpu_source()
            if cpu.hint:
                logger.log(logging.WARNING if cpu.can_be_allowed else logging.INFO, cpu.hint)


def _power_limit_w(board: Board) -> float:
    try:
        return board.power_limit_w()
    except NvmlError as error:
        logger.debug("%s", error)
        return math.nan
