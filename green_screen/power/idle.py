"""Idle power: what the machine draws while it waits, to tell the training's share."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from statistics import mean

from green_screen.power.meter import EnergyMeter, Mark
from green_screen.power.nvml import COUNTER_UPDATE_S, POWER_AVERAGING_S, NvmlError
from green_screen.power.reading import EnergyReading

logger = logging.getLogger(__name__)

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

    Boards are asked for the power of this moment. Where one does not tell it, their reading, a mean
    of the last second, is waited for until it has forgotten the work.

    Args:
        meter: A running meter.
        name: Of the reading.
        worked_until_s: When the GPU has ended its last work, by ``time.perf_counter``.
    """
    if meter.boards:
        try:
            return _by_instant_power(meter, name, worked_until_s)
        except NvmlError as error:
            logger.debug("idle power is by the mean of a second: %s", error)
        _sleep_until(worked_until_s + POWER_AVERAGING_S)
    # Nothing is under way that one could wait for, and to ask would create a GPU context.
    start = meter.mark(synchronize=False)
    time.sleep(IDLE_S)
    end = meter.mark(synchronize=False)
    reading = meter.between(start, end, name)
    return Idle(reading, _mean_power_w(reading)), start, end


def _by_instant_power(
    meter: EnergyMeter, name: str, worked_until_s: float
) -> tuple[Idle, Mark, Mark]:
    """Do the same by the power of the moment, summed over the boards.

    Raises:
        NvmlError: A board does not tell it.
    """
    _sleep_until(worked_until_s + SETTLING_S)
    totals_w: list[float] = []
    start = meter.mark(synchronize=False)
    while not totals_w or time.perf_counter() < start.time_s + IDLE_S:
        totals_w.append(sum(board.instant_power_w() for board in meter.boards))
        time.sleep(_PERIOD_S)
    end = meter.mark(synchronize=False)
    return Idle(meter.between(start, end, name), mean(totals_w)), start, end


def _sleep_until(time_s: float) -> None:
    time.sleep(max(0.0, time_s - time.perf_counter()))


def _mean_power_w(reading: EnergyReading) -> float:
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
