"""The arithmetic of windows, against the truth of simulated boards in virtual time."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_nvml import (
    Bursts,
    Constant,
    Ramp,
    SimulatedBoard,
    Simulation,
    Steps,
    VirtualClock,
    simulated,
)

from green_screen import names
from green_screen.power import nvml
from green_screen.power.reading import DeviceReading
from green_screen.power.trace import MAX_HOLE_S, BoardMark, BoardTrace

COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
POWER = "nvmlDeviceGetPowerUsage"


class Bench:
    """One simulated board in virtual time, sampled as the sampler would."""

    def __init__(self, board: SimulatedBoard, clock: VirtualClock) -> None:
        self.clock = clock
        self.board = board
        self.ticks = 0
        self.trace = BoardTrace(nvml.list_boards().boards[0], clock)

    def run(self, seconds: float) -> None:
        """Let time pass, with samples on the way."""
        end = self.clock.now + seconds
        while self.clock.now < end - 1e-9:
            self.trace.sample_power()
            if self.ticks % 5 == 0:
                self.trace.sample_status()
            self.ticks += 1
            self.clock.now = min(end, self.clock.now + 0.1)

    def mark(self) -> tuple[float, BoardMark]:
        return self.clock.now, self.trace.mark()

    def truth_j(self, start_s: float, end_s: float) -> float:
        return self.board.curve.energy_j(end_s) - self.board.curve.energy_j(start_s)


@contextmanager
def one_board(board: SimulatedBoard) -> Iterator[Bench]:
    """Have the board behind pynvml while the block runs."""
    clock = VirtualClock()
    with simulated(Simulation(boards=[board], clock=clock)):
        yield Bench(board, clock)


@pytest.fixture
def bench():
    """Make benches that last as long as the test."""
    with ExitStack() as stack:
        yield lambda board: stack.enter_context(one_board(board))


def window(bench: Bench, seconds: float) -> tuple[DeviceReading, float]:
    """Return the reading of a window and its true energy."""
    start_s, start = bench.mark()
    bench.run(seconds)
    end_s, end = bench.mark()
    return bench.trace.between(start, end), bench.truth_j(start_s, end_s)


def test_counter_and_integral_agree_with_a_constant_power(bench):
    b = bench(SimulatedBoard(curve=Constant(150.0)))
    b.run(2.0)
    reading, truth_j = window(b, 7.33)
    assert reading.source == names.SOURCE_COUNTER
    assert reading.energy_j == reading.counter_j
    assert reading.resolution_j == pytest.approx(15.0, rel=0.02)
    assert abs(reading.counter_j - truth_j) <= reading.resolution_j
    assert reading.integral_j == pytest.approx(truth_j, rel=1e-4)
    assert reading.max_power_w == pytest.approx(150.0)
    assert reading.seconds == pytest.approx(7.33)
    assert reading.reason == ""


@pytest.mark.parametrize("averaging_s", [0.025, 1.0])
@pytest.mark.parametrize("period_s", [0.5137, 0.7331, 1.9, 2.9077])
def test_integral_of_bursts_is_within_one_percent_at_ten_hertz_in_a_minute(
    bench, averaging_s, period_s
):
    """A minute is the shortest window for which that holds (docs/measuring.md)."""
    curve = Bursts(low_w=120.0, high_w=600.0, burst_s=0.2, period_s=period_s)
    b = bench(SimulatedBoard(curve=curve, averaging_s=averaging_s, unsupported=(COUNTER,)))
    for phase_s in (2.01, 0.777):  # both ends fall anywhere in a period
        b.run(phase_s)
        reading, truth_j = window(b, 60.0)
        assert reading.source == names.SOURCE_POWER
        assert reading.energy_j == pytest.approx(truth_j, rel=0.01)
    assert "not supported" in reading.reason.lower()


@pytest.mark.parametrize("averaging_s", [0.025, 1.0])
def test_counter_of_bursts_is_within_the_resolution(bench, averaging_s):
    curve = Bursts(low_w=120.0, high_w=600.0, burst_s=0.2, period_s=0.7331)
    b = bench(SimulatedBoard(curve=curve, averaging_s=averaging_s))
    b.run(3.0)
    for seconds in (0.31, 1.27, 5.6, 20.05):
        reading, truth_j = window(b, seconds)
        assert abs(reading.counter_j - truth_j) <= 0.1 * 600.0 + 1e-3


def test_a_rising_power_is_integrated_by_trapezoids(bench):
    curve = Ramp(first_w=100.0, slope_w_per_s=50.0, start_s=VirtualClock().now)
    b = bench(SimulatedBoard(curve=curve, averaging_s=0.001, update_s=0.001))
    b.run(1.0)
    reading, truth_j = window(b, 5.0)
    # Rectangles, to either side, would be off by 12 J.
    assert reading.integral_j == pytest.approx(truth_j, abs=1.0)


def test_a_step_in_power_blurs_the_integral_by_no_more_than_its_resolution(bench):
    clock_start = VirtualClock().now
    curve = Steps(100.0, [(clock_start + 4.0, 500.0)])
    b = bench(SimulatedBoard(curve=curve, unsupported=(COUNTER,)))
    b.run(4.0)
    reading, truth_j = window(b, 3.0)
    assert reading.energy_j < truth_j  # the reading lags behind
    assert truth_j - reading.energy_j <= reading.resolution_j
    assert reading.lag_j == pytest.approx(400.0)
    b.run(1.0)
    reading, truth_j = window(b, 3.0)
    assert reading.lag_j == pytest.approx(0.0)


class SlowBoard(nvml.Board):
    """A board whose first reading waits for a second one, as a busy machine's thread may."""

    def energy_j(self) -> float:
        number = next(self.numbers)
        if number == 1:
            self.first_has_read.set()
            self.second_has_read.wait(0.3)  # in which it does, if nothing keeps it from that
        return 100.0 * number


