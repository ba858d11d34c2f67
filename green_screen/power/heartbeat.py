"""Whether this process was stopped: suspended, frozen, or on a machine that slept."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

_BEAT_S = 0.25
# A thread that is only late comes within fractions of a second.
MIN_STOP_S = 2.0
# A beat is late too while a library holds Python's lock, but then the process works.
_MAX_CPU_SHARE = 0.1


@dataclass(frozen=True)
class Stop:
    """A time in which the process did nothing, by ``time.perf_counter``.

    Attributes:
        start_s: The last sign of life before it.
        end_s: The first one after it.
        seconds: Its length, which a sleeping machine's ``time.perf_counter`` does not count.
    """

    start_s: float
    end_s: float
    seconds: float


class Heartbeat:
    """A thread that looks at the clock, and notes when it could not for seconds."""

    def __init__(self) -> None:
        """Prepare; it beats from :meth:`start` on."""
        self._stops: list[Stop] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def stops(self) -> tuple[Stop, ...]:
        """The times in which the process was stopped, so far."""
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
        ending = False
        while not ending:
            ending = self._ending.wait(_BEAT_S)
            now_s, real_s, cpu_s = time.perf_counter(), _real_s(), time.process_time()
            passed_s = real_s - last_real_s
            if passed_s >= MIN_STOP_S and cpu_s - last_cpu_s < _MAX_CPU_SHARE * passed_s:
                self._stops.append(Stop(last_s, now_s, passed_s))
            last_s, last_real_s, last_cpu_s = now_s, real_s, cpu_s


def _real_s() -> float:
    """Return seconds by a clock that goes on while the machine sleeps, where there is one."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
