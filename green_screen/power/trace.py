"""The record of one board: samples of power and status, and the arithmetic of windows over them."""

from __future__ import annotations

import bisect
import math
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from green_screen import names
from green_screen.power.nvml import (
    COUNTER_UPDATE_S,
    IDLE,
    POWER_AVERAGING_S,
    POWER_CAP,
    THROTTLE_REASONS,
    Board,
    NvmlError,
    Status,
)
from green_screen.power.reading import NAN, DeviceReading

T = TypeVar("T")

# Between two samples further apart than this the power is unknown, not interpolated.
MAX_HOLE_S = 5.0


@dataclass(frozen=True)
class BoardMark:
    """A point in a board's record; two of them make a window.

    Attributes:
        time_s: When, by the meter's clock.
        counter_j: The energy counter; NaN if it could not be read.
        integral_j: Integral of power since the record began; NaN while the board is lost.
        resets: How often the counter has fallen so far.
        error: Why the counter is NaN.
    """

    time_s: float
    counter_j: float
    integral_j: float
    resets: int
    error: str


@dataclass(frozen=True, eq=False)
class PowerSamples:
    """What was sampled of a device, copied.

    Attributes:
        device: UUID of a board, or ``cpu``.
        times_s: By the meter's clock, rising.
        powers_w: At those times. A board's power runs straight from one sample to the next; the
            CPU's, by its counters, is the mean since the sample before.
    """

    device: str
    times_s: array[float]
    powers_w: array[float]


@dataclass(frozen=True)
class _Gap:
    """A time without samples, and why. It is open while the end is infinite."""

    start_s: float
    end_s: float
    reason: str


