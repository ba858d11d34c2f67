"""Time in the tests of the meter: virtual where boards are simulated, and passing at their word.

What is measured then does not depend on how fast or how busy the machine is. Tests use the object
``time`` of this module as they would the one of the standard library.
"""

from __future__ import annotations

import functools
import time as real
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from simulated_nvml import Simulation, VirtualClock, simulated

from green_screen.power import idle, meter
from green_screen.power.sampler import Sampler


class _Time(VirtualClock):
    """A clock with samplers that take a sample each time theirs has come."""

    def __init__(self) -> None:
        super().__init__()
        self.samplers: list[_Sampler] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        end_s = self.now + seconds
        while due := [sampler for sampler in self.samplers if sampler.due_s <= end_s]:
            next_sampler = min(due, key=lambda sampler: sampler.due_s)
            self.now = next_sampler.due_s
            next_sampler.sample()
        self.now = end_s


class _Sampler(Sampler):
    """Samples in virtual time, without a thread."""

    def __init__(self, time: _Time, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._time = time
        self._ticks = 0
        self._start_s = time.now

    @property
    def due_s(self) -> float:
        return self._start_s + self._ticks * self._period_s

    def sample(self) -> None:
        self._sample(self._ticks)
        self._ticks += 1

    def start(self) -> None:
        self._start_s = self._time.now
        self.sample()
        self._time.samplers.append(self)

    def stop(self) -> None:
        if self in self._time.samplers:
            self._time.samplers.remove(self)


class WhicheverTime:
    """Virtual time while boards are simulated in it, else the machine's."""

    def __init__(self) -> None:
        self.virtual: _Time | None = None

    def perf_counter(self) -> float:
        return (self.virtual or real).perf_counter()

    def sleep(self, seconds: float) -> None:
        (self.virtual or real).sleep(seconds)


time = WhicheverTime()


@contextmanager
def simulated_in_virtual_time(simulation: Simulation) -> Iterator[Simulation]:
    """Have the simulation behind pynvml and let its clock be the meter's."""
    simulation.clock = time.virtual = clock = _Time()
    with pytest.MonkeyPatch.context() as patch, simulated(simulation):
        for module in (meter, idle):
            patch.setattr(module, "time", clock)
        patch.setattr(meter, "Sampler", functools.partial(_Sampler, clock))
        yield simulation
    time.virtual = None
