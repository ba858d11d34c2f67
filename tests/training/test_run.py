import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import tensorflow as tf
import yaml
from mlflow.tracking import MlflowClient
from simulated_nvml import Constant, SimulatedBoard, Simulation, child_environment

from green_screen import names
from green_screen.measurement.trace_file import read_trace
from green_screen.network import xla
from green_screen.options import OptionError, TrainOptions
from green_screen.space import FACTOR_NAMES, Space
from green_screen.tracking import open_run
from green_screen.training import run as training

OPTIONS = TrainOptions(
    dataset="synthetic", model="resnet8", epochs=3, image_size=8, samples=60, log_model=False
)
ARGUMENTS = [
    *("--dataset", "synthetic", "--model", "resnet8", "--image_size", "8", "--samples", "60"),
    *("--epochs", "50", "--batch_size", "32"),
]
ROOT = Path(__file__).parents[2]
CONFIG = Space.load().parse({"batch_size": 32, "optimizer": "SGD", "lr": 0.0008})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment(names.EXPERIMENT, artifact_location=f"file://{folder}/artifacts")
    yield folder
    mlflow.set_tracking_uri(before)


def train(config=CONFIG, options=OPTIONS):
    """Train for real and return the run as the server has it."""
    with open_run(tags={names.TAG_KIND: names.KIND_TRAIN}) as run:
        training.train(config, options, run)
    return MlflowClient().get_run(run.run_id)


def artifact(run, name):
    with open(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=name)) as f:
        return f.read()


def history(run, metric):
    found = MlflowClient().get_metric_history(run.info.run_id, metric)
    return [(m.step, m.value) for m in sorted(found, key=lambda m: m.step)]


@pytest.fixture(scope="module")
def finished(store):
    config = dataclasses.replace(
        CONFIG,
        optimizer="Adam",
        optimizer_momentum=0.9,
        lr_schedule="cosine",
        augmentation="random",
    )
    return train(config, dataclasses.replace(OPTIONS, min_window_s=6.0, log_model=True))


def test_requested_and_effective_levels_are_logged_with_the_rule_between_them(finished):
    params = finished.data.params
    assert set(FACTOR_NAMES) <= set(params)
    assert params["optimizer_momentum"] == "0.9"
    assert params["effective_optimizer_momentum"] == "None"
    assert params["effective_lr"] == "0.0008"
    (rule,) = json.loads(finished.data.tags[names.TAG_RULES])
    assert (rule["factor"], rule["requested"], rule["effective"]) == (
        "optimizer_momentum",
        "0.9",
        "None",
    )
    assert (params["model"], params["log_model"], params["seed"]) == ("resnet8", "true", "22")


def test_the_data_and_the_hardware_are_logged(finished):
    (used,) = finished.inputs.dataset_inputs
    assert used.dataset.name == "synthetic"
    assert finished.data.params["dataset_sha256"].startswith(used.dataset.digest)
    assert len(json.loads(finished.data.tags[names.TAG_AUGMENTATION_OPS])) == 3
    assert finished.data.tags["tensorflow_version"] == tf.__version__
    assert xla.NO_TRITON_PRODUCTS in finished.data.tags["xla_flags"].split()
    assert int(finished.data.tags["cpu_cores"]) >= 1
    assert float(finished.data.tags["host_load"]) >= 0 and finished.data.tags["host_container"]


def test_each_declared_epoch_is_logged_once_and_further_ones_apart(finished):
    for metric in (names.LOSS, names.ACCURACY, names.VAL_LOSS, names.EPOCH_ENERGY_J):
        assert [step for step, _ in history(finished, metric)] == [0, 1, 2]
    assert finished.data.metrics[names.FURTHER_EPOCHS] >= 1
    assert finished.data.metrics[names.STEADY_WINDOW_S] >= 6.0
    assert len(list(csv.DictReader(artifact(finished, names.LOGS_CSV).splitlines()))) == 5


def test_the_learning_rate_follows_the_schedule_over_the_whole_training(finished):
    rates = [rate for _, rate in history(finished, names.LEARNING_RATE)]
    expected = [0.0008 * (1 + math.cos(math.pi * k / 3)) / 2 for k in (1, 2, 3)]
    np.testing.assert_allclose(rates, expected, rtol=1e-4, atol=1e-10)


def test_totals_and_test_figures_are_logged_and_stand_in_parameters_yaml(finished):
    metrics = finished.data.metrics
    parts = sum(v for _, v in history(finished, names.EPOCH_ENERGY_J))
    assert metrics[names.ENERGY_TOTAL_J] > parts > 0
    assert metrics[names.EVALUATION_ENERGY_J] > 0
    assert 0 <= metrics[names.TEST_ACCURACY] <= 1
    assert metrics[names.N_PARAMETERS] > 100_000
    written = yaml.safe_load(artifact(finished, names.PARAMETERS_YAML))
    assert written["test_accuracy"] == pytest.approx(metrics[names.TEST_ACCURACY])
    assert written["model"] == "resnet8"
    assert set(FACTOR_NAMES) <= set(written)
    assert names.TAG_DIVERGED not in finished.data.tags
    assert names.CONVERSION_ENERGY_J not in metrics


