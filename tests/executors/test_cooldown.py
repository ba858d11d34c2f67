from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from campaigns import Driven, assert_complete, children, small, sweep_parents
from simulated_nvml import (
    Constant,
    Edges,
    SimulatedBoard,
    Simulation,
    Steps,
    VirtualClock,
    child_environment,
    simulated,
)

from green_screen import names, tracking
from green_screen.executors.cooldown import cool_down, found_state, wait_until_cool
from green_screen.executors.executor import Cooldown, RestingState
from green_screen.power.visible import visible_boards


def cooldown(board: str, timeout_s: float, **changes: float) -> Cooldown:
    resting = {"temperature_c": 30.0, "power_w": 80.0} | changes
    return Cooldown(
        band_c=5.0,
        band_w=10.0,
        timeout_s=timeout_s,
        resting=(RestingState(board=board, **resting),),
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    """The time that the wait knows, and that passes while it waits."""
    clock = VirtualClock()
    time = SimpleNamespace(monotonic=clock, sleep=clock.sleep)
    monkeypatch.setattr("green_screen.executors.cooldown.time", time)
    return clock


@pytest.mark.parametrize(("instant_averaging_s", "averaged_s"), [(0.1, 0.1), (None, 0.9)])
def test_a_board_that_still_draws_power_is_waited_for(
    clock: VirtualClock, instant_averaging_s: float | None, averaged_s: float
) -> None:
    """By the power of the moment where it is told: the other reading remembers a second."""
    power = Steps(300.0, [(clock() + 1.0, 85.0)])
    board = SimulatedBoard(
        curve=power, averaging_s=0.9, instant_averaging_s=instant_averaging_s, temperature_c=33
    )
    with simulated(Simulation(boards=[board], clock=clock)):
        (visible,) = visible_boards()
        waited = wait_until_cool(visible, cooldown(visible.uuid, 30.0), poll_s=0.05)
    assert waited.seconds == pytest.approx(1.0 + averaged_s)
    assert waited.state.power_w == pytest.approx(85.0)
    assert waited.state.temperature_c == 33


@pytest.mark.parametrize(
    ("temperature_c", "power_w"),
    [(36, 80.0), (30, 91.0)],
    ids=["too warm", "too much power"],
)
def test_the_time_is_out(temperature_c: int, power_w: float, clock: VirtualClock) -> None:
    board = SimulatedBoard(curve=Constant(power_w), temperature_c=temperature_c)
    with simulated(Simulation(boards=[board], clock=clock)):
        (visible,) = visible_boards()
        waited = wait_until_cool(visible, cooldown(visible.uuid, 0.3), poll_s=0.05)
    assert waited.seconds == pytest.approx(0.3)
    assert waited.state.temperature_c == temperature_c


def test_a_board_that_has_not_been_used_is_taken_as_it_is(clock: VirtualClock) -> None:
    with simulated(Simulation(boards=[SimulatedBoard(temperature_c=80)], clock=clock)):
        (visible,) = visible_boards()
        waited = wait_until_cool(visible, cooldown("another board", 60.0))
    assert waited.seconds == 0.0
    assert waited.state.temperature_c == 80


def test_a_temperature_that_cannot_be_read_stops_nothing(clock: VirtualClock) -> None:
    board = SimulatedBoard(curve=Constant(80.0), unsupported=("nvmlDeviceGetTemperature",))
    with simulated(Simulation(boards=[board], clock=clock)):
        (visible,) = visible_boards()
        assert wait_until_cool(visible, cooldown(visible.uuid, 60.0)).seconds == 0.0


@pytest.mark.slow
def test_two_boards_run_two_jobs_each_with_its_own(
    drive: Callable[..., Driven], tmp_path: Path
) -> None:
    simulation = Simulation(
        boards=[SimulatedBoard(curve=Constant(power_w)) for power_w in (100.0, 200.0)]
    )
    powers_w = {board.uuid: board.curve.watts for board in simulation.boards}  # type: ignore[union-attr]
    environment = child_environment(simulation, tmp_path / "boards")
    options = small(n_runs=3, cooldown_timeout_s=60.0)
    status, output = drive(options, "faulty_trainers:meter_together", **environment).end()
    assert status == 0, output

    (parent,) = sweep_parents()
    assert_complete(parent.info.run_id, options)
    runs = children(parent.info.run_id)
    assert {run.data.tags["cuda_visible_devices"] for run in runs} == set(powers_w)
    for run in runs:
        power_w = powers_w[run.data.tags[names.TAG_BOARD]]
        # Each measured its own board and that alone, though both were at work.
        assert run.data.tags["metered"] == run.data.tags[names.TAG_BOARD]
        edges = Edges(run.data.metrics["shortest_s"], run.data.metrics["longest_s"])
        assert edges.holds(run.data.metrics["metered_j"], power_w)
        assert run.data.tags[names.TAG_BOARD] == run.data.tags["cuda_visible_devices"]
        assert run.data.tags[names.TAG_SHARED_HOST] == "true"
        assert run.data.metrics[names.COOLDOWN_TEMPERATURE_C] == 35
        assert run.data.metrics[names.COOLDOWN_POWER_W] == pytest.approx(power_w)
    times = sorted((run.info.start_time, run.info.end_time) for run in runs)
    assert times[1][0] < times[0][1]
    assert "300 W now" in output


def test_a_board_that_cannot_be_read_is_a_gap_with_a_reason(
    store: str, clock: VirtualClock
) -> None:
    board = SimulatedBoard(denied=("nvmlDeviceGetPowerUsage", "nvmlDeviceGetFieldValues"))
    with simulated(Simulation(boards=[board])), tracking.open_run() as run:
        cool_down(cooldown("GPU", 60.0), run)
    logged = tracking.read_run(run.run_id)
    assert logged.data.metrics[names.COOLDOWN_S] == 0.0
    assert math.isnan(logged.data.metrics[names.COOLDOWN_POWER_W])
    missing = logged.data.tags[names.MISSING_PREFIX + names.COOLDOWN_POWER_W]
    assert "the GPU could not be read" in missing
    assert found_state(logged) is None


@pytest.mark.slow
def test_without_a_gpu_there_is_no_wait(drive: Callable[..., Driven]) -> None:
    status, _ = drive(small(n_runs=1, cooldown_timeout_s=60.0), "faulty_trainers:quick").end()
    assert status == 0
    (parent,) = sweep_parents()
    for run in children(parent.info.run_id):
        assert run.data.metrics[names.COOLDOWN_S] == 0.0
        assert names.TAG_BOARD not in run.data.tags
        assert names.TAG_SHARED_HOST not in run.data.tags
