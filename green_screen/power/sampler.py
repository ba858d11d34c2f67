"""A thread that samples boards in the background, at a steady rate and cheaply."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from green_screen.power.trace import BoardTrace

# Status readings cost as much as power readings, and what they tell changes slowly: NVML itself
# averages utilization over 1/6 s to 1 s.
STATUS_HZ = 2.0


class Sampler:
    """Samples power at `sample_hz` and status at 2 Hz until it is stopped."""

    def __init__(
        self,
        traces: Sequence[BoardTrace],
        *,
        sample_hz: float,
        watch: Callable[[], None] | None = None,
    ) -> None:
        """Prepare to sample `traces`, and to call `watch` as often as a status is read."""
        self._traces = traces
        self._watch = watch
        self._period_s = 1.0 / sample_hz
        self._status_every = max(1, round(sample_hz / STATUS_HZ))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="power-sampler", daemon=True)

    def start(self) -> None:
        """Take the first sample here and now, then go on in the background."""
        self._sample(0)
        if self._traces or self._watch:
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        tick = 0
        due_s = time.perf_counter()
        while True:
            # Ticks that were missed are left out: a burst of samples would only cost time.
            due_s = max(due_s + self._period_s, time.perf_counter())
            if self._stopping.wait(due_s - time.perf_counter()):
                return
            tick += 1
            self._sample(tick)

    def _sample(self, tick: int) -> None:
        reads_status = tick % self._status_every == 0
        for trace in self._traces:
            trace.sample_power()
            if reads_status:
                trace.sample_status()
        if reads_status and self._watch is not None:
            self._watch()