class BoardTrace:
    """Collects samples of one board; something else decides when (see ``sampler``).

    Args:
        board: What to read.
        clock: Seconds, monotonic.
    """

    def __init__(self, board: Board, clock: Callable[[], float]) -> None:
        """Begin an empty record."""
        self.board = board
        self._clock = clock
        self._lock = threading.Lock()
        # 16 bytes a sample: a board fills 14 MB a day at 10 Hz.
        self._times_s = array("d")
        self._powers_w = array("d")
        self._integral_j = 0.0  # up to the last sample
        self._gaps: list[_Gap] = []
        self._status_times_s = array("d")
        self._statuses: list[Status] = []
        self._distinct: dict[Status, Status] = {}  # a day has 170,000, most of them equal
        # A counter that is read by two threads must be compared in the order of the readings.
        self._counter_lock = threading.Lock()
        self._last_counter_j = -math.inf
        self._resets = 0

    def sample_power(self) -> None:
        """Read the power once; a failure opens a gap, the next success closes it."""
        try:
            power_w = self.board.power_w()
        except NvmlError as error:
            with self._lock:
                self._open_gap(str(error))
            return
        with self._lock:
            self._append(self._clock(), power_w)

    def sample_status(self) -> None:
        """Read the status once, and the counter, to notice when it falls."""
        status = self.board.status()
        with self._lock:
            self._status_times_s.append(self._clock())
            self._statuses.append(self._distinct.setdefault(status, status))
        self._read_counter()

    @property
    def samples(self) -> PowerSamples:
        """The samples of power so far."""
        with self._lock:
            return PowerSamples(self.board.uuid, self._times_s[:], self._powers_w[:])

    def mark(self) -> BoardMark:
        """Return the point that is now."""
        now = self._clock()
        counter_j, resets, error = self._read_counter()
        with self._lock:
            return BoardMark(now, counter_j, self._integral_at(now), resets, error)

    def between(self, start: BoardMark, end: BoardMark) -> DeviceReading:
        """Return the reading of the window between two marks.

        The counter is used where both edges have it and it did not fall in between; else the
        integral, where no gap lies in the window; else the energy is NaN. The reason says why.
        """
        seconds = end.time_s - start.time_s
        counter_j, counter_reason = _counter_difference(start, end)
        with self._lock:
            gap_reason = self._gap_reason(start.time_s, end.time_s)
            powers_w = _slice(self._times_s, self._powers_w, start.time_s, end.time_s)
            change_w = self._power_at(end.time_s) - self._power_at(start.time_s)
            statuses = _slice(self._status_times_s, self._statuses, start.time_s, end.time_s)
        integral_j = NAN if gap_reason else end.integral_j - start.integral_j
        max_power_w, min_power_w = max(powers_w, default=NAN), min(powers_w, default=NAN)
        busy = [s for s in statuses if IDLE not in (s.clock_reasons or ())]
        if not counter_reason:
            energy_j, source, reason = counter_j, names.SOURCE_COUNTER, ""
            # Each edge lies up to one update of the counter after the last one it shows.
            mean_power_w = counter_j / seconds if seconds > 0 else 0.0
            resolution_j = COUNTER_UPDATE_S * max(mean_power_w, _or_zero(max_power_w))
        elif not gap_reason:
            energy_j, source, reason = integral_j, names.SOURCE_POWER, counter_reason
            # A reading is the mean of the time before it: an edge is blurred by that much.
            resolution_j = POWER_AVERAGING_S * _or_zero(max_power_w - min_power_w)
        else:
            energy_j, source, resolution_j = NAN, names.SOURCE_NONE, NAN
            reason = f"{counter_reason}; {gap_reason}"
        return DeviceReading(
            device=self.board.label,
            seconds=seconds,
            energy_j=energy_j,
            counter_j=counter_j,
            integral_j=integral_j,
            integral_reason=gap_reason,
            lag_j=POWER_AVERAGING_S * abs(change_w),
            resolution_j=resolution_j,
            source=source,
            reason=reason,
            max_power_w=max_power_w,
            temperature_c=_mean([s.temperature_c for s in statuses]),
            utilization_percent=_mean([s.utilization_percent for s in statuses]),
            sm_clock_mhz=_mean([s.sm_clock_mhz for s in statuses]),
            busy_sm_clock_mhz=_mean([s.sm_clock_mhz for s in busy]),
            memory_clock_mhz=_mean([s.memory_clock_mhz for s in statuses]),
            memory_used_mib=_max([s.memory_used_mib for s in statuses]),
            processes=_max([s.processes for s in statuses]),
            throttled=_throttled(statuses),
            power_capped=_power_capped(busy),
            status_reason="; ".join(dict.fromkeys(s.reason for s in statuses if s.reason))
            if statuses
            else f"no status reading of {self.board.name} ({self.board.uuid})",
        )

    def _append(self, now: float, power_w: float) -> None:
        if self._gaps and math.isinf(self._gaps[-1].end_s):
            self._gaps[-1] = _Gap(self._gaps[-1].start_s, now, self._gaps[-1].reason)
        if self._times_s:
            step_s = now - self._times_s[-1]
            self._integral_j += step_s * (self._powers_w[-1] + power_w) / 2
            if reason := self._hole_reason(step_s):
                self._gaps.append(_Gap(self._times_s[-1], now, reason))
        self._times_s.append(now)
        self._powers_w.append(power_w)

    def _open_gap(self, reason: str) -> None:
        if not (self._gaps and math.isinf(self._gaps[-1].end_s)):
            start_s = self._times_s[-1] if self._times_s else -math.inf
            self._gaps.append(_Gap(start_s, math.inf, reason))

    def _gap_reason(self, start_s: float, end_s: float) -> str:
        for gap in self._gaps:
            if gap.start_s < end_s and gap.end_s > start_s:
                return gap.reason
        if not self._times_s:
            return f"no sample of {self.board.name} ({self.board.uuid})"
        return self._hole_reason(end_s - self._times_s[-1])

    def _hole_reason(self, seconds: float) -> str:
        if seconds <= MAX_HOLE_S:
            return ""
        return f"no sample for {seconds:.1f} s of {self.board.name} ({self.board.uuid})"

    def _power_at(self, now: float) -> float:
        """Return the last power sampled until then."""
        count = bisect.bisect_right(self._times_s, now)
        return self._powers_w[count - 1] if count else NAN

    def _integral_at(self, now: float) -> float:
        """Return the integral up to now, which may be a little after the last sample.

        The last power is held. Whatever the next sample corrects falls to the next window: the
        windows on both sides of a mark add up to the window over both.
        """
        times_s, powers_w = self._times_s, self._powers_w
        integral_j, last = self._integral_j, len(times_s) - 1
        while last >= 0 and times_s[last] > now:  # sampled while the counter was read
            if last:
                step_s = times_s[last] - times_s[last - 1]
                integral_j -= step_s * (powers_w[last] + powers_w[last - 1]) / 2
            last -= 1
        return integral_j + powers_w[last] * (now - times_s[last]) if last >= 0 else NAN

    def _read_counter(self) -> tuple[float, int, str]:
        """Return the counter, how often it has fallen so far, and why it is NaN if it is."""
        with self._counter_lock:
            try:
                counter_j = self.board.energy_j()
            except NvmlError as error:
                return NAN, self._resets, str(error)
            if counter_j < self._last_counter_j:
                self._resets += 1
            self._last_counter_j = counter_j
            return counter_j, self._resets, ""


def _counter_difference(start: BoardMark, end: BoardMark) -> tuple[float, str]:
    """Return the counter's difference, or NaN and the reason."""
    if start.error or end.error:
        return NAN, start.error or end.error
    if start.resets != end.resets:
        return NAN, "the energy counter fell: the driver was restarted or the counter wrapped"
    return end.counter_j - start.counter_j, ""


def _slice(
    times_s: Sequence[float], values: Sequence[T], start_s: float, end_s: float
) -> Sequence[T]:
    """Return the values in a window, and the last one before it if none is inside."""
    first, last = bisect.bisect_left(times_s, start_s), bisect.bisect_right(times_s, end_s)
    return values[first:last] or values[max(0, first - 1) : first]


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else NAN


def _max(values: Sequence[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=NAN)


def _throttled(statuses: Sequence[Status]) -> dict[str, float] | None:
    """Return the share of the readings that gave each reason; ``None`` if none could be read."""
    known = [s.clock_reasons for s in statuses if s.clock_reasons is not None]
    if not known:
        return None
    counts = Counter(reason for reasons in known for reason in reasons)
    told = sorted(set(THROTTLE_REASONS.values()) & set(counts))
    return {reason: counts[reason] / len(known) for reason in told}


def _power_capped(statuses: Sequence[Status]) -> float:
    """Return the share of the readings at the power cap; NaN if that could not be read."""
    return _mean([POWER_CAP in s.clock_reasons for s in statuses if s.clock_reasons is not None])