def test_a_reading_that_another_thread_overtakes_is_no_fall_of_the_counter():
    board = SlowBoard(index=0, uuid="GPU-0", pci_bus_id="", name="slow")
    vars(board).update(
        numbers=itertools.count(1),
        first_has_read=threading.Event(),
        second_has_read=threading.Event(),
    )
    trace = BoardTrace(board, VirtualClock())
    marks = []
    first = threading.Thread(target=lambda: marks.append(trace.mark()))
    first.start()
    board.first_has_read.wait()
    marks.append(trace.mark())
    board.second_has_read.set()
    first.join()
    assert trace.mark().resets == 0
    assert {mark.counter_j for mark in marks} == {100.0, 200.0}


def test_a_sample_that_is_taken_while_the_counter_is_read_belongs_behind_the_mark(bench):
    b = bench(SimulatedBoard(curve=Constant(200.0)))
    b.run(1.0)
    start_s, start = b.mark()
    b.run(1.0)
    read = type(b.trace.board).energy_j

    class Slow(nvml.Board):
        def energy_j(self) -> float:
            b.clock.now += 0.05
            b.trace.sample_power()
            return read(self)

    b.trace.board = Slow(**vars(b.trace.board))
    end_s, end = b.mark()
    assert end.integral_j - start.integral_j == pytest.approx(200.0 * (end_s - start_s))


@pytest.mark.parametrize(
    "board",
    [
        SimulatedBoard(curve=Constant(200.0), driver_restarts=((1006.0, 1008.0),)),
        SimulatedBoard(curve=Constant(200.0), counter_modulus_mj=1_000_000, counter_start_j=100.0),
    ],
    ids=["driver restart", "wrap"],
)
def test_a_counter_that_falls_is_not_used(bench, board):
    b = bench(board)
    b.run(2.0)
    before, before_truth_j = window(b, 2.0)
    across, across_truth_j = window(b, 6.0)
    after, after_truth_j = window(b, 2.0)
    assert before.energy_j == pytest.approx(before_truth_j, abs=before.resolution_j)
    assert after.source == names.SOURCE_COUNTER
    assert after.energy_j == pytest.approx(after_truth_j, abs=after.resolution_j)
    if board.driver_restarts:
        assert math.isnan(across.energy_j)
        assert across.source == names.SOURCE_NONE
        assert "counter fell" in across.reason and "lost" in across.reason.lower()
    else:
        assert across.source == names.SOURCE_POWER
        assert across.energy_j == pytest.approx(across_truth_j, rel=0.01)
        assert "counter fell" in across.reason


