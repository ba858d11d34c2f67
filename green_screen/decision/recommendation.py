"""Recommends a configuration that no run has tried, by the energy law.

All configurations made of levels that were run are predicted. Those that differ only in factors
that do not enter the law take the same, so one of each kind is predicted: the one that has the best
run's levels there.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from green_screen.decision.selection import Selection, score
from green_screen.results.frame import EFFECTIVE, REQUESTED, configurations
from green_screen.space import FACTOR_NAMES, SpaceError, TrainingConfig, parse_level, resolve
from green_screen.statistics.accuracy import AccuracyAnalysis
from green_screen.statistics.coding import MOMENTUM, sort_levels
from green_screen.statistics.law import LAW_FACTORS
from green_screen.statistics.law_analysis import LawAnalysis

# What is varied; the other factors keep the best run's levels.
VARIED = ("batch_size", *LAW_FACTORS)

# A prediction must be better than that of the best run by this much: less is not worth its runs.
MIN_GAIN = 0.01

# Numbers overflow by what they are kept in, and by how far a step goes.
_NUMERICS = ("precision", "optimizer", "lr")
_RUN = "it was run"
_MIN_DIVERGED = 2  # runs that share a pair of levels, before it counts as one that diverges

RULE = (
    "The best, by the rule of the selection on predicted energies and accuracies, of the "
    "configurations that no run has tried, whose levels and pair of precision and internal were "
    "each run, of whose pairs of precision, optimizer and learning rate none diverged in half of "
    "its runs, and whose batch size, precision and internal did not fail together in all runs. A "
    "predicted accuracy that is not shown to be higher than the best run's (Scheffé's criterion) "
    "counts as that at most. It must be predicted to be better than the best run by 1 %; of those "
    "within 1 % of the best, it is the one that differs from the best run in the fewest factors."
)

CANDIDATE_COLUMNS = (
    *VARIED,
    "energy_j",
    "energy_low_j",
    "energy_high_j",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "score",
    "n_changed",
    "left_out",
)


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A configuration that no run has tried.

    Attributes:
        config: The requested configuration.
        effective: Factor -> effective level, canonical.
        epochs: Of the training that is predicted, those of the campaign.
        predicted: Columns of :data:`CANDIDATE_COLUMNS` from ``energy_j`` to ``accuracy_high``: what
            one new run is predicted to take, and its validation accuracy, NaN if not known; each
            with its 95 % interval.
        best_run: The same of the best run, which is what it is better than.
        candidates: All kinds of configurations, columns of :data:`CANDIDATE_COLUMNS`, the best
            first; ``left_out`` says why one was not eligible.
        n_predicted: Configurations that these stand for.
    """

    config: TrainingConfig
    effective: Mapping[str, str]
    epochs: int
    predicted: Mapping[str, float]
    best_run: Mapping[str, float]
    candidates: pd.DataFrame
    n_predicted: int


