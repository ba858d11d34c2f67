"""The protocol `screening`: what it logs, what it forecasts, and what it does not claim."""

from __future__ import annotations

import dataclasses
import math

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from simulated_nvml import Constant, SimulatedBoard, Simulation, simulated

from green_screen import names
from green_screen.data import data
from green_screen.measurement import used_gpus
from green_screen.options import OptionError, TrainOptions
from green_screen.power import idle
from green_screen.space import Space
from green_screen.tracking import open_run
from green_screen.training.run import train
from green_screen.training.setup import prepared

CONFIG = dataclasses.replace(Space.load().baseline, batch_size=32, optimizer="SGD")
OPTIONS = TrainOptions(
    dataset="digits",
    model="resnet8",
    epochs=40,
    image_size=8,
    samples=300,
    protocol="screening",
    max_window_s=3.0,
)
WATTS = 300.0


@pytest.fixture(scope="module")
def store(tmp_path_factory, migrated_database):
    folder = tmp_path_factory.mktemp("store")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment(names.EXPERIMENT, artifact_location=f"file://{folder}/artifacts")
    yield folder
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def board(store):
    """A board of constant power: whatever the time, the joules are known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        patch.setenv("CUDA_CACHE_PATH", str(store / "kernels"))
        patch.setattr(idle, "POWER_AVERAGING_S", 0.0)
        patch.setattr(used_gpus, "tensorflow_gpus", lambda: (0,))
        with simulated(Simulation(boards=[SimulatedBoard(curve=Constant(WATTS), processes=(1,))])):
            yield


def run_once(options: TrainOptions):
    with open_run(experiment=names.EXPERIMENT) as run:
        train(CONFIG, options, run)
    return MlflowClient().get_run(run.run_id)


@pytest.fixture(scope="module")
def screened(board):
    return run_once(OPTIONS)


def history(run, metric: str) -> list[float]:
    return [m.value for m in MlflowClient().get_metric_history(run.info.run_id, metric)]


def test_it_measures_a_window_of_steps_and_one_of_validation(screened):
    metrics = screened.data.metrics
    steps, seconds = history(screened, names.BLOCK_STEPS), history(screened, names.BLOCK_S)
    count = int(metrics[names.STEADY_BLOCKS])
    assert 1 <= count < len(steps)  # the first never is
    assert metrics[names.STEADY_WINDOW_S] == pytest.approx(sum(seconds[-count:]))
    step_s = sum(seconds[-count:]) / sum(steps[-count:])
    assert metrics[names.STEP_S] == pytest.approx(step_s)
    assert metrics[names.STEADY_IMAGES_PER_S] == pytest.approx(32 / step_s)
    joules = history(screened, names.BLOCK_ENERGY_J)
    assert metrics[names.ENERGY_PER_STEP_J] == pytest.approx(
        sum(joules[-count:]) / sum(steps[-count:])
    )
    assert metrics[names.ENERGY_PER_1K_IMAGES_J] == pytest.approx(
        metrics[names.ENERGY_PER_STEP_J] / 32 * 1000
    )
    # An epoch is its steps and a validation; the counter is off by a step at each edge.
    n_steps = metrics[names.N_TRAIN_IMAGES] / 32
    validation_j = metrics[names.VALIDATION_ENERGY_PER_1K_IMAGES_J]
    validation_j *= metrics[names.N_VALIDATION_IMAGES] / 1000
    assert metrics[names.ENERGY_PER_EPOCH_J] == pytest.approx(
        n_steps * metrics[names.ENERGY_PER_STEP_J] + validation_j
    )
    validation_s = history(screened, names.VALIDATION_BLOCK_S)
    assert len(validation_s) >= 2 and min(validation_s) > 0
    assert screened.data.params["protocol"] == "screening"
    assert screened.data.tags[names.TAG_UNSTEADY].endswith("of time)") or (
        "1 the first of a fit" in screened.data.tags[names.TAG_UNSTEADY]
    )


def test_the_forecast_is_of_the_declared_training_and_has_an_interval(screened):
    metrics = screened.data.metrics
    start_j = metrics[names.SETUP_ENERGY_J] + metrics[names.WARMUP_ENERGY_J]
    forecast_j = metrics[names.FORECAST_ENERGY_J]
    assert forecast_j == pytest.approx(start_j + 40 * metrics[names.ENERGY_PER_EPOCH_J])
    # At constant power the energy is the time's.
    assert forecast_j == pytest.approx(WATTS * metrics[names.FORECAST_S], rel=0.2)
    if metrics[names.STEADY_BLOCKS] >= 4:
        low_j, high_j = metrics[names.FORECAST_ENERGY_LOW_J], metrics[names.FORECAST_ENERGY_HIGH_J]
        assert low_j < forecast_j < high_j
        assert high_j - forecast_j == pytest.approx(forecast_j - low_j)


def test_it_has_no_accuracy_no_total_and_its_own_cost_apart(screened):
    metrics, tags = screened.data.metrics, screened.data.tags
    for name in (names.TEST_ACCURACY, names.VAL_ACCURACY, names.ENERGY_TOTAL_J, names.DURATION_S):
        assert math.isnan(metrics[name])
        assert "a screening" in tags[names.MISSING_PREFIX + name]
    assert metrics[names.SCREENING_ENERGY_J] == pytest.approx(
        WATTS * metrics[names.SCREENING_S], abs=5 * 30
    )
    assert tags[names.TAG_ENERGY_SOURCE] == names.SOURCE_COUNTER
    missing = {name for name, value in metrics.items() if math.isnan(value)}
    assert {names.MISSING_PREFIX + name for name in missing} == {
        tag for tag in tags if tag.startswith(names.MISSING_PREFIX)
    }


def test_idle_power_is_measured_once_with_a_context(screened):
    metrics = screened.data.metrics
    assert metrics[names.IDLE_POWER_W] == metrics[names.IDLE_POWER_CONTEXT_W]
    assert metrics[names.IDLE_POWER_W] == pytest.approx(WATTS, rel=1e-3)
    assert not {names.IDLE_POWER_BEFORE_W, names.IDLE_POWER_AFTER_W} & set(metrics)
    assert not math.isnan(metrics[names.START_TEMPERATURE_C])


def test_the_data_set_is_opened_once(board, monkeypatch):
    opened = []
    monkeypatch.setattr(
        data, "_open", lambda *a, open_=data._open, **k: opened.append(1) or open_(*a, **k)
    )
    with open_run(experiment=names.EXPERIMENT) as run, prepared(CONFIG, OPTIONS, run):
        pass
    assert len(opened) == 1


def test_a_model_is_not_kept():
    with pytest.raises(OptionError, match="log_model must be false with protocol=screening"):
        dataclasses.replace(OPTIONS, log_model=True)
    with pytest.raises(OptionError, match="max_window_s must be more than 0"):
        dataclasses.replace(OPTIONS, max_window_s=0.0)
