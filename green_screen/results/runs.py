"""Reads campaigns from the tracking server into typed tables: one row a run, one row an epoch.

The analysis itself works on these tables alone and never talks to the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from green_screen import names, tracking
from green_screen.results.frame import CAMPAIGN_KINDS, EFFECTIVE, REQUESTED
from green_screen.results.histories import read_histories
from green_screen.results.paging import search_all
from green_screen.space import FACTOR_NAMES

# Metrics whose latest value describes the run: those of the run, and those of its last epoch.
RUN_METRICS: tuple[str, ...] = (
    names.ENERGY_PER_EPOCH_J,
    names.ENERGY_PER_EPOCH_NET_J,
    names.ENERGY_PER_1K_IMAGES_J,
    names.ENERGY_PER_1K_IMAGES_NET_J,
    names.STEADY_IMAGES_PER_S,
    names.VALIDATION_ENERGY_PER_1K_IMAGES_J,
    names.STEADY_VALIDATION_IMAGES_PER_S,
    names.N_TRAIN_IMAGES,
    names.N_VALIDATION_IMAGES,
    names.CHANCE_ACCURACY,
    names.SETUP_S,
    names.WARMUP_S,
    names.SETUP_ENERGY_J,
    names.WARMUP_ENERGY_J,
    names.CONVERSION_ENERGY_J,
    names.EVALUATION_ENERGY_J,
    names.FURTHER_ENERGY_J,
    names.ENERGY_TOTAL_J,
    names.ENERGY_TOTAL_NET_J,
    names.SYSTEM_ENERGY_J,
    names.DURATION_S,
    names.CHECKPOINT_ENERGY_J,
    names.PARTS,
    names.GAP_S,
    names.ENERGY_LOST_J,
    names.LOST_S,
    names.TRAINED_ENERGY_J,
    names.SCREENING_ENERGY_J,
    names.FORECAST_ENERGY_J,
    names.FORECAST_ENERGY_LOW_J,
    names.FORECAST_ENERGY_HIGH_J,
    names.FORECAST_S,
    names.EMISSIONS_TOTAL_KG_CO2EQ,
    names.IDLE_POWER_W,
    names.IDLE_POWER_BEFORE_W,
    names.IDLE_POWER_CONTEXT_W,
    names.IDLE_POWER_AFTER_W,
    names.START_TEMPERATURE_C,
    names.RUN_OVERHEAD_S,
    names.N_PARAMETERS,
    names.TEST_ACCURACY,
    names.TEST_LOSS,
    names.LOSS,
    names.ACCURACY,
    names.VAL_LOSS,
    names.VAL_ACCURACY,
    names.IMAGES_PER_S,
    names.EPOCH_TIME_S,
    names.GPU_POWER_MEAN_W,
    names.GPU_TEMPERATURE_C,
    names.GPU_UTILIZATION_PERCENT,
)

EPOCH_METRICS: tuple[str, ...] = (
    names.LOSS,
    names.ACCURACY,
    names.VAL_LOSS,
    names.VAL_ACCURACY,
    names.EPOCH_TIME_S,
    names.EPOCH_ENERGY_J,
    names.GPU_POWER_MEAN_W,
    names.GPU_POWER_MAX_W,
    names.GPU_TEMPERATURE_C,
)

# Parameters beside the factors that decide which runs can be compared.
_TEXT_PARAMS = ("model", "dataset", "country")
_NUMBER_PARAMS = ("epochs", "seed", "samples", "image_size")

_TEXT_TAGS = {
    "energy_source": names.TAG_ENERGY_SOURCE,
    "cpu_energy_source": names.TAG_CPU_SOURCE,
    "measurement_valid": names.TAG_MEASUREMENT_VALID,
    "invalid_reason": names.TAG_INVALID_REASON,
    "failure": names.TAG_FAILURE,
    "design_hash": names.TAG_DESIGN_HASH,
    "place": names.TAG_POSITION,
}


class CampaignError(ValueError):
    """A campaign that does not exist, is ambiguous, or holds no runs."""


def read_runs(
    *,
    sweep: str | Sequence[str] | None = None,
    experiment: str | None = None,
    filter_string: str | None = None,
    client: MlflowClient | None = None,
) -> pd.DataFrame:
    """Return one typed row a run of one campaign or of several.

    Args:
        sweep: Run id or run name of a campaign's parent run, or several of them, as a list or
            joined by commas. ``None`` takes the latest campaign, unless `experiment` or
            `filter_string` say which runs are meant.
        experiment: Name of the experiment to look in; ``None`` looks in all of them.
        filter_string: An MLflow search filter that the runs must meet too.
        client: Where the runs are; by default the current tracking URI.

    Returns:
        The columns of :func:`to_frame`, ordered by campaign and position.

    Raises:
        CampaignError: There is no such campaign or experiment, a name is that of several, or no run
            was found.
    """
    if client is None:
        tracking.check_store()
        client = MlflowClient()
    experiment_ids = _experiment_ids(client, experiment)
    if sweep is None and experiment is None and filter_string is None:
        parents: list[Run] | None = [_latest_sweep(client, experiment_ids)]
    elif sweep is None:
        parents = None
    else:
        wanted = sweep.split(",") if isinstance(sweep, str) else list(sweep)
        parents = [_find_sweep(client, experiment_ids, text.strip()) for text in wanted]
    runs: list[Run] = []
    for parent in parents if parents is not None else [None]:
        clauses = [filter_string] if filter_string else []
        if parent is not None:
            clauses.append(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent.info.run_id}'")
        ids = [parent.info.experiment_id] if parent is not None else experiment_ids
        runs.extend(search_all(client, ids, " and ".join(clauses)))
    frame = to_frame(runs)
    frame = frame[frame["kind"].isin(CAMPAIGN_KINDS)]
    if frame.empty:
        where = f"sweep {sweep!r}" if sweep else f"experiment {experiment!r}"
        raise CampaignError(
            f"{where} with filter {filter_string!r} has no run of kind {', '.join(CAMPAIGN_KINDS)}"
        )
    return frame.sort_values(["campaign", "position"], kind="stable").reset_index(drop=True)


def to_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """Return MLflow runs as one typed table.

    Returns:
        Text columns ``run_id, run_name, campaign`` (the parent's run id), ``kind, status, machine,
        model, dataset, country``, the tags ``energy_source, cpu_energy_source, measurement_valid``
        (``"true"``, ``"false"``, or empty where it was not checked, as in imported runs; these are
        used like valid ones), ``invalid_reason, failure, design_hash, place`` (in the plan: runs
        that are done again have the same);
        ``requested_<factor>`` and ``effective_<factor>`` as canonical strings (empty if absent);
        ``diverged`` as bool; ``position`` (the place among the campaign's runs, as they were
        started: runs are done again, and a sequential design has no other order), ``epochs, seed,
        samples, image_size`` and every metric of :data:`RUN_METRICS` under its own name as float,
        NaN where absent; ``start_time`` in UTC.
    """
    rows = [_row(run) for run in runs]
    frame = pd.DataFrame(rows, columns=list(_columns()))
    for column in ("position", *_NUMBER_PARAMS):
        frame[column] = pd.to_numeric(frame[column], errors="coerce").astype("float64")
    for column in RUN_METRICS:
        frame[column] = frame[column].astype("float64")
    frame["start_time"] = pd.to_datetime(frame["start_time"], unit="ms", utc=True)
    placed = frame[frame["position"].notna()].sort_values(["start_time", "position"])
    frame["position"] = placed.groupby("campaign").cumcount().astype("float64")
    return frame


def read_epochs(
    run_ids: Sequence[str],
    *,
    metrics: Sequence[str] = EPOCH_METRICS,
    client: MlflowClient | None = None,
) -> pd.DataFrame:
    """Return the metric histories of a few runs: one row a run and epoch.

    Ask for the runs that a figure needs: histories are by far the largest part of a store.

    Returns:
        Columns ``run_id`` (text), ``epoch`` (int, from 0) and each of `metrics` (float, NaN where
        it was not logged).
    """
    client = client or MlflowClient()
    records = read_histories(client, run_ids, metrics)
    long = pd.DataFrame(records, columns=["run_id", "epoch", "metric", "value"])
    # A resumed run may have logged a step twice; the later value stands.
    wide = long.drop_duplicates(["run_id", "epoch", "metric"], keep="last").pivot(
        index=["run_id", "epoch"], columns="metric", values="value"
    )
    wide = wide.reindex(columns=list(metrics)).astype("float64").reset_index()
    wide.columns.name = None
    return wide.astype({"epoch": "int64"})


def _columns() -> Iterator[str]:
    yield from ("run_id", "run_name", "campaign", "kind", "status", "position", "machine")
    yield "start_time"
    yield from _TEXT_PARAMS
    yield from _NUMBER_PARAMS
    yield from _TEXT_TAGS
    yield "diverged"
    for prefix in (REQUESTED, EFFECTIVE):
        yield from (prefix + factor for factor in FACTOR_NAMES)
    yield from RUN_METRICS


def _row(run: Run) -> dict[str, Any]:
    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    nan = float("nan")
    row: dict[str, Any] = {
        "run_id": run.info.run_id,
        "run_name": run.info.run_name or tags.get(MLFLOW_RUN_NAME, ""),
        "campaign": tags.get(MLFLOW_PARENT_RUN_ID, ""),
        "kind": tags.get(names.TAG_KIND, ""),
        "status": run.info.status,
        "position": tags.get(names.TAG_POSITION),
        "machine": _machine(tags),
        "start_time": run.info.start_time,
        "diverged": tags.get(names.TAG_DIVERGED, "").lower() == "true",
    }
    row.update({name: params.get(name, "") for name in _TEXT_PARAMS})
    row.update({name: params.get(name) for name in _NUMBER_PARAMS})
    row.update({column: tags.get(tag, "") for column, tag in _TEXT_TAGS.items()})
    for factor in FACTOR_NAMES:
        row[REQUESTED + factor] = params.get(factor, "")
        row[EFFECTIVE + factor] = params.get(EFFECTIVE + factor, "")
    row.update({name: metrics.get(name, nan) for name in RUN_METRICS})
    return row


def _machine(tags: Mapping[str, str]) -> str:
    """Name the board where there is one (power sensors differ by board), or else the processor."""
    gpu = tags.get(names.TAG_GPU_NAME, "")
    if gpu in ("", "none"):
        return tags.get(names.TAG_CPU_NAME, "")
    return f"{gpu} {tags.get(names.TAG_BOARD, '')}".strip()


def _experiment_ids(client: MlflowClient, experiment: str | None) -> list[str]:
    if experiment is None:
        return [found.experiment_id for found in client.search_experiments()]
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise CampaignError(f"there is no experiment named {experiment!r} on this server")
    return [found.experiment_id]


def _latest_sweep(client: MlflowClient, experiment_ids: list[str]) -> Run:
    found = client.search_runs(
        experiment_ids,
        f"tags.`{names.TAG_KIND}` = '{names.KIND_SWEEP}'",
        ViewType.ACTIVE_ONLY,
        1,
        ["attributes.start_time DESC"],
    )
    if not found:
        raise CampaignError("no campaign was found on this server: run the entry point sweep first")
    return found[0]


def _find_sweep(client: MlflowClient, experiment_ids: list[str], text: str) -> Run:
    is_sweep = f"tags.`{names.TAG_KIND}` = '{names.KIND_SWEEP}'"
    if "'" in text:
        raise CampaignError(f"sweep must be a run id or a run name without quotes, got {text!r}")
    attribute = "run_id" if re.fullmatch("[0-9a-f]{32}", text) else "run_name"
    found = client.search_runs(
        experiment_ids, f"attributes.{attribute} = '{text}' and {is_sweep}", ViewType.ACTIVE_ONLY
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise CampaignError(f"there is no campaign with the {attribute} {text!r} on this server")
    ids = ", ".join(run.info.run_id for run in found)
    raise CampaignError(f"{len(found)} campaigns are named {text!r}; give the id of one: {ids}")
