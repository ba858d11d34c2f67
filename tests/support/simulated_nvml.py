"""Simulated boards behind the functions of ``pynvml``, with physics: tests need no GPU.

A board draws power along a known curve. What NVML would show of it follows from the curve: a power
reading that averages the time before it, an energy counter that moves every 100 ms, and whatever
can go wrong: a lost device, a restarted driver, a counter that wraps, readings that are refused.
The truth of a window is ``board.curve.energy_j(t1) - board.curve.energy_j(t0)``.

In this process::

    with simulated(Simulation(boards=[SimulatedBoard(curve=Constant(150.0))])) as simulation:
        ...

In child processes too (they must start a fresh interpreter: ``subprocess``, or a fork server that
is started after this)::

    environment = child_environment(simulation, tmp_path)
    subprocess.run([...], env={**os.environ, **environment})      # or monkeypatch.setenv for each

The child's interpreter then installs the same boards before any other code runs. TensorFlow cannot
see them, so ``green_screen.measurement.used_gpus.tensorflow_gpus`` is made to answer with those
that ``CUDA_VISIBLE_DEVICES`` shows the child. The clock is ``time.perf_counter``, which Linux
counts from boot for all processes: parent and children see a board at the same point of its curve.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pynvml

from green_screen.power import driver

VARIABLE = "SIMULATED_NVML"
T = TypeVar("T")


@dataclass
class Constant:
    """The same power always."""

    watts: float

    def energy_j(self, t: float) -> float:
        return self.watts * t


@dataclass
class Bursts:
    """`high_w` for `burst_s` at the start of every `period_s`, else `low_w`."""

    low_w: float
    high_w: float
    burst_s: float
    period_s: float

    def energy_j(self, t: float) -> float:
        periods, rest_s = divmod(t, self.period_s)
        high_s = periods * self.burst_s + min(rest_s, self.burst_s)
        return self.low_w * t + (self.high_w - self.low_w) * high_s


@dataclass
class Steps:
    """`first_w`, then each (time, watts) from its time on. May be added to while it runs."""

    first_w: float
    changes: list[tuple[float, float]] = field(default_factory=list)

    def energy_j(self, t: float) -> float:
        energy_j, at_s, watts = 0.0, 0.0, self.first_w
        for change_s, next_w in self.changes:
            if change_s >= t:
                break
            energy_j += watts * (change_s - at_s)
            at_s, watts = change_s, next_w
        return energy_j + watts * (t - at_s)


@dataclass
class Ramp:
    """`first_w` at time `start_s`, and so much more each second."""

    first_w: float
    slope_w_per_s: float
    start_s: float

    def energy_j(self, t: float) -> float:
        return self.first_w * t + self.slope_w_per_s * (t - self.start_s) ** 2 / 2

    def power_w(self, t: float) -> float:
        return self.first_w + self.slope_w_per_s * (t - self.start_s)


Curve = Constant | Bursts | Steps | Ramp
_CURVES = {cls.__name__: cls for cls in (Constant, Bursts, Steps, Ramp)}


@dataclass
class SimulatedBoard:
    """One board and what can be wrong with it.

    Attributes:
        curve: Power over time.
        averaging_s: How much of the time before a power reading it is the mean of: 1.0 for Ampere
            and newer.
        instant_averaging_s: The same of a reading of this moment; ``None`` where the board has
            none.
        update_s: How often counter and power reading are renewed.
        unsupported: Names of pynvml functions that answer "not supported".
        denied: Names of pynvml functions that answer "no permission".
        lost: Times (from, to) in which every reading fails; the handle works again afterwards.
        driver_restarts: Times (from, to) without a driver: old handles are dead afterwards and the
            counter begins anew.
        counter_modulus_mj: Where the counter wraps.
        counter_start_j: What the counter shows at time 0.
        mig: Identifiers of the MIG instances; with any, MIG is on.
        processes: Process ids with a context.
        reset_required: Whether it answers nothing until it is reset.
    """

    curve: Curve = field(default_factory=lambda: Constant(100.0))
    name: str = "NVIDIA Simulated"
    uuid: str = ""
    pci_bus_id: str = ""
    averaging_s: float = 1.0
    instant_averaging_s: float | None = 0.025
    update_s: float = 0.1
    unsupported: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    lost: tuple[tuple[float, float], ...] = ()
    driver_restarts: tuple[tuple[float, float], ...] = ()
    counter_modulus_mj: int = 2**64
    counter_start_j: float = 0.0
    mig: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()
    temperature_c: int = 35
    utilization_percent: int = 90
    sm_clock_mhz: int = 1980
    memory_clock_mhz: int = 3201
    memory_used_mib: int = 1024
    throttle_mask: int = 0
    power_limit_w: int = 700
    reset_required: bool = False

    def counter_mj(self, t: float) -> int:
        """Return what the counter shows."""
        restarted = [end for _, end in self.driver_restarts if end <= t]
        # Rounded, because 0.3 // 0.1 is 2 in floating point.
        updated_s = int(round(t / self.update_s, 6)) * self.update_s
        energy_j = self.counter_start_j + self.curve.energy_j(updated_s)
        if restarted:
            energy_j = self.curve.energy_j(updated_s) - self.curve.energy_j(restarted[-1])
        return int(max(0.0, energy_j) * 1000) % self.counter_modulus_mj

    def reading_w(self, t: float, averaging_s: float | None = None) -> float:
        """Return the power that a reading shows."""
        averaging_s = self.averaging_s if averaging_s is None else averaging_s
        updated_s = int(round(t / self.update_s, 6)) * self.update_s
        start_s = max(0.0, updated_s - averaging_s)
        if updated_s <= start_s:
            return self.curve.energy_j(1e-3) / 1e-3
        return (self.curve.energy_j(updated_s) - self.curve.energy_j(start_s)) / (
            updated_s - start_s
        )

    def driver_loads(self, t: float) -> int:
        """Return how often the driver has been restarted."""
        return sum(1 for _, end in self.driver_restarts if end <= t)


def loaded_board(
    demand_w: float, *, limit_w: int = 700, locked_mhz: int = 1980, **options: Any
) -> SimulatedBoard:
    """Return a board under a load that would draw `demand_w` at its full clock of 1980 MHz.

    What it draws above its 100 W at rest grows with the third power of the clock, as the voltage
    follows that. Above the limit the board lowers the clock until the load fits, and says so; of a
    clock that somebody has locked it says nothing.
    """

    def draw_w(clock_mhz: float) -> float:
        return 100.0 + (demand_w - 100.0) * (clock_mhz / 1980) ** 3

    clock_mhz, mask = float(locked_mhz), 0
    if draw_w(clock_mhz) > limit_w:
        clock_mhz = 1980 * ((limit_w - 100.0) / (demand_w - 100.0)) ** (1 / 3)
        mask = pynvml.nvmlClocksThrottleReasonSwPowerCap
    return SimulatedBoard(
        curve=Constant(draw_w(clock_mhz)),
        sm_clock_mhz=round(clock_mhz),
        throttle_mask=mask,
        power_limit_w=limit_w,
        **options,
    )


class VirtualClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Edges:
    """The least and the most time that a window may hold: between its edges, and around them."""

    shortest_s: float = math.nan
    longest_s: float = math.nan

    def holds(self, energy_j: float, power_w: float, update_s: float = 0.1) -> bool:
        """Whether a counter, renewed every `update_s`, may have moved so much at this power."""
        least_s, most_s = self.shortest_s - update_s, self.longest_s + update_s
        return least_s * power_w - 0.01 <= energy_j <= most_s * power_w + 0.01


@contextmanager
def bracketed(window: AbstractContextManager[T]) -> Iterator[tuple[T, Edges]]:
    """Enter a window and measure around it what it may measure, on however slow a machine."""
    edges = Edges()
    before_s = time.perf_counter()
    with window as entered:
        begun_s = time.perf_counter()
        yield entered, edges
        edges.shortest_s = time.perf_counter() - begun_s
    edges.longest_s = time.perf_counter() - before_s


@dataclass
class Simulation:
    """The boards of a machine.

    A process that is forked has the connection of its parent, which does not work there: as NVML
    does, it answers "uninitialized" until the library has been ended as often as started.

    Attributes:
        boards: In NVML's order.
        clock: Seconds.
        library_missing: Whether there is no NVML.
        device_files: What the driver shows under /dev.
        calls: How often each reading was asked for.
        starts: How often the library was started, less how often it was ended.
    """

    boards: list[SimulatedBoard] = field(default_factory=lambda: [SimulatedBoard()])
    clock: Callable[[], float] = time.perf_counter
    library_missing: bool = False
    device_files: tuple[str, ...] = ()
    calls: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    # How often each board's driver had been loaded when NVML was last started anew.
    _loads: dict[str, int] = field(default_factory=dict)
    _connected_pid: int = 0

    def __post_init__(self) -> None:
        for index, board in enumerate(self.boards):
            board.uuid = board.uuid or f"GPU-{index:08x}-1111-2222-3333-444455556666"
            board.pci_bus_id = board.pci_bus_id or f"00000000:{index + 0x10:02X}:00.0"

    def to_json(self) -> str:
        boards = []
        for board in self.boards:
            content = dataclasses.asdict(board)
            content["curve"] = {
                "kind": type(board.curve).__name__,
                **dataclasses.asdict(board.curve),
            }
            boards.append(content)
        return json.dumps(
            {
                "boards": boards,
                "library_missing": self.library_missing,
                "device_files": self.device_files,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Simulation:
        content = json.loads(text)
        boards = []
        for board in content["boards"]:
            curve = board.pop("curve")
            board = {k: _tuples(v) for k, v in board.items()}
            boards.append(SimulatedBoard(curve=_CURVES[curve.pop("kind")](**curve), **board))
        return cls(
            boards=boards,
            library_missing=content["library_missing"],
            device_files=tuple(content["device_files"]),
        )

    # What pynvml's functions answer. A handle is (uuid, loads of the driver when NVML was started).
    # NVML counts its starts: only the first connects to the driver, and only as many ends as there
    # were starts disconnect.

    def nvmlInit(self) -> None:  # noqa: N802
        if self.library_missing:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        if self.starts == 0:
            now = self.clock()
            for board in self.boards:
                if any(start <= now < end for start, end in board.driver_restarts):
                    raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
            self._loads = {board.uuid: board.driver_loads(now) for board in self.boards}
            self._connected_pid = os.getpid()
        self.starts += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        if self.starts == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        self.starts -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._require_start()
        return "580.0.0"

    def nvmlDeviceGetPersistenceMode(self, handle: tuple[str, int]) -> int:  # noqa: N802
        self._board(handle, "nvmlDeviceGetPersistenceMode")
        return int(pynvml.NVML_FEATURE_ENABLED)

    def nvmlDeviceGetMaxClockInfo(self, handle: tuple[str, int], kind: int) -> int:  # noqa: N802
        return self.nvmlDeviceGetClockInfo(handle, kind)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._require_start()
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> tuple[str, int]:  # noqa: N802
        if index >= len(self.boards):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self.nvmlDeviceGetHandleByUUID(self.boards[index].uuid)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> tuple[str, int]:  # noqa: N802
        self._require_start()
        now = self.clock()
        for board in self.boards:
            if board.uuid == uuid:
                if any(start <= now < end for start, end in board.lost):
                    raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
                if board.reset_required:
                    raise pynvml.NVMLError(pynvml.NVML_ERROR_RESET_REQUIRED)
                if self._loads[uuid] != board.driver_loads(now):
                    raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
                return uuid, self._loads[uuid]
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, handle: tuple[str, int]) -> str:  # noqa: N802
        return handle[0]

    def nvmlDeviceGetName(self, handle: tuple[str, int]) -> str:  # noqa: N802
        return self._board(handle, "nvmlDeviceGetName").name

    def nvmlDeviceGetPciInfo(self, handle: tuple[str, int]) -> Any:  # noqa: N802
        return SimpleNamespace(busId=self._board(handle, "nvmlDeviceGetPciInfo").pci_bus_id)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: tuple[str, int]) -> int:  # noqa: N802
        board = self._board(handle, "nvmlDeviceGetTotalEnergyConsumption")
        return board.counter_mj(self.clock())

    def nvmlDeviceGetPowerUsage(self, handle: tuple[str, int]) -> int:  # noqa: N802
        board = self._board(handle, "nvmlDeviceGetPowerUsage")
        return round(board.reading_w(self.clock()) * 1000)

    def nvmlDeviceGetFieldValues(  # noqa: N802
        self, handle: tuple[str, int], fields: list[int]
    ) -> list[Any]:
        assert fields == [pynvml.NVML_FI_DEV_POWER_INSTANT]
        board = self._board(handle, "nvmlDeviceGetFieldValues")
        if board.instant_averaging_s is None:
            return [SimpleNamespace(nvmlReturn=pynvml.NVML_ERROR_NOT_SUPPORTED)]
        reading_w = board.reading_w(self.clock(), board.instant_averaging_s)
        value = SimpleNamespace(uiVal=round(reading_w * 1000))
        return [SimpleNamespace(nvmlReturn=pynvml.NVML_SUCCESS, value=value)]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: tuple[str, int]) -> int:  # noqa: N802
        return self._board(handle, "nvmlDeviceGetEnforcedPowerLimit").power_limit_w * 1000

    def nvmlDeviceGetTemperature(self, handle: tuple[str, int], sensor: int) -> int:  # noqa: N802
        return self._board(handle, "nvmlDeviceGetTemperature").temperature_c

    def nvmlDeviceGetUtilizationRates(self, handle: tuple[str, int]) -> Any:  # noqa: N802
        board = self._board(handle, "nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=board.utilization_percent, memory=0)

    def nvmlDeviceGetClockInfo(self, handle: tuple[str, int], kind: int) -> int:  # noqa: N802
        board = self._board(handle, "nvmlDeviceGetClockInfo")
        return board.sm_clock_mhz if kind == pynvml.NVML_CLOCK_SM else board.memory_clock_mhz

    def nvmlDeviceGetMemoryInfo(self, handle: tuple[str, int]) -> Any:  # noqa: N802
        used = self._board(handle, "nvmlDeviceGetMemoryInfo").memory_used_mib * 2**20
        return SimpleNamespace(total=80 * 2**30, used=used, free=80 * 2**30 - used)

    def nvmlDeviceGetCurrentClocksThrottleReasons(  # noqa: N802
        self, handle: tuple[str, int]
    ) -> int:
        return self._board(handle, "nvmlDeviceGetCurrentClocksThrottleReasons").throttle_mask

    def nvmlDeviceGetComputeRunningProcesses(  # noqa: N802
        self, handle: tuple[str, int]
    ) -> list[Any]:
        board = self._board(handle, "nvmlDeviceGetComputeRunningProcesses")
        return [SimpleNamespace(pid=pid, usedGpuMemory=2**20) for pid in board.processes]

    def nvmlDeviceGetArchitecture(self, handle: tuple[str, int]) -> int:  # noqa: N802
        self._board(handle, "nvmlDeviceGetArchitecture")
        return pynvml.NVML_DEVICE_ARCH_HOPPER

    def nvmlDeviceGetC2cModeInfoV(self, handle: tuple[str, int]) -> Any:  # noqa: N802
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetMigMode(self, handle: tuple[str, int]) -> list[int]:  # noqa: N802
        on = bool(self._board(handle, "nvmlDeviceGetMigMode").mig)
        return [int(on), int(on)]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: tuple[str, int]) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802
        self, handle: tuple[str, int], slot: int
    ) -> tuple[str, int]:
        instances = self._board(handle, "nvmlDeviceGetMigDeviceHandleByIndex").mig
        if slot >= len(instances):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return instances[slot], handle[1]

    def _require_start(self) -> None:
        if self.starts == 0 or self._connected_pid != os.getpid():
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    def _board(self, handle: tuple[str, int], function: str) -> SimulatedBoard:
        """Return the board of a handle, or fail as it would."""
        self.calls[function] = self.calls.get(function, 0) + 1
        now = self.clock()
        uuid, loads = handle
        (board,) = (b for b in self.boards if b.uuid == uuid)
        if any(start <= now < end for start, end in (*board.lost, *board.driver_restarts)):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        self._require_start()
        if loads != board.driver_loads(now):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        if function in board.unsupported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        if function in board.denied:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        return board


_FUNCTIONS = tuple(name for name in vars(Simulation) if name.startswith("nvml"))


def install(simulation: Simulation) -> dict[str, Any]:
    """Put the simulation behind pynvml and return what was there before."""
    before = {name: getattr(pynvml, name) for name in _FUNCTIONS}
    for name in _FUNCTIONS:
        setattr(pynvml, name, getattr(simulation, name))
    driver.device_files = lambda: list(simulation.device_files)
    return before


@contextmanager
def simulated(simulation: Simulation) -> Iterator[Simulation]:
    """Have the simulation behind pynvml while the block runs."""
    device_files = driver.device_files
    before = install(simulation)
    driver._handles.clear()
    try:
        yield simulation
    finally:
        driver._handles.clear()
        for name, function in before.items():
            setattr(pynvml, name, function)
        driver.device_files = device_files


def child_environment(simulation: Simulation, folder: Path) -> Mapping[str, str]:
    """Return the variables that make child processes see the simulation.

    `folder` is filled with a ``sitecustomize`` that installs the boards and an ``nvidia-smi`` that
    does nothing: CodeCarbon takes it as the sign of a GPU.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import simulated_nvml\nsimulated_nvml.install_from_environment()\n", encoding="utf-8"
    )
    command = folder / "nvidia-smi"
    command.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    command.chmod(0o755)
    here = Path(__file__).resolve().parent
    paths = [str(folder), str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    return {
        VARIABLE: simulation.to_json(),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def install_from_environment() -> None:
    """Install what :func:`child_environment` describes; called by the child's interpreter."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return
    install(Simulation.from_json(text))
    import wrapt

    wrapt.register_post_import_hook(_see_simulated_gpus, "green_screen.measurement.used_gpus")


def _see_simulated_gpus(used_gpus: Any) -> None:
    used_gpus.tensorflow_gpus = lambda: tuple(range(len(used_gpus.visible_boards())))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
