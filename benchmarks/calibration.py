"""Whether the analysis keeps its promises on simulated campaigns whose truth is known.

    python -m benchmarks.calibration --campaigns 200

prints how often 95 % intervals of effects hold the true ratio, how often 95 % prediction intervals
hold a new run, in how many campaigns without any effect something is found, and in how many an
effect of a given size is.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from simulated_campaign import SimulatedCampaign  # noqa: E402

from green_screen import names  # noqa: E402
from green_screen.statistics.anova import anova_table, type_two  # noqa: E402
from green_screen.statistics.model_matrix import build_design  # noqa: E402
from green_screen.statistics.regression import EnergyAnalysis, fit_energy_model  # noqa: E402

NULL_RESPONSES = 20  # campaigns without any effect for each design


def fit(runs: pd.DataFrame) -> EnergyAnalysis:
    """Fit without what repeats the fit."""
    return fit_energy_model(runs, permutations=0, cv_repeats=0, trees=0)


def effect_coverage(campaign: SimulatedCampaign) -> list[bool]:
    """Return for each estimated effect of a level whether its interval holds the truth."""
    effects = fit(campaign.frame()).effects
    known = effects[effects["ci_low"].notna()]
    return [
        bool(low <= campaign.effects.get(factor, {}).get(level, 1.0) <= high)
        for factor, level, low, high in known[["factor", "level", "ci_low", "ci_high"]].to_numpy()
    ]


def prediction_coverage(campaign: SimulatedCampaign) -> list[bool]:
    """Return for each of 100 new runs whether its prediction interval holds it."""
    model = fit(campaign.frame()).model
    assert model is not None
    new = dataclasses.replace(campaign, seed=campaign.seed + 10_000, baseline_every=1000).frame()
    # A prediction knows neither the place in a campaign nor the temperature of the board.
    unknown = new.assign(**{c.column: np.nan for c in model.design.covariates.values()})
    predicted = model.pipeline.predict(unknown)
    half = model.regression.half_width(model.pipeline[:-1].transform(unknown), model.alpha)
    error = np.log(new[names.ENERGY_PER_EPOCH_J].to_numpy()) - predicted
    return [bool(value) for value in (np.abs(error) <= half)[np.isfinite(predicted)]]


def null_findings(campaign: SimulatedCampaign, responses: int) -> list[bool]:
    """Return for each of some campaigns without any effect whether something is found.

    They share one design; without effects the log energy is independent normal noise.
    """
    design, matrix, _ = build_design(campaign.frame())
    projections = type_two(design, matrix)
    rng = np.random.default_rng(campaign.seed)
    return [
        bool(anova_table(projections, rng.normal(size=len(matrix)), 0.05)["finding"].any())
        for _ in range(responses)
    ]


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--campaigns", type=int, default=200)
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    seeds = range(arguments.campaigns)
    campaigns = [SimulatedCampaign(seed=seed, n_runs=arguments.runs) for seed in seeds]
    effects = [np.mean(effect_coverage(campaign)) for campaign in campaigns]
    predictions = [np.mean(prediction_coverage(campaign)) for campaign in campaigns]
    n = arguments.campaigns
    print(f"{n} campaigns of {arguments.runs} runs and a baseline after every 10, noise 3 %")
    for what, rates in (("effects", effects), ("new runs", predictions)):
        error = np.std(rates, ddof=1) / np.sqrt(n)
        print(f"95 % intervals of {what} hold the truth in {np.mean(rates):.1%} +- {error:.1%}")
    null = [found for campaign in campaigns for found in null_findings(campaign, NULL_RESPONSES)]
    error = np.std(null) / np.sqrt(len(null))
    print(
        f"of {len(null)} campaigns without any effect, on the same designs, {np.mean(null):.1%} +- "
        f"{error:.1%} have a finding"
    )
    for ratio in (1.02, 1.05, 1.10):
        weak = {"augmentation": {"mixup": ratio}}
        hits = [
            "augmentation" in fit(dataclasses.replace(c, effects=weak).frame()).findings
            for c in campaigns
        ]
        print(f"one level {ratio:.2f} times the others is found in {np.mean(hits):.0%}")


if __name__ == "__main__":
    main()
