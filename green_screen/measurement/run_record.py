"""What was measured of a run: readings of its epochs, phases and idle times."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from green_screen.power.idle import Idle
from green_screen.power.meter import EnergyReading, Mark
from green_screen.power.nvml import Board
from green_screen.power.trace import PowerSamples

NAN = math.nan


@dataclass(frozen=True)
class Epoch:
    """One measured epoch, or a block of steps.

    Attributes:
        reading: Training and validation.
        validation: The validation's part; ``None`` if there was none.
        further: Whether it was run for the measurement alone.
        fit: Which call of ``fit`` it belongs to, counted from 0.
        work: How many epochs long it is: 1, or less for a block of steps.
    """

    reading: EnergyReading
    validation: EnergyReading | None
    further: bool
    fit: int = 0
    work: float = 1.0

    @property
    def pace_s(self) -> float:
        """Time for the work of a whole epoch."""
        return self.reading.seconds / self.work

    @property
    def train_j(self) -> float:
        """Energy of the training: the epoch less its validation, so that the two add up."""
        return self.reading.energy_j - (self.validation.energy_j if self.validation else 0.0)

    @property
    def train_s(self) -> float:
        """Time of the training."""
        return self.reading.seconds - (self.validation.seconds if self.validation else 0.0)

    @property
    def is_known(self) -> bool:
        """Whether all of its energy was measured; an epoch with a gap says nothing of others."""
        return not math.isnan(self.reading.energy_j + self.train_j)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured of a run so far, by one process or by several that went on from each other.

    Attributes:
        totals: Of each process, from its start to the end of its last phase or epoch.
        outside: What lies in those and was done for the measurement alone.
        phases: The named phases in order.
        epochs: The epochs in order.
        steady_spans: Of each process that had steady epochs, from the beginning of the first to the
            end of the last, with all that lies between.
        lost: What says that not only work was done in a part of the run, in words.
        starved: When a process waited for a CPU for seconds, in words: its host was busy.
        devices: The boards of each process, in words.
    """

    totals: tuple[EnergyReading, ...]
    outside: tuple[EnergyReading, ...]
    phases: tuple[EnergyReading, ...]
    epochs: tuple[Epoch, ...]
    steady_spans: tuple[EnergyReading, ...]
    lost: tuple[str, ...]
    starved: tuple[str, ...]
    devices: tuple[str, ...]

    def before(self, later: Measured) -> Measured:
        """Return what this and a later process measured of the run together."""
        return Measured(**{name: part + getattr(later, name) for name, part in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class RunRecord(Measured):
    """All that was measured of a run.

    Attributes:
        validations: Blocks of validation outside of epochs, in order.
        steady_validations: The steady ones of those.
        steady: The steady epochs, those with a gap included.
        left_out: How many epochs are not steady, and why.
        idle_before: The machine waiting before the run, the GPU without this process's context;
            ``None`` if that was not measured, as the next two.
        idle_in_context: The same before data flow, with the context.
        idle_after: The same after the run.
        idle_once: Whether the second alone was meant to be measured.
        boards: The boards measured.
        power_limits_w: The power that each is held to; NaN if it does not tell.
        min_window_s: Shortest steady window to trust.
        device_mismatch: How the GPUs of TensorFlow and NVML differ; empty if they agree.
    """

    validations: tuple[Epoch, ...]
    steady_validations: tuple[Epoch, ...]
    steady: tuple[Epoch, ...]
    left_out: str
    idle_before: Idle | None
    idle_in_context: Idle | None
    idle_after: Idle | None
    idle_once: bool
    boards: tuple[Board, ...]
    min_window_s: float
    power_limits_w: tuple[float, ...]
    device_mismatch: str

    @property
    def declared(self) -> tuple[Epoch, ...]:
        """The epochs of the training itself."""
        return tuple(epoch for epoch in self.epochs if not epoch.further)

    @property
    def whole_steady(self) -> tuple[Epoch, ...]:
        """The steady epochs without a gap."""
        return tuple(epoch for epoch in self.steady if epoch.is_known)


@dataclass(frozen=True, kw_only=True)
class RunTrace:
    """The power that was sampled in a run.

    Attributes:
        start_s: When its measuring began, by the meter's clock.
        start_unix_s: The same in seconds since 1970.
        samples: Of the boards, in the order of the marks', and of the CPU if it has counters.
        spans: Name, beginning and end of each phase, epoch, validation and wait; they nest.
    """

    start_s: float
    start_unix_s: float
    samples: tuple[PowerSamples, ...]
    spans: tuple[tuple[str, Mark, Mark], ...]


def per_epoch(blocks: Iterable[Epoch]) -> tuple[float, float]:
    """Return joules and seconds for the work of a whole epoch; NaN without any block.

    A board always draws power: where the blocks were shorter than the period of its counter, which
    says 0 J, the joules are not known.
    """
    found = tuple(blocks)
    work = sum(block.work for block in found) or NAN
    return (
        (sum(block.reading.energy_j for block in found) or NAN) / work,
        sum(block.reading.seconds for block in found) / work,
    )


def mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are known; NaN if none is."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else NAN
