"""Whether the intervals of the energy law hold what they should, where the law is known.

    python -m benchmarks.law_calibration --campaigns 200

simulates campaigns (random configurations, the baseline after every 10) and prints how often 95 %
intervals hold the truth: those of the law's parameters that its runs tell, those of the mean energy
of configurations that were never run, and those of a new run of each.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from green_screen.results.frame import EFFECTIVE
from green_screen.space import Space, resolve
from green_screen.statistics.coding import Matrix
from green_screen.statistics.law import LawDesign, law_design, log_energy
from green_screen.statistics.law_fit import enough, fit_law

ALPHA = 0.05
NEW = 100  # configurations never run, a campaign

# Ratios about as on an H100 at 224 pixels, names of LawDesign.names(); the others are 1.
RATIOS = {
    "step: half precision": 1.8,
    "step: float64": 2.2,
    "step: pre_quantization": 2.0,
    "step: jit_compilation": 0.9,
    "step: half precision x jit_compilation": 0.6,
    "step: Adam": 1.1,
    "step: AdamW": 1.35,
    "step: random": 1.12,
    "image: half precision": 0.76,
    "image: float64": 5.5,
    "image: pre_quantization": 1.4,
    "image: jit_compilation": 0.77,
    "image: half precision x jit_compilation": 0.7,
    "overlap": 0.5,
    "image: b": 0.33,
}
# The batch at which launching and computing cost the same at the baseline; levels go from 4 to 128.
REGIMES = {"launching decides": 200.0, "both": 20.0, "computing decides": 2.0}


def configurations(rng: np.random.Generator, n: int, *, baseline_every: int = 0) -> pd.DataFrame:
    """Return random configurations as rows of runs, with the baseline among them if asked."""
    space = Space.load()
    placed = [space.baseline] if baseline_every else []
    for i in range(n):
        placed.append(space.parse({f: rng.choice(levels) for f, levels in space.levels.items()}))
        if baseline_every and (i + 1) % baseline_every == 0:
            placed.append(space.baseline)
    effective = [resolve(config).effective.as_params() for config in placed]
    task = {"model": "resnet50", "dataset": "d", "image_size": 224.0, "machine": "board"}
    return (
        pd.DataFrame(effective)
        .add_prefix(EFFECTIVE)
        .assign(**task, campaign="c", position=np.arange(float(len(placed))))
    )


def truth(design: LawDesign, crossover: float) -> Matrix:
    """Return the true parameters of a design; run order has no drift."""
    law = RATIOS | {"step: a": RATIOS["image: b"] * crossover}
    return np.log([law.get(name, 1.0) for name in design.names()])


def held(seed: int, n_runs: int, noise: float, crossover: float) -> tuple[float, ...] | None:
    """Return the shares of intervals of one campaign that hold the truth.

    Returns:
        Of parameters, of mean energies and of new runs; ``None`` if such a campaign is not fitted.
    """
    rng = np.random.default_rng(seed)
    runs = configurations(rng, n_runs, baseline_every=10)
    design = law_design(runs)
    if enough(design, runs):
        return None
    theta, rows = truth(design, crossover), design.rows(runs)
    fit = fit_law(design, rows, log_energy(theta, design, rows) + rng.normal(0, noise, len(runs)))
    half = fit.t(ALPHA) * np.sqrt(np.diag(fit.covariance))
    # Levels that did not occur have no parameter, so nothing is said of them.
    new = configurations(rng, NEW)
    at = law_design(new)
    known = design.rows(new)
    mean = log_energy(truth(at, crossover), at, at.rows(new))
    off = np.abs(fit.log_energy(known) - mean)
    run = np.abs(fit.log_energy(known) - mean - rng.normal(0, noise, NEW))
    return (
        float(np.mean((np.abs(fit.theta - theta) <= half)[fit.told])),
        float(np.mean(off <= fit.half_width(known, ALPHA, new_run=False))),
        float(np.mean(run <= fit.half_width(known, ALPHA, new_run=True))),
    )


def table(campaigns: int) -> Iterator[str]:
    """Yield the lines of the table, in Markdown."""
    yield "| regime | runs | noise | parameters | mean energies | new runs |"
    yield "|---|---|---|---|---|---|"
    for (regime, crossover), n_runs, noise in itertools.product(
        REGIMES.items(), (40, 100, 200), (0.01, 0.05)
    ):
        found = [held(seed, n_runs, noise, crossover) for seed in range(campaigns)]
        rates = np.array([rate for rate in found if rate is not None])
        error = rates.std(axis=0, ddof=1) / np.sqrt(len(rates))
        cells = (f"{m:.1%} +- {e:.1%}" for m, e in zip(rates.mean(axis=0), error, strict=True))
        yield f"| {regime} | {n_runs} | {noise:.0%} | {' | '.join(cells)} |"


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--campaigns", type=int, default=200)
    print(f"crossover at batch {', '.join(f'{v:g} ({k})' for k, v in REGIMES.items())}")
    for line in table(parser.parse_args().campaigns):
        print(line, flush=True)


if __name__ == "__main__":
    main()
