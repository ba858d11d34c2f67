"""Whether this process was stopped: suspended, frozen, or on a machine that slept.

A process that only waited for a CPU was not: its host was busy.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_BEAT_S = 0.25
# A thread that is only late comes within fractions of a second.
MIN_STOP_S = 2.0
# A beat is late too while a library holds Python's lock, but then the process works.
_MAX_CPU_SHARE = 0.1
# Who is ready to run and waits for a CPU so much of the time was not stopped.
_STARVED_SHARE = 0.5


@dataclass(frozen=True)
class Stop:
    """A time in which the process did nothing, by ``time.perf_counter``.

    Attributes:
        start_s: The last sign of life before it.
        end_s: The first one after it.
        seconds: Its length, which a sleeping machine's ``time.perf_counter`` does not count.
        starved: Whether it waited for a CPU all the while, and was not stopped.
    """

    start_s: float
    end_s: float
    seconds: float
    starved: bool = False


class Heartbeat:
    """A thread that looks at the clock, and notes when it could not for seconds."""

    def __init__(self) -> None:
        """Prepare; it beats from :meth:`start` on."""
        self._stops: list[Stop] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def stops(self) -> tuple[Stop, ...]:
        """The times in which the process did nothing, so far."""
        return tuple(self._stops)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        last_s, last_real_s, last_cpu_s = time.perf_counter(), _real_s(), time.process_time()
        last_waited_s = _waited_s()
        ending = False
        while not ending:
            ending = self._ending.wait(_BEAT_S)
            now_s, real_s, cpu_s = time.perf_counter(), _real_s(), time.process_time()
            waited_s = _waited_s()
            passed_s = real_s - last_real_s
            if passed_s >= MIN_STOP_S and cpu_s - last_cpu_s < _MAX_CPU_SHARE * passed_s:
                starved = was_starved(passed_s, last_waited_s, waited_s)
                self._stops.append(Stop(last_s, now_s, passed_s, starved))
            last_s, last_real_s, last_cpu_s, last_waited_s = now_s, real_s, cpu_s, waited_s


def was_starved(passed_s: float, before_s: list[float], after_s: list[float]) -> bool:
    """Return whether a hole is explained by waiting for a CPU.

    Args:
        passed_s: Its length.
        before_s: How long each thread had waited in a run queue before it; empty where the kernel
            does not tell.
        after_s: The same after it.
    """
    waits_s = (after - before for before, after in zip(before_s, after_s, strict=False))
    return max(waits_s, default=0.0) >= _STARVED_SHARE * passed_s


def _waited_s() -> list[float]:
    """Return how long this thread and the main one have been ready to run without a CPU.

    Either: this thread may be late because the main one has Python's lock and waits. A thread that
    is stopped or frozen is in no queue. The second figure of Linux's ``schedstat``, nanoseconds.
    """
    try:
        return [
            int(Path(f"/proc/self/task/{thread}/schedstat").read_text("ascii").split()[1]) / 1e9
            for thread in (threading.get_native_id(), os.getpid())
        ]
    except (OSError, IndexError, ValueError):
        return []


def _real_s() -> float:
    """Return seconds by a clock that goes on while the machine sleeps, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
