"""Whether what is recommended is better in truth, and whether accuracies' intervals hold it.

    python -m benchmarks.recommendation --campaigns 100

simulates campaigns with a known energy law and known accuracies (random configurations, the
baseline after every 10, noise of 3 % of energy and half a point of accuracy), selects the run with
the least energy above an accuracy floor, and prints how often something is recommended, how often
that takes less than the best run in truth and is above the floor, what it was predicted to save and
what it saves, and how often 95 % intervals hold the true differences of accuracy.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from green_screen.decision.recommendation import recommend
from green_screen.decision.selection import SelectionError, select
from green_screen.results.frame import EFFECTIVE
from green_screen.statistics.accuracy import AccuracyAnalysis, analyze_accuracy
from green_screen.statistics.law_analysis import analyze_law

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

FLOOR = 0.6


def covered(found: AccuracyAnalysis, accuracy: dict[str, float]) -> list[bool]:
    """Return of each level whether its interval holds the true difference."""
    table = found.differences[~found.differences["is_reference"].astype(bool)]
    names = (table["factor"] + "=" + table["level"]).where(table["within"] == "", "")
    truth = names.map(accuracy).fillna(0.0)
    return list((table["ci_low"] <= truth) & (truth <= table["ci_high"]))


def main() -> int:
    """Print the table."""
    from law_campaign import LawCampaign

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--campaigns", type=int, default=100)
    campaigns = parser.parse_args().campaigns
    print(
        "| runs | recommended | takes less in truth | above the floor in truth | saving predicted "
        "of a training | true, of an image | accuracies covered |"
    )
    print("|---|---|---|---|---|---|---|")
    for n_runs in (40, 100, 200):
        predicted, true, above, inside, n = [], [], [], [], 0
        for seed in range(campaigns):
            campaign = LawCampaign(seed=seed, n_runs=n_runs)
            runs = campaign.frame()
            accuracy = analyze_accuracy(runs)
            inside += covered(accuracy, campaign.accuracy)
            try:
                selection = select(runs, "energy", min_accuracy=FLOOR)
            except SelectionError:
                continue
            law = analyze_law(runs, permutations=0, cv_repeats=1)
            n += 1
            found, _ = recommend(runs, law, accuracy, selection, min_accuracy=FLOOR)
            if found is None:
                continue
            both = pd.DataFrame([found.effective, selection.effective]).add_prefix(EFFECTIVE)
            task = {"model": "resnet50", "dataset": "d", "image_size": 32.0, "machine": "m"}
            rows = both.assign(**task, campaign="", position=np.nan)
            new, best = campaign.per_image(rows)
            above.append(campaign.true_accuracy(rows)[0] >= FLOOR)
            predicted.append(1 - found.predicted["energy_j"] / found.best_run["energy_j"])
            true.append(1 - new / best)
        print(
            f"| {n_runs} | {len(true)} of {n} | {np.mean(np.array(true) > 0):.0%} | "
            f"{np.mean(above):.0%} | "
            f"{np.median(predicted):.1%} | {np.median(true):.1%} | {np.mean(inside):.1%} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