def recommend(
    runs: pd.DataFrame,
    law: LawAnalysis,
    accuracy: AccuracyAnalysis,
    selection: Selection,
    *,
    energy_budget_j: float | None = None,
    min_accuracy: float = 0.0,
) -> tuple[Recommendation | None, str]:
    """Recommend a configuration by :data:`RULE`.

    Args:
        runs: All runs of the campaign, rows of :func:`~green_screen.results.runs.read_runs`.
        law: The energy law of these runs.
        accuracy: Their validation accuracies.
        selection: The best run, with the rule that chose it.
        energy_budget_j: The most that a training may take by its prediction.
        min_accuracy: The least validation accuracy that may be predicted for it.

    Returns:
        The recommendation, or ``None`` and why there is none.
    """
    why = _cannot(law, accuracy, selection, min_accuracy)
    if why:
        return None, why
    assert law.model is not None
    epochs = runs.loc[runs["run_id"] == selection.run_id, "epochs"].iloc[0]
    if pd.isna(epochs):
        return None, "the runs do not say how many epochs they trained"
    effective = selection.effective
    table, configs = _combinations(law.runs, selection.config)
    forecast = law.model.predict(table, epochs=int(epochs))
    energies = ["energy_j", "energy_low_j", "energy_high_j"]
    table = table.join(forecast[energies])
    table["n_changed"] = sum((table[f] != effective[f]).astype(int) for f in VARIED)
    if not (table["n_changed"] == 0).any():
        return None, "the best run has levels that the law does not tell"
    at = int(np.argmin(table["n_changed"]))
    table = _with_scores(table, accuracy, selection.objective, at)
    table["left_out"] = _left_out(table, runs, law.runs, energy_budget_j, min_accuracy)
    best_run = table.iloc[at]
    if np.isnan(best_run["score"]):
        return None, "the accuracy of the best run's levels cannot be predicted"
    eligible = table[table["left_out"] == ""]
    levels = (law.runs[REQUESTED + f].nunique() for f in FACTOR_NAMES if f not in VARIED)
    n_predicted = len(table) * math.prod(levels)
    found = eligible[eligible["score"] >= (1 + MIN_GAIN) * best_run["score"]]
    if found.empty:
        return None, _nothing_better(table, eligible, n_predicted)
    near = found[found["score"] >= found["score"].max() / (1 + MIN_GAIN)]
    best = near.sort_values(["n_changed", "score"], ascending=[True, False], kind="stable").iloc[0]
    columns = [c for c in CANDIDATE_COLUMNS if c.startswith(("energy", "accuracy"))]
    return Recommendation(
        config=configs[best.name],
        effective={factor: str(best[factor]) for factor in FACTOR_NAMES},
        epochs=int(epochs),
        predicted={c: float(best[c]) for c in columns},
        best_run={c: float(best_run[c]) for c in columns},
        candidates=table.sort_values("score", ascending=False, kind="stable")[
            list(CANDIDATE_COLUMNS)
        ].reset_index(drop=True),
        n_predicted=n_predicted,
    ), ""


def _cannot(
    law: LawAnalysis, accuracy: AccuracyAnalysis, selection: Selection, min_accuracy: float
) -> str:
    """Return why nothing can be recommended, whatever the predictions say; empty if it can."""
    if law.model is None or law.choice.model != "law":
        return f"the energy law does not describe this campaign ({law.choice.why})"
    if len(law.violated):
        return "a negative control is a finding, so the campaign cannot be trusted"
    if not law.model.counts_epochs:
        return "the runs do not say of how many images an epoch is"
    if accuracy.model is None and (selection.objective != "energy" or min_accuracy > 0):
        return f"the rule needs accuracies, which cannot be predicted: {accuracy.why}"
    return ""


def _combinations(
    used: pd.DataFrame, best: TrainingConfig
) -> tuple[pd.DataFrame, list[TrainingConfig]]:
    """Return the combinations of levels of :data:`VARIED` that were run and can be combined.

    Returns:
        A row each with the effective level of every factor, as text, and the requested
        configurations, by the table's index.
    """
    seen = [sort_levels(f, set(used[EFFECTIVE + f])) for f in VARIED]
    rows, configs = [], []
    for levels in itertools.product(*seen):
        wanted = dict(zip(VARIED, levels, strict=True))
        parsed = {factor: parse_level(factor, level) for factor, level in wanted.items()}
        config = dataclasses.replace(best, **parsed)  # type: ignore[arg-type]
        try:
            effective = resolve(config).effective.as_params()
        except SpaceError:
            continue
        # Where something else would be executed, that is a combination of its own.
        if all(effective[factor] == level for factor, level in wanted.items()):
            rows.append(effective)
            configs.append(config)
    return pd.DataFrame(rows, columns=list(FACTOR_NAMES)), configs


