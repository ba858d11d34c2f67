"""Idle power: what the machine draws while it waits, to tell the training's share."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from green_screen.power.meter import EnergyMeter, Mark
from green_screen.power.nvml import COUNTER_UPDATE_S, POWER_AVERAGING_S, Board, NvmlError
from green_screen.power.reading import EnergyReading

# Five renewals of a board's reading; the estimate of a CPU needs no more than a glance either.
# Each run waits so long three times, and its board draws idle power meanwhile.
IDLE_S = 0.5
# A reading of this moment is past the work when it has been renewed since, with one to spare.
SETTLING_S = 2 * COUNTER_UPDATE_S
_PERIOD_S = COUNTER_UPDATE_S / 2


@dataclass(frozen=True)
class Idle:
    """A machine that waits.

    Attributes:
        reading: Of the wait.
        power_w: Its mean power in watts; NaN for the reading's reason.
    """

    reading: EnergyReading
    power_w: float


def wait(
    meter: EnergyMeter, name: str, *, worked_until_s: float = -math.inf
) -> tuple[Idle, Mark, Mark]:
    """Wait, and return what was drawn meanwhile and the edges of the wait.

    Boards are asked for the power of this moment. Those that do not tell it are waited for until
    their reading, a mean of the last second, has forgotten the work.

    Args:
        meter: A running meter.
        name: Of the reading.
        worked_until_s: When the GPU has ended its last work, by ``time.perf_counter``.
    """
    instant = _tell_instant_power(meter.boards)
    if meter.boards:
        forgets_s = SETTLING_S if instant else POWER_AVERAGING_S
        time.sleep(max(0.0, worked_until_s + forgets_s - time.perf_counter()))
    # Nothing is under way that one could wait for, and to ask would create a GPU context.
    start = meter.mark(synchronize=False)
    power_w = math.nan
    if instant:
        power_w = _instant_power_w(meter.boards)
    else:
        time.sleep(IDLE_S)
    end = meter.mark(synchronize=False)
    reading = meter.between(start, end, name)
    return Idle(reading, mean_power_w(reading) if math.isnan(power_w) else power_w), start, end


def mean_power_w(reading: EnergyReading) -> float:
    """Return the mean power of a short window in watts.

    By sampled power, which over so short a window is finer than the counter's 100 ms steps; by the
    counter where the power may not be read.
    """
    if not reading.devices:
        return reading.mean_power_w
    energies_j = (
        device.energy_j if math.isnan(device.integral_j) else device.integral_j
        for device in reading.devices
    )
    return sum(energies_j) / reading.seconds


def _tell_instant_power(boards: Sequence[Board]) -> bool:
    try:
        for board in boards:
            board.instant_power_w()
    except NvmlError:
        return False
    return bool(boards)


def _instant_power_w(boards: Sequence[Board]) -> float:
    """Return what the boards draw together in the mean of :data:`IDLE_S`; NaN if one fails."""
    totals_w: list[float] = []
    end_s = time.perf_counter() + IDLE_S
    try:
        while time.perf_counter() < end_s:
            totals_w.append(sum(board.instant_power_w() for board in boards))
            time.sleep(_PERIOD_S)
    except NvmlError:
        return math.nan
    return mean(totals_w)
