"""Writes runs made elsewhere into MLflow as a campaign that the analysis reads unchanged."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from green_screen import names
from green_screen.options import ImportOptions
from green_screen.results.legacy import LegacyRun, missing_reasons, read_folder
from green_screen.results.legacy_log import LegacyError
from green_screen.space import Space, resolve
from green_screen.tracking import RunLogger, create_child, open_run

_MAX_METRICS = 1000
_NO_CHECK = "the imported form does not say whether anything disturbed the measurement"


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did.

    Attributes:
        run_id: The campaign's parent run.
        n_runs: Runs written.
        skipped: Folder's name -> why it was left out.
    """

    run_id: str
    n_runs: int
    skipped: Mapping[str, str]


def import_runs(options: ImportOptions) -> Imported:
    """Write the runs of a folder as a campaign. All are read before the first one is written.

    Raises:
        LegacyError: No sub-folder holds a complete run.
    """
    found = read_folder(options.folder)
    if not found.runs:
        reasons = "; ".join(f"{name}: {why}" for name, why in found.skipped.items())
        raise LegacyError(
            f"folder {options.folder!r} holds no complete run ({reasons or 'no sub-folders'})"
        )
    folder = Path(options.folder).resolve().name
    tags = {names.TAG_KIND: names.KIND_SWEEP, names.TAG_IMPORTED: folder}
    with open_run(run_name=options.name or folder, tags=tags) as parent:
        client = MlflowClient()
        experiment_id = client.get_run(parent.run_id).info.experiment_id
        parent.params({"n_runs": str(len(found.runs))})
        parent.text(json.dumps(dict(found.skipped), indent=1), "skipped.json")
        for position, run in enumerate(found.runs):
            _write(client, parent.run_id, experiment_id, position, run, options)
    return Imported(run_id=parent.run_id, n_runs=len(found.runs), skipped=found.skipped)


def _write(
    client: MlflowClient,
    parent_id: str,
    experiment_id: str,
    position: int,
    run: LegacyRun,
    options: ImportOptions,
) -> None:
    resolved = resolve(run.config)
    is_baseline = run.config == Space.load().baseline
    tags = {
        names.TAG_KIND: names.KIND_BASELINE if is_baseline else names.KIND_RUN,
        names.TAG_POSITION: position,
        names.TAG_IMPORTED: run.folder,
        names.TAG_ENERGY_SOURCE: names.SOURCE_SAMPLED,
        names.TAG_DIVERGED: str(run.diverged).lower(),
        names.TAG_RULES: json.dumps([dataclasses.asdict(rule) for rule in resolved.rules]),
    }
    if options.machine:
        tags[names.TAG_GPU_NAME] = options.machine
    run_id = create_child(parent_id, f"{run.folder} {_difference(run)}", tags, experiment_id)
    logger = RunLogger(run_id, client)
    effective = resolved.effective.as_params()
    described = {"model": run.model, "dataset": options.dataset, "seed": run.seed}
    logger.params(
        run.config.as_params()
        | {names.EFFECTIVE_PREFIX + factor: level for factor, level in effective.items()}
        | {"epochs": str(len(run.epochs))}
        | {key: str(value) for key, value in described.items() if value not in (None, "")}
    )
    # The imported form records no check of the measurement: it is neither valid nor invalid.
    missing = {**missing_reasons(run), names.TAG_MEASUREMENT_VALID: _NO_CHECK}
    logger.tags({names.MISSING_PREFIX + key: reason for key, reason in missing.items()})
    metrics = [
        Metric(str(name), float(value), 0, step)
        for name, values in run.epochs.items()
        for step, value in enumerate(values)
    ]
    metrics += [Metric(name, float(value), 0, 0) for name, value in run.metrics.items()]
    for start in range(0, len(metrics), _MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _MAX_METRICS])
    client.set_terminated(run_id, "FINISHED")


def _difference(run: LegacyRun) -> str:
    baseline = Space.load().baseline.as_params()
    changed = [f"{f}={v}" for f, v in run.config.as_params().items() if v != baseline[f]]
    return " ".join(changed) or "baseline"
