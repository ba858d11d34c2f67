"""How many runs it takes to know the energy law, by design, and whether stopping spoils intervals.

    python -m benchmarks.sequential_design --campaigns 10

simulates campaigns of a known law, run by run, until the 95 % interval of the mean energy reaches
at most so far from it for nine in ten of all configurations, and prints after how many runs that
was, and how often the intervals of all configurations then hold the truth.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmarks.law_calibration import ALPHA, REGIMES, truth
from green_screen import names
from green_screen.options import SweepOptions
from green_screen.space import Space
from green_screen.statistics.coding import Matrix
from green_screen.statistics.law import law_design, log_energy
from green_screen.sweep.design import make_plan
from green_screen.sweep.sequential import Sequencer, all_configurations, as_runs

DESIGNS = ("sequential", "balanced", "random")
WIDTHS = (0.10, 0.05)
N_RUNS = 150
NOISE = 0.03
TASK = {"model": "resnet50", "dataset": "d", "image_size": 224.0, "machine": "board"}


def simulated(runs: pd.DataFrame, crossover: float) -> Matrix:
    """Return the true log energies of an image."""
    design = law_design(runs)
    return log_energy(truth(design, crossover), design, design.rows(runs))


def stops(design: str, seed: int, crossover: float) -> Iterator[tuple[float, int, float]]:
    """Yield each width with the runs that it took and the share of intervals that hold then.

    The runs are NaN for a width that all of them did not reach.
    """
    options = SweepOptions(design=design, n_runs=N_RUNS, seed=seed)
    plan = make_plan(Space.load(options.config), options)
    sequencer = Sequencer(plan)
    runs = as_runs([run.config for run in plan.runs], TASK)
    noise = np.random.default_rng([seed, 3]).normal(0.0, NOISE, len(runs))
    energies = np.exp(simulated(runs, crossover) + noise) * 1e3
    every = as_runs(all_configurations(plan.space), TASK)
    expected = simulated(every, crossover)
    waiting, done = list(range(len(runs))), list[int]()
    left = list(WIDTHS)
    while waiting and left:
        position = sequencer.next(waiting) if design == "sequential" else waiting[0]
        waiting.remove(position)
        done.append(position)
        known = runs.iloc[done].assign(
            **{names.ENERGY_PER_1K_IMAGES_J: energies[done], names.ENERGY_PER_EPOCH_J: np.nan},
            campaign="c",
            position=np.arange(float(len(done))),
            start_time=pd.Timestamp(0),
            run_id="",
            run_name="",
            kind=names.KIND_RUN,
            measurement_valid="true",
            status="FINISHED",
            energy_source=names.SOURCE_COUNTER,
        )
        sequencer.learn(known)
        while left and sequencer.half_width <= left[0]:
            fit = sequencer.fit
            assert fit is not None
            rows = fit.design.rows(every)
            off = np.abs(fit.log_energy(rows) - expected)
            half = fit.half_width(rows, ALPHA, new_run=False)
            yield left.pop(0), len(done), float(np.mean(off <= half))
    for width in left:
        yield width, np.nan, np.nan


def table(campaigns: int) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    yield "| regime | design | half-width | runs: median (range) | intervals that hold |"
    yield "|---|---|---|---|---|"
    for (regime, crossover), design in itertools.product(REGIMES.items(), DESIGNS):
        found = [stop for seed in range(campaigns) for stop in stops(design, seed, crossover)]
        for width in WIDTHS:
            reached = [(n, held) for w, n, held in found if w == width and np.isfinite(n)]
            counts = [n for n, _ in reached]
            shares = np.array([held for _, held in reached])
            error = shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else np.nan
            held = f"{shares.mean():.1%} +- {error:.1%}" if counts else ""
            cells = "not reached"
            if counts:
                cells = f"{statistics.median(counts):g} ({min(counts)} to {max(counts)})"
            if len(counts) < campaigns:
                cells += f", {campaigns - len(counts)} of {campaigns} not within {N_RUNS}"
            yield f"| {regime} | {design} | {width:.0%} | {cells} | {held} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--campaigns", type=int, default=10)
    for line in table(parser.parse_args().campaigns):
        print(line, flush=True)


if __name__ == "__main__":
    main()
