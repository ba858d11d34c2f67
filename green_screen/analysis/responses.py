"""What is regressed, and which runs count: the rule is fixed here, before any result is seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.analysis.runs import CAMPAIGN_KINDS, EFFECTIVE
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
            compared by it, nor runs of which a part was not measured.
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

EXCLUSION_RULE = (
    "A run is left out, for the first of these reasons that holds: it did not finish; its "
    "effective configuration was not logged; its measurement is tagged invalid; the response is "
    "missing (NaN); the response is not positive; its energy comes from another source than that "
    "of most runs; for responses of the whole run, a part of it was not measured, or it trained "
    "for another number of epochs than most runs."
)


@dataclass(frozen=True, kw_only=True)
class UsableRuns:
    """The runs that enter an analysis and those that do not.

    Attributes:
        runs: Rows of :func:`~green_screen.analysis.runs.read_runs` that are used.
        excluded: Columns ``run_id, run_name, reason``, one row a run left out.
    """

    runs: pd.DataFrame
    excluded: pd.DataFrame


def usable_runs(runs: pd.DataFrame, response: Response) -> UsableRuns:
    """Apply :data:`EXCLUSION_RULE`; every run is either used or listed with its reason."""
    reason = pd.Series("", index=runs.index, dtype=object)

    def exclude(condition: pd.Series[bool], why: str | pd.Series[str]) -> None:
        nonlocal reason
        reason = reason.mask(condition & (reason == ""), why)

    value = runs[response.metric]
    exclude(~runs["kind"].isin(CAMPAIGN_KINDS), "not a run of the campaign")
    exclude(runs["status"] != "FINISHED", runs["status"].map("did not finish: {}".format))
    incomplete = (runs[[EFFECTIVE + factor for factor in FACTOR_NAMES]] == "").any(axis=1)
    exclude(incomplete, "effective configuration not logged")
    exclude(runs["measurement_valid"].str.lower() == "false", "measurement invalid")
    exclude(value.isna(), f"{response.metric} missing")
    exclude(~(np.isfinite(value) & (value > 0)), f"{response.metric} not positive")
    if response.unit == "J":
        source = most_frequent(runs.loc[reason == "", "energy_source"])
        exclude(runs["energy_source"] != source, "energy source differs from most runs")
    if response.whole_run:
        exclude(runs["incomplete"].str.lower() == "true", "a part of the run was not measured")
        epochs = most_frequent(runs.loc[reason == "", "epochs"])
        exclude(runs["epochs"].notna() & (runs["epochs"] != epochs), "epochs differ from most runs")
    excluded = runs.loc[reason != "", ["run_id", "run_name"]].assign(reason=reason[reason != ""])
    return UsableRuns(
        runs=runs[reason == ""].reset_index(drop=True), excluded=excluded.reset_index(drop=True)
    )


def most_frequent(values: pd.Series) -> object:
    """Return the most frequent value (of equally frequent ones the smallest), ``None`` of none."""
    modes = values.mode()
    return modes.iloc[0] if len(modes) else None
