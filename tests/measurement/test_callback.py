"""SMICallback in real trainings: alone, with an active MLflow run, and inside a measured run."""

from __future__ import annotations

import csv
import gc
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import types
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf
import yaml
from simulated_nvml import Constant, SimulatedBoard, Simulation, child_environment
from waiting import keep_busy, until

from green_screen import SMICallback, names, tracking
from green_screen.measurement import keras_figures
from green_screen.measurement.run_measurement import RunMeasurement
from green_screen.tracking import RunLogger

FIRST_COLUMNS = ["epoch", "time", "loss", "accuracy", "val_loss", "val_accuracy"]
FIRST_COLUMNS += ["gpu_power_W", "gpu_temp_C", "gpu_util_%", "energy_J"]


def model() -> keras.Model:
    built = keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(3, activation="softmax")])
    built.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return built


class Busy(keras.callbacks.Callback):
    """Work long enough for the estimate, which knows the processor's load in steps of 10 ms."""

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        if batch == 0:
            keep_busy(0.15)

    on_test_batch_begin = on_train_batch_begin


def fit(network: keras.Model, *callbacks: SMICallback, epochs: int = 3, **options: object) -> None:
    generator = np.random.default_rng(0)
    images, labels = generator.random((200, 6), np.float32), generator.integers(0, 3, 200)
    network.fit(images, labels, epochs=epochs, verbose=0, callbacks=[*callbacks, Busy()], **options)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "logs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def database(tmp_path_factory, migrated_database):
    return shutil.copy(migrated_database, tmp_path_factory.mktemp("store") / "mlflow.db")


@pytest.fixture
def store(database):
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(None)


def test_alone_it_writes_both_files(tmp_path):
    fit(model(), SMICallback(directory=tmp_path / "smi"), validation_split=0.2)
    found = rows(tmp_path / "smi")
    assert list(found[0])[:10] == FIRST_COLUMNS
    assert [row["epoch"] for row in found] == ["pre", "0", "1", "2", "post"]
    times = [float(row["time"]) for row in found]
    assert times == sorted(times) and times[0] == 0.0
    for row in found[1:-1]:
        assert float(row["energy_J"]) > 0
        assert 0 <= float(row["val_accuracy"]) <= 1
        assert float(row["learning_rate"]) == pytest.approx(0.01)
        parts = float(row["train_energy_J"]) + float(row["validation_energy_J"])
        assert parts == pytest.approx(float(row["energy_J"]))
        assert row["gpu_power_W"] == ""  # missing, not 0
    content = yaml.safe_load((tmp_path / "smi" / "parameters.yaml").read_text(encoding="utf-8"))
    assert content["n_parameters"] == 6 * 8 + 8 + 8 * 3 + 3
    assert not [t for t in threading.enumerate() if t.name == "power-sampler"]


def test_a_training_without_validation_has_no_energy_for_it(tmp_path):
    fit(model(), SMICallback(directory=tmp_path))
    row = rows(tmp_path)[1]
    assert row["validation_energy_J"] == row["val_loss"] == ""
    assert row["train_energy_J"] == row["energy_J"]


def test_an_active_run_gets_metrics_tags_and_reasons(tmp_path, store):
    callback = SMICallback(directory=tmp_path / "smi", images_per_epoch=160)
    with mlflow.start_run() as run:
        fit(model(), callback, validation_split=0.2)
    data = store.get_run(run.info.run_id).data
    history = store.get_metric_history(run.info.run_id, names.EPOCH_ENERGY_J)
    assert [metric.step for metric in history] == [0, 1, 2]
    assert data.metrics[names.EPOCH_ENERGY_J] == pytest.approx(
        float(rows(tmp_path / "smi")[3]["energy_J"])
    )
    assert {names.LOSS, names.VAL_ACCURACY, names.IMAGES_PER_S} <= set(data.metrics)
    steady = history[-int(data.metrics[names.STEADY_EPOCHS]) :]
    assert 1 <= len(steady) <= 2
    steady_j = sum(epoch.value for epoch in steady) / len(steady)
    assert data.metrics[names.ENERGY_PER_EPOCH_J] == pytest.approx(steady_j)
    assert data.tags[names.TAG_ENERGY_SOURCE] == names.SOURCE_ESTIMATE
    assert math.isnan(data.metrics[names.GPU_ENERGY_J])
    assert data.tags[names.MISSING_PREFIX + names.GPU_ENERGY_J] == "no GPU is used"


