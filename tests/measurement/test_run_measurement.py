"""The phases of a run: they add up, on a GPU and without one, whatever goes wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import threading

import mlflow
import pytest
from simulated_nvml import (
    Constant,
    SimulatedBoard,
    Simulation,
    Steps,
    loaded_board,
    simulated,
)
from virtual_time import simulated_in_virtual_time, time

from entrypoints.train import main
from green_screen import names
from green_screen.measurement import used_gpus
from green_screen.measurement.measured_json import from_json, to_json
from green_screen.measurement.run_measurement import MeasurementSummary, RunMeasurement
from green_screen.measurement.trace_file import integrals_j, read_trace
from green_screen.power import idle, rapl
from green_screen.power.heartbeat import Heartbeat
from green_screen.power.surroundings import Surroundings
from green_screen.power.validity import Clock, clock_reason
from green_screen.training import hardware, kernels

PARTS = (names.SETUP_ENERGY_J, names.CONVERSION_ENERGY_J, names.EVALUATION_ENERGY_J)


@pytest.fixture
def gpus(monkeypatch):
    """Put boards behind pynvml, in virtual time, and have TensorFlow use them all.

    Without any, time is the machine's: CodeCarbon, which estimates then, knows no other.
    """
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # A machine so busy that this process seems to be stopped is test_steady.py's concern.
    monkeypatch.setattr(Heartbeat, "start", lambda self: None)
    monkeypatch.setattr(idle, "IDLE_S", 0.3)
    monkeypatch.setattr(idle, "POWER_AVERAGING_S", 0.0)
    contexts = []

    def make(*boards: SimulatedBoard, used: int | None = None) -> Simulation:
        simulation = Simulation(boards=list(boards))
        context = (simulated_in_virtual_time if boards else simulated)(simulation)
        context.__enter__()
        contexts.append(context)
        count = len(boards) if used is None else used
        monkeypatch.setattr(used_gpus, "tensorflow_gpus", lambda: tuple(range(count)))
        return simulation

    yield make
    for context in reversed(contexts):
        context.__exit__(None, None, None)


def measured(**options: object) -> RunMeasurement:
    return RunMeasurement(country="USA", synchronize=lambda: None, **options)


def run_epochs(run: RunMeasurement, durations_s: list[float], validation_s: float = 0.0) -> list:
    """Run one fit."""
    found = []
    run.begin_fit()
    for epoch, seconds in enumerate(durations_s):
        run.begin_epoch(epoch)
        time.sleep(seconds)
        if validation_s:
            run.begin_validation()
            time.sleep(validation_s)
            run.end_validation()
        found.append(run.end_epoch(images=1000))
        time.sleep(0.02)
    return found


def whole_run(run: RunMeasurement) -> tuple[list[dict[str, float]], MeasurementSummary]:
    """Go through all phases with one short pause in each."""
    with run:
        with run.phase("setup"):
            time.sleep(0.2)
        run.measure_idle()
        epochs = run_epochs(run, [0.5, 0.2, 0.2], validation_s=0.1)
        with run.phase("conversion"):
            time.sleep(0.1)
        with run.phase("evaluation"):
            time.sleep(0.15)
    return epochs, run.summary(1000, 200)


def parts_j(epochs: list[dict[str, float]], metrics: dict[str, float]) -> float:
    inside = sum(metrics[name] for name in PARTS) + metrics[names.OTHER_ENERGY_J]
    return inside + sum(epoch[names.EPOCH_ENERGY_J] for epoch in epochs)


def test_validations_shorter_than_the_counters_period_leave_the_energy_unknown(gpus):
    gpus(SimulatedBoard(curve=Constant(250.0)))
    run = measured(min_window_s=0.0)
    with run:
        run.begin_fit()
        run.begin_epoch(0)
        for _ in range(5):
            time.sleep(0.5)
            run.end_block(work=0.1)
        for _ in range(3):
            with run.validating(work=1.0):
                time.sleep(0.002)
    summary = run.summary(1000, 200)
    for name in (names.ENERGY_PER_EPOCH_J, names.VALIDATION_ENERGY_PER_1K_IMAGES_J):
        assert math.isnan(summary.metrics[name])
        assert (
            summary.missing[name] == "in 0.00 s the count of the energy (nvml_counter) did not move"
        )
    assert summary.metrics[names.ENERGY_PER_1K_IMAGES_J] == pytest.approx(250 * 5, rel=0.1)


@pytest.mark.parametrize("on_gpu", [True, False], ids=["gpu", "cpu"])
def test_the_phases_add_up_to_the_run(gpus, on_gpu):
    gpus(*([SimulatedBoard(curve=Constant(250.0))] if on_gpu else []))
    run = measured(min_window_s=0.0)
    epochs, summary = whole_run(run)
    metrics = summary.metrics
    assert parts_j(epochs, metrics) == pytest.approx(metrics[names.ENERGY_TOTAL_J])
    for epoch in epochs:
        assert epoch[names.TRAIN_ENERGY_J] + epoch[names.VALIDATION_ENERGY_J] == pytest.approx(
            epoch[names.EPOCH_ENERGY_J]
        )
        assert epoch[names.TRAIN_TIME_S] + 0.1 <= epoch[names.EPOCH_TIME_S]
        assert epoch[names.IMAGES_PER_S] == pytest.approx(1000 / epoch[names.TRAIN_TIME_S])
        assert math.isnan(epoch[names.GPU_ENERGY_J]) is not on_gpu
        assert epoch[names.CODECARBON_RAM_KWH] > 0
    # Which epochs are steady depends on how busy this machine is, but the first never is.
    count = len(run.steady_state.epochs)
    assert 1 <= count <= 2
    steady, others = epochs[-count:], epochs[:-count]
    epoch_j = sum(epoch[names.EPOCH_ENERGY_J] for epoch in steady) / count
    assert metrics[names.ENERGY_PER_EPOCH_J] == pytest.approx(epoch_j)
    assert metrics[names.WARMUP_ENERGY_J] == pytest.approx(
        sum(epoch[names.EPOCH_ENERGY_J] for epoch in others) - len(others) * epoch_j
    )
    epoch_s = sum(epoch[names.EPOCH_TIME_S] for epoch in steady) / count
    assert metrics[names.WARMUP_S] == pytest.approx(
        sum(epoch[names.EPOCH_TIME_S] for epoch in others) - len(others) * epoch_s
    )
    # Of one window: joules and images/s of training and validation.
    train_j = sum(epoch[names.TRAIN_ENERGY_J] for epoch in steady)
    train_s = sum(epoch[names.TRAIN_TIME_S] for epoch in steady)
    assert metrics[names.ENERGY_PER_1K_IMAGES_J] == pytest.approx(train_j / count)
    assert metrics[names.STEADY_IMAGES_PER_S] == pytest.approx(1000 * count / train_s)
    validation_j = sum(epoch[names.VALIDATION_ENERGY_J] for epoch in steady)
    assert metrics[names.VALIDATION_ENERGY_PER_1K_IMAGES_J] == pytest.approx(
        validation_j / (0.2 * count)
    )
    validation_s = sum(epoch[names.EPOCH_TIME_S] - epoch[names.TRAIN_TIME_S] for epoch in steady)
    assert metrics[names.STEADY_VALIDATION_IMAGES_PER_S] == pytest.approx(
        200 * count / validation_s
    )
    assert metrics[names.STEADY_EPOCHS] == count
    assert metrics[names.UNSTEADY_EPOCHS] == len(others)
    assert summary.tags[names.TAG_UNSTEADY].startswith(f"{len(others)} of 3 epochs: 1 the first")
    assert metrics[names.SETUP_S] >= 0.2
    # CodeCarbon asks for GPUs when it is imported, before the simulated ones are there: emissions
    # are then those of the meter's joules.
    assert metrics[names.EMISSIONS_TOTAL_KG_CO2EQ] > 0
    assert all(math.isnan(epoch[names.CODECARBON_GPU_KWH]) for epoch in epochs)
    expected = names.SOURCE_COUNTER if on_gpu else names.SOURCE_ESTIMATE
    assert summary.tags[names.TAG_ENERGY_SOURCE] == expected
    if on_gpu:  # whose time is virtual: no epoch is longer than it says
        assert summary.tags[names.TAG_MEASUREMENT_VALID] == "true"
    assert summary.tags[names.TAG_INCOMPLETE] == "false"
    missing = [name for name, value in metrics.items() if math.isnan(value)]
    if names.SYSTEM_ENERGY_J in missing:  # where no counter of the CPU may be read
        missing.remove(names.SYSTEM_ENERGY_J)
    of_a_gpu = [names.STEADY_SM_CLOCK_MHZ, names.STEADY_POWER_CAPPED_PERCENT]
    of_a_gpu.append(names.START_TEMPERATURE_C)
    assert missing == ([] if on_gpu else of_a_gpu)
    assert set(summary.missing) - {names.SYSTEM_ENERGY_J} == set(missing)
    assert all("no GPU is used" in summary.missing[name] for name in missing)


def test_a_run_of_two_processes_is_measured_as_one(gpus):
    gpus(SimulatedBoard(curve=Constant(250.0), uuid="GPU-one"))
    first = measured()
    with first:
        with first.phase("setup"):
            time.sleep(0.2)
        first.measure_idle()
        epochs = run_epochs(first, [6.0, 4.0, 4.0], validation_s=0.1)
        with first.phase("checkpoint"):
            time.sleep(0.1)
        kept = json.loads(json.dumps(to_json(first.measured)))
        time.sleep(1.0)
        lost = first.spent
    second = measured()
    with second:
        with second.phase("setup"):
            time.sleep(0.2)
        second.go_on(from_json(kept))
        assert not second.needs_further_epoch
        epochs += run_epochs(second, [6.0], validation_s=0.1)
        with second.phase("evaluation"):
            time.sleep(0.15)
    metrics = second.summary(1000, 200).metrics

    assert metrics[names.SETUP_S] == pytest.approx(0.4)
    assert metrics[names.CHECKPOINT_ENERGY_J] == pytest.approx(25.0)
    assert metrics[names.STEADY_EPOCHS] == 2
    assert metrics[names.UNSTEADY_EPOCHS] == 2
    assert metrics[names.ENERGY_PER_EPOCH_J] == pytest.approx(epochs[1][names.EPOCH_ENERGY_J])
    total_j = 250.0 * metrics[names.DURATION_S]
    assert metrics[names.ENERGY_TOTAL_J] == pytest.approx(total_j, rel=0.01)
    assert lost.seconds == pytest.approx(first.total_reading.seconds + 1.0)
    parts = (names.SETUP_ENERGY_J, names.CHECKPOINT_ENERGY_J, names.EVALUATION_ENERGY_J)
    inside_j = sum(metrics[name] for name in (*parts, names.OTHER_ENERGY_J))
    epochs_j = sum(epoch[names.EPOCH_ENERGY_J] for epoch in epochs)
    assert inside_j + epochs_j == pytest.approx(metrics[names.ENERGY_TOTAL_J])


def test_parts_on_different_boards_are_told(gpus):
    gpus(SimulatedBoard(curve=Constant(250.0), uuid="GPU-one"))
    run = measured(min_window_s=0.0)
    with run:
        run_epochs(run, [0.5, 0.5, 0.5])
        kept = run.measured
    another = measured(min_window_s=0.0)
    with another:
        another.go_on(dataclasses.replace(kept, devices=("another board",)))
        run_epochs(another, [0.5, 0.5, 0.5])
    tags = another.summary(1000).tags
    assert tags[names.TAG_MEASUREMENT_VALID] == "false"
    assert (
        "its parts ran on different devices: another board, then"
        in (tags[names.TAG_INVALID_REASON])
    )


def test_idle_power_is_taken_off_for_the_net_figures(gpus):
    gpus(SimulatedBoard(curve=Constant(120.0)))
    run = measured(min_window_s=0.0)
    epochs, summary = whole_run(run)
    metrics = summary.metrics
    for name in (
        names.IDLE_POWER_BEFORE_W,
        names.IDLE_POWER_CONTEXT_W,
        names.IDLE_POWER_AFTER_W,
        names.IDLE_POWER_W,
    ):
        assert metrics[name] == pytest.approx(120.0, rel=1e-3)
    net_j = metrics[names.ENERGY_TOTAL_J] - 120.0 * metrics[names.DURATION_S]
    assert metrics[names.ENERGY_TOTAL_NET_J] == pytest.approx(net_j, abs=0.5)
    # At idle power all the time nothing is left, but for the counter's steps: at both edges of the
    # run, and of the idle window that is not part of it.
    assert abs(metrics[names.ENERGY_TOTAL_NET_J]) <= 25
    steady = run.steady_state.epochs
    steady_s = sum(epoch.reading.seconds for epoch in steady) / len(steady)
    net_j = metrics[names.ENERGY_PER_EPOCH_J] - 120.0 * steady_s
    assert metrics[names.ENERGY_PER_EPOCH_NET_J] == pytest.approx(net_j, abs=0.1)
    train_s = sum(epoch.train_s for epoch in steady) / len(steady)
    net_j = metrics[names.ENERGY_PER_1K_IMAGES_J] - 120.0 * train_s  # 1,000 images an epoch
    assert metrics[names.ENERGY_PER_1K_IMAGES_NET_J] == pytest.approx(net_j, abs=0.1)
    assert metrics[names.START_TEMPERATURE_C] == 35


def test_net_is_what_a_waiting_board_with_a_context_does_not_draw(gpus):
    board = SimulatedBoard(curve=Steps(70.0), averaging_s=0.05)
    gpus(board)
    with measured(min_window_s=0.0) as run:
        with run.phase("setup"):
            board.curve.changes.append((time.perf_counter(), 120.0))
            time.sleep(0.2)
        run.measure_idle()
        run_epochs(run, [0.3, 0.3])
    metrics = run.summary(1).metrics
    assert metrics[names.IDLE_POWER_BEFORE_W] == pytest.approx(70, abs=1)
    assert metrics[names.IDLE_POWER_CONTEXT_W] == pytest.approx(120, abs=1)
    assert metrics[names.IDLE_POWER_AFTER_W] == pytest.approx(120, abs=1)
    assert metrics[names.IDLE_POWER_W] == pytest.approx(120, abs=1)
    # The wait for it is not the run's.
    assert metrics[names.DURATION_S] < run.idle_before.reading.seconds + 0.2 + 0.6 + 0.3 + 5
    assert metrics[names.ENERGY_TOTAL_NET_J] == pytest.approx(0, abs=4 * 12 + 3)


def test_no_context_is_made_while_another_process_makes_the_kernels(gpus):
    """To wait for the GPU makes one."""
    gpus(SimulatedBoard(curve=Constant(200.0)))
    waits = []
    with RunMeasurement(country="USA", synchronize=lambda: waits.append(1)) as run:
        with run.phase("kernels"):
            pass
        assert not waits
        with run.phase("setup"):
            pass
        assert waits


def test_what_is_done_for_the_measurement_alone_stays_out_of_the_totals(gpus):
    gpus(SimulatedBoard(curve=Constant(200.0)))
    with measured(min_window_s=1e9) as run:
        with run.phase("setup"):
            time.sleep(0.2)
        with run.phase("kernels"):
            time.sleep(0.4)
        run.measure_idle()
        declared = run_epochs(run, [0.4, 0.2])
        assert run.needs_further_epoch
        further = []
        with run.phase("further"):
            for epoch in range(2, 4):
                run.begin_epoch(epoch)
                time.sleep(0.2)
                further.append(run.end_epoch(images=1000))
        run._given_min_window_s = 0.1
        assert not run.needs_further_epoch
        with run.phase("evaluation"):
            time.sleep(0.1)
    after = run.summary(1000)
    assert set(further[0]) == {names.FURTHER_EPOCH_ENERGY_J, names.FURTHER_EPOCH_TIME_S}
    assert after.metrics[names.KERNELS_ENERGY_J] == pytest.approx(
        200 * after.metrics[names.KERNELS_S], abs=22
    )
    assert after.metrics[names.ENERGY_TOTAL_J] == pytest.approx(
        200 * after.metrics[names.DURATION_S], abs=5 * 20 + 1
    )
    parts = {**dict.fromkeys(PARTS, 0.0), **after.metrics}
    assert parts_j(declared, parts) == pytest.approx(after.metrics[names.ENERGY_TOTAL_J])
    assert after.metrics[names.FURTHER_EPOCHS] == 2
    assert after.metrics[names.STEADY_EPOCHS] + after.metrics[names.UNSTEADY_EPOCHS] == 4
    assert after.metrics[names.FURTHER_ENERGY_J] == pytest.approx(
        sum(epoch[names.FURTHER_EPOCH_ENERGY_J] for epoch in further)
    )


def test_a_single_epoch_needs_another_to_have_a_steady_state(gpus):
    gpus(SimulatedBoard())
    with measured() as run:
        assert run.min_window_s == 5.0
        assert not run.needs_further_epoch  # nothing was trained
        run_epochs(run, [0.1])
        assert run.needs_further_epoch
    summary = run.summary(1000)
    assert math.isnan(summary.metrics[names.ENERGY_PER_EPOCH_J])
    assert "at least 2 epochs" in summary.missing[names.ENERGY_PER_EPOCH_J]
    assert summary.tags[names.TAG_MEASUREMENT_VALID] == "false"
    assert "steady window of 0.0 s" in summary.tags[names.TAG_INVALID_REASON]


def test_the_window_is_as_long_as_what_was_measured_in_it(gpus):
    """A gap is no measurement; where there are only gaps, no number of epochs makes one."""
    gpus(SimulatedBoard(curve=Constant(80.0)))
    with measured(min_window_s=0.5) as run:
        run_epochs(run, [0.2, 0.4, 0.4])
        first, *steady = run.epochs
        with_gaps = [
            dataclasses.replace(
                epoch, reading=dataclasses.replace(epoch.reading, energy_j=math.nan, reason="gap")
            )
            for epoch in steady
        ]
        assert not run.needs_further_epoch
        run._epochs = [first, with_gaps[0], steady[1]]
        assert run.needs_further_epoch
        run._epochs = [first, *with_gaps]
        assert not run.needs_further_epoch


def test_without_a_gpu_no_window_is_demanded(gpus):
    gpus()
    with measured() as run:
        assert run.min_window_s == 0.0
        run_epochs(run, [0.1])
        assert not run.needs_further_epoch


def test_a_phase_too_short_for_the_estimate_is_no_gap(gpus):
    gpus()
    run = measured()
    whole_run(run)
    evaluation = run._phases[-1]
    assert evaluation.name == "evaluation"
    run._phases[-1] = dataclasses.replace(evaluation, energy_j=math.nan, reason="no figure for cpu")
    summary = run.summary(1000)
    assert math.isnan(summary.metrics[names.EVALUATION_ENERGY_J])
    assert summary.missing[names.EVALUATION_ENERGY_J] == "no figure for cpu"
    assert summary.tags[names.TAG_INCOMPLETE] == "false"
    assert (
        names.TAG_INVALID_REASON not in summary.tags or not summary.tags[names.TAG_INVALID_REASON]
    )


def test_losing_the_gpu_leaves_gaps_with_reasons_and_an_incomplete_total(gpus):
    board = SimulatedBoard(curve=Constant(200.0))
    gpus(board)
    with measured(min_window_s=0.0) as run:
        first = run_epochs(run, [0.3, 0.3])
        now = time.perf_counter()
        board.driver_restarts = ((now, now + 0.5),)
        lost = run_epochs(run, [0.8])
        why = run.missing[names.EPOCH_ENERGY_J]
        assert "lost" in why.lower() or "fell" in why
        last = run_epochs(run, [0.4])
    summary = run.summary(1000)
    known_s = sum(epoch[names.EPOCH_TIME_S] for epoch in first + last)
    assert math.isnan(lost[0][names.EPOCH_ENERGY_J])
    known_j = sum(epoch[names.EPOCH_ENERGY_J] for epoch in first + last)
    assert summary.metrics[names.ENERGY_TOTAL_J] == pytest.approx(known_j)
    # Idle power is taken off for the time that was summed up, not for the gap.
    net_j = known_j - summary.metrics[names.IDLE_POWER_W] * known_s
    assert summary.metrics[names.ENERGY_TOTAL_NET_J] == pytest.approx(net_j)
    assert "lost" in summary.missing[names.OTHER_ENERGY_J].lower()
    assert summary.tags[names.TAG_INCOMPLETE] == "true"
    assert summary.tags[names.TAG_MEASUREMENT_VALID] == "false"
    assert "incomplete" in summary.tags[names.TAG_INVALID_REASON]
    # The steady state is that of the epochs that are whole.
    assert not math.isnan(summary.metrics[names.ENERGY_PER_EPOCH_J])


def test_conditions_that_spoil_a_comparison_are_told(gpus):
    gpus(
        SimulatedBoard(
            processes=(1, 2, 3),
            throttle_mask=0x40,
            temperature_c=70,
            sm_clock_mhz=1200,
            mig=("MIG-a", "MIG-b"),
        )
    )
    _, summary = whole_run(measured())
    reason = summary.tags[names.TAG_INVALID_REASON]
    for part in (
        "2 other processes",
        "hardware thermal slowdown in 100%",
        "hot start: 70 C",
        "1 other MIG instances",
        "shorter than 5.0 s",
    ):
        assert part in reason
    assert summary.metrics[names.STEADY_SM_CLOCK_MHZ] == 1200
    assert "parent board of MIG-a" in summary.tags[names.TAG_GPU_DEVICES]


def test_a_clock_held_by_the_power_limit_is_told_from_one_that_somebody_has_locked(gpus):
    def clock_of(board: SimulatedBoard) -> Clock:
        gpus(board)
        with measured(min_window_s=0.0) as run:
            run_epochs(run, [0.1, 0.4, 0.1])
        summary = run.summary(1000)
        assert summary.tags[names.TAG_MEASUREMENT_VALID] == "true", summary.tags
        return Clock(
            sm_mhz=summary.metrics[names.STEADY_SM_CLOCK_MHZ],
            power_capped=summary.metrics[names.STEADY_POWER_CAPPED_PERCENT] / 100,
            power_limit_w=summary.tags[names.TAG_GPU_POWER_LIMIT_W],
        )

    baseline = clock_of(loaded_board(250.0))
    assert baseline == Clock(sm_mhz=1980, power_capped=0.0, power_limit_w="700")
    heavy = clock_of(loaded_board(1000.0))
    assert heavy == Clock(sm_mhz=1730, power_capped=1.0, power_limit_w="700")
    assert clock_reason(heavy, baseline) == clock_reason(baseline, heavy) == ""
    locked = clock_of(loaded_board(250.0, locked_mhz=1200))
    assert clock_reason(locked, baseline) == "clocks: 1200 MHz is -39% from the baseline's 1980 MHz"
    assert clock_reason(clock_of(loaded_board(1000.0, limit_w=400)), baseline).startswith("clocks:")


def test_a_gpu_that_was_never_found_at_work_has_no_clock(gpus):
    gpus(SimulatedBoard(sm_clock_mhz=345, throttle_mask=0x1))
    with measured(min_window_s=0.0) as run:
        run_epochs(run, [0.1, 0.1])
    summary = run.summary(1000)
    assert "found the GPU at work" in summary.missing[names.STEADY_SM_CLOCK_MHZ]
    assert summary.tags[names.TAG_UNCHECKED] == "clocks; steady state"


def test_a_power_reading_that_lags_behind_is_no_disagreement(gpus):
    # Further epochs begin after a pause: for a second the reading still averages over it.
    board = SimulatedBoard(curve=Steps(650.0))
    gpus(board)
    with measured(min_window_s=2.5) as run:
        run_epochs(run, [0.6, 0.7])
        now = time.perf_counter()
        board.curve.changes += [(now, 120.0), (now + 1.3, 650.0)]
        time.sleep(1.3)
        with run.phase("further"):
            run_epochs(run, [0.6] * 6)
    summary = run.summary(1000)
    assert summary.metrics[names.FURTHER_EPOCHS] == 6
    assert summary.tags[names.TAG_MEASUREMENT_VALID] == "true", summary.tags


def test_counter_and_integral_that_disagree_are_told(gpus):
    # A sensor that misses the bursts: its reading sees the low phase alone.
    class Deaf(Constant):
        def energy_j(self, t: float) -> float:
            return 300.0 * t

    board = SimulatedBoard(curve=Deaf(300.0))
    board.reading_w = lambda t, averaging_s=None: 250.0  # type: ignore[method-assign]
    gpus(board)
    with measured(min_window_s=0.0) as run:
        run_epochs(run, [0.2, 1.5])
    reason = run.summary(1).tags[names.TAG_INVALID_REASON]
    assert "counter and integral disagree by" in reason


def test_each_missing_figure_has_its_own_reason(gpus):
    refused = (
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetComputeRunningProcesses",
    )
    gpus(SimulatedBoard(curve=Constant(200.0), denied=refused, power_limit_w=450))
    with measured(min_window_s=0.0) as run:
        (first, *_) = run_epochs(run, [0.3, 0.3], validation_s=0.001)
        why = dict(run.missing)
    assert math.isnan(first[names.GPU_INTEGRAL_J]) and first[names.EPOCH_ENERGY_J] > 0
    for name in (names.GPU_INTEGRAL_J, names.GPU_POWER_MAX_W, names.GPU_DISAGREEMENT_PERCENT):
        assert "power of NVIDIA Simulated" in why[name] and "ermission" in why[name]
    assert "temperature of NVIDIA Simulated" in why[names.GPU_TEMPERATURE_C]
    assert why[names.CODECARBON_GPU_KWH] == "CodeCarbon has no figure for gpu"
    if names.VALIDATION_ENERGY_J in why:  # unless the counter moved just then
        assert "renewed every 0.1 s, did not move" in why[names.VALIDATION_ENERGY_J]
    summary = run.summary(1000)
    # Without sampled power, idle power is the counter's.
    assert summary.metrics[names.IDLE_POWER_W] == pytest.approx(200, rel=0.4)
    assert "temperature of" in summary.missing[names.START_TEMPERATURE_C]
    assert set(summary.missing) == {k for k, v in summary.metrics.items() if math.isnan(v)}
    assert summary.tags[names.TAG_UNCHECKED] == (
        "other processes; throttling; start temperature; counter against integral; steady state"
    )
    assert summary.tags[names.TAG_GPU_POWER_LIMIT_W] == "450"


@pytest.mark.parametrize("dram_w", [5.0, math.nan], ids=["all counted", "memory not counted"])
def test_the_systems_energy_is_that_of_all_parts_or_missing(gpus, monkeypatch, dram_w):
    def read(counters: rapl.Counters) -> rapl.RaplTotals:
        return rapl.RaplTotals(70.0 * time.perf_counter(), dram_w * time.perf_counter())

    monkeypatch.setattr(rapl.Counters, "measure_cpu", True)
    monkeypatch.setattr(rapl.Counters, "read", read)
    gpus(SimulatedBoard(curve=Constant(100.0)))
    with measured(min_window_s=0.0) as run:
        run_epochs(run, [0.2, 0.2])
    summary = run.summary(1000)
    metrics = summary.metrics
    if math.isnan(dram_w):
        assert summary.missing[names.SYSTEM_ENERGY_J] == "the memory's energy is not counted"
    else:
        assert metrics[names.SYSTEM_ENERGY_J] == pytest.approx(
            metrics[names.ENERGY_TOTAL_J] + 75.0 * metrics[names.DURATION_S]
        )
    assert math.isnan(metrics[names.SYSTEM_ENERGY_J]) == math.isnan(dram_w)


def test_a_gpu_that_tensorflow_does_not_use_is_not_measured(gpus):
    gpus(SimulatedBoard(curve=Constant(80.0)), used=0)
    with measured() as run:
        assert not run.on_gpu
        run_epochs(run, [0.1, 0.1])
    assert run.summary(1).tags[names.TAG_ENERGY_SOURCE] == names.SOURCE_ESTIMATE


def test_a_gpu_that_nvml_does_not_show_makes_the_run_invalid(gpus):
    gpus(SimulatedBoard(), used=2)
    with measured() as run:
        run_epochs(run, [0.1, 0.1])
        # Nothing would be measured in them.
        assert not run.needs_further_epoch
    summary = run.summary(1)
    # The energy of one of two GPUs is not the energy.
    assert math.isnan(summary.metrics[names.ENERGY_TOTAL_J])
    assert summary.tags[names.TAG_ENERGY_SOURCE] == names.SOURCE_NONE
    assert summary.tags[names.TAG_MEASUREMENT_VALID] == "false"
    reason = summary.tags[names.TAG_INVALID_REASON]
    assert "TensorFlow uses 2 GPUs, of which NVML shows 1" in reason


def test_a_gpu_that_cannot_be_measured_has_no_energy_and_no_estimate_stands_for_it(gpus):
    gpus(used=1)
    with measured() as run:
        assert run.min_window_s == 5.0
        (first, *_) = run_epochs(run, [0.1, 0.1])
        why = run.missing[names.EPOCH_ENERGY_J]
    summary = run.summary(1000)
    assert math.isnan(first[names.EPOCH_ENERGY_J])
    assert first[names.CODECARBON_CPU_KWH] > 0 and math.isnan(first[names.EMISSIONS_KG_CO2EQ])
    assert why == "TensorFlow uses 1 GPUs, of which NVML shows 0"
    assert summary.missing[names.ENERGY_TOTAL_J] == why
    assert summary.missing[names.SYSTEM_ENERGY_J] == why
    assert summary.tags[names.TAG_ENERGY_SOURCE] == names.SOURCE_NONE
    assert summary.tags[names.TAG_MEASUREMENT_VALID] == "false"


def test_tensorflows_gpus_are_told_from_others_by_their_bus():
    descriptions = [
        "device: 0, name: NVIDIA H200, pci bus id: 0000:19:00.0, compute capability: 9.0",
        "device: 1, name: NVIDIA H200, pci bus id: 0000:3b:00.0, compute capability: 9.0",
        "device: XLA_CPU device",
    ]
    assert used_gpus.pci_bus_ids(descriptions) == ("0000:19:00.0", "0000:3b:00.0")
    assert used_gpus.other_boards(()) == ""  # the real TensorFlow here has none


def test_the_driver_is_told_by_its_version():
    closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:22 2025\n"
    open_ = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.183.01  Release Build\n"
    assert hardware.driver_version(closed + "GCC version: gcc version 12.2.0") == "580.65.06"
    assert hardware.driver_version(open_) == "535.183.01"
    assert hardware.driver_version("") == "unknown"


def test_the_state_of_the_host_is_told_and_costs_no_run_where_it_cannot_be(monkeypatch):
    host = {"governor": "performance", "load": 1.5, "container": "", "clock_source": ""}
    found = Surroundings(steal_percent=math.nan, **host)
    monkeypatch.setattr(hardware, "surroundings", lambda: found)
    assert hardware.host_tags() == {
        names.TAG_HOST_LOAD: "1.50",
        names.TAG_HOST_GOVERNOR: "performance",
        names.TAG_HOST_CONTAINER: "none",
    }

    def unreadable():
        raise OSError("no load average here")

    monkeypatch.setattr(hardware, "surroundings", unreadable)
    assert hardware.host_tags() == {}


def test_the_advice_to_allow_rapl_is_given_where_it_helps(gpus, monkeypatch, caplog):
    gpus()
    if rapl.cpu_source().source == rapl.SOURCE_RAPL:
        pytest.skip("this machine's RAPL can be read")
    advice = rapl.CpuSource("codecarbon_estimate", "sudo chmod", can_be_allowed=True)
    for source, expected in ((advice, ["sudo chmod"]), (rapl.CpuSource("rapl"), [])):
        caplog.clear()
        monkeypatch.setattr(rapl, "cpu_source", lambda source=source: source)
        with caplog.at_level("WARNING", "green_screen"), measured() as run:
            pass
        assert [record.message for record in caplog.records] == expected
        assert run.summary(1).tags[names.TAG_CPU_SOURCE] == rapl.SOURCE_MODEL


def test_everything_stops_when_the_training_fails(gpus):
    gpus(SimulatedBoard())
    before = set(threading.enumerate())
    with pytest.raises(MemoryError), measured() as run, run.phase("setup"):
        raise MemoryError
    assert run.idle_after is None  # no time is spent on a run that failed
    assert not [t for t in threading.enumerate() if t.name == "power-sampler"]
    for thread in set(threading.enumerate()) - before:
        thread.join()  # CodeCarbon's cancelled timers take a moment to notice
        assert not thread.is_alive()


def test_misuse_is_refused(gpus):
    gpus()
    with pytest.raises(ValueError, match="'XXX'"):
        RunMeasurement(country="XXX")
    run = measured()
    with pytest.raises(RuntimeError, match="nothing was measured"):
        run.summary(1)
    with run:
        with pytest.raises(ValueError, match="setup, kernels, checkpoint, conversion, "):
            run.phase("training").__enter__()
        with pytest.raises(RuntimeError, match="no epoch has begun"):
            run.end_epoch()
        with run.phase("setup"), pytest.raises(RuntimeError, match="inside phase 'setup'"):
            run.phase("evaluation").__enter__()
        run.begin_validation()  # an evaluation outside of an epoch is none of its business
        run.end_validation()


def test_the_real_tensorflow_here_has_no_gpu():
    assert used_gpus.tensorflow_gpus() == ()
    used_gpus.synchronize_gpu()


@pytest.mark.slow
def test_a_whole_training_on_a_gpu_is_in_mlflow(gpus, tmp_path, monkeypatch):
    boards = [SimulatedBoard(curve=Constant(watts), processes=(1,)) for watts in (50.0, 300.0)]
    gpus(*boards)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    monkeypatch.setenv("CUDA_CACHE_PATH", str(tmp_path / "kernels"))
    monkeypatch.setattr(
        used_gpus, "tensorflow_gpus", lambda: tuple(range(len(used_gpus.visible_boards())))
    )
    # At each edge the GPU is waited for, which is when it works.
    defaults = RunMeasurement.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "synchronize", lambda: time.sleep(0.4))
    # Another process works, which takes none of the time here.
    apart = kernels.make_apart
    monkeypatch.setattr(kernels, "make_apart", lambda *what: time.sleep(0.4) or apart(*what))
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment(names.EXPERIMENT, artifact_location=f"file://{tmp_path}/artifacts")
    options = {
        "dataset": "synthetic",
        "model": "resnet8",
        "epochs": "2",
        "image_size": "8",
        "samples": "60",
        "batch_size": "32",
        "optimizer": "SGD",
        "log_model": "false",
        "min_window_s": "3.0",
    }
    folder = tmp_path / "downloaded"
    folder.mkdir()
    try:
        assert main([word for name, value in options.items() for word in (f"--{name}", value)]) == 0
        (run,) = mlflow.search_runs(experiment_names=[names.EXPERIMENT], output_format="list")
        client = mlflow.MlflowClient()
        epochs = client.get_metric_history(run.info.run_id, names.EPOCH_ENERGY_J)
        further = client.get_metric_history(run.info.run_id, names.FURTHER_EPOCH_ENERGY_J)
        integrals = client.get_metric_history(run.info.run_id, names.GPU_INTEGRAL_J)
        samples, phases = read_trace(
            client.download_artifacts(run.info.run_id, names.TRACE_PARQUET, str(folder))
        )
    finally:
        mlflow.set_tracking_uri(None)
    metrics, tags = run.data.metrics, run.data.tags
    parts_j = metrics[names.SETUP_ENERGY_J] + metrics[names.EVALUATION_ENERGY_J]
    parts_j += metrics[names.OTHER_ENERGY_J] + sum(epoch.value for epoch in epochs)
    assert parts_j == pytest.approx(metrics[names.ENERGY_TOTAL_J])
    # The counter's steps at the edges of the run, of the idle window, of the further epochs, and of
    # the making of kernels, which the first run on this machine has done apart.
    assert metrics[names.ENERGY_TOTAL_J] == pytest.approx(
        300 * metrics[names.DURATION_S], abs=4 * 0.1 * 300 + 1
    )
    assert metrics[names.ENERGY_TOTAL_NET_J] == pytest.approx(0, abs=4 * 0.1 * 300 + 5)
    assert tags[names.TAG_FIRST_ON_MACHINE] == "true"
    assert metrics[names.KERNELS_ENERGY_J] == pytest.approx(300 * metrics[names.KERNELS_S], abs=31)
    assert len(list((tmp_path / "kernels").iterdir())) == 1
    assert len(epochs) == 2 and len(further) == metrics[names.FURTHER_EPOCHS] >= 1
    assert metrics[names.STEADY_WINDOW_S] >= 3.0
    # Both energies of an epoch: by the counter and by sampled power.
    assert metrics[names.GPU_ENERGY_J] == metrics[names.EPOCH_ENERGY_J]
    assert metrics[names.GPU_INTEGRAL_J] == pytest.approx(metrics[names.GPU_ENERGY_J], abs=31)
    assert metrics[names.STEADY_SM_CLOCK_MHZ] == 1980
    assert tags[names.TAG_ENERGY_SOURCE] == names.SOURCE_COUNTER
    assert tags[names.TAG_MEASUREMENT_VALID] == "true", tags
    assert tags[names.TAG_INCOMPLETE] == "false"
    assert tags[names.TAG_GPU_POWER_LIMIT_W] == "700"
    # Of the two boards it has used and measured the first alone.
    assert tags[names.TAG_GPU_DEVICES] == f"NVIDIA Simulated ({boards[1].uuid})"
    assert names.TAG_UNCHECKED not in tags
    missing = {name for name, value in metrics.items() if math.isnan(value)}
    assert {names.MISSING_PREFIX + name for name in missing} == {
        tag for tag in tags if tag.startswith(names.MISSING_PREFIX)
    }
    joules = dict(zip(phases["phase"], integrals_j(samples, phases), strict=True))
    logged_j = {f"epoch {metric.step}": metric.value for metric in integrals}
    assert {name: joules[name] for name in logged_j} == pytest.approx(logged_j, rel=1e-6)
    assert {"idle before", "setup", "kernels", "idle in context", "validation 1", "further"} < {
        *samples["phase"]
    }
