"""Idle power: what the machine draws while it waits, to tell the training's share."""

from __future__ import annotations

import math
import time

from green_screen.power.meter import EnergyMeter, Mark
from green_screen.power.nvml import POWER_AVERAGING_S
from green_screen.power.reading import EnergyReading

# Five samples of a GPU; the estimate of a CPU needs no more than a glance either. Each run waits
# so long three times, and its board draws idle power meanwhile.
IDLE_S = 0.5


def wait(meter: EnergyMeter, *, worked_until_s: float = -math.inf) -> tuple[Mark, Mark]:
    """Wait and return the wait's edges; the power of its reading is :func:`idle_power_w`.

    Args:
        meter: A running meter.
        worked_until_s: When the GPU has ended its last work, by ``time.perf_counter``. Its power
            reading, a mean of the last second, needs that long to forget it.
    """
    if meter.boards:
        time.sleep(max(0.0, worked_until_s + POWER_AVERAGING_S - time.perf_counter()))
    # Nothing is under way that one could wait for, and to ask would create a GPU context.
    start = meter.mark(synchronize=False)
    time.sleep(IDLE_S)
    return start, meter.mark(synchronize=False)


def idle_power_w(reading: EnergyReading) -> float:
    """Return the mean power of an idle window in watts.

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
