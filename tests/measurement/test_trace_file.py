"""The file of a run's power: integrated again it gives what was logged, phase by phase."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest
from simulated_nvml import Bursts, Constant, Ramp, SimulatedBoard, Simulation
from virtual_time import simulated_in_virtual_time, time

from green_screen import names
from green_screen.measurement import trace_file, used_gpus
from green_screen.measurement.run_measurement import RunMeasurement
from green_screen.measurement.trace_file import integrals_j, read_trace, write_trace
from green_screen.power.heartbeat import Heartbeat
from green_screen.power.trace import BoardTrace
from green_screen.training import setup

COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
CURVES = (
    Bursts(low_w=120.0, high_w=613.7, burst_s=0.21, period_s=0.7331),
    Ramp(first_w=90.0, slope_w_per_s=11.3, start_s=1000.0),
    Constant(71.4),
)


@pytest.fixture
def boards(monkeypatch):
    """Three boards, which are marked one after the other as each reading takes its time."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Heartbeat, "start", lambda self: None)
    monkeypatch.setattr(used_gpus, "tensorflow_gpus", lambda: (0, 1, 2))
    simulation = Simulation(
        boards=[SimulatedBoard(curve=curve, unsupported=(COUNTER,)) for curve in CURVES]
    )
    mark = BoardTrace.mark

    def slow_mark(self):
        time.sleep(0.0173)
        return mark(self)

    monkeypatch.setattr(BoardTrace, "mark", slow_mark)
    with simulated_in_virtual_time(simulation):
        yield simulation.boards


def measured() -> RunMeasurement:
    return RunMeasurement(country="USA", synchronize=lambda: None, min_window_s=0.0)


def reread(run: RunMeasurement, folder) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Return the file's samples, its phases, and the joules of each phase by the samples alone."""
    write_trace(run.trace, folder / names.TRACE_PARQUET)
    samples, phases = read_trace(folder / names.TRACE_PARQUET)
    joules = phases.assign(joules=integrals_j(samples, phases)).groupby("phase")["joules"].sum()
    return samples, phases, {str(name): value for name, value in joules.items()}


def test_integrated_again_it_gives_the_energies_of_a_training(boards, tmp_path, monkeypatch):
    monkeypatch.setattr(trace_file, "_ROWS_AT_ONCE", 50)  # of 130: no part is lost between two
    run, epochs = measured(), []
    before_s = tmp_path.stat().st_mtime
    with run:
        with run.phase("setup"):
            time.sleep(0.83)
        run.measure_idle()
        run.begin_fit()
        for epoch in range(3):
            run.begin_epoch(epoch)
            time.sleep(1.17)
            run.begin_validation()
            time.sleep(0.31)
            run.end_validation()
            epochs.append(run.end_epoch())
        with run.phase("evaluation"):
            time.sleep(0.77)
    metrics = run.summary(None).metrics
    samples, phases, joules = reread(run, tmp_path)

    # Boards without a counter: all that is logged is the integral.
    logged_j = {
        "setup": metrics[names.SETUP_ENERGY_J],
        "evaluation": metrics[names.EVALUATION_ENERGY_J],
    }
    for number, epoch in enumerate(epochs):
        logged_j[f"epoch {number}"] = epoch[names.GPU_INTEGRAL_J]
        logged_j[f"validation {number}"] = epoch[names.VALIDATION_ENERGY_J]
    idle = (run.idle_before, run.idle_after)
    logged_j["idle before"], logged_j["idle after"] = (waited.reading.energy_j for waited in idle)
    assert {name: joules[name] for name in logged_j} == pytest.approx(logged_j, rel=1e-6)
    assert joules.keys() - logged_j.keys() == {"idle in context"}

    assert list(samples.columns) == ["time_s", "board", "watts", "phase"]
    assert set(samples["board"]) == {board.uuid for board in boards}
    assert samples.groupby("board", observed=True)["time_s"].diff().max() == pytest.approx(0.1)
    assert set(samples["phase"]) == {*joules, "other"}
    # The innermost: an epoch's own are those of its training.
    of_epoch = samples[(samples["phase"] == "epoch 1") & (samples["board"] == boards[0].uuid)]
    edges = phases[phases["board"] == boards[0].uuid].set_index("phase")
    assert edges.loc["epoch 1", "start_s"] <= of_epoch["time_s"].min()
    assert of_epoch["time_s"].max() < edges.loc["validation 1", "start_s"]
    assert before_s <= pd.read_parquet(tmp_path / names.TRACE_PARQUET).attrs["start_unix_s"]


def test_integrated_again_it_gives_the_energies_of_a_screening(boards, tmp_path):
    run = measured()
    with run:
        with run.phase("setup"):
            time.sleep(0.2)
        run.begin_fit()
        run.begin_epoch(0)
        for seconds in (2.3, 1.51, 1.49):
            time.sleep(seconds)
            run.end_block(work=0.1)
        for _ in range(2):
            with run.validating(work=0.5):
                time.sleep(0.61)
        run.summary(None)
    _, _, joules = reread(run, tmp_path)
    blocks = {f"block {n}": block.reading.energy_j for n, block in enumerate(run.epochs)}
    blocks |= {
        f"validation block {n}": block.reading.energy_j for n, block in enumerate(run.validations)
    }
    assert len(blocks) == 5 and not any(math.isnan(energy_j) for energy_j in blocks.values())
    assert {name: joules[name] for name in blocks} == pytest.approx(blocks, rel=1e-6)


def test_a_trace_that_cannot_be_written_is_told_and_loses_no_run(boards, tmp_path):
    run, told = measured(), {}
    logger = SimpleNamespace(tags=told.update)
    with setup._traced(run, tmp_path / "gone", logger), run:
        time.sleep(0.5)
    assert "gone" in str(told[names.MISSING_TRACE])


def test_where_nothing_is_sampled_there_is_no_file(monkeypatch, tmp_path):
    monkeypatch.setattr(used_gpus, "tensorflow_gpus", lambda: ())
    run = measured()
    write_trace(run.trace, tmp_path / "before.parquet")
    with run:
        pass
    write_trace(run.trace, tmp_path / "after.parquet")
    assert list(tmp_path.iterdir()) == []
