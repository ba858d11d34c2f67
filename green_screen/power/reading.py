"""What a window of measuring says: plain numbers with their units, their source and their error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from green_screen import names

NAN = math.nan


@dataclass(frozen=True, kw_only=True)
class DeviceReading:
    """One board over one window; NaN where the board does not tell.

    Attributes:
        device: The board in words.
        seconds: Length of the window.
        energy_j: By the counter, or else by the integral.
        counter_j: Difference of the energy counter between the window's edges.
        integral_j: Integral of sampled power over the window, by the trapezoid rule.
        integral_reason: Why `integral_j` is missing; empty if it is not.
        lag_j: How far `integral_j` can be off because a power reading is the mean of the time
            before it: the change of power between the edges, times that time.
        resolution_j: How far `energy_j` can be off for the coarseness of its source.
        source: ``nvml_counter``, ``nvml_power`` or ``none``.
        reason: Why `energy_j` is missing or not by the counter; empty if it is.
        max_power_w: Highest sampled power.
        temperature_c: Mean over the window, as are the next four.
        utilization_percent: Share of time with a kernel running.
        sm_clock_mhz: Clock of the multiprocessors.
        memory_clock_mhz: Clock of the memory.
        busy_sm_clock_mhz: Clock of the multiprocessors in the readings that did not find the board
            idle.
        power_capped: Share of those readings in which the power limit held the clock.
        memory_used_mib: Highest memory in use by all processes.
        processes: Most processes seen with a compute context on the board.
        throttled: Reason -> share of the status readings that gave it; ``None`` if none could be
            read.
        status_reason: Why readings from temperature on are missing; empty if none is.
    """

    device: str
    seconds: float
    energy_j: float
    counter_j: float
    integral_j: float
    integral_reason: str
    lag_j: float
    resolution_j: float
    source: str
    reason: str
    max_power_w: float
    temperature_c: float
    utilization_percent: float
    sm_clock_mhz: float
    memory_clock_mhz: float
    busy_sm_clock_mhz: float
    power_capped: float
    memory_used_mib: float
    processes: float
    throttled: Mapping[str, float] | None
    status_reason: str

    @property
    def disagreement(self) -> float:
        """``|counter_j - integral_j| / counter_j``."""
        return abs(self.counter_j - self.integral_j) / self.counter_j if self.counter_j else NAN

    @property
    def unexplained_disagreement(self) -> float:
        """The same, less what the counter's steps and the lag of the power reading explain."""
        if not self.counter_j or math.isnan(self.disagreement):
            return NAN
        explained_j = self.resolution_j + self.lag_j
        return max(0.0, self.disagreement - explained_j / self.counter_j)


@dataclass(frozen=True, kw_only=True)
class CarbonReading:
    """The whole machine over one window, mostly by CodeCarbon's models.

    Attributes:
        cpu_kwh: CPU energy; by RAPL where it can be read, else by a model of the load.
        gpu_kwh: GPU energy by NVML, read by CodeCarbon itself.
        ram_kwh: RAM energy, always by CodeCarbon's model of the installed memory.
        emissions_kg_co2eq: Emissions of what `covers` says, at the country's mean carbon intensity
            or the meter's own, times the meter's PUE.
        cpu_source: How the CPU's energy is known: ``rapl`` (measured), another counter that
            CodeCarbon names, ``codecarbon_estimate`` (a model) or ``none``.
        reason: Why figures are missing; empty if none is.
        dram_kwh: The memory's energy by RAPL, which few machines count.
        covers: Of which parts the energy is known: ``cpu``, ``memory``, ``gpu``.
        modelled: Whether CodeCarbon is installed.
    """

    cpu_kwh: float
    gpu_kwh: float
    ram_kwh: float
    emissions_kg_co2eq: float
    cpu_source: str
    reason: str
    dram_kwh: float = NAN
    covers: tuple[str, ...] = ()
    modelled: bool = True

    @property
    def machine_j(self) -> float:
        """CPU and memory in joules: what stands for the energy where there is no GPU.

        By CodeCarbon, an estimate. Without it by RAPL alone: of the CPU, and of the memory where
        that has a counter.
        """
        if self.modelled:
            return (self.cpu_kwh + self.ram_kwh) * 3.6e6
        return (self.cpu_kwh + (0.0 if math.isnan(self.dram_kwh) else self.dram_kwh)) * 3.6e6

    @property
    def machine_source(self) -> str:
        """What `machine_j` is by."""
        if self.modelled:
            return names.SOURCE_ESTIMATE
        return names.SOURCE_NONE if math.isnan(self.cpu_kwh) else names.SOURCE_RAPL


