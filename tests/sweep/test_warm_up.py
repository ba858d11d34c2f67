"""Boards are warmed up before a campaign's runs, by jobs that count for nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import mlflow
import pytest
from campaigns import by_status, small
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from green_screen import names, tracking
from green_screen.executors.executor import TRAINER
from green_screen.executors.local import LocalExecutor
from green_screen.options import SweepOptions, TrainOptions
from green_screen.power.nvml import Board
from green_screen.results.runs import read_runs
from green_screen.space import Space, TrainingConfig
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.status import read_status
from green_screen.tracking import RunLogger
from green_screen.training import warm_up

TINY = SweepOptions(
    n_runs=1, model="resnet8", epochs=2, samples=60, image_size=16, baseline_every=0
)


def of_kind(parent_id: str, kind: str) -> list[Run]:
    client = MlflowClient()
    experiment = client.get_run(parent_id).info.experiment_id
    condition = f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.`{names.TAG_KIND}` = '{kind}'"
    return list(client.search_runs([experiment], condition))


@pytest.mark.slow
def test_each_board_has_one_before_the_first_run(store: str) -> None:
    with LocalExecutor(devices=("GPU-a", "GPU-b")) as executor:
        parent_id = run_sweep(TINY, trainer=TRAINER, executor=executor)
    runs = [run for kind in ("baseline", "run") for run in of_kind(parent_id, kind)]
    assert len(runs) == 2
    kinds = {
        (p["effective_precision"], p["effective_internal"] == "pre_quantization")
        for p in (run.data.params for run in runs)
    }
    found = of_kind(parent_id, names.KIND_WARM_UP)
    assert [run.info.status for run in found] == ["FINISHED"] * 2
    for run in found:
        assert len(json.loads(run.data.tags[names.TAG_KERNELS_OF])) == len(kinds)
    last_end = max(run.info.end_time for run in found)
    assert all(run.info.start_time >= last_end for run in runs)
    # They count for nothing.
    assert len(read_runs(sweep=parent_id)) == 2
    status = read_status(parent_id)
    assert (status.planned, len(status.finished)) == (2, 2)
    assert MlflowClient().get_run(parent_id).data.metrics[names.RUNS_FINISHED] == 2
    # Nor does the same command begin another campaign, or warm up where nothing is to be done.
    with LocalExecutor(devices=("GPU-a",)) as executor:
        assert run_sweep(dataclasses.replace(TINY, resume=parent_id), executor=executor)
    assert len(of_kind(parent_id, names.KIND_WARM_UP)) == len(found)


@pytest.mark.slow
def test_one_that_was_cut_off_is_ended_and_no_failed_run(store: str) -> None:
    with LocalExecutor() as executor:
        parent_id = run_sweep(TINY, trainer=TRAINER, executor=executor)
    assert not of_kind(parent_id, names.KIND_WARM_UP)  # no GPU
    experiment = MlflowClient().get_run(parent_id).info.experiment_id
    tags = {names.TAG_KIND: names.KIND_WARM_UP}
    left = tracking.create_child(parent_id, "warm-up 0", tags, experiment)
    assert read_status(parent_id).under_way == ()
    with LocalExecutor() as executor:
        run_sweep(dataclasses.replace(TINY, resume=parent_id), executor=executor)
    assert MlflowClient().get_run(left).info.status == "KILLED"
    assert MlflowClient().get_run(parent_id).data.metrics[names.RUNS_FAILED] == 0


def test_one_that_fails_is_told_and_the_campaign_goes_on(
    store: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("green_screen.sweep.warm_up.WARM_UP", "faulty_trainers:always_refuse")
    monkeypatch.setattr("green_screen.sweep.campaign.TRAINER", "faulty_trainers:quick")
    with LocalExecutor(devices=("GPU-a",), preload=()) as executor:
        parent_id = run_sweep(small(), trainer="faulty_trainers:quick", executor=executor)
    assert by_status(parent_id, "FINISHED") == [0, 1, 2, 3]
    assert "a board was not warmed up: " in capsys.readouterr().out


def test_the_kernels_are_made_once(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's part is simulated: a board that TensorFlow is said to use, and a cache.

    That processes of their own make them is shown in ``training/test_kernels.py``.
    """
    board = Board(index=0, uuid="GPU-1", pci_bus_id="0000:19:00.0", name="NVIDIA H100")
    monkeypatch.setenv("CUDA_CACHE_PATH", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_CACHE_DISABLE", raising=False)
    monkeypatch.setattr(warm_up, "visible_boards", lambda: (board,))
    options = TrainOptions(model="resnet8", samples=60, image_size=16)

    baseline = Space.load().baseline
    double = dataclasses.replace(baseline, precision="float64")
    asked: list[list[str]] = []

    def make(configs: Iterable[TrainingConfig], model: str, image_size: int) -> list[bool]:
        asked.append([config.precision for config in configs])
        return [model == "resnet8" for _ in asked[-1]]

    monkeypatch.setattr(warm_up.kernels, "make_apart", make)

    def made_in_s(*configs: TrainingConfig) -> float | None:
        of = json.dumps([dataclasses.asdict(config) for config in configs])
        with mlflow.start_run() as run:
            logger = RunLogger(run.info.run_id, opened_with={names.TAG_KERNELS_OF: of})
            warm_up.warm_up(baseline, options, logger)
        return MlflowClient().get_run(run.info.run_id).data.metrics.get(names.KERNELS_S)

    assert made_in_s(baseline) is None  # TensorFlow has no GPU
    monkeypatch.setattr(warm_up, "tensorflow_gpus", lambda: (0,))
    assert made_in_s(baseline) > 0
    assert made_in_s(baseline, double) > 0
    assert made_in_s(double, baseline) is None
    assert asked == [["float32"], ["float64"]]
    with pytest.raises(RuntimeError, match="1 of 1 kinds"):
        options = dataclasses.replace(options, model="resnet7")
        made_in_s(baseline)
