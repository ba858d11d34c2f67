"""Idle power: what a board draws that waits, right after it has worked."""

from __future__ import annotations

import pytest

from green_screen.power import idle
from green_screen.power.meter import EnergyMeter
from green_screen.power.nvml import Board, NvmlError, list_boards
from tests.support.simulated_nvml import SimulatedBoard, Simulation, Steps
from tests.support.virtual_time import simulated_in_virtual_time, time

IDLE_W, WORK_W = 120.0, 400.0


@pytest.mark.parametrize(
    ("instant_averaging_s", "longest_s"), [(0.025, 0.8), (None, 1.6)], ids=["instant", "mean"]
)
def test_the_work_before_is_in_no_idle_power(instant_averaging_s, longest_s):
    board = SimulatedBoard(curve=Steps(WORK_W), instant_averaging_s=instant_averaging_s)
    with simulated_in_virtual_time(Simulation(boards=[board])), EnergyMeter() as meter:
        time.sleep(5.03)  # between two renewals of the reading
        worked_until_s = time.perf_counter()
        board.curve.changes.append((worked_until_s, IDLE_W))
        waited, start, end = idle.wait(meter, "idle after", worked_until_s=worked_until_s)
        assert waited.power_w == pytest.approx(IDLE_W, abs=0.5)
        assert end.time_s - worked_until_s <= longest_s
        assert waited.reading.name == "idle after"
        assert waited.reading.seconds == pytest.approx(end.time_s - start.time_s)


def test_boards_are_added_up_and_one_without_an_instant_reading_makes_all_wait():
    boards = [SimulatedBoard(curve=Steps(70.0)), SimulatedBoard(curve=Steps(50.0))]
    with simulated_in_virtual_time(Simulation(boards=boards)), EnergyMeter() as meter:
        time.sleep(2.0)
        assert idle.wait(meter, "idle")[0].power_w == pytest.approx(120.0, abs=0.1)
        boards[1].denied = ("nvmlDeviceGetFieldValues",)
        began_s = time.perf_counter()
        waited, _, end = idle.wait(meter, "idle", worked_until_s=began_s)
        assert waited.power_w == pytest.approx(120.0, abs=0.5)
        assert end.time_s - began_s >= 1.0 + idle.IDLE_S


@pytest.mark.parametrize("after", [0, 3])
def test_a_reading_that_fails_on_the_way_leaves_no_work_in_the_idle_power(monkeypatch, after):
    told = Board.instant_power_w
    calls = []

    def fails(board: Board) -> float:
        calls.append(board)
        if len(calls) > after:
            raise NvmlError("the board does not tell")
        return told(board)

    board = SimulatedBoard(curve=Steps(WORK_W))
    with simulated_in_virtual_time(Simulation(boards=[board])), EnergyMeter() as meter:
        time.sleep(5.03)
        worked_until_s = time.perf_counter()
        board.curve.changes.append((worked_until_s, IDLE_W))
        monkeypatch.setattr(Board, "instant_power_w", fails)
        waited, start, _ = idle.wait(meter, "idle", worked_until_s=worked_until_s)
    assert len(calls) == after + 1
    assert waited.power_w == pytest.approx(IDLE_W, abs=0.5)
    assert start.time_s >= worked_until_s + 1.0


def test_a_power_of_zero_is_no_reading():
    with simulated_in_virtual_time(Simulation(boards=[SimulatedBoard(curve=Steps(0.0))])):
        (board,) = list_boards().boards
        with pytest.raises(NvmlError, match="power of this moment"):
            board.instant_power_w()
