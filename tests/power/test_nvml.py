"""Units, gaps and errors of the readings of one board."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable

import pynvml
import pytest
from simulated_nvml import Constant, SimulatedBoard, Simulation, VirtualClock, simulated

from green_screen.power import driver, nvml


@pytest.fixture
def only_board():
    """Return the single board of a simulation, in virtual time."""
    contexts = []

    def make(board: SimulatedBoard, clock: VirtualClock | None = None) -> nvml.Board:
        context = simulated(Simulation(boards=[board], clock=clock or VirtualClock()))
        context.__enter__()
        contexts.append(context)
        (found,) = nvml.list_boards().boards
        return found

    yield make
    for context in reversed(contexts):
        context.__exit__(None, None, None)


def test_readings_are_in_watts_and_joules(only_board):
    clock = VirtualClock(now=50.0)
    board = only_board(SimulatedBoard(curve=Constant(123.456)), clock)
    assert board.power_w() == pytest.approx(123.456)
    assert board.energy_j() == pytest.approx(123.456 * 50.0)
    clock.sleep(2.0)
    assert board.energy_j() == pytest.approx(123.456 * 52.0)


def test_status(only_board):
    status = only_board(SimulatedBoard(temperature_c=61, throttle_mask=0x80)).status()
    assert status.temperature_c == 61
    assert status.utilization_percent == 90
    assert (status.sm_clock_mhz, status.memory_clock_mhz) == (1980, 3201)
    assert status.memory_used_mib == 1024
    assert status.clock_reasons == {"power brake"}
    assert status.processes == 0 and status.reason == ""


def test_a_status_reading_that_fails_is_nan_and_leaves_the_others(only_board):
    refused = (
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
        "nvmlDeviceGetComputeRunningProcesses",
    )
    status = only_board(SimulatedBoard(unsupported=refused)).status()
    assert math.isnan(status.utilization_percent) and math.isnan(status.processes)
    assert status.clock_reasons is None  # not read is not the same as none
    assert status.temperature_c == 35
    for reading in ("utilization of NVIDIA Simulated", "throttle reasons of", "processes of"):
        assert reading in status.reason
    assert "temperature" not in status.reason


def test_errors_name_the_reading_the_board_and_the_cause(only_board):
    board = only_board(SimulatedBoard(denied=("nvmlDeviceGetPowerUsage",)))
    with pytest.raises(nvml.NvmlError, match=r"power of NVIDIA Simulated \(GPU-0.*[Pp]ermission"):
        board.power_w()


def test_a_board_comes_back_after_a_restart_of_the_driver(only_board):
    clock = VirtualClock(now=10.0)
    board = only_board(SimulatedBoard(driver_restarts=((11.0, 12.0), (14.0, 15.0))), clock)
    assert board.power_w() > 0
    clock.now = 11.5
    with pytest.raises(nvml.NvmlError, match="lost"):
        board.power_w()
    for clock.now in (13.0, 16.0):  # the second restart falls between two readings
        with pytest.raises(nvml.NvmlError, match="[Uu]ninitialized"):
            board.power_w()  # the first reading finds that the connection is dead
        assert board.power_w() > 0


def test_a_dead_connection_is_ended_as_often_as_anybody_started_it(only_board):
    clock = VirtualClock(now=10.0)
    board = only_board(SimulatedBoard(driver_restarts=((11.0, 12.0),)), clock)
    pynvml.nvmlInit()  # as another library in this process would
    assert board.power_w() > 0
    clock.now = 13.0
    with pytest.raises(nvml.NvmlError, match="[Uu]ninitialized"):
        board.power_w()
    assert board.power_w() > 0
    assert len(nvml.list_boards().boards) == 1


def test_a_board_that_does_not_answer_is_left_out_and_the_others_are_not(caplog):
    boards = [SimulatedBoard(), SimulatedBoard(reset_required=True), SimulatedBoard()]
    with simulated(Simulation(boards=boards, clock=VirtualClock())):
        assert [board.index for board in nvml.list_boards().boards] == [0, 2]
    assert "GPU 1 is left out, NVML cannot describe it: GPU requires restart" in caplog.text
    alone = Simulation(boards=[SimulatedBoard(reset_required=True)], clock=VirtualClock())
    with simulated(alone), pytest.raises(nvml.NvmlError, match="GPU 0 is left out"):
        nvml.list_boards()


def in_a_fork(work: Callable[[], object]) -> str:
    """Return what `work` says in a forked child."""
    end, beginning = os.pipe()
    pid = os.fork()
    if pid == 0:  # never let pytest go on in the child
        try:
            answer = str(work())
        except BaseException as error:
            answer = repr(error)
        os.write(beginning, answer.encode())
        os._exit(0)
    os.close(beginning)
    os.waitpid(pid, 0)
    with os.fdopen(end) as stream:
        return stream.read()


def test_a_forked_child_connects_anew(only_board):
    board = only_board(SimulatedBoard(curve=Constant(123.0)))
    assert board.power_w() == 123.0

    def work() -> list[float]:
        return [found.power_w() for found in nvml.list_boards().boards]

    with driver._lock:  # as a thread that samples may at this moment
        assert in_a_fork(work) == "[123.0]"


def test_whether_there_is_a_board_is_told_apart_from_whether_it_can_be_listed(monkeypatch):
    with simulated(Simulation(library_missing=True)), pytest.raises(nvml.NoBoardsError):
        nvml.list_boards()
    hidden = Simulation(library_missing=True, device_files=("/dev/nvidia0", "/dev/nvidia1"))
    with simulated(hidden), pytest.raises(nvml.NvmlError) as caught:
        nvml.list_boards()
    assert not isinstance(caught.value, nvml.NoBoardsError)
    assert "/dev/nvidia0, /dev/nvidia1 are there" in str(caught.value)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with (
        simulated(Simulation()),
        pytest.raises(nvml.NoBoardsError, match="nvidia-ml-py is missing"),
    ):
        nvml.list_boards()


def test_a_refusal_does_not_cost_the_handle(only_board):
    refused = ("nvmlDeviceGetPowerUsage",)
    board = only_board(SimulatedBoard(denied=refused))
    with pytest.raises(nvml.NvmlError):
        board.power_w()
    assert board.uuid in driver._handles


def test_processes_and_power_limit(only_board):
    board = only_board(SimulatedBoard(processes=(7, 8), power_limit_w=450))
    assert board.status().processes == 2
    assert board.power_limit_w() == 450.0
