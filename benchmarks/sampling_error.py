"""How far the integral of sampled power can be off, by the length of the window: a simulation.

Run from the repository's root; it needs no GPU and takes seconds::

    python -m benchmarks.sampling_error

A board draws bursts. Its power reading is renewed every 0.1 s, with the mean of the time before; it
is sampled at 10 Hz and integrated by the trapezoid rule, as the meter does. How often the bursts
come, where in them the window begins, and where between two renewals a sample falls are drawn at
random.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

LOW_W, HIGH_W, BURST_S = 120.0, 600.0, 0.2
PERIODS_S = (0.5, 3.0)
RENEWED_S = SAMPLED_S = 0.1
AVERAGING_S = (0.025, 1.0)
WINDOWS_S = (5, 10, 20, 30, 60, 300)
TRIALS = 2000

Floats = NDArray[np.float64]


def energy_j(time_s: Floats, period_s: float) -> Floats:
    """Return the true energy from time 0 on."""
    periods, rest_s = np.divmod(time_s, period_s)
    high_s = periods * BURST_S + np.minimum(rest_s, BURST_S)
    return np.asarray(LOW_W * time_s + (HIGH_W - LOW_W) * high_s)


def error(window_s: float, averaging_s: float, random: np.random.Generator) -> float:
    """Return the integral's error of one window, as a fraction of its true energy."""
    period_s = random.uniform(*PERIODS_S)
    start_s = random.uniform(100.0, 200.0)
    edges_s = np.array([start_s, start_s + window_s])
    first_s = start_s - 1.0 - random.uniform(0.0, SAMPLED_S)
    times_s = np.arange(first_s, edges_s[1] + SAMPLED_S, SAMPLED_S)
    renewed_s = np.floor(np.round(times_s / RENEWED_S, 6)) * RENEWED_S
    before_j, after_j = (energy_j(t, period_s) for t in (renewed_s - averaging_s, renewed_s))
    powers_w = (after_j - before_j) / averaging_s
    steps_j = np.diff(times_s) * (powers_w[1:] + powers_w[:-1]) / 2
    integrals_j = np.concatenate([[0.0], np.cumsum(steps_j)])
    # At an edge the last power is held, as in a trace.
    last = np.searchsorted(times_s, edges_s, side="right") - 1
    at_edges_j = integrals_j[last] + powers_w[last] * (edges_s - times_s[last])
    (true_j,) = np.diff(energy_j(edges_s, period_s))
    return float(np.diff(at_edges_j)[0] / true_j - 1)


def main() -> int:
    """Print the table."""
    random = np.random.default_rng(0)
    heads = " | ".join(f"mean of {1000 * s:.0f} ms: 95 % within, at most" for s in AVERAGING_S)
    print(f"| window s | {heads} |\n|---|---|---|")
    for window_s in WINDOWS_S:
        cells = []
        for averaging_s in AVERAGING_S:
            found = 100 * np.abs([error(window_s, averaging_s, random) for _ in range(TRIALS)])
            cells.append(f"{np.percentile(found, 95):.2f} %, {found.max():.2f} %")
        print(f"| {window_s} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
