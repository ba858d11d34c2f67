"""The NVIDIA boards that this process may use, read through NVML.

The only module that imports ``pynvml``: milliwatts and millijoules become W and J here, once. Every
error of the library becomes a :class:`NvmlError` that says which reading failed and why.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

T = TypeVar("T")

logger = logging.getLogger(__name__)

# A counter is said to update every 100 ms, which was measured on an H200; NVML documents no period.
COUNTER_UPDATE_S = 0.1

# Since Ampere (GA100 apart) the power reading is the mean of the last second
# (documentation of nvmlDeviceGetPowerUsage).
POWER_AVERAGING_S = 1.0

# Reasons that hold the clocks below what the load asks for because the board or its surroundings
# cannot take it. The software power cap is not among them: running at the power limit is how a
# board is meant to run under full load.
THROTTLE_REASONS: dict[int, str] = {
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hardware slowdown",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "hardware thermal slowdown",
    pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "software thermal slowdown",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake",
}
# What the load itself does to the clocks: held by the power limit, or dropping for want of work.
POWER_CAP, IDLE = "power cap", "idle"
LOAD_REASONS: dict[int, str] = {
    pynvml.nvmlClocksThrottleReasonSwPowerCap: POWER_CAP,
    pynvml.nvmlClocksThrottleReasonGpuIdle: IDLE,
}
_CLOCK_REASONS = THROTTLE_REASONS | LOAD_REASONS


class NvmlError(RuntimeError):
    """NVML could not be started or a reading failed; the text says which and why."""


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
        mig_instances: How many MIG instances share the board; 0 without MIG.
    """

    index: int
    uuid: str
    pci_bus_id: str
    name: str
    mig_uuid: str | None = None
    mig_instances: int = 0

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
        read = pynvml.nvmlDeviceGetTotalEnergyConsumption
        return float(self._read("energy counter", read)) / 1000.0

    def power_w(self) -> float:
        """Return the power draw in watts.

        Raises:
            NvmlError: The board has no power reading, is lost, or may not be read.
        """
        return float(self._read("power", pynvml.nvmlDeviceGetPowerUsage)) / 1000.0

    def status(self) -> Status:
        """Return the readings beside power; those that fail are missing, with the reason."""
        errors: list[str] = []

        def number(what: str, read: Callable[[Any], float]) -> float:
            try:
                return float(self._read(what, read))
            except NvmlError as error:
                errors.append(str(error))
                return math.nan

        mask = number("throttle reasons", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        return Status(
            temperature_c=number(
                "temperature",
                lambda handle: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            ),
            utilization_percent=number(
                "utilization", lambda handle: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
            ),
            sm_clock_mhz=number(
                "SM clock",
                lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            ),
            memory_clock_mhz=number(
                "memory clock",
                lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            ),
            memory_used_mib=number(
                "memory", lambda handle: pynvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20
            ),
            clock_reasons=None
            if math.isnan(mask)
            else frozenset(name for bit, name in _CLOCK_REASONS.items() if int(mask) & bit),
            processes=number(
                "processes",
                lambda handle: len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)),
            ),
            reason="; ".join(errors),
        )

    def power_limit_w(self) -> float:
        """Return the power that the board is held to, in watts.

        Raises:
            NvmlError: The board does not tell.
        """
        return float(self._read("power limit", pynvml.nvmlDeviceGetEnforcedPowerLimit)) / 1000.0

    def persistence_mode(self) -> bool | None:
        """Return whether the driver stays loaded between processes; ``None`` if it does not say."""
        try:
            mode = self._read("persistence mode", pynvml.nvmlDeviceGetPersistenceMode)
        except NvmlError:
            return None
        return bool(mode == pynvml.NVML_FEATURE_ENABLED)

    def max_sm_clock_mhz(self) -> float:
        """Return the highest clock of the multiprocessors; NaN if the board does not tell."""
        try:
            return float(
                self._read(
                    "highest SM clock",
                    lambda handle: pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM),
                )
            )
        except NvmlError:
            return math.nan

    def _read(self, what: str, read: Callable[[Any], T]) -> T:
        try:
            return read(_handle(self.uuid))
        except pynvml.NVMLError as error:
            if isinstance(error, _DRIVER_GONE):
                _disconnect()
            elif not isinstance(error, _REFUSALS):
                _forget(self.uuid)
            raise NvmlError(f"{what} of {self.name} ({self.uuid}): {error}") from error


# A board that refuses a reading is there all the same.
_REFUSALS = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission)
_DRIVER_GONE = (pynvml.NVMLError_Uninitialized, pynvml.NVMLError_DriverNotLoaded)

# More often than any process starts the library; only there to end the loop.
_MAX_STARTS = 10_000

_lock = threading.Lock()
_handles: dict[str, Any] = {}


def _handle(uuid: str) -> Any:
    """Return NVML's handle of a board, kept until a reading fails."""
    with _lock:
        if uuid not in _handles:
            pynvml.nvmlInit()
            _handles[uuid] = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return _handles[uuid]


def _forget(uuid: str) -> None:
    """Have the next reading of a board ask for a new handle."""
    with _lock:
        _handles.pop(uuid, None)


def _disconnect() -> None:
    """End the connection to a driver that is gone: the next reading connects to the new one.

    NVML counts its starts and ignores all but the first, so it has to be ended as often, those
    that other code in this process has made included: their handles are dead all the same.
    """
    with _lock:
        _handles.clear()
        for _ in range(_MAX_STARTS):
            try:
                pynvml.nvmlShutdown()
            except pynvml.NVMLError:
                return


def boards() -> tuple[Board, ...]:
    """Return all boards of the machine, in NVML's order.

    Raises:
        NvmlError: The library is missing, the driver is not loaded, access is denied, or no board
            answers.
    """
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        raise NvmlError(f"NVML cannot list the GPUs: {error}") from error
    found: list[Board] = []
    failed: list[str] = []
    for index in range(count):
        try:
            found.append(_board(index))
        except pynvml.NVMLError as error:
            failed.append(f"GPU {index} is left out, NVML cannot describe it: {error}")
            logger.warning(failed[-1])
    if failed and not found:
        raise NvmlError("; ".join(failed))
    return tuple(found)


def driver_version() -> str:
    """Return the version of the NVIDIA driver.

    Raises:
        NvmlError: NVML is not there.
    """
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        raise NvmlError(f"NVML does not tell the driver's version: {error}") from error


def _board(index: int) -> Board:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return Board(
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        pci_bus_id=pynvml.nvmlDeviceGetPciInfo(handle).busId,
        name=pynvml.nvmlDeviceGetName(handle),
        mig_instances=len(_mig_uuids(handle)),
    )


def mig_uuids(board: Board) -> tuple[str, ...]:
    """Return the ``MIG-...`` identifiers of the instances on a board, in NVML's order."""
    try:
        return _mig_uuids(_handle(board.uuid))
    except pynvml.NVMLError as error:
        raise NvmlError(f"MIG instances of {board.name} ({board.uuid}): {error}") from error


def _mig_uuids(handle: Any) -> tuple[str, ...]:
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError:
        return ()  # boards and drivers without MIG say so in several ways
    if current != pynvml.NVML_DEVICE_MIG_ENABLE:
        return ()
    found = []
    for slot in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            instance = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot)
        except pynvml.NVMLError_NotFound:
            continue
        found.append(pynvml.nvmlDeviceGetUUID(instance))
    return tuple(found)
