"""The energy of one training run, phase by phase."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType

from green_screen.measurement.run_record import Epoch, RunRecord
from green_screen.measurement.summary import (
    MeasurementSummary,
    epoch_metrics,
    epoch_missing,
    summarize,
)
from green_screen.measurement.used_gpus import measurable_gpus, other_boards, synchronize_gpu
from green_screen.power import idle, rapl
from green_screen.power.meter import EnergyMeter, EnergyReading, Mark
from green_screen.power.nvml import Board, NvmlError

__all__ = ["MeasurementSummary", "RunMeasurement", "synchronize_gpu"]

logger = logging.getLogger(__name__)

PHASES = ("setup", "conversion", "evaluation", "further")
MIN_WINDOW_GPU_S = 5.0
MIN_WINDOW_CPU_S = 0.0


class RunMeasurement:
    """Measures a training run: phases, epochs, idle power before and after, emissions.

    Use it as a context manager around the run. The steady state is what follows the first epoch,
    which traces, compiles and tunes.

    Args:
        country: ISO 3166-1 code of three letters, for the carbon intensity.
        min_window_s: Shortest steady window to trust; ``None`` is 5 s on a GPU and 0 s on a CPU.
        synchronize: Waits until the GPU has done its work; called at the edges of phases.
        sample_hz: How often the power is sampled.

    Raises:
        ValueError: CodeCarbon does not know the country.
    """

    def __init__(
        self,
        *,
        country: str,
        min_window_s: float | None = None,
        synchronize: Callable[[], None] = synchronize_gpu,
        sample_hz: float = 10.0,
    ) -> None:
        """Prepare; measuring starts with the ``with`` block."""
        self._gpus, self._mismatch = measurable_gpus()
        self._meter = EnergyMeter(
            sample_hz=sample_hz,
            synchronize=synchronize,
            country=country,
            gpus=self._gpus,
            unmeasured=self._mismatch,
        )
        self._given_min_window_s = min_window_s
        self._phases: list[EnergyReading] = []
        self._epochs: list[Epoch] = []
        self._phase: str | None = None
        self._epoch = 0
        self._epoch_start: Mark | None = None
        self._validation: tuple[Mark, Mark] | None = None
        self._validation_start: Mark | None = None
        self._first: Mark | None = None
        self._last: Mark | None = None
        self._idle_before: EnergyReading | None = None
        self._idle_after: EnergyReading | None = None
        self._steady_marks: tuple[Mark, Mark] | None = None
        self._missing: dict[str, str] = {}

    @property
    def on_gpu(self) -> bool:
        """Whether the labelled energy is that of a GPU."""
        return bool(self._meter.boards)

    @property
    def idle_before(self) -> EnergyReading | None:
        """The machine waiting before the run."""
        return self._idle_before

    @property
    def idle_after(self) -> EnergyReading | None:
        """The machine waiting after the run; ``None`` until then."""
        return self._idle_after

    @property
    def min_window_s(self) -> float:
        """The shortest steady window to trust, in seconds."""
        if self._given_min_window_s is not None:
            return self._given_min_window_s
        # By what the training uses, measured or not.
        return MIN_WINDOW_GPU_S if self._gpus or self._mismatch else MIN_WINDOW_CPU_S

    def __enter__(self) -> RunMeasurement:
        """Start the meter, measure idle power, and open the run."""
        self._meter.__enter__()
        try:
            self._idle_before = idle.measure_idle(self._meter, after_work=False)
            self._first = self._last = self._meter.mark(synchronize=False)
        except BaseException:
            self._meter.__exit__(None, None, None)
            raise
        if self._mismatch:
            logger.warning("the energy of GPUs is not measured: %s", self._mismatch)
        elif self._meter.no_gpu_reason:
            logger.info("energy is CodeCarbon's estimate: %s", self._meter.no_gpu_reason)
        if self._idle_before.carbon.cpu_source != rapl.SOURCE_RAPL:
            source = rapl.cpu_source()
            hint = source.hint or "RAPL can be read, but CodeCarbon does not use it"
            logger.log(logging.WARNING if source.can_be_allowed else logging.INFO, hint)
        return self

    def abort(self) -> None:
        """Stop everything at once, after a training that failed."""
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
            self._meter.__exit__(kind, error, traceback)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase: ``setup``, ``conversion``, ``evaluation`` or ``further``.

        Epochs in the phase ``further`` count for the steady state and for nothing else.

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
        # the window it belongs to.
        start = self._meter.mark(synchronize=name != "setup")
        try:
            yield
        finally:
            self._phase = None
        end = self._meter.mark()
        self._phases.append(self._meter.between(start, end, name))
        if name != "further":
            self._last = end

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
            end = self._validation[1]
            if self.on_gpu:
                end = self._meter.with_carbon(end)
        reading = self._meter.between(self._epoch_start, end, f"epoch {self._epoch}")
        epoch = Epoch(reading, validation, further=self._phase == "further")
        self._epochs.append(epoch)
        if not epoch.further:
            self._last = end
        if self.steady_epochs:
            first = self._steady_marks[0] if self._steady_marks else self._epoch_start
            self._steady_marks = (first, end)
        self._epoch_start = self._validation = None
        metrics = epoch_metrics(epoch, images)
        self._missing = epoch_missing(epoch, metrics)
        return metrics

    def further_epochs_needed(self) -> int:
        """Return how many epochs more would make the steady window long enough.

        Ask after the evaluation, and again after having run them: the answer is an estimate by
        the epochs so far. It is 0 when the window is long enough, or when there is a GPU that
        cannot be measured.
        """
        if self._mismatch and not self.on_gpu:
            return 0
        steady = self.steady_epochs
        missing_s = self.min_window_s - sum(epoch.reading.seconds for epoch in steady)
        if missing_s <= 0 or not self._epochs:
            return 0
        if not steady:
            return 1
        mean_s = sum(epoch.reading.seconds for epoch in steady) / len(steady)
        return math.ceil(missing_s / mean_s)

    @property
    def missing(self) -> Mapping[str, str]:
        """Why each metric of the last epoch that is NaN is so."""
        return self._missing

    @property
    def steady_epochs(self) -> Sequence[Epoch]:
        """The epochs after the first."""
        return self._epochs[1:]

    def summary(self, images_per_epoch: int | None) -> MeasurementSummary:
        """Return all metrics and tags of the run, within the ``with`` block or after it.

        Args:
            images_per_epoch: Training images of one epoch; ``None`` if that is not known.
        """
        if self._first is None or self._last is None:
            raise RuntimeError("nothing was measured: use the measurement in a `with` block")
        self._measure_idle_after()
        boards = self._meter.boards
        # Only a process with several boards can take one for another; TensorFlow has its devices
        # by now.
        mismatch = self._mismatch or (other_boards(boards) if len(boards) > 1 else "")
        span = self._steady_marks
        record = RunRecord(
            total=self._meter.between(self._first, self._last, "run"),
            phases=tuple(self._phases),
            epochs=tuple(self._epochs),
            steady_span=self._meter.between(*span, "steady state") if span else None,
            idle_before=self._idle_before,
            idle_after=self._idle_after,
            boards=boards,
            power_limits_w=tuple(_power_limit_w(board) for board in boards),
            min_window_s=self.min_window_s,
            device_mismatch=mismatch,
        )
        return summarize(record, images_per_epoch)

    def _mark_quickly(self) -> Mark:
        """Return a mark inside the training, where CodeCarbon is read only if it must be."""
        return self._meter.mark(read_carbon=not self.on_gpu)

    def _measure_idle_after(self) -> None:
        if self._idle_after is None and self._meter.running:
            self._idle_after = idle.measure_idle(self._meter, after_work=True)


def _power_limit_w(board: Board) -> float:
    try:
        return board.power_limit_w()
    except NvmlError as error:
        logger.debug("%s", error)
        return math.nan
