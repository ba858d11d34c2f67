"""What an analysis of a simulated campaign finds, made in memory: no store, no training."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Run
from simulated_campaign import SimulatedCampaign

from green_screen import names
from green_screen.decision import tradeoff
from green_screen.decision.final import (
    BASELINE,
    QUANTITIES,
    RECOMMENDED,
    SELECTED,
    FinalComparison,
    compare,
)
from green_screen.decision.recommendation import recommend
from green_screen.decision.selection import Selection, SelectionError, select
from green_screen.report import gallery
from green_screen.report.findings import Findings
from green_screen.results.runs import EPOCH_METRICS
from green_screen.results.subject import baseline_config
from green_screen.statistics.accuracy import analyze_accuracy
from green_screen.statistics.law_analysis import analyze_law
from green_screen.statistics.regression import fit_energy_model


def findings(
    campaign: SimulatedCampaign,
    *,
    pairs: int = 5,
    response: str = "epoch",
    frame: pd.DataFrame | None = None,
    recommending: bool = False,
    **changes: Any,
) -> Findings:
    """Return what is found in a campaign, with so many rounds of simulated final runs.

    A `frame` takes the place of the campaign's own table of runs. Where something is recommended,
    its final runs take 0.7 of what the selected configuration's do.
    """
    runs = campaign.frame() if frame is None else frame
    analysis = fit_energy_model(runs, response=response, permutations=20, cv_repeats=2, trees=10)
    law = analyze_law(runs, permutations=20, cv_repeats=2)
    selection: Selection | None = None
    problems: tuple[str, ...] = ()
    try:
        selection = select(runs)
    except SelectionError as error:
        problems = (str(error),)
    final, recommendation, unrecommended = None, None, ""
    if selection is not None and recommending:
        recommendation, unrecommended = recommend(runs, law, analyze_accuracy(runs), selection)
    if selection is not None and pairs:
        ratios = {SELECTED: 0.4} if selection.config != baseline_config(runs) else {}
        if recommendation is not None:
            ratios[RECOMMENDED] = 0.28
        final = compare(final_runs(runs, selection.run_id, pairs, ratios=ratios))
    front = tradeoff.pareto_front(runs)
    target = float(runs.loc[runs["kind"] == names.KIND_BASELINE, names.VAL_ACCURACY].mean())
    reach = runs[runs[names.VAL_ACCURACY] >= target]
    found = Findings(
        campaign="a <simulated> campaign & more",
        campaign_run_id="c" * 32,
        runs=runs,
        hardware={
            machine: {"gpu_name": campaign.machine, "tensorflow_version": "2.15.1"}
            for machine in runs["machine"].unique()
        },
        analysis=analysis,
        law=law,
        accuracy=analyze_accuracy(runs, names.TEST_ACCURACY),
        recommendation=recommendation,
        unrecommended=unrecommended,
        baseline=baseline_config(runs),
        selection=selection,
        final=final,
        problems=problems,
        front=front,
        target_accuracy=target,
        to_accuracy=tradeoff.energy_to_accuracy(
            reach, epochs(campaign, reach["run_id"].tolist()), target
        ),
        cost=tradeoff.campaign_cost(runs, country="USA", price_per_kwh=0.3),
        how="Made by a test.",
    )
    shown = gallery.shown_runs(analysis.runs, analysis.response.metric)
    figures = gallery.draw_all(
        analysis,
        law,
        found.plane,
        epochs=epochs(campaign, list(shown)),
        candidates=tradeoff.front_candidates(runs).runs,
        front=front,
        selection=selection,
        final=final,
        source=found.source,
    )
    return dataclasses.replace(found, figures=figures, **changes)


def epochs(campaign: SimulatedCampaign, run_ids: list[str]) -> pd.DataFrame:
    """Return what ``read_epochs`` would return."""
    by_id: dict[str, Run] = {run.info.run_id: run for run in campaign.runs()}
    rows = [
        {"run_id": run_id, "epoch": m.step, "metric": m.key, "value": m.value}
        for run_id in run_ids
        for m in campaign.epoch_metrics(by_id[run_id])
    ]
    columns = ["run_id", "epoch", "metric", "value"]
    wide = pd.DataFrame(rows, columns=columns).pivot(
        index=["run_id", "epoch"], columns="metric", values="value"
    )
    return wide.reindex(columns=list(EPOCH_METRICS)).reset_index()


def final_runs(
    runs: pd.DataFrame,
    selected: str,
    pairs: int,
    *,
    ratio: float = 0.4,
    noise: float = 0.03,
    accuracy_gain: float = 0.02,
    ratios: dict[str, float] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Return final runs of known energy ratios to the baseline, with log-normal noise.

    The selected configuration's is `ratio` if there is nothing in `ratios`.
    """
    ratios = {SELECTED: ratio} if ratios is None else ratios
    rng = np.random.default_rng(seed)
    baseline = runs[runs["kind"] == names.KIND_BASELINE].iloc[0]
    chosen = runs[runs["run_id"] == selected].iloc[0]
    rows = []
    for pair in range(pairs):
        for role, factor in {BASELINE: 1.0, **ratios}.items():
            row = (baseline if role == BASELINE else chosen).copy()
            row["run_name"], row["role"], row["pair"] = f"final {pair + 1} {role}", role, pair
            for metric in QUANTITIES:
                row[metric] = baseline[metric] * factor * np.exp(rng.normal(0.0, noise))
            gain = 0.0 if role == BASELINE else accuracy_gain
            row[names.TEST_ACCURACY] = 0.6 + gain + rng.normal(0.0, 0.005)
            rows.append(row)
    return pd.DataFrame(rows).reset_index(drop=True)


def comparison(**options: Any) -> FinalComparison:
    """Return the comparison of final runs of a known ratio."""
    runs = SimulatedCampaign(n_runs=4).frame()
    return compare(final_runs(runs, runs["run_id"].iloc[1], **options))
