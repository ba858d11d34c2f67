"""The NVIDIA boards that this process may use, read through NVML.

The only module that imports ``pynvml``: milliwatts and millijoules become W and J here, once. Every
error of the library becomes a :class:`NvmlError` that says which reading failed and why.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

T = TypeVar("T")

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
        throttle_reasons: Why the clocks are held down (values of :data:`THROTTLE_REASONS`).
    """

    temperature_c: float
    utilization_percent: float
    sm_clock_mhz: float
    memory_clock_mhz: float
    memory_used_mib: float
    throttle_reasons: frozenset[str]


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
        """Return the readings beside power; those that fail are NaN."""

        def number(read: Callable[[Any], float]) -> float:
            try:
                return float(self._read("status", read))
            except NvmlError:
                return math.nan

        try:
            mask = int(self._read("clocks", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons))
        except NvmlError:
            mask = 0
        return Status(
            temperature_c=number(
                lambda handle: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
            ),
            utilization_percent=number(
                lambda handle: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
            ),
            sm_clock_mhz=number(
                lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
            ),
            memory_clock_mhz=number(
                lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)
            ),
            memory_used_mib=number(
                lambda handle: pynvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20
            ),
            throttle_reasons=frozenset(
                name for bit, name in THROTTLE_REASONS.items() if mask & bit
            ),
        )

    def process_ids(self) -> tuple[int, ...]:
        """Return the ids of the processes with a compute context on the board.

        Inside a container the ids may be those of the host.

        Raises:
            NvmlError: The board is lost or may not be asked.
        """
        found = self._read("processes", pynvml.nvmlDeviceGetComputeRunningProcesses)
        return tuple(int(process.pid) for process in found)

    def _read(self, what: str, read: Callable[[Any], T]) -> T:
        try:
            return read(_handle(self.uuid))
        except pynvml.NVMLError as error:
            if not isinstance(error, _REFUSALS):
                # The handle may be that of a driver that is gone: the next reading gets a new one.
                _forget(self.uuid)
            raise NvmlError(f"{what} of {self.name} ({self.uuid}): {error}") from error


# A board that refuses a reading is there all the same.
_REFUSALS = (pynvml.NVMLError_NotSupported, pynvml.NVMLError_NoPermission)

_lock = threading.Lock()
_handles: dict[str, Any] = {}


def _handle(uuid: str) -> Any:
    """Return NVML's handle of a board, kept until :func:`_forget`."""
    with _lock:
        if uuid not in _handles:
            pynvml.nvmlInit()
            _handles[uuid] = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return _handles[uuid]


def _forget(uuid: str) -> None:
    with _lock:
        _handles.pop(uuid, None)


def boards() -> tuple[Board, ...]:
    """Return all boards of the machine, in NVML's order.

    Raises:
        NvmlError: The library is missing, the driver is not loaded, or access is denied.
    """
    try:
        pynvml.nvmlInit()
        found = [_board(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        raise NvmlError(f"NVML cannot list the GPUs: {error}") from error
    return tuple(board for board in found if board is not None)


def _board(index: int) -> Board | None:
    """Return a board, or ``None`` if it is lost: the others can be used all the same."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError_GpuIsLost:
        return None
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
