"""The NVIDIA boards of the machine, read through NVML.

Milliwatts and millijoules become W and J here, once. Every error of the library becomes a
:class:`NvmlError` that says which reading failed and why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from green_screen.power import driver
from green_screen.power.driver import NoBoardsError, NvmlError

__all__ = [
    "Board",
    "Listing",
    "NoBoardsError",
    "NvmlError",
    "Status",
    "driver_version",
    "list_boards",
]

T = TypeVar("T")

logger = logging.getLogger(__name__)

# A counter is said to update every 100 ms, which was measured on an H200; NVML documents no period.
COUNTER_UPDATE_S = 0.1

# Since Ampere (GA100 apart) the power reading is the mean of the last second
# (documentation of nvmlDeviceGetPowerUsage).
POWER_AVERAGING_S = 1.0

# Reasons that hold the clocks below what the load asks for because the board or its surroundings
# cannot take it (bits of nvmlClocksEventReasons). The software power cap is not among them: running
# at the power limit is how a board is meant to run under full load.
THROTTLE_REASONS: dict[int, str] = {
    0x08: "hardware slowdown",
    0x40: "hardware thermal slowdown",
    0x20: "software thermal slowdown",
    0x80: "power brake",
}
# What the load itself does to the clocks: held by the power limit, or dropping for want of work.
POWER_CAP, IDLE = "power cap", "idle"
LOAD_REASONS: dict[int, str] = {0x04: POWER_CAP, 0x01: IDLE}
_CLOCK_REASONS = THROTTLE_REASONS | LOAD_REASONS


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a board tells beside power; NaN where it does not tell.

    Attributes:
        temperature_c: Temperature of the GPU in degrees Celsius.
        utilization_percent: Share of the last sample period with a kernel running.
        sm_clock_mhz: Clock of the multiprocessors.
        memory_clock_mhz: Clock of the memory.
        memory_used_mib: Memory in use by all processes.
        clock_reasons: Why the clocks are not higher (values of :data:`THROTTLE_REASONS` and of
            :data:`LOAD_REASONS`); ``None`` if that could not be read.
        processes: How many processes have a compute context on the board.
        reason: Why readings are missing; empty if none is.
    """

    temperature_c: float
    utilization_percent: float
    sm_clock_mhz: float
    memory_clock_mhz: float
    memory_used_mib: float
    clock_reasons: frozenset[str] | None
    processes: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Board:
    """One physical GPU.

    Attributes:
        index: Its place in NVML's order, which is the order of PCI bus ids.
        uuid: NVML's ``GPU-...`` identifier.
        pci_bus_id: Such as ``00000000:3B:00.0``.
        name: The product's name.
        mig_uuid: The MIG instance that the process uses of it, if any. An instance has no power
            reading of its own, so that all readings are those of the whole board.
        instances: The ``MIG-...`` identifiers of all instances on the board, in NVML's order;
            empty without MIG.
    """

    index: int
    uuid: str
    pci_bus_id: str
    name: str
    mig_uuid: str | None = None
    instances: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The board in words, with what its readings cover."""
        if self.mig_uuid is None:
            return f"{self.name} ({self.uuid})"
        return f"{self.name} ({self.uuid}), parent board of {self.mig_uuid}"

    def energy_j(self) -> float:
        """Return the energy counter in joules since the driver was loaded (Volta and newer).

        Raises:
            NvmlError: The board has no counter, is lost, or may not be read.
        """
        return self._number("energy counter", "nvmlDeviceGetTotalEnergyConsumption") / 1000.0

    def power_w(self) -> float:
        """Return the power draw in watts.

        Raises:
            NvmlError: The board has no power reading, is lost, or may not be read.
        """
        return self._number("power", "nvmlDeviceGetPowerUsage") / 1000.0

    def instant_power_w(self) -> float:
        """Return the power draw of this moment in watts, where :meth:`power_w` is a mean.

        Boards with a Hopper chip look at 25 ms of every 100 ms (Yang et al. 2023,
        arXiv:2312.02741): a steady power is read right, a varying one in part.

        Raises:
            NvmlError: The board or its driver does not tell it apart, is lost, or may not be read.
        """

        def read(nvml: Any, handle: Any) -> int:
            (field,) = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_POWER_INSTANT])
            if field.nvmlReturn != nvml.NVML_SUCCESS:
                raise nvml.NVMLError(field.nvmlReturn)
            if not field.value.uiVal:  # no board draws nothing
                raise nvml.NVMLError(nvml.NVML_ERROR_NO_DATA)
            return int(field.value.uiVal)

        return self._read("power of this moment", read) / 1000.0

    def status(self) -> Status:
        """Return the readings beside power; those that fail are missing, with the reason."""
        errors: list[str] = []

        def number(what: str, read: Callable[[Any, Any], float]) -> float:
            try:
                return float(self._read(what, read))
            except NvmlError as error:
                errors.append(str(error))
                return math.nan

        mask = number(
            "throttle reasons",
            lambda nvml, handle: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        )
        return Status(
            temperature_c=number(
                "temperature",
                lambda nvml, handle: nvml.nvmlDeviceGetTemperature(
                    handle, nvml.NVML_TEMPERATURE_GPU
                ),
            ),
            utilization_percent=number(
                "utilization", lambda nvml, handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu
            ),
            sm_clock_mhz=number(
                "SM clock",
                lambda nvml, handle: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            ),
            memory_clock_mhz=number(
                "memory clock",
                lambda nvml, handle: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM),
            ),
            memory_used_mib=number(
                "memory", lambda nvml, handle: nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20
            ),
            clock_reasons=None
            if math.isnan(mask)
            else frozenset(name for bit, name in _CLOCK_REASONS.items() if int(mask) & bit),
            processes=number(
                "processes",
                lambda nvml, handle: len(nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
            ),
            reason="; ".join(errors),
        )

    def power_limit_w(self) -> float:
        """Return the power that the board is held to, in watts.

        Raises:
            NvmlError: The board does not tell.
        """
        return self._number("power limit", "nvmlDeviceGetEnforcedPowerLimit") / 1000.0

    def persistence_mode(self) -> bool | None:
        """Return whether the driver stays loaded between processes; ``None`` if it does not say."""
        try:
            mode = self._number("persistence mode", "nvmlDeviceGetPersistenceMode")
        except NvmlError:
            return None
        return mode == 1  # NVML_FEATURE_ENABLED

    def max_sm_clock_mhz(self) -> float:
        """Return the highest clock of the multiprocessors; NaN if the board does not tell."""
        try:
            return float(
                self._read(
                    "highest SM clock",
                    lambda nvml, handle: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
                )
            )
        except NvmlError:
            return math.nan

    def _number(self, what: str, function: str) -> float:
        return float(self._read(what, lambda nvml, handle: getattr(nvml, function)(handle)))

    def _read(self, what: str, read: Callable[[Any, Any], T]) -> T:
        nvml = driver.library()
        try:
            return read(nvml, driver.handle(nvml, self.uuid))
        except nvml.NVMLError as error:
            if isinstance(error, (nvml.NVMLError_Uninitialized, nvml.NVMLError_DriverNotLoaded)):
                driver.disconnect(nvml)
            # A board that refuses a reading is there all the same.
            elif not isinstance(error, (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission)):
                driver.forget(self.uuid)
            raise NvmlError(f"{what} of {self.name} ({self.uuid}): {error}") from error


@dataclass(frozen=True)
class Listing:
    """What NVML shows of the machine.

    Attributes:
        boards: Those it describes, in its order, which is that of their bus ids.
        failures: Why it describes others not, in words.
    """

    boards: tuple[Board, ...]
    failures: tuple[str, ...] = ()


def list_boards() -> Listing:
    """Return all boards of the machine.

    Where NVML is connected and yet not (a child that was forked has its parent's connection, a
    restarted driver has cut it), it is connected anew.

    Raises:
        NoBoardsError: The library is missing or no driver is loaded, and no board is to be seen.
        NvmlError: The library does not answer, or does not describe a single one of the boards.
    """
    nvml = driver.library()
    try:
        try:
            listing = _list(nvml)
        except nvml.NVMLError_Uninitialized:
            driver.disconnect(nvml)
            listing = _list(nvml)
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded) as error:
        raise driver.unlisted(error) from error
    except nvml.NVMLError as error:
        raise NvmlError(f"NVML cannot list the GPUs: {error}") from error
    for failure in listing.failures:
        logger.warning("%s", failure)
    if listing.failures and not listing.boards:
        raise NvmlError("; ".join(listing.failures))
    return listing


def driver_version() -> str:
    """Return the version of the NVIDIA driver.

    Raises:
        NvmlError: NVML is not there.
    """
    nvml = driver.library()
    try:
        nvml.nvmlInit()
        return str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError as error:
        raise NvmlError(f"NVML does not tell the driver's version: {error}") from error


def _list(nvml: Any) -> Listing:
    nvml.nvmlInit()
    found: list[Board] = []
    failures: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            found.append(_board(nvml, index))
        except nvml.NVMLError_Uninitialized:
            raise
        except nvml.NVMLError as error:
            failures.append(f"GPU {index} is left out, NVML cannot describe it: {error}")
    return Listing(tuple(found), tuple(failures))


def _board(nvml: Any, index: int) -> Board:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return Board(
        index=index,
        uuid=nvml.nvmlDeviceGetUUID(handle),
        pci_bus_id=nvml.nvmlDeviceGetPciInfo(handle).busId,
        name=nvml.nvmlDeviceGetName(handle),
        instances=_instances(nvml, handle),
    )


def _instances(nvml: Any, handle: Any) -> tuple[str, ...]:
    try:
        current, _ = nvml.nvmlDeviceGetMigMode(handle)
    except nvml.NVMLError_Uninitialized:
        raise
    except nvml.NVMLError:
        return ()  # boards and drivers without MIG say so in several ways
    if current != nvml.NVML_DEVICE_MIG_ENABLE:
        return ()
    found = []
    for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
        except nvml.NVMLError_NotFound:
            continue
        found.append(nvml.nvmlDeviceGetUUID(instance))
    return tuple(found)
