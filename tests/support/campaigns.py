"""What the tests of campaigns share."""

from __future__ import annotations

import csv
import io
import subprocess
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from green_screen import names, tracking
from green_screen.options import SweepOptions
from green_screen.space import FACTOR_NAMES, Space
from green_screen.sweep.design import make_plan

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

STRIKE = "faulty_trainers:strike"


def small(**changes: object) -> SweepOptions:
    """Options of a campaign of 1 + 3 runs."""
    settings = {"n_runs": 3, "epochs": 2, "cooldown_timeout_s": 0.0} | changes
    return SweepOptions(**settings)  # type: ignore[arg-type]


@dataclass
class Driven:
    """A campaign in a process of its own."""

    process: subprocess.Popen[str]

    def end(self) -> tuple[int, str]:
        """Wait for it; return its exit status and what it printed."""
        output, _ = self.process.communicate()
        return self.process.returncode, output


def sweep_parents() -> list[Run]:
    experiment_id = tracking.ensure_experiment()
    return tracking.search_runs(experiment_id, f"tags.`{names.TAG_KIND}` = 'sweep'")


def children(parent_id: str) -> list[Run]:
    client = MlflowClient()
    experiment_id = client.get_run(parent_id).info.experiment_id
    condition = (
        f"tags.`mlflow.parentRunId` = '{parent_id}' "
        f"and tags.`{names.TAG_KIND}` != '{names.KIND_WARM_UP}'"
    )
    found = tracking.search_runs(experiment_id, condition)
    return sorted(
        found, key=lambda run: (int(run.data.tags[names.TAG_POSITION]), run.info.start_time)
    )


def by_status(parent_id: str, status: str) -> list[int]:
    """Return the positions of the children with a status, in order."""
    return [
        int(run.data.tags[names.TAG_POSITION])
        for run in children(parent_id)
        if run.info.status == status
    ]


def summary(parent_id: str) -> list[dict[str, str]]:
    uri = MlflowClient().get_run(parent_id).info.artifact_uri
    text = mlflow.artifacts.load_text(f"{uri}/{names.RUNS_SUMMARY_CSV}")
    return list(csv.DictReader(io.StringIO(text)))


def assert_complete(parent_id: str, options: SweepOptions) -> None:
    """The campaign is what an undisturbed one is: each place once, complete, as designed."""
    client = MlflowClient()
    assert client.get_run(parent_id).info.status == "FINISHED"
    plan = make_plan(Space.load(options.config), options)
    finished = [run for run in children(parent_id) if run.info.status == "FINISHED"]
    assert not [r for r in children(parent_id) if r.info.status in ("RUNNING", "SCHEDULED")]
    positions = [int(run.data.tags[names.TAG_POSITION]) for run in finished]
    assert positions == [planned.position for planned in plan.runs]
    for run, planned in zip(finished, plan.runs, strict=True):
        assert run.data.tags[names.TAG_KIND] == planned.kind
        levels = {factor: run.data.params[factor] for factor in FACTOR_NAMES}
        assert levels == planned.config.as_params()
        history = client.get_metric_history(run.info.run_id, names.EPOCH_ENERGY_J)
        assert {m.step: m.value for m in history} == {
            epoch: 10.0 + epoch for epoch in range(options.epochs)
        }
        assert run.data.metrics[names.ENERGY_TOTAL_J] == 10.0 * options.epochs
        artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert names.LOGS_CSV in artifacts