def test_each_fit_logs_to_the_run_that_is_active_then(tmp_path, store):
    callback = SMICallback(directory=tmp_path / "smi")
    network = model()
    runs = []
    for epochs in (2, 1):
        with mlflow.start_run() as run:
            fit(network, callback, epochs=epochs)
        runs.append(run.info.run_id)
    for run_id, epochs in zip(runs, (2, 1), strict=True):
        assert len(store.get_metric_history(run_id, names.EPOCH_ENERGY_J)) == epochs
        assert names.MISSING_PREFIX + names.GPU_ENERGY_J in store.get_run(run_id).data.tags


def test_a_server_that_fails_costs_its_figures_and_not_the_training(
    tmp_path, store, database, caplog
):
    def rename(table: str, to: str) -> None:
        with sqlite3.connect(database) as connection:
            connection.execute(f"ALTER TABLE {table} RENAME TO {to}")

    class Outage(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 1:
                rename("latest_metrics", "lost")

        def on_train_end(self, logs: object = None) -> None:
            rename("lost", "latest_metrics")

    caplog.set_level("WARNING", "green_screen")
    with mlflow.start_run():
        fit(model(), Outage(), SMICallback(directory=tmp_path / "smi"))
    assert [row["epoch"] for row in rows(tmp_path / "smi")] == ["pre", "0", "1", "2", "post"]
    warnings = [r.message for r in caplog.records if r.name == "green_screen.measurement.callback"]
    assert len(warnings) == 1 and "the MLflow server failed" in warnings[0]


def test_a_refused_record_is_not_swallowed_in_a_run_of_this_project(tmp_path, store):
    with pytest.raises(tracking.RefusedError, match="bad"), tracking.open_run() as run:

        class Refused(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
                if epoch == 1:
                    run.metrics({"bad\tname?": 1.0})
                    until(lambda: run._outbox._refused is not None)

        fit(model(), Refused(), SMICallback(directory=tmp_path / "smi", logger=run))
    assert store.get_run(run.run_id).info.status == "FAILED"


def test_without_an_active_run_nothing_is_logged(tmp_path, store):
    before = len(store.search_runs(["0"]))
    fit(model(), SMICallback(directory=tmp_path / "smi"), epochs=1)
    assert len(store.search_runs(["0"])) == before


def test_a_forecast_is_said_from_the_first_steady_epoch_on(tmp_path, store, capsys):
    with mlflow.start_run() as run:
        fit(model(), SMICallback(directory=tmp_path / "smi", forecast=True), epochs=5)
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("this training")]
    # After the second epoch and each one that has others before it, but not after the last.
    assert len(lines) == 3
    number = r"\d+\.\d"
    for line in lines:
        assert re.fullmatch(
            rf"this training will take {number} k?J \({number} to {number}\) and end at \d\d:\d\d",
            line,
        )
    history = store.get_metric_history(run.info.run_id, names.FORECAST_ENERGY_J)
    assert [metric.step for metric in history] == [1, 2, 3, 4]
    total_j = store.get_run(run.info.run_id).data.metrics[names.ENERGY_TOTAL_J]
    # Nothing is left after the last one.
    assert history[-1].value == pytest.approx(total_j)
    data = store.get_run(run.info.run_id).data.metrics
    assert data[names.FORECAST_ENERGY_LOW_J] == data[names.FORECAST_ENERGY_HIGH_J]


def test_inside_a_measured_run(tmp_path, store):
    network = model()
    with mlflow.start_run() as run, RunMeasurement(country="USA", min_window_s=1.0) as measurement:
        callback = SMICallback(
            directory=tmp_path, measurement=measurement, logger=RunLogger(run.info.run_id)
        )
        fit(network, callback, epochs=2)
        with measurement.phase("further"):
            fit(network, callback, epochs=2)
        summary = measurement.summary(200)
        callback.finish({"model": "tiny", "seed": 22, "test_accuracy": 0.5})
    assert [row["epoch"] for row in rows(tmp_path)] == ["pre", "0", "1", "post"]
    content = yaml.safe_load((tmp_path / "parameters.yaml").read_text(encoding="utf-8"))
    assert content == {"n_parameters": 83, "model": "tiny", "seed": 22, "test_accuracy": 0.5}
    with pytest.raises(ValueError, match="energy_per_epoch_j has none"):
        RunLogger(run.info.run_id).missing({names.ENERGY_PER_EPOCH_J: math.nan}, "")
    assert summary.metrics[names.FURTHER_EPOCHS] == 2
    further = store.get_metric_history(run.info.run_id, names.FURTHER_EPOCH_ENERGY_J)
    assert [metric.step for metric in further] == [0, 1]
    assert len(store.get_metric_history(run.info.run_id, names.LOSS)) == 2


def test_a_second_fit_after_one_that_failed_starts_anew(tmp_path):
    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            raise OSError("disk full")

    callback = SMICallback(directory=tmp_path)
    (tmp_path / "parameters.yaml").write_text("model: of an earlier training\n")
    with pytest.raises(OSError, match="disk full"):
        fit(model(), callback, Broken())
    assert not (tmp_path / "parameters.yaml").exists()  # it would pass for this one's
    fit(model(), callback, epochs=1)
    assert [row["epoch"] for row in rows(tmp_path)] == ["pre", "0", "post"]
    # Given up after a failure, it takes along what it had started.
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="disk full"):
        fit(model(), SMICallback(directory=tmp_path), Broken())
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join()  # CodeCarbon's cancelled timers take a moment to notice
        assert not thread.is_alive()


