"""Logging and campaigns against a real MLflow server over PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import servers
import sqlalchemy
import trainers
import yaml
from mlflow import MlflowClient

from benchmarks.simulated_training import EPOCH_METRICS, FINAL_METRICS, epoch_metrics
from green_screen import names, tracking
from green_screen.executors.local import PRELOAD_TRACKING, LocalExecutor
from green_screen.options import SweepOptions
from green_screen.space import DEFAULT_CONFIG, Space
from green_screen.sweep.campaign import run_sweep


@pytest.fixture(autouse=True)
def no_store_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path / "spool"))
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_tracking_uri(before)


def test_an_epoch_does_not_wait_for_the_server(server: str) -> None:
    epochs = 50
    with servers.Gate(server) as gate:
        tracking.use_store(gate.url)
        with tracking.open_run(run_name="behind a gate") as run:
            gate.opened.clear()
            # Without a queue the first call would wait for ever.
            for epoch in range(epochs):
                run.metrics(epoch_metrics(epoch), step=epoch)
            gate.holding.wait()
            assert not gate.opened.is_set()
            gate.opened.set()
        client = MlflowClient(server)
        for index, name in enumerate(EPOCH_METRICS):
            history = client.get_metric_history(run.run_id, name)
            assert [metric.step for metric in history] == list(range(epochs))
            assert [metric.value for metric in history] == [
                1000.0 * epoch + index for epoch in range(epochs)
            ]
        assert client.get_run(run.run_id).info.status == "FINISHED"


def test_eight_children_log_at_once_and_nothing_is_lost(
    server: str, postgresql: servers.PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trainers.RELEASE, str(tmp_path / "go"))
    tracking.use_store(server)
    epochs = 50
    options = SweepOptions(
        n_runs=7, baseline_every=0, model="resnet8", epochs=epochs, cooldown_timeout_s=0
    )
    with LocalExecutor(devices=[None] * 8, preload=PRELOAD_TRACKING) as executor:
        parent = run_sweep(options, trainer="trainers:train_together", executor=executor)
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 8
    # All at once: the last one logged its first epoch before the first one logged its last.
    logged = [client.get_metric_history(run.info.run_id, names.LOSS) for run in runs]
    assert max(times[0].timestamp for times in logged) < min(
        times[-1].timestamp for times in logged
    )

    statuses = sqlalchemy.text("SELECT count(*) FROM runs WHERE status = 'RUNNING'")
    counts = sqlalchemy.text(
        "SELECT run_uuid, key, count(*), count(DISTINCT step), sum(value) FROM metrics "
        "WHERE run_uuid = ANY(:runs) GROUP BY run_uuid, key"
    )
    with sqlalchemy.create_engine(postgresql.uri).connect() as connection:
        assert connection.execute(statuses).scalar_one() == 0
        rows = connection.execute(counts, {"runs": [run.info.run_id for run in runs]}).all()
    stored = {(run_id, key): tuple(rest) for run_id, key, *rest in rows}
    for run, (index, name) in itertools.product(runs, enumerate(EPOCH_METRICS)):
        total = sum(1000.0 * epoch + index for epoch in range(epochs))
        assert stored[run.info.run_id, name] == (epochs, epochs, total)
    for run, (index, name) in itertools.product(runs, enumerate(FINAL_METRICS)):
        assert stored[run.info.run_id, name] == (1, 1, float(index))
    for run in runs:
        (logs,) = [file.path for file in client.list_artifacts(run.info.run_id)]
        lines = Path(client.download_artifacts(run.info.run_id, logs)).read_text().splitlines()
        assert len(lines) == 1 + epochs
    summary = client.download_artifacts(parent, names.RUNS_SUMMARY_CSV)
    assert len(Path(summary).read_text().splitlines()) == 1 + len(runs)


def test_real_trainings_log_to_the_server_at_once(server: str, tmp_path: Path) -> None:
    tracking.use_store(server)
    space = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))
    baseline = Space.load().baseline.as_params()
    space["factors"] = {name: [level] for name, level in baseline.items()}
    space["factors"]["lr"] = [baseline["lr"], "0.0008"]
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(space), encoding="utf-8")
    options = SweepOptions(
        n_runs=1,
        config=str(config),
        model="resnet8",
        image_size=8,
        samples=60,
        epochs=1,
        cooldown_timeout_s=0,
    )
    with LocalExecutor(devices=[None] * 2) as executor:
        parent = run_sweep(options, executor=executor)
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    for run in runs:
        assert {names.TEST_ACCURACY, names.ENERGY_TOTAL_J} <= set(run.data.metrics)
        assert len(run.inputs.dataset_inputs) == 1
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {names.LOGS_CSV, names.PARAMETERS_YAML} <= files
