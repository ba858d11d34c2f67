"""A made-up trace of a training, with the phases that a run has."""

from __future__ import annotations

from array import array

from green_screen.measurement.run_record import RunTrace
from green_screen.power.machine import MachineTotals
from green_screen.power.meter import Mark
from green_screen.power.trace import PowerSamples

BOARD = "GPU-00000000-1111-2222-3333-444455556666"
IDLE_W, TRAINING_W, VALIDATION_W = 120.0, 310.0, 240.0


def run_trace(
    epochs_s: tuple[float, ...] = (9.0, 4.0, 6.0, 5.0),
    *,
    validation_share: float = 0.25,
    kind: str = "epoch",
    devices: tuple[str, ...] = (BOARD,),
) -> RunTrace:
    """Return the trace of a training with such epochs, sampled ten times a second."""
    start_s, now_s = 100.0, 100.0
    spans: list[tuple[str, Mark, Mark]] = []
    watts: list[float] = []

    def phase(name: str, seconds: float, power_w: float) -> None:
        nonlocal now_s
        if name:
            spans.append((name, _mark(now_s), _mark(now_s + seconds)))
        watts.extend([power_w] * round(10 * seconds))
        now_s += seconds

    phase("idle in context", 0.5, IDLE_W)
    for number, seconds in enumerate(epochs_s):
        begin_s, validation_s = now_s, validation_share * seconds
        phase("", seconds - validation_s, TRAINING_W)
        if validation_s:
            phase(f"validation {number}", validation_s, VALIDATION_W)
        spans.append((f"{kind} {number}", _mark(begin_s), _mark(now_s)))
    phase("idle after", 0.5, IDLE_W)
    times_s = array("d", (start_s + 0.1 * n for n in range(len(watts))))
    samples = tuple(PowerSamples(device, times_s, array("d", watts)) for device in devices)
    return RunTrace(start_s=start_s, start_unix_s=1.8e9, samples=samples, spans=tuple(spans))


def _mark(time_s: float) -> Mark:
    return Mark(time_s, (), MachineTotals(None))