class Trainer(keras.Model):
    """Trains another network by an optimizer of its own, as the two of a GAN are trained."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.its_optimizer = model(), keras.optimizers.SGD(0.1)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, labels = data
        with tf.GradientTape() as tape:
            guess = self.network(images, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, guess))
        variables = self.network.trainable_variables
        self.its_optimizer.apply_gradients(
            zip(tape.gradient(loss, variables), variables, strict=True)
        )
        return {"loss": loss}


def test_a_model_of_models_trains_to_the_end(tmp_path, store):
    trainer = Trainer()
    trainer.compile()
    trainer.optimizer = None
    with mlflow.start_run() as run:
        fit(trainer, SMICallback(directory=tmp_path), epochs=2)
    assert [row["epoch"] for row in rows(tmp_path)] == ["pre", "0", "1", "post"]
    assert rows(tmp_path)[1]["learning_rate"] == ""
    content = yaml.safe_load((tmp_path / "parameters.yaml").read_text(encoding="utf-8"))
    assert content == {"model": trainer.name}  # its parameters cannot be counted
    data = store.get_run(run.info.run_id).data
    assert "no optimizer" in data.tags[names.MISSING_PREFIX + names.LEARNING_RATE]
    assert data.metrics[names.ENERGY_TOTAL_J] > 0


def test_a_training_that_is_cut_off_says_where_its_energy_comes_from(tmp_path, store):
    class Broken(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), mlflow.start_run() as run:
        fit(model(), SMICallback(directory=tmp_path), Broken())
    data = store.get_run(run.info.run_id).data
    assert data.metrics[names.EPOCH_ENERGY_J] > 0
    assert data.tags[names.TAG_ENERGY_SOURCE] == names.SOURCE_ESTIMATE


def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "file").touch()
    before = set(threading.enumerate())
    network, callback = model(), SMICallback(directory=tmp_path / "file" / "smi")
    with pytest.raises(NotADirectoryError):
        fit(network, callback)
    assert not network.built
    assert not set(threading.enumerate()) - before


class Gone(keras.callbacks.Callback):
    """Takes the folder away in mid-training."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == 1:
            shutil.rmtree(self.folder)


def test_files_that_can_no_longer_be_written_cost_themselves_and_not_the_training(
    tmp_path, store, caplog
):
    caplog.set_level("WARNING", "green_screen")
    callback = SMICallback(directory=tmp_path / "smi")
    with mlflow.start_run() as run:
        fit(model(), callback, Gone(tmp_path / "smi"))
    history = store.get_metric_history(run.info.run_id, names.EPOCH_ENERGY_J)
    assert [metric.step for metric in history] == [0, 1, 2]
    (warning,) = [
        r.message for r in caplog.records if r.name.startswith("green_screen.measurement")
    ]
    assert "can no longer be written" in warning and "No such file" in warning
    fit(model(), callback, epochs=1)  # the next one has files again
    assert [row["epoch"] for row in rows(tmp_path / "smi")] == ["pre", "0", "post"]