def test_a_logged_model_has_the_figures_of_its_run_and_no_other(finished):
    (logged,) = MlflowClient().search_logged_models([finished.info.experiment_id])
    metrics = finished.data.metrics
    of_the_epochs = {names.LOSS, names.ACCURACY, names.EPOCH_ENERGY_J, names.GPU_POWER_MEAN_W}
    of_the_run = {
        names.TEST_ACCURACY,
        names.TEST_LOSS,
        names.ENERGY_PER_1K_IMAGES_J,
        names.ENERGY_TOTAL_J,
        names.EMISSIONS_TOTAL_KG_CO2EQ,
    }
    found = {metric.key: metric for metric in logged.metrics}
    assert len(found) == len(logged.metrics)
    assert of_the_run <= set(found)
    assert not of_the_epochs & set(found)
    missing = {key for key, value in metrics.items() if math.isnan(value)}
    assert missing  # there is no GPU here
    assert not missing & set(found)
    assert {key: metric.value for key, metric in found.items()} == {k: metrics[k] for k in found}
    (used,) = finished.inputs.dataset_inputs
    assert {(m.dataset_name, m.dataset_digest) for m in found.values()} == {
        (used.dataset.name, used.dataset.digest)
    }
    assert logged.params == finished.data.params
    assert logged.tags[names.TAG_ENERGY_SOURCE] == finished.data.tags[names.TAG_ENERGY_SOURCE]


def test_further_epochs_change_no_figure_of_the_training(finished):
    config = dataclasses.replace(CONFIG, **factors_of(finished))
    without = train(config, dataclasses.replace(OPTIONS, min_window_s=0.0, log_model=True))
    assert names.FURTHER_EPOCHS not in without.data.metrics
    for metric in (names.TEST_LOSS, names.TEST_ACCURACY, names.LOSS):
        assert without.data.metrics[metric] == pytest.approx(
            finished.data.metrics[metric], rel=1e-3
        )
    # Nor do they change the model that is logged.
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    answers = [
        mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model").predict(images)
        for run in (finished, without)
    ]
    np.testing.assert_allclose(*answers, atol=1e-3)


def factors_of(run):
    return {
        "optimizer": run.data.params["optimizer"],
        "lr_schedule": run.data.params["lr_schedule"],
        "augmentation": run.data.params["augmentation"],
    }


def test_divergence_is_tagged_and_stops_neither_training_nor_measurement(store):
    config = dataclasses.replace(CONFIG, lr=1e30, internal="post_quantization")
    run = train(config, dataclasses.replace(OPTIONS, epochs=2))
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.TAG_DIVERGED] == "true"
    assert len(history(run, names.EPOCH_ENERGY_J)) == 2
    assert run.data.metrics[names.ENERGY_PER_EPOCH_J] > 0
    assert math.isnan(run.data.metrics[names.INT8_MODEL_BYTES])
    assert "not finite" in run.data.tags[names.MISSING_PREFIX + names.INT8_MODEL_BYTES]


@pytest.mark.parametrize(
    ("changes", "levels", "message"),
    [
        ({"model": "vgg"}, {}, "model must be one of"),
        ({"country": "XXX"}, {}, "country must be"),
        ({"model": "convnext_tiny", "image_size": 32}, {"internal": "pre_quantization"}, "resnet"),
        ({"model": "convnext_tiny"}, {}, "at least 32 pixels"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_logged(store, changes, levels, message):
    with pytest.raises(OptionError, match=message), open_run() as run:
        training.train(
            dataclasses.replace(CONFIG, **levels), dataclasses.replace(OPTIONS, **changes), run
        )
    assert MlflowClient().get_run(run.run_id).data.params == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"dataset": "nowhere"}, "nowhere"), ({"samples": 30}, "batch_size must be at most")],
)
def test_a_data_set_that_can_no_longer_be_used_says_why(store, changes, message):
    """Whoever asks for a training has opened it before: ``check_trainings``."""
    with pytest.raises(OptionError, match=message), open_run() as run:
        training.train(CONFIG, dataclasses.replace(OPTIONS, **changes), run)
    assert MlflowClient().get_run(run.run_id).info.status == "FAILED"


@pytest.mark.slow
def test_what_was_measured_survives_sigterm(store, tmp_path):
    """The signal comes from the process itself, once it has logged its second epoch."""
    code = f"""
import os, signal, sys
sys.argv = ["train"]
from entrypoints.train import main
from green_screen.tracking import RunLogger
log = RunLogger.metrics
def log_and_end(self, metrics, step=0):
    log(self, metrics, step)
    if step == 1:
        os.kill(os.getpid(), signal.SIGTERM)
RunLogger.metrics = log_and_end
sys.exit(main({ARGUMENTS!r}))
"""
    board = Simulation(boards=[SimulatedBoard(curve=Constant(250.0), processes=(1,))])
    environment = {
        **os.environ,
        **child_environment(board, tmp_path / "child"),
        "CUDA_CACHE_PATH": str(tmp_path / "kernels"),
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert "train: ended by SIGTERM" in done.stderr
    (run,) = MlflowClient().search_runs(
        [mlflow.get_experiment_by_name(names.EXPERIMENT).experiment_id],
        filter_string="attributes.status = 'KILLED'",
    )
    assert "SIGTERM" in run.data.tags[names.TAG_FAILURE]
    assert [step for step, _ in history(run, names.EPOCH_ENERGY_J)] == [0, 1]
    assert [row.split(",")[0] for row in artifact(run, names.LOGS_CSV).splitlines()][2:] == [
        "0",
        "1",
    ]
    assert yaml.safe_load(artifact(run, names.PARAMETERS_YAML))["batch_size"] == "32"
    path = MlflowClient().download_artifacts(run.info.run_id, names.TRACE_PARQUET)
    samples, phases = read_trace(path)
    assert set(samples["watts"]) == {250.0}
    assert [name for name in phases["phase"] if name[:5] == "epoch"] == ["epoch 0", "epoch 1"]