def _with_scores(
    table: pd.DataFrame, accuracy: AccuracyAnalysis, objective: str, best_run: int
) -> pd.DataFrame:
    """Add predicted accuracies and the score by which configurations are ordered."""
    if accuracy.model is None:
        unknown = table.assign(accuracy=np.nan, accuracy_low=np.nan, accuracy_high=np.nan)
        return unknown.assign(score=score(unknown["accuracy"], unknown["energy_j"], objective))
    levels = table[list(FACTOR_NAMES)]
    table = table.join(accuracy.model.predict(levels))
    # The best of many gains that are noise would be noise; a loss counts, shown or not.
    shown = accuracy.model.differs(levels, best_run) | table["accuracy"].isna()
    counted = table["accuracy"].where(
        shown, table["accuracy"].clip(upper=table["accuracy"].iloc[best_run])
    )
    return table.assign(score=score(counted, table["energy_j"], objective))


def _left_out(
    table: pd.DataFrame,
    runs: pd.DataFrame,
    used: pd.DataFrame,
    energy_budget_j: float | None,
    min_accuracy: float,
) -> pd.Series[str]:
    """Return for each combination why it is not eligible; empty if it is."""
    reason = pd.Series("", index=table.index, dtype=object)

    def exclude(condition: npt.ArrayLike, why: str) -> None:
        nonlocal reason
        reason = reason.mask(np.asarray(condition, dtype=bool) & (reason == ""), why)

    asked = runs[(runs[[EFFECTIVE + f for f in FACTOR_NAMES]] != "").all(axis=1)]
    tried = configurations(table.add_prefix(EFFECTIVE)).isin(configurations(asked))
    exclude(tried, _RUN)
    exclude(~_among(table, used, ("precision", "internal")), "precision with internal never run")
    exclude(~_among(table, used, ("optimizer", MOMENTUM)), "momentum with optimizer never run")
    failed = asked[(asked["status"] != "FINISHED") & (asked["status"] != "RUNNING")]
    cell = ("batch_size", "precision", "internal")
    finished = asked[asked["status"] == "FINISHED"]
    only_failed = _among(table, failed, cell) & ~_among(table, finished, cell)
    exclude(only_failed, "all runs of its batch size, precision and internal failed")
    for pair in itertools.combinations(_NUMERICS, 2):
        why = f"runs with its {pair[0]} and {pair[1]} diverged"
        exclude(_among(table, _diverging(finished, pair), pair), why)
    exclude(table["energy_j"].isna(), "its energy cannot be predicted")
    if energy_budget_j is not None:
        exclude(table["energy_j"] > energy_budget_j, "predicted above the energy budget")
    if min_accuracy > 0:
        exclude(~(table["accuracy"] >= min_accuracy), "predicted below the accuracy floor")
    exclude(table["score"].isna(), "its accuracy cannot be predicted")
    return reason


def _among(
    table: pd.DataFrame, runs: pd.DataFrame, factors: tuple[str, ...]
) -> npt.NDArray[np.bool_]:
    """Return which rows of the table have levels that some run had together."""
    known = pd.MultiIndex.from_frame(runs[[EFFECTIVE + f for f in factors]])
    return np.asarray(pd.MultiIndex.from_frame(table[list(factors)]).isin(known))


def _diverging(finished: pd.DataFrame, pair: tuple[str, ...]) -> pd.DataFrame:
    """Return the levels of a pair of which at least half of the runs diverged."""
    columns = [EFFECTIVE + factor for factor in pair]
    counts = finished.groupby(columns)["diverged"].agg(["sum", "size"]).reset_index()
    diverges = (counts["size"] >= _MIN_DIVERGED) & (2 * counts["sum"] >= counts["size"])
    return counts[diverges]


def _nothing_better(table: pd.DataFrame, eligible: pd.DataFrame, n_predicted: int) -> str:
    if not eligible.empty:
        return (
            f"of {n_predicted:,} configurations predicted, none that was never run is better than "
            f"the best run by {100 * MIN_GAIN:g} % or more"
        )
    reasons = table["left_out"].value_counts()
    if list(reasons.index) == [_RUN]:
        return "every combination of the levels that enter the law was run"
    counted = "; ".join(f"{n}: {why}" for why, n in reasons.items())
    return (
        f"no configuration is left to recommend, of {len(table)} combinations of the levels that "
        f"enter the law ({counted})"
    )