def test_a_run_of_this_project_is_not_whole_without_its_files(tmp_path):
    with pytest.raises(FileNotFoundError), RunMeasurement(country="USA") as measurement:
        callback = SMICallback(directory=tmp_path / "smi", measurement=measurement)
        fit(model(), callback, Gone(tmp_path / "smi"))


def test_an_evaluation_outside_of_fit_is_none_of_its_business(tmp_path):
    network = model()
    callback = SMICallback(directory=tmp_path)
    images, labels = np.zeros((8, 6), np.float32), np.zeros(8, int)
    network.evaluate(images, labels, verbose=0, callbacks=[callback])
    fit(network, callback, epochs=1)
    network.evaluate(images, labels, verbose=0, callbacks=[callback])
    assert [row["epoch"] for row in rows(tmp_path)] == ["pre", "0", "post"]


def test_before_the_training_there_is_nothing_to_finish(tmp_path):
    with pytest.raises(RuntimeError, match="before model.fit"):
        SMICallback(directory=tmp_path).finish({})


@pytest.mark.parametrize(
    ("metrics", "which"),
    [
        (["acc"], "acc"),
        (["sparse_categorical_accuracy"], "sparse_categorical_accuracy"),
        (["sparse_top_k_categorical_accuracy", "accuracy"], "accuracy"),
    ],
)
def test_the_plainest_accuracy_is_the_accuracy(tmp_path, metrics, which):
    network = model()
    network.compile("sgd", "sparse_categorical_crossentropy", metrics=metrics)
    fit(network, SMICallback(directory=tmp_path), epochs=1, validation_split=0.2)
    for prefix in ("", "val_"):
        logged = float(rows(tmp_path)[1][prefix + "accuracy"])
        assert logged == pytest.approx(network.history.history[prefix + which][0])


def test_an_accuracy_of_another_kind_is_not_called_the_accuracy(tmp_path, store):
    network = model()
    network.compile(
        "sgd",
        "sparse_categorical_crossentropy",
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2_accuracy")],
    )
    with mlflow.start_run() as run:
        fit(network, SMICallback(directory=tmp_path), epochs=1, validation_split=0.2)
    (row,) = rows(tmp_path)[1:-1]
    assert row["loss"] and row["val_loss"]
    assert row["accuracy"] == row["val_accuracy"] == ""
    tags = store.get_run(run.info.run_id).data.tags
    assert "top_2_accuracy" in tags[names.MISSING_PREFIX + names.ACCURACY]


def fit_outputs(outputs: list[str], validated: bool, folder: Path) -> dict[str, str]:
    """Train a network with outputs of these names and return the row of its epoch."""
    image = keras.Input((6,))
    heads = [keras.layers.Dense(1, "sigmoid", name=name)(image) for name in outputs]
    network = keras.Model(image, heads)
    network.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    generator = np.random.default_rng(0)
    images = generator.random((64, 6), np.float32)
    labels = [generator.integers(0, 2, (64, 1)) for _ in outputs]
    network.fit(
        images,
        labels,
        verbose=0,
        callbacks=[SMICallback(directory=folder), Busy()],
        validation_data=(images, labels) if validated else None,
    )
    (row,) = rows(folder)[1:-1]
    for column in ("loss", *(["val_loss"] if validated else [])):
        assert float(row[column]) == pytest.approx(network.history.history[column][0])
    return row


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("outputs", [["val_gender", "age"], ["binary", "val"], ["gender", "age"]])
def test_no_outputs_accuracy_passes_for_another(tmp_path, outputs, validated):
    """Of the keys ``val_gender_accuracy``, ``binary_accuracy`` and ``val_accuracy`` none is it."""
    row = fit_outputs(outputs, validated, tmp_path)
    assert row["accuracy"] == row["val_accuracy"] == ""
    assert bool(row["val_loss"]) is validated


class Talkative(keras.Model):
    """Says of a step what Keras does not expect of one."""

    def __init__(self, said: dict[str, object]) -> None:
        super().__init__()
        self.say = lambda: said  # as it is: Keras wraps a model's dictionaries

    def train_step(self, data: object) -> dict[str, object]:
        return {"loss": tf.constant(0.5), **self.say()}


