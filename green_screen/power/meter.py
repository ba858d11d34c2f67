"""EnergyMeter: the energy of any piece of code, in named windows."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from green_screen.power import frameworks
from green_screen.power.machine import Machine, MachineTotals, between, check
from green_screen.power.nvml import Board, NoBoardsError, NvmlError
from green_screen.power.reading import (
    CarbonReading,
    DeviceReading,
    EnergyReading,
    devices_reading,
    machine_reading,
)
from green_screen.power.sampler import Sampler
from green_screen.power.trace import BoardMark, BoardTrace, PowerSamples
from green_screen.power.visible import visible_boards

__all__ = ["CarbonReading", "DeviceReading", "EnergyMeter", "EnergyReading", "Mark", "Window"]


@dataclass(frozen=True)
class Mark:
    """A point in time with everything that counts up; two of them make a window."""

    time_s: float
    boards: tuple[BoardMark, ...]
    machine: MachineTotals


class Window:
    """A window under way, or done: then it has a reading."""

    def __init__(self, name: str) -> None:
        """Name the window."""
        self.name = name
        self._reading: EnergyReading | None = None

    @property
    def reading(self) -> EnergyReading:
        """What was measured.

        Raises:
            RuntimeError: The window has not ended.
        """
        if self._reading is None:
            raise RuntimeError(f"window {self.name!r} has not ended: read it after its block")
        return self._reading


class EnergyMeter:
    """Measures the energy of the GPUs that CUDA shows this process, or estimates the machine's.

    Example::

        with EnergyMeter() as meter:
            with meter.window("work") as window:
                work()
        print(window.reading.energy_j, window.reading.source)

    Windows may nest and overlap, also in several threads. On a machine without a GPU the energy is
    CodeCarbon's estimate for CPU and RAM, and the reading's source says so.
    """

    def __init__(
        self,
        *,
        sample_hz: float = 10.0,
        synchronize: Callable[[], None] | None = None,
        country: str = "USA",
        carbon_intensity: float | None = None,
        pue: float = 1.0,
        gpus: Sequence[int] | None = None,
        unmeasured: str = "",
    ) -> None:
        """Prepare a meter; it measures between ``__enter__`` and ``__exit__``.

        Args:
            sample_hz: How often the power is sampled, in [1, 100].
            synchronize: Called at each edge of a window; it waits until the GPU has done what it
                was given. Without it the meter waits for PyTorch, TensorFlow, JAX and CuPy, as far
                as they are imported and use a GPU; other code must say how.
            country: ISO 3166-1 code of three letters, for the mean carbon intensity that
                CodeCarbon has for it.
            carbon_intensity: That of your own electricity in g CO2eq per kWh, instead.
            pue: Power usage effectiveness of your data centre: emissions are so many times those
                of the energy. The energies stay those of the machine.
            gpus: Which of the GPUs that CUDA shows this process, counted from 0; ``None`` is all.
            unmeasured: Why GPUs that are used are not among `gpus`. If that leaves none, the energy
                is missing for this reason, where it would else be an estimate of CPU and RAM.

        Raises:
            ValueError: A value is out of range, or the country is unknown to CodeCarbon.
        """
        if not 1 <= sample_hz <= 100:
            raise ValueError(f"sample_hz must be in [1, 100], but got {sample_hz!r}")
        check(country, carbon_intensity, pue)
        self._sample_hz = sample_hz
        self._synchronize = synchronize
        self._country, self._g_per_kwh, self._pue = country, carbon_intensity, pue
        self._gpus = gpus
        self._unmeasured = unmeasured
        self._traces: tuple[BoardTrace, ...] = ()
        self._no_gpu_reason = ""
        self._unreadable = False
        self._sampler: Sampler | None = None
        self._machine: Machine | None = None
        self._last_totals = MachineTotals(None)
        self._synchronized_by = ""
        self._on_gpu = ""
        self._open: dict[str, Mark] = {}

    @property
    def boards(self) -> tuple[Board, ...]:
        """The boards that are measured."""
        return tuple(trace.board for trace in self._traces)

    @property
    def samples(self) -> tuple[PowerSamples, ...]:
        """The power of the boards so far, in their order, and of the CPU if that has counters."""
        cpu = self._machine.samples if self._machine is not None else None
        return (*(trace.samples for trace in self._traces), *((cpu,) if cpu is not None else ()))

    @property
    def running(self) -> bool:
        """Whether it measures."""
        return self._sampler is not None

    @property
    def synchronized_by(self) -> str:
        """What was waited for at the last edge: names of frameworks, or ``synchronize``."""
        return self._synchronized_by

    @property
    def no_gpu_reason(self) -> str:
        """Why no board is measured; empty if one is."""
        return self._no_gpu_reason

    def __enter__(self) -> EnergyMeter:
        """Find the boards and start to measure.

        Raises:
            RuntimeError: It measures already.
            ValueError: One of the `gpus` is not there.
        """
        if self.running:
            raise RuntimeError("the meter is running already: a `with` block inside needs its own")
        self._no_gpu_reason, self._unreadable = "", False
        self._on_gpu = self._synchronized_by = ""
        self._last_totals = MachineTotals(None)
        self._open.clear()
        chosen = self._choose_boards()
        self._traces = tuple(BoardTrace(board, time.perf_counter) for board in chosen)
        self._machine = Machine(
            country=self._country,
            gpu_indices=[board.index for board in chosen],
            g_per_kwh=self._g_per_kwh,
            pue=self._pue,
        )
        watch = self._machine.watch if self._machine.needs_watching else None
        self._sampler = Sampler(self._traces, sample_hz=self._sample_hz, watch=watch)
        try:
            self._machine.start()
            self._sampler.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop measuring, whatever happened."""
        self._stop()

    def mark(self, *, synchronize: bool = True, read_carbon: bool = True) -> Mark:
        """Return the point that is now, after the GPU has done its work.

        Args:
            synchronize: Whether to wait for the GPU.
            read_carbon: Whether to read CPU, memory and emissions too, which with a GPU takes
                longer than all else (docs/measuring.md says how long); otherwise their last totals
                are repeated.
        """
        self._require_running()
        if synchronize:
            self._wait()
        now = time.perf_counter()
        boards = tuple(trace.mark() for trace in self._traces)
        return Mark(now, boards, self._read_machine() if read_carbon else self._last_totals)

    def with_carbon(self, mark: Mark) -> Mark:
        """Return a mark of just now with the machine's totals read again."""
        self._require_running()
        return dataclasses.replace(mark, machine=self._read_machine())

    def between(self, start: Mark, end: Mark, name: str = "") -> EnergyReading:
        """Return the reading of the window between two marks."""
        devices = tuple(
            trace.between(a, b)
            for trace, a, b in zip(self._traces, start.boards, end.boards, strict=True)
        )
        # A GPU that a framework uses and NVML does not show: of another make, mostly.
        unseen = self._gpus is None and bool(self._on_gpu) and not devices
        uses_gpu = bool(devices or self._gpus or self._unmeasured or self._unreadable or unseen)
        if self._machine is None:
            raise RuntimeError("the meter has not run: use it in a `with` block")
        carbon = between(
            start.machine,
            end.machine,
            self._machine.terms,
            uses_gpu=uses_gpu,
            gpu_j=sum(device.energy_j for device in devices) if devices else math.nan,
        )
        seconds = end.time_s - start.time_s
        if not devices:
            reason = self._no_gpu_reason
            if unseen:
                reason = f"{self._on_gpu} uses a GPU that is not measured: {reason}"
            return machine_reading(name, seconds, carbon, reason, uses_gpu=uses_gpu)
        return devices_reading(name, seconds, devices, carbon)

    @contextmanager
    def window(self, name: str) -> Iterator[Window]:
        """Measure a block: ``with meter.window("fit") as window: ...; window.reading``."""
        window = Window(name)
        start = self.mark()
        try:
            yield window
        except BaseException:
            # Waiting for a GPU that has failed would hide why.
            window._reading = self.between(start, self.mark(synchronize=False), name)
            raise
        window._reading = self.between(start, self.mark(), name)

    def begin(self, name: str) -> None:
        """Begin the window `name`, for code that no ``with`` block can hold.

        Raises:
            ValueError: A window of that name is open.
        """
        if name in self._open:
            raise ValueError(f"window {name!r} has begun already; open are {sorted(self._open)}")
        self._open[name] = self.mark()

    def end(self, name: str) -> EnergyReading:
        """End the window `name` and return its reading.

        Raises:
            ValueError: No window of that name is open.
        """
        if name not in self._open:
            raise ValueError(
                f"window {name!r} has not begun or has ended; open are {sorted(self._open)}"
            )
        return self.between(self._open.pop(name), self.mark(), name)

    def _choose_boards(self) -> tuple[Board, ...]:
        if self._gpus is not None and not self._gpus:
            self._no_gpu_reason = self._unmeasured or "no GPU is used"
            return ()
        try:
            visible = visible_boards()
        except NoBoardsError as error:
            self._no_gpu_reason = str(error)
            return ()
        except NvmlError as error:
            # There are boards, and an estimate of the CPU is not their energy.
            self._no_gpu_reason = str(error)
            self._unreadable = True
            return ()
        if not visible:
            self._no_gpu_reason = "no GPU is visible to this process"
        if self._gpus is None:
            # Two MIG instances of one board have one power reading between them.
            return tuple({board.uuid: board for board in visible}.values())
        unknown = [gpu for gpu in self._gpus if gpu not in range(len(visible))]
        if unknown:
            raise ValueError(
                f"gpus must be among the {len(visible)} that are visible, but got {unknown}"
            )
        return tuple({visible[gpu].uuid: visible[gpu] for gpu in self._gpus}.values())

    def _require_running(self) -> None:
        if not self.running:
            raise RuntimeError("the meter is not running: use it in a `with` block")

    def _wait(self) -> None:
        """Wait until the GPU has done what it was given."""
        if self._synchronize is not None:
            self._synchronize()
            self._synchronized_by = "synchronize"
            return
        # Looked for each time: a framework may begin to use the GPU in the middle of a window.
        found = frameworks.on_gpu()
        for wait in found.values():
            wait()
        self._on_gpu = self._synchronized_by = ", ".join(found)

    def _read_machine(self) -> MachineTotals:
        if self._machine is not None:
            self._last_totals = self._machine.read()
        return self._last_totals

    def _stop(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None
            if self._machine is not None:
                self._machine.stop()