def test_a_counter_that_has_grown_beyond_where_it_fell_from_is_not_used(bench):
    # Before the restart the counter shows 20 J, at the window's end 2,000 J: a difference of the
    # edges alone would look right and be wrong.
    b = bench(SimulatedBoard(curve=Constant(200.0), driver_restarts=((1003.0, 1004.0),)))
    b.board.counter_start_j = -200.0 * 1000.0 + 20.0
    b.run(2.0)
    start_s, start = b.mark()
    b.run(20.0)
    _, end = b.mark()
    assert end.counter_j > start.counter_j
    assert math.isnan(b.trace.between(start, end).energy_j)


def test_a_lost_board_leaves_a_gap_and_the_counter_bridges_it(bench):
    b = bench(SimulatedBoard(curve=Constant(200.0), lost=((1005.0, 1007.0),)))
    b.run(2.0)
    reading, truth_j = window(b, 8.0)
    assert math.isnan(reading.integral_j)
    assert reading.energy_j == pytest.approx(truth_j, abs=reading.resolution_j)


def test_a_window_that_ends_while_the_board_is_lost_is_missing_with_its_reason(bench):
    b = bench(SimulatedBoard(curve=Constant(200.0), lost=((1005.0, 1007.0),)))
    b.run(2.0)
    reading, _ = window(b, 4.0)
    assert math.isnan(reading.energy_j)
    assert "lost" in reading.reason.lower()
    b.run(2.0)
    after, truth_j = window(b, 2.0)
    assert after.energy_j == pytest.approx(truth_j, abs=after.resolution_j)
    assert not math.isnan(after.integral_j)


def test_no_permission_at_all_is_nan_with_the_reason(bench):
    b = bench(SimulatedBoard(denied=(COUNTER, POWER)))
    b.run(1.0)
    reading, _ = window(b, 2.0)
    assert math.isnan(reading.energy_j) and math.isnan(reading.integral_j)
    assert reading.source == names.SOURCE_NONE
    assert "permission" in reading.reason.lower()


def test_power_is_not_interpolated_over_a_hole(bench):
    b = bench(SimulatedBoard(unsupported=(COUNTER,)))
    b.run(2.0)
    start_s, start = b.mark()
    b.clock.sleep(MAX_HOLE_S + 1.0)
    _, end = b.mark()
    assert math.isnan(b.trace.between(start, end).energy_j)
    b.run(1.0)
    _, later = b.mark()
    reading = b.trace.between(start, later)
    assert math.isnan(reading.energy_j)
    assert "no sample for" in reading.reason


def test_status_of_the_window_and_not_of_others(bench):
    b = bench(SimulatedBoard(temperature_c=40))
    b.run(2.0)
    b.board.temperature_c, b.board.throttle_mask = 60, 0x40 | 0x4
    b.clock.sleep(0.05)
    reading, _ = window(b, 2.0)
    assert reading.temperature_c == 60
    assert reading.throttled == {"hardware thermal slowdown": 1.0}  # the power cap is no throttle
    assert reading.power_capped == 1.0
    assert reading.memory_used_mib == 1024
    assert reading.status_reason == ""