@pytest.mark.parametrize(
    ("said", "accuracy"),
    [
        ({"accuracy": tf.constant([0.25, 0.75])}, ""),  # one for each class
        ({"accuracy": {"cat": tf.constant(0.25)}}, ""),
        ({"accuracy": tf.constant("good")}, ""),
        ({"accuracy": tf.constant("0.5")}, ""),
        ({"accuracy": tf.constant(1)}, "1.0"),
        ({"accuracy": tf.constant(0.25, tf.bfloat16)}, "0.25"),
        ({"accuracy": tf.constant(0.25), "note": tf.constant("text")}, "0.25"),
        ({"loss": tf.constant([1.0, 2.0]), "val_accuracy": tf.constant(0.25)}, ""),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else value or "left out",
)
def test_what_is_no_number_is_left_out_and_costs_no_training(tmp_path, said, accuracy):
    network = Talkative(said)
    network.compile()
    fit(network, SMICallback(directory=tmp_path), epochs=2)
    assert [row["epoch"] for row in rows(tmp_path)] == ["pre", "0", "1", "post"]
    row = rows(tmp_path)[2]
    assert (row["accuracy"], row["val_accuracy"]) == (accuracy, "")
    assert row["loss"] == ("" if "loss" in said else "0.5")


def test_a_validation_of_every_second_epoch_is_not_that_of_the_next(tmp_path):
    fit(model(), SMICallback(directory=tmp_path), validation_split=0.2, validation_freq=2)
    assert [bool(row["val_accuracy"]) for row in rows(tmp_path)[1:-1]] == [False, True, False]


def test_a_rate_is_that_of_now_or_missing_for_a_reason():
    def rate_of(optimizer: object) -> tuple[float, str]:
        return keras_figures.learning_rate(types.SimpleNamespace(optimizer=optimizer))

    rate = keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.5, 0.1])
    legacy = keras.optimizers.legacy.SGD
    for known in (keras.optimizers.SGD(0.5), legacy(0.5), legacy(lambda: 0.5), legacy(rate)):
        assert rate_of(known) == (0.5, "")
    several = types.SimpleNamespace(learning_rate=np.array([0.1, 0.2]), iterations=0)
    odd = types.SimpleNamespace(learning_rate=lambda: 0.1, iterations=0)
    for unknown, why in (
        (None, "the model has no optimizer with a learning rate"),
        (several, "its learning rate cannot be read: TypeError: SimpleNamespace is no model"),
        (odd, "its learning rate cannot be read: TypeError: "),
    ):
        found, reason = rate_of(unknown)
        assert math.isnan(found) and reason.startswith(why)


_TRAIN = """
import sys
sys.path.insert(0, sys.argv[2])
from test_callback import SMICallback, fit, model
fit(model(), SMICallback(directory=sys.argv[1]), epochs=2, validation_split=0.2)
"""


@pytest.mark.slow
def test_with_a_gpu_the_rows_are_its_counter(tmp_path):
    """The whole way in a process of its own, where CodeCarbon sees the simulated board too."""
    simulation = Simulation(boards=[SimulatedBoard(curve=Constant(60.0), temperature_c=33)] * 1)
    environment = {**os.environ, **child_environment(simulation, tmp_path / "simulation")}
    environment["PYTHONPATH"] += os.pathsep + os.getcwd()
    arguments = [str(tmp_path / "smi"), str(Path(__file__).parent)]
    subprocess.run([sys.executable, "-c", _TRAIN, *arguments], env=environment, check=True)
    found = rows(tmp_path / "smi")
    assert [row["epoch"] for row in found] == ["pre", "0", "1", "post"]
    for row in (found[0], found[-1]):
        assert float(row["gpu_power_W"]) == pytest.approx(60, rel=0.01)
        assert (row["gpu_temp_C"], row["gpu_util_%"]) == ("33.0", "90.0")
    assert all(row["energy_J"] == row["gpu_energy_J"] for row in found[1:-1])
    energy_j, seconds = (
        sum(float(row[column]) for row in found[1:-1]) for column in ("energy_J", "epoch_time_s")
    )
    # Of another board it would be another energy; test_run_measurement.py has it exactly.
    assert energy_j == pytest.approx(60 * seconds, rel=0.5)
    assert sum(float(row["codecarbon_gpu_kWh"] or 0) for row in found[1:-1]) > 0
