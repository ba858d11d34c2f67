"""What is regressed, and which runs count: the rule is fixed here, before any result is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.results.frame import CAMPAIGN_KINDS, EFFECTIVE, in_run_order
from green_screen.space import FACTOR_NAMES


@dataclass(frozen=True, kw_only=True)
class Response:
    """A quantity whose logarithm is regressed on the factors.

    Attributes:
        name: The option's value.
        metric: The run metric.
        unit: Its unit.
        label: What it is, for a title or an axis.
        whole_run: Whether it is of the whole run: then runs of another number of epochs cannot be
            compared by it.
    """

    name: str
    metric: str
    unit: str
    label: str
    whole_run: bool = False


RESPONSES: dict[str, Response] = {
    response.name: response
    for response in (
        Response(name="epoch", metric=names.ENERGY_PER_EPOCH_J, unit="J", label="energy per epoch"),
        Response(
            name="total",
            metric=names.ENERGY_TOTAL_J,
            unit="J",
            label="energy of the whole run",
            whole_run=True,
        ),
        Response(
            name="system",
            metric=names.SYSTEM_ENERGY_J,
            unit="J",
            label="energy of GPUs, CPU and memory in the whole run",
            whole_run=True,
        ),
        Response(
            name="per_1k_images",
            metric=names.ENERGY_PER_1K_IMAGES_J,
            unit="J",
            label="training energy per 1,000 images",
        ),
        Response(
            name="net",
            metric=names.ENERGY_PER_EPOCH_NET_J,
            unit="J",
            label="energy per epoch above idle",
        ),
        Response(
            name="duration",
            metric=names.DURATION_S,
            unit="s",
            label="duration of the whole run",
            whole_run=True,
        ),
    )
}

# Runs that differ in one of these did another task, whatever their levels.
TASK = ("model", "dataset", "image_size", "samples")
# ... or were not measured in the same way.
MEASURED_TASK = (*TASK, "energy_source")
# ... or, for what depends on the whole training, were not trained equally long.
TRAINING = (*MEASURED_TASK, "epochs")

COMPARABLE_RULE = (
    "Runs are compared that agree in model, data set, image size, number of samples, energy source "
    "(for energies) and, for figures of the whole run, number of epochs: those of the most "
    "frequent combination, of equally frequent ones a measured one before an estimated one, then "
    "the earlier one."
)
EXCLUSION_RULE = (
    "A run is left out, for the first of these reasons that holds: it did not finish; its "
    "effective configuration was not logged; its measurement is tagged invalid; the response is "
    f"missing (NaN) or not positive; it cannot be compared with most runs. {COMPARABLE_RULE}"
)


@dataclass(frozen=True, kw_only=True)
class UsableRuns:
    """The runs that enter an analysis and those that do not.

    Attributes:
        runs: Rows of :func:`~green_screen.results.runs.read_runs` that are used.
        excluded: Columns ``run_id, run_name, reason``, one row a run left out.
    """

    runs: pd.DataFrame
    excluded: pd.DataFrame

    @classmethod
    def split(cls, runs: pd.DataFrame, reason: pd.Series[str]) -> UsableRuns:
        """Divide `runs` by why each is left out; an empty text keeps it."""
        out = reason != ""
        excluded = runs.loc[out, ["run_id", "run_name"]].assign(reason=reason[out])
        return cls(runs=runs[~out].reset_index(drop=True), excluded=excluded.reset_index(drop=True))


def usable_runs(runs: pd.DataFrame, response: Response) -> UsableRuns:
    """Apply :data:`EXCLUSION_RULE`; every run is either used or listed with its reason."""
    same = MEASURED_TASK if response.unit == "J" else TASK
    reason = exclusion_reasons(
        runs,
        positive=response.metric,
        same=(*same, "epochs") if response.whole_run else same,
    )
    return UsableRuns.split(runs, reason)


def exclusion_reasons(
    runs: pd.DataFrame,
    *,
    positive: str,
    known: Sequence[str] = (),
    same: Sequence[str] = TRAINING,
    measured: bool = True,
) -> pd.Series[str]:
    """Return for each run why it takes no part in a comparison; an empty text if it does.

    Args:
        runs: Rows of :func:`~green_screen.results.runs.read_runs`.
        positive: The metric that is compared: it must be there and above 0.
        known: Metrics that must be there too.
        same: Columns in which runs must agree to be compared; see :data:`COMPARABLE_RULE`.
        measured: Whether an invalid measurement of the energy leaves a run out.
    """
    reason = pd.Series("", index=runs.index, dtype=object)

    def exclude(condition: pd.Series[bool], why: str | pd.Series[str]) -> None:
        nonlocal reason
        reason = reason.mask(condition & (reason == ""), why)

    exclude(~runs["kind"].isin(CAMPAIGN_KINDS), "not a run of the campaign")
    exclude(runs["status"] != "FINISHED", runs["status"].map("did not finish: {}".format))
    unlogged = (runs[[EFFECTIVE + factor for factor in FACTOR_NAMES]] == "").any(axis=1)
    exclude(unlogged, "effective configuration not logged")
    if measured:
        exclude(runs["measurement_valid"].str.lower() == "false", "measurement invalid")
    for metric in (positive, *known):
        exclude(runs[metric].isna(), f"{metric} missing")
    exclude(~(np.isfinite(runs[positive]) & (runs[positive] > 0)), f"{positive} not positive")
    candidates = in_run_order(runs[reason == ""])
    if not candidates.empty:
        most = _most_frequent(candidates, same)
        for column, value in most.items():
            differs = runs[column].map(str) != value
            exclude(differs, f"not the {column.replace('_', ' ')} of most runs")
    return reason


def _most_frequent(runs: pd.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Return the most frequent combination of values, as text, by :data:`COMPARABLE_RULE`."""
    counts = Counter(zip(*(runs[column].map(str) for column in columns), strict=True))
    most = max(counts, key=lambda values: (counts[values], names.SOURCE_ESTIMATE not in values))
    return dict(zip(columns, most, strict=True))
