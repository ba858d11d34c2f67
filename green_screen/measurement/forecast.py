"""What a training will take, forecast from a steady window of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from green_screen import names
from green_screen.measurement.run_record import NAN, Epoch
from green_screen.power.nvml import COUNTER_UPDATE_S

# Two runs of the same work, one soon after the other on one board, differ mostly because hosts are
# shared. Root mean squares of the differences on H100s (docs/measuring.md), relative to the steady
# part and to what comes before it, of which a window of one run can tell nothing.
BETWEEN_RUNS = 0.06
BETWEEN_STARTS = 0.12
# Epochs of one run on a shared host differ by 4 %, as standard deviation (docs/measuring.md): what
# stands for their scatter while there are too few to tell.
EPOCH_SCATTER = 0.04
_Z = 1.96
# Fewer blocks tell nothing of their scatter.
_MIN_BLOCKS = 4


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How well the mean over some blocks is known, relative to it; NaN where nothing is known.

    Attributes:
        n: How many blocks there are.
        seconds: Their time.
        standard_error: Of the mean, by the scatter of the blocks beyond the counter's steps.
        resolution: How far the window's sum can be off for the coarseness of its source.
        drift: The second half's mean over the first half's, less 1.
    """

    n: int
    seconds: float
    standard_error: float
    resolution: float
    drift: float

    @property
    def half_width(self) -> float:
        """Of the 95 % interval of another run's mean: by all of these and what runs differ by."""
        if math.isnan(self.standard_error):
            return NAN
        scatter = _t(self.n - 1) * self.standard_error
        return math.hypot(scatter, self.resolution, self.drift, _Z * BETWEEN_RUNS)

    @property
    def own_half_width(self) -> float:
        """Of the 95 % interval of the same run's mean over the time to come."""
        if math.isnan(self.standard_error):
            scatter = _Z * EPOCH_SCATTER / math.sqrt(self.n) if self.n else NAN
            return math.hypot(scatter, self.resolution)
        return math.hypot(_t(self.n - 1) * self.standard_error, self.resolution, self.drift)


def _t(degrees: int) -> float:
    """Return the 97.5 % point of Student's t, to 1 % from 3 degrees on.

    By the expansion of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z, n = _Z, degrees
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


def energy_spread(blocks: Sequence[Epoch]) -> Spread:
    """Return how well the energy for a piece of work is known."""
    readings = [block.reading for block in blocks]
    energy_j, seconds = sum(r.energy_j for r in readings), sum(r.seconds for r in readings)
    # Where the counter is read between two of its steps, each edge is off by a part of one, which
    # is uniform; what one block gains its neighbour loses, so that it is no error of their sum.
    step_j = [
        COUNTER_UPDATE_S * r.mean_power_w if r.source == names.SOURCE_COUNTER else 0.0
        for r in readings
    ]
    steps_j2 = 2 * sum(j**2 for j in step_j) / 12
    resolution_j = max((r.resolution_j for r in readings), default=NAN)
    resolution = resolution_j / energy_j if energy_j > 0 else NAN
    return _spread(
        [b.reading.energy_j for b in blocks],
        [b.work for b in blocks],
        seconds,
        0.0 if math.isnan(resolution) else resolution,
        steps_j2,
    )


def time_spread(blocks: Sequence[Epoch]) -> Spread:
    """Return how well the time for a piece of work is known."""
    times_s = [b.reading.seconds for b in blocks]
    return _spread(times_s, [b.work for b in blocks], sum(times_s), 0.0, 0.0)


def _spread(
    values: list[float], work: list[float], seconds: float, resolution: float, explained: float
) -> Spread:
    """Return the spread of a ratio of sums, whose blocks may be of different size.

    Args:
        values: Of the blocks.
        work: Of the blocks.
        seconds: Of all of them.
        resolution: See :class:`Spread`.
        explained: Sum of squares that the coarseness of the values explains.
    """
    n = len(values)
    if n < _MIN_BLOCKS or not sum(values) > 0:
        return Spread(n=n, seconds=seconds, standard_error=NAN, resolution=resolution, drift=NAN)
    ratio = sum(values) / sum(work)
    squares = sum((v - ratio * w) ** 2 for v, w in zip(values, work, strict=True)) - explained
    # Of a ratio of means (Cochran, Sampling Techniques, 6.4).
    error = math.sqrt(max(0.0, squares) * n / (n - 1)) / sum(values)
    half = n // 2
    first = sum(values[:half]) / sum(work[:half])
    second = sum(values[-half:]) / sum(work[-half:])
    return Spread(
        n=n,
        seconds=seconds,
        standard_error=error,
        resolution=resolution,
        # No energy may have been counted in short blocks: then nothing is known of a drift.
        drift=second / first - 1 if first > 0 else NAN,
    )


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def forecast(start: float, epoch: float, epochs: float, half_width: float) -> Interval:
    """Return what a training takes, in joules or in seconds.

    Args:
        start: What comes before the steady state and beyond it: set-up and warm-up.
        epoch: What a steady epoch takes, validation included.
        epochs: How many there are.
        half_width: Of the 95 % interval of `epoch`, relative to it.
    """
    value = start + epochs * epoch
    error = math.hypot(epochs * epoch * half_width, _Z * BETWEEN_STARTS * start)
    return Interval(value, value - error, value + error)


def forecast_rest(done: float, epoch: float, epochs: int, half_width: float) -> Interval:
    """Return what a training takes that is under way, in joules or in seconds.

    Args:
        done: What it has taken so far.
        epoch: What a steady epoch takes.
        epochs: How many are left.
        half_width: Of the 95 % interval of `epoch`, relative to it.
    """
    rest = epochs * epoch
    value, error = done + rest, rest * half_width
    return Interval(value, value - error, value + error)


def metrics_of(joules: Interval, time_s: Interval) -> dict[str, float]:
    """Return a forecast as metrics by their names."""
    return {
        names.FORECAST_ENERGY_J: joules.value,
        names.FORECAST_ENERGY_LOW_J: joules.low,
        names.FORECAST_ENERGY_HIGH_J: joules.high,
        names.FORECAST_S: time_s.value,
        names.FORECAST_LOW_S: time_s.low,
        names.FORECAST_HIGH_S: time_s.high,
    }


def energy_text(joules: Interval) -> str:
    """Return an energy with its interval, such as ``41.2 kJ (40.1 to 42.3)``."""
    unit, size = next(
        ((unit, size) for unit, size in (("MJ", 1e6), ("kJ", 1e3)) if joules.value >= size),
        ("J", 1.0),
    )
    value, low, high = (number / size for number in (joules.value, joules.low, joules.high))
    return f"{value:.1f} {unit} ({low:.1f} to {high:.1f})"
