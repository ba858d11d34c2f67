"""A training in parts is the training in one part: same weights, and energies that add up."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import tensorflow as tf
import tiny_training as tiny
from mlflow.tracking import MlflowClient
from simulated_nvml import Constant, SimulatedBoard, Simulation, child_environment

from green_screen import locks, names
from green_screen.network.optimizer import FLOAT16_LOSS_SCALE
from green_screen.options import TrainOptions
from green_screen.space import Space
from green_screen.sweep.energies import EnergyTally
from green_screen.tracking import RunLogger, open_run
from green_screen.training import checkpoint, places
from green_screen.training import run as training

OPTIONS = TrainOptions(
    dataset="synthetic", model="resnet8", epochs=5, image_size=8, samples=60, checkpoint_every=2
)
ROOT = Path(__file__).parents[2]
SPACE = Space.load()
SGD = dataclasses.replace(SPACE.parse({"optimizer": "SGD"}), batch_size=8)


pytestmark = pytest.mark.usefixtures("store", "spool")


@pytest.fixture
def spool(tmp_path, monkeypatch):
    monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path / "spool"))


@pytest.fixture
def trained(monkeypatch):
    """All numbers that a training ends with, one list for each that came to its test."""
    found = []
    evaluate = training.evaluate

    def keep(network, pipeline):
        state = [*network.get_weights(), *network.optimizer.get_weights()]
        if hasattr(network.optimizer, "loss_scale"):
            state.append(network.optimizer.loss_scale.numpy())
        found.append(state)
        return evaluate(network, pipeline)

    monkeypatch.setattr(training, "evaluate", keep)
    return found


class CutError(Exception):
    """What ends a part."""


def train(config, options=OPTIONS, *, cut_at=None):
    """Train, up to the end of an epoch if that is to be the last, and return the run."""
    log = RunLogger.metrics

    def log_and_end(self, metrics, step=0, **model):
        log(self, metrics, step, **model)
        if step == cut_at and names.EPOCH_TIME_S in metrics:
            raise CutError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLogger, "metrics", log_and_end)
        try:
            with open_run(tags={names.TAG_KIND: names.KIND_TRAIN}) as run:
                training.train(config, options, run)
        except CutError:
            pass
    return MlflowClient().get_run(run.run_id)


def history(run, metric):
    found = MlflowClient().get_metric_history(run.info.run_id, metric)
    return [(m.step, m.value) for m in sorted(found, key=lambda m: m.step)]


@pytest.mark.parametrize(
    ("levels", "cuts"),
    [
        ({"optimizer": "SGD", "optimizer_momentum": 0.9, "lr_schedule": "cosine"}, (2, 4)),
        ({"optimizer": "Adam", "augmentation": "random", "lr_schedule": "exponential"}, (3,)),
        ({"optimizer": "AdamW", "augmentation": "mixup", "precision": "float16"}, (3,)),
        ({"optimizer": "RMSProp", "internal": "pre_quantization"}, (3,)),
    ],
)
def test_parts_give_the_weights_of_one_part_bit_for_bit(trained, levels, cuts):
    config = dataclasses.replace(SPACE.parse(levels), batch_size=8)
    train(config, dataclasses.replace(OPTIONS, checkpoint_every=0))
    for cut in cuts:
        train(config, cut_at=cut)
    train(config)
    whole, parts = trained
    assert len(whole) == len(parts)
    for one, other in zip(whole, parts, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other, equal_nan=True)


def test_a_halved_loss_scale_is_part_of_a_checkpoint(tmp_path):
    config = tiny.effective(precision="float16")
    one, other = tiny.build(config), tiny.build(config)
    images = tf.zeros([1, tiny.SIZE, tiny.SIZE, 3], tf.float16)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(one(images)) * np.inf
    one.optimizer.apply_gradients(
        zip(tape.gradient(loss, one.trainable_variables), one.trainable_variables, strict=True)
    )
    assert one.optimizer.loss_scale == FLOAT16_LOSS_SCALE / 2
    checkpoint.state_of(one).write(str(tmp_path / "network"))
    checkpoint.state_of(other).read(str(tmp_path / "network")).assert_consumed()
    assert other.optimizer.loss_scale == FLOAT16_LOSS_SCALE / 2


def test_energies_of_the_parts_add_up_and_what_was_lost_is_named():
    cut = train(SGD, cut_at=2)
    (folder,) = places.root().iterdir()
    state = json.loads((folder / "epoch-2" / "state.json").read_text())["measured"]
    spent = json.loads((folder / "spent.json").read_text())
    whole = train(SGD)

    metrics = whole.data.metrics
    for metric in (names.LOSS, names.VAL_ACCURACY, names.EPOCH_ENERGY_J, names.LEARNING_RATE):
        assert history(whole, metric)[:2] == history(cut, metric)[:2]
        assert [step for step, _ in history(whole, metric)] == [0, 1, 2, 3, 4]
    (first,) = state["totals"]
    assert metrics[names.DURATION_S] > first["seconds"]
    assert metrics[names.ENERGY_TOTAL_J] > first["energy_j"] > 0
    phases = {name: [p for p in state["phases"] if p["name"] == name] for name in ("setup",)}
    assert metrics[names.SETUP_ENERGY_J] > sum(p["energy_j"] for p in phases["setup"]) > 0
    named = (names.SETUP_ENERGY_J, names.CHECKPOINT_ENERGY_J, names.EVALUATION_ENERGY_J)
    epochs_j = sum(joules for _, joules in history(whole, names.EPOCH_ENERGY_J))
    assert metrics[names.ENERGY_TOTAL_J] == pytest.approx(
        epochs_j + sum(metrics[name] for name in (*named, names.OTHER_ENERGY_J))
    )
    # The third epoch was trained twice: its energy was spent, and is not the training's.
    assert metrics[names.ENERGY_LOST_J] == spent["since_j"]
    assert spent["since_j"] > history(cut, names.EPOCH_ENERGY_J)[2][1]
    assert metrics[names.PARTS] == 2
    assert metrics[names.CONTINUED_FROM_EPOCH] == 2
    assert metrics[names.GAP_S] > 0
    assert whole.data.tags[names.TAG_CONTINUES] == cut.info.run_id
    assert names.PARTS not in cut.data.metrics
    # Neither part's first epoch is steady.
    assert metrics[names.STEADY_EPOCHS] + metrics[names.UNSTEADY_EPOCHS] == 5
    assert metrics[names.UNSTEADY_EPOCHS] >= 2
    logs = mlflow.artifacts.load_text(f"{whole.info.artifact_uri}/{names.LOGS_CSV}")
    rows = list(csv.DictReader(logs.splitlines()))
    assert [row["epoch"] for row in rows] == ["pre", "0", "1", "2", "3", "4", "post"]
    times = [float(row["time"]) for row in rows]
    assert times == sorted(times)
    assert not list(places.root().iterdir())

    tally = EnergyTally([cut, whole])
    assert tally.n_unknown == 0
    assert tally.joules == metrics[names.ENERGY_TOTAL_J] + metrics[names.ENERGY_LOST_J]


def test_what_is_cut_off_in_its_test_is_tested_again_and_not_trained_again(monkeypatch):
    evaluate = training.evaluate

    def cut(network, pipeline):
        monkeypatch.setattr(training, "evaluate", evaluate)
        raise CutError

    monkeypatch.setattr(training, "evaluate", cut)
    options = dataclasses.replace(OPTIONS, epochs=2)
    first = train(SGD, options)
    monkeypatch.setattr(training, "fit", lambda *_, **__: pytest.fail("it is trained again"))
    whole = train(SGD, options)
    assert whole.info.status == "FINISHED"
    assert history(whole, names.EPOCH_ENERGY_J) == history(first, names.EPOCH_ENERGY_J)
    assert whole.data.metrics[names.ENERGY_PER_EPOCH_J] > 0


def test_another_training_does_not_go_on_with_it():
    train(SGD, cut_at=2)
    for other in (
        train(dataclasses.replace(SGD, lr=0.02)),
        train(SGD, dataclasses.replace(OPTIONS, seed=23)),
    ):
        assert names.PARTS not in other.data.metrics
    assert len(list(places.root().iterdir())) == 1


def test_a_checkpoint_that_cannot_be_read_is_told_and_removed():
    train(SGD, cut_at=2)
    (network,) = places.root().glob("*/epoch-2/network.data*")
    network.write_bytes(network.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match="cannot be read .* and is removed"):
        train(SGD)
    assert names.CONTINUED_FROM_EPOCH in train(SGD).data.metrics


def test_a_disk_that_is_full_leaves_the_checkpoint_before(monkeypatch, caplog):
    def full(path):
        raise OSError(28, "No space left on device")

    train(SGD, cut_at=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_synchronize", full)
        train(SGD, cut_at=4)
    assert "the checkpoint after epoch 4 is not written" in caplog.text
    assert train(SGD).data.metrics[names.CONTINUED_FROM_EPOCH] == 2


def test_two_processes_of_the_same_training_keep_apart(caplog):
    (folder,) = [train(SGD, cut_at=2), *places.root().iterdir()][1:]
    with locks.alone(folder):
        whole = train(SGD)
    assert "another process is doing the same training" in caplog.text
    assert whole.info.status == "FINISHED"
    assert names.PARTS not in whole.data.metrics
    assert folder.is_dir()


def test_the_same_train_command_goes_on_after_sigkill_with_the_energies_of_the_board(tmp_path):
    arguments = [
        *("--dataset", "synthetic", "--model", "resnet8", "--image_size", "8", "--samples", "60"),
        *("--epochs", "4", "--batch_size", "32", "--min_window_s", "0", "--checkpoint_every", "2"),
    ]
    ending = "from preempted_trainers import in_an_epoch; in_an_epoch()"
    command = f"import sys; from entrypoints.train import main; sys.exit(main({arguments!r}))"
    board = Simulation(boards=[SimulatedBoard(curve=Constant(250.0), processes=(1,))])
    statuses = []
    for code in (f"{ending}; {command}", command):
        environment = {
            **os.environ,
            **child_environment(board, tmp_path / f"child{len(statuses)}"),
            "CUDA_CACHE_PATH": str(tmp_path / "kernels"),
            "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        }
        environment["PYTHONPATH"] = f"{ROOT}{os.pathsep}{environment['PYTHONPATH']}"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False)
        statuses.append(done.returncode)
    assert statuses == [-signal.SIGKILL, 0]

    experiment = mlflow.get_experiment_by_name(names.EXPERIMENT)
    whole, cut = MlflowClient().search_runs([experiment.experiment_id])
    assert (cut.info.status, whole.info.status) == ("KILLED", "FINISHED")
    assert f"run {whole.info.run_id} goes on" in cut.data.tags[names.TAG_FAILURE]
    assert history(whole, names.EPOCH_ENERGY_J)[:2] == history(cut, names.EPOCH_ENERGY_J)
    metrics = whole.data.metrics
    assert metrics[names.CONTINUED_FROM_EPOCH] == 2
    assert whole.data.tags[names.TAG_ENERGY_SOURCE] == names.SOURCE_COUNTER
    edge_j = 250.0 * 0.1  # the counter is renewed every 100 ms
    assert metrics[names.ENERGY_LOST_J] > 0
    assert metrics[names.ENERGY_LOST_J] == pytest.approx(
        250 * metrics[names.LOST_S], abs=2 * edge_j
    )
    assert metrics[names.CHECKPOINT_ENERGY_J] == pytest.approx(
        250 * metrics[names.CHECKPOINT_S], abs=4 * 2 * edge_j
    )
    outside = metrics[names.DURATION_S] * 250 - metrics[names.ENERGY_TOTAL_J]
    assert abs(outside) < 10 * edge_j