@dataclass(frozen=True, kw_only=True)
class EnergyReading:
    """The energy of one window.

    With GPUs the energies are those of the GPUs alone. Without one, `energy_j` is CodeCarbon's
    estimate for the CPU and RAM of the machine, and `source` says so; without CodeCarbon it is what
    RAPL counts.

    Attributes:
        name: The window's name.
        energy_j: Joules, by `source`; NaN if they could not be measured.
        counter_j: Joules by the boards' energy counters.
        integral_j: Joules by integrating sampled power.
        mean_power_w: `energy_j` over `seconds`.
        max_power_w: Sum of the boards' highest sampled powers.
        seconds: Length of the window.
        resolution_j: How far `energy_j` can be off for the coarseness of its source.
        source: ``nvml_counter``, ``nvml_power``, ``codecarbon_estimate``, ``rapl`` or ``none``.
        reason: Why `energy_j` is missing, or not by the best source; empty otherwise.
        devices: One reading a board.
        carbon: CPU, memory and emissions of the same window.
    """

    name: str
    energy_j: float
    counter_j: float
    integral_j: float
    mean_power_w: float
    max_power_w: float
    seconds: float
    resolution_j: float
    source: str
    reason: str
    devices: tuple[DeviceReading, ...]
    carbon: CarbonReading

    def __str__(self) -> str:
        """Return the energy, its source and the time in a line."""
        if math.isnan(self.energy_j):
            return f"{self.name}: energy not known in {self.seconds:.2f} s ({self.reason})"
        return (
            f"{self.name}: {self.energy_j:.1f} J in {self.seconds:.2f} s, "
            f"{self.mean_power_w:.1f} W ({self.source})"
        )

    @property
    def system_energy_j(self) -> float:
        """GPUs, CPU and memory in joules where counters measure all of them; NaN elsewhere."""
        if self.carbon.cpu_source != names.SOURCE_RAPL or self.source == names.SOURCE_NONE:
            return NAN
        gpu_j = sum(device.energy_j for device in self.devices)
        return gpu_j + (self.carbon.cpu_kwh + self.carbon.dram_kwh) * 3.6e6

    @property
    def disagreement(self) -> float:
        """Of counter and integral, as a fraction: the largest of the boards'."""
        return _max(device.disagreement for device in self.devices)

    @property
    def unexplained_disagreement(self) -> float:
        """The same, less what the steps of the one and the lag of the other explain."""
        return _max(device.unexplained_disagreement for device in self.devices)

    @property
    def integral_reason(self) -> str:
        """Why figures by sampled power are missing; empty if none is."""
        return self._reasons(device.integral_reason for device in self.devices)

    @property
    def status_reason(self) -> str:
        """Why figures from temperature to memory are missing; empty if none is."""
        return self._reasons(device.status_reason for device in self.devices)

    def _reasons(self, reasons: Iterable[str]) -> str:
        return _joined(reasons) if self.devices else self.reason

    @property
    def temperature_c(self) -> float:
        """Temperature of the hottest board, a mean over the window."""
        return _max(device.temperature_c for device in self.devices)

    @property
    def utilization_percent(self) -> float:
        """Mean utilization of the boards."""
        return _mean(device.utilization_percent for device in self.devices)

    @property
    def sm_clock_mhz(self) -> float:
        """Mean clock of the multiprocessors."""
        return _mean(device.sm_clock_mhz for device in self.devices)

    @property
    def busy_sm_clock_mhz(self) -> float:
        """The same in the readings that did not find the board idle."""
        return _mean(device.busy_sm_clock_mhz for device in self.devices)

    @property
    def power_capped(self) -> float:
        """Mean share of those readings in which the power limit held the clock."""
        return _mean(device.power_capped for device in self.devices)

    @property
    def memory_clock_mhz(self) -> float:
        """Mean clock of the memory."""
        return _mean(device.memory_clock_mhz for device in self.devices)

    @property
    def memory_used_mib(self) -> float:
        """Memory in use on all boards."""
        return sum(device.memory_used_mib for device in self.devices) if self.devices else NAN


def machine_reading(
    name: str, seconds: float, carbon: CarbonReading, reason: str, *, uses_gpu: bool
) -> EnergyReading:
    """Return the reading of a machine of which no GPU is measured.

    Args:
        name: The window's name.
        seconds: Its length.
        carbon: What is known of it.
        reason: Why no GPU is measured.
        uses_gpu: Whether one is used all the same: then an estimate of CPU and RAM is not the
            energy, and that is missing.
    """
    energy_j = NAN if uses_gpu else carbon.machine_j
    if math.isnan(energy_j) and not uses_gpu:
        reason = f"{reason}; {carbon.reason}"
    return EnergyReading(
        name=name,
        energy_j=energy_j,
        counter_j=NAN,
        integral_j=NAN,
        mean_power_w=energy_j / seconds if seconds > 0 else NAN,
        max_power_w=NAN,
        seconds=seconds,
        resolution_j=NAN,
        source=names.SOURCE_NONE if uses_gpu else carbon.machine_source,
        reason=reason,
        devices=(),
        carbon=carbon,
    )


def devices_reading(
    name: str, seconds: float, devices: tuple[DeviceReading, ...], carbon: CarbonReading
) -> EnergyReading:
    """Add up the boards; one that is missing makes the sum missing."""
    energy_j = sum(device.energy_j for device in devices)
    counter_j = sum(device.counter_j for device in devices)
    integral_j = sum(device.integral_j for device in devices)
    # The sum is only as good as its worst part.
    by_worst = (names.SOURCE_NONE, names.SOURCE_POWER, names.SOURCE_COUNTER)
    source = min((device.source for device in devices), key=by_worst.index)
    return EnergyReading(
        name=name,
        energy_j=energy_j,
        counter_j=counter_j,
        integral_j=integral_j,
        mean_power_w=energy_j / seconds if seconds > 0 else NAN,
        max_power_w=sum(device.max_power_w for device in devices),
        seconds=seconds,
        resolution_j=sum(device.resolution_j for device in devices),
        source=source,
        reason=_joined(device.reason for device in devices),
        devices=devices,
        carbon=carbon,
    )


def _joined(reasons: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def _max(values: Iterable[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=NAN)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else NAN
