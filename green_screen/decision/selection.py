"""Chooses a configuration by a rule that is stated before the results are seen.

Only training and validation figures take part; the test set is left for the final comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.results.frame import EFFECTIVE, REQUESTED, config_of, configurations, in_run_order
from green_screen.space import FACTOR_NAMES, TrainingConfig
from green_screen.statistics.responses import COMPARABLE_RULE, UsableRuns, exclusion_reasons

OBJECTIVES: dict[str, str] = {
    "efficiency": "the highest validation accuracy per kilojoule",
    "accuracy": "the highest validation accuracy",
    "energy": "the lowest energy",
    "budget": "the highest validation accuracy among configurations within the energy budget",
}


class SelectionError(ValueError):
    """No run can be chosen, or the rule is incomplete."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A configuration chosen by a rule.

    Attributes:
        run_id: A run of the chosen configuration: the earliest one.
        run_name: Its name.
        objective: The rule's name.
        rule: The whole rule in words, ties included.
        config: The requested configuration.
        effective: Factor -> effective level, canonical.
        val_accuracy: Validation accuracy after the last epoch, mean over the configuration's runs.
        energy_j: Energy of the run by `energy_metric`, mean over the configuration's runs.
        energy_metric: Which energy the rule used.
        candidates: The configurations in the order of the rule: columns ``rank, run_id, run_name,
            n_runs, val_accuracy, energy_j, score`` and the ``effective_<factor>``.
        excluded: Columns ``run_id, run_name, reason``: runs that could not be chosen.
    """

    run_id: str
    run_name: str
    objective: str
    rule: str
    config: TrainingConfig
    effective: dict[str, str]
    val_accuracy: float
    energy_j: float
    energy_metric: str
    candidates: pd.DataFrame
    excluded: pd.DataFrame


def select(
    runs: pd.DataFrame,
    objective: str = "efficiency",
    *,
    energy_budget_j: float | None = None,
    min_accuracy: float = 0.0,
    energy_metric: str = names.ENERGY_TOTAL_J,
) -> Selection:
    """Choose a configuration among the runs of a campaign.

    Args:
        runs: Rows of :func:`~green_screen.results.runs.read_runs`.
        objective: A key of :data:`OBJECTIVES`.
        energy_budget_j: For ``budget``: the most that a run may take, in joules.
        min_accuracy: Validation accuracy below which no configuration is chosen.
        energy_metric: The run metric that counts as its energy.

    Raises:
        SelectionError: The objective is unknown, the budget is missing or not positive, or no run
            meets the rule; the message counts the reasons.
    """
    rule = rule_text(objective, energy_budget_j, min_accuracy, energy_metric)
    if are_screenings(runs):
        raise SelectionError(
            "the runs are screenings, which have no accuracy to select by (protocol=full and "
            "protocol=halving train for one)"
        )
    usable = UsableRuns.split(runs, _reasons(runs, energy_metric))
    eligible = in_run_order(usable.runs).assign(
        configuration=lambda frame: configurations(frame), energy_j=lambda f: f[energy_metric]
    )
    groups = eligible.groupby("configuration", sort=False)
    effective = [EFFECTIVE + factor for factor in FACTOR_NAMES]
    firsts = ["run_id", "run_name", *effective, *(REQUESTED + factor for factor in FACTOR_NAMES)]
    table = groups[firsts].first()
    table["n_runs"] = groups.size()
    table["val_accuracy"] = groups[names.VAL_ACCURACY].mean()
    table["energy_j"] = groups["energy_j"].mean()
    met = table["val_accuracy"] >= min_accuracy
    if energy_budget_j is not None:
        met &= table["energy_j"] <= energy_budget_j
    table = table[met]
    if table.empty:
        counts = usable.excluded["reason"].value_counts()
        aim = _aim(objective, energy_budget_j, min_accuracy)
        raise SelectionError(
            f"no configuration meets the rule ({aim}): of {len(runs)} runs, {len(eligible)} have "
            "usable figures; "
            + ("; ".join(f"{n} {why}" for why, n in counts.items()) or "none was left out")
        )
    table["score"] = score(table["val_accuracy"], table["energy_j"], objective)
    ordered = table.sort_values(["score", "energy_j"], ascending=[False, True], kind="stable")
    best = ordered.iloc[0]
    ordered = ordered.assign(rank=np.arange(1, len(ordered) + 1))
    columns = ["rank", "run_id", "run_name", "n_runs", "val_accuracy", "energy_j", "score"]
    return Selection(
        run_id=str(best["run_id"]),
        run_name=str(best["run_name"]),
        objective=objective,
        rule=rule,
        config=config_of({f: str(best[REQUESTED + f]) for f in FACTOR_NAMES}),
        effective={factor: str(best[EFFECTIVE + factor]) for factor in FACTOR_NAMES},
        val_accuracy=float(best["val_accuracy"]),
        energy_j=float(best["energy_j"]),
        energy_metric=energy_metric,
        candidates=ordered[[*columns, *effective]].reset_index(drop=True),
        excluded=usable.excluded,
    )


def rule_text(
    objective: str,
    energy_budget_j: float | None = None,
    min_accuracy: float = 0.0,
    energy_metric: str = names.ENERGY_TOTAL_J,
) -> str:
    """Return the rule in words; it can be written down before a campaign starts.

    Raises:
        SelectionError: The objective is unknown, or its budget is missing or not positive.
    """
    if objective not in OBJECTIVES:
        raise SelectionError(
            f"objective must be one of {', '.join(OBJECTIVES)}, but got {objective!r}"
        )
    if (objective == "budget") != (energy_budget_j is not None):
        raise SelectionError(
            f"energy_budget_j must be given for the objective budget and for no other, but got "
            f"objective={objective}, energy_budget_j={energy_budget_j}"
        )
    if energy_budget_j is not None and not energy_budget_j > 0:
        raise SelectionError(f"energy_budget_j must be above 0, but got {energy_budget_j}")
    return (
        f"{_aim(objective, energy_budget_j, min_accuracy)}; energy is {energy_metric}, accuracy "
        f"that of the validation part after the last epoch, both averaged over the runs of a "
        f"configuration; runs that did not finish, diverged, have an invalid or missing "
        f"measurement or cannot be compared with most do not count "
        f"({COMPARABLE_RULE.rstrip('.')}); of equals the one with less energy, then the earlier one"
    )


def _aim(objective: str, energy_budget_j: float | None, min_accuracy: float) -> str:
    """Return what is looked for, in words."""
    text = OBJECTIVES[objective]
    if energy_budget_j is not None:
        text += f" of {energy_budget_j:g} J"
    if min_accuracy > 0:
        text += f", with a validation accuracy of at least {min_accuracy:g}"
    return text


def are_screenings(runs: pd.DataFrame) -> bool:
    """Return whether all runs that finished are screenings."""
    finished = runs[runs["status"] == "FINISHED"]
    if finished.empty or names.SCREENING_ENERGY_J not in finished:
        return False
    return bool(finished[names.SCREENING_ENERGY_J].notna().all())


def _reasons(runs: pd.DataFrame, energy_metric: str) -> pd.Series[str]:
    reason = exclusion_reasons(runs, positive=energy_metric, known=(names.VAL_ACCURACY,))
    return reason.mask(runs["diverged"] & (runs["status"] == "FINISHED"), "diverged")


def score(
    accuracy: pd.Series[float], energy_j: pd.Series[float], objective: str
) -> pd.Series[float]:
    """Return how good configurations are by an objective: positive, the more the better."""
    if objective == "efficiency":
        return accuracy / (energy_j / 1000.0)
    if objective == "energy":
        return 1000.0 / energy_j
    return accuracy