def test_the_clock_of_a_board_at_work_leaves_idle_moments_out(bench):
    b = bench(SimulatedBoard(sm_clock_mhz=1900))
    b.run(1.0)
    start = b.trace.mark()
    b.run(2.0)
    b.board.sm_clock_mhz, b.board.throttle_mask = 345, 0x1  # nothing runs: the clock drops
    b.run(1.0)
    b.board.sm_clock_mhz, b.board.throttle_mask = 1500, 0x4
    b.run(2.0)
    reading = b.trace.between(start, b.trace.mark())
    assert reading.busy_sm_clock_mhz == pytest.approx(1700, abs=60)  # the samples' share may differ
    assert reading.power_capped == pytest.approx(0.5, abs=0.15)
    assert reading.sm_clock_mhz < reading.busy_sm_clock_mhz
    assert reading.throttled == {}
    # A window in which it only rested has no such clock.
    b.board.throttle_mask = 0x1
    b.run(1.0)
    start = b.trace.mark()
    b.run(2.0)
    resting = b.trace.between(start, b.trace.mark())
    assert math.isnan(resting.busy_sm_clock_mhz) and math.isnan(resting.power_capped)


def test_a_process_that_comes_and_goes_inside_a_window_is_seen(bench):
    b = bench(SimulatedBoard(processes=(1,)))
    start = b.trace.mark()
    b.run(1.0)
    b.board.processes = (1, 2)
    b.run(0.6)
    b.board.processes = (1,)
    b.run(1.0)
    end = b.trace.mark()
    b.run(1.0)
    assert b.trace.between(start, end).processes == 2
    assert b.trace.between(end, b.trace.mark()).processes == 1


def test_what_could_not_be_read_in_a_window_is_missing_with_its_reason(bench):
    refused = ("nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetClockInfo", POWER)
    b = bench(SimulatedBoard(denied=refused))
    b.run(1.0)
    reading, _ = window(b, 2.0)
    assert reading.throttled is None and math.isnan(reading.sm_clock_mhz)
    assert math.isnan(reading.power_capped)  # not read is not the same as not capped
    assert reading.temperature_c == 35
    assert reading.status_reason.count("SM clock of") == 1  # not once a reading
    assert "throttle reasons of" in reading.status_reason
    assert "power of" in reading.integral_reason and reading.source == names.SOURCE_COUNTER


curves = st.one_of(
    st.builds(Constant, st.floats(20, 700)),
    st.builds(
        Bursts,
        low_w=st.floats(20, 200),
        high_w=st.floats(200, 700),
        burst_s=st.floats(0.05, 0.4),
        period_s=st.floats(0.5, 3.0),
    ),
)


@settings(max_examples=40, deadline=None)
@given(
    curve=curves,
    averaging_s=st.sampled_from([0.025, 1.0]),
    steps_s=st.lists(st.floats(0.001, 4.0), min_size=2, max_size=12),
    data=st.data(),
)
def test_windows_nest_without_loss_or_double_counting(curve, averaging_s, steps_s, data):
    """Any split of any window adds up to it, and each part is right within the resolution."""
    with one_board(SimulatedBoard(curve=curve, averaging_s=averaging_s)) as b:
        b.run(1.5)
        marks = [b.mark()]
        for step_s in steps_s:
            b.run(step_s)
            marks.append(b.mark())
        first = data.draw(st.integers(0, len(marks) - 2))
        last = data.draw(st.integers(first + 1, len(marks) - 1))
        parts = [b.trace.between(marks[i][1], marks[i + 1][1]) for i in range(first, last)]
        whole = b.trace.between(marks[first][1], marks[last][1])
    assert sum(p.counter_j for p in parts) == pytest.approx(whole.counter_j, abs=1e-6)
    assert sum(p.integral_j for p in parts) == pytest.approx(whole.integral_j, abs=1e-6)
    assert sum(p.seconds for p in parts) == pytest.approx(whole.seconds, abs=1e-9)
    high_w = curve.watts if isinstance(curve, Constant) else curve.high_w
    for index, part in enumerate(parts):
        truth_j = b.truth_j(marks[first + index][0], marks[first + index + 1][0])
        # Half a millijoule more at each edge: the counter counts whole ones.
        assert abs(part.counter_j - truth_j) <= 0.1 * high_w + 1e-3
