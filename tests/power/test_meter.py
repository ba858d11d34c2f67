"""EnergyMeter: windows, several boards, and machines without any."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simulated_nvml import (
    Constant,
    Ramp,
    SimulatedBoard,
    Simulation,
    Steps,
    VirtualClock,
    simulated,
)
from test_nvml import in_a_fork
from virtual_time import simulated_in_virtual_time, time
from waiting import until

from green_screen import EnergyMeter, names
from green_screen.power import sampler


@pytest.fixture
def machine(monkeypatch):
    """Put boards behind pynvml, in virtual time; CUDA shows all unless a test says otherwise."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    contexts = []

    def make(*boards: SimulatedBoard, in_real_time: bool = False) -> Simulation:
        simulation = Simulation(boards=list(boards))
        context = (simulated if in_real_time else simulated_in_virtual_time)(simulation)
        context.__enter__()
        contexts.append(context)
        return simulation

    yield make
    for context in reversed(contexts):
        context.__exit__(None, None, None)


def sampler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "power-sampler"]


def test_a_window_of_one_board(machine):
    machine(SimulatedBoard(curve=Constant(300.0)))
    with EnergyMeter() as meter, meter.window("work") as window:
        time.sleep(0.6)
    reading = window.reading
    assert reading.name == "work"
    assert reading.source == names.SOURCE_COUNTER
    assert reading.energy_j == pytest.approx(300 * reading.seconds, abs=reading.resolution_j)
    assert reading.integral_j == pytest.approx(300 * reading.seconds, rel=1e-3)
    assert reading.mean_power_w == pytest.approx(reading.energy_j / reading.seconds)
    assert reading.max_power_w == pytest.approx(300)
    assert reading.resolution_j == pytest.approx(30, rel=0.2)
    assert reading.temperature_c == 35
    assert reading.carbon.ram_kwh > 0
    assert len(reading.devices) == 1 and "GPU-00000000" in reading.devices[0].device


@pytest.mark.parametrize("count", [2, 8])
def test_boards_are_added_up_and_none_is_read_for_another(machine, count):
    machine(*(SimulatedBoard(curve=Constant(100.0 * (i + 1))) for i in range(count)))
    with EnergyMeter() as meter, meter.window("work") as window:
        time.sleep(0.4)
    reading = window.reading
    assert [round(d.max_power_w) for d in reading.devices] == [100 * (i + 1) for i in range(count)]
    total_w = sum(100 * (i + 1) for i in range(count))
    assert reading.integral_j == pytest.approx(total_w * reading.seconds, rel=0.02)
    assert reading.max_power_w == pytest.approx(total_w)


def test_only_the_chosen_boards_are_measured(machine, monkeypatch):
    simulation = machine(*(SimulatedBoard(curve=Constant(100.0 * (i + 1))) for i in range(3)))
    monkeypatch.setenv(
        "CUDA_VISIBLE_DEVICES", f"{simulation.boards[2].uuid},{simulation.boards[0].uuid}"
    )
    with EnergyMeter() as meter:
        assert [board.index for board in meter.boards] == [2, 0]
    with EnergyMeter(gpus=[1]) as meter:
        assert [board.index for board in meter.boards] == [0]
    with pytest.raises(ValueError, match=r"among the 2 that are visible, but got \[2\]"):
        EnergyMeter(gpus=[2]).__enter__()
    assert not sampler_threads()


def test_two_mig_instances_of_one_board_are_one_board(machine, monkeypatch):
    machine(SimulatedBoard(mig=("MIG-aaaa", "MIG-bbbb")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-aaaa,MIG-bbbb")
    with EnergyMeter() as meter:
        assert len(meter.boards) == 1


def test_windows_nest_and_add_up(machine):
    board = SimulatedBoard(curve=Steps(100.0))
    machine(board)
    with EnergyMeter() as meter, meter.window("outer") as outer:
        start_s = time.perf_counter()
        board.curve.changes += [(start_s + 0.2, 400.0), (start_s + 0.4, 50.0)]
        with meter.window("first") as first:
            time.sleep(0.3)
        meter.begin("second")
        with meter.window("inside the second") as inner:
            time.sleep(0.3)
        second = meter.end("second")
    parts_j = first.reading.energy_j + second.energy_j
    assert parts_j == pytest.approx(outer.reading.energy_j, abs=outer.reading.resolution_j)
    assert inner.reading.energy_j <= second.energy_j
    assert second.name == "second"


@st.composite
def schedules(draw):
    """Draw (begin or end, name, pause after it): windows that nest, overlap and stand alone."""
    steps, is_open = [], []
    for number in range(draw(st.integers(2, 8))):
        steps.append(("begin", f"w{number}", draw(st.floats(0.0, 0.15))))
        is_open.append(f"w{number}")
        while is_open and draw(st.booleans()):
            name = is_open.pop(draw(st.integers(0, len(is_open) - 1)))
            steps.append(("end", name, draw(st.floats(0.0, 0.15))))
    return steps + [("end", name, 0.02) for name in is_open]


def test_any_window_holds_the_energy_of_its_own_time(machine):
    """However windows lie to each other, each agrees with the truth between its two edges."""
    # The power rises all the time: energy of another time, or of another length, is another.
    board = SimulatedBoard(curve=Ramp(first_w=100.0, slope_w_per_s=150.0, start_s=1000.0))
    machine(board)
    with EnergyMeter() as meter:

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(schedules())
        def check(steps: list[tuple[str, str, float]]) -> None:
            begun: dict[str, float] = {}
            for action, name, pause_s in steps:
                before_s = time.perf_counter()
                if action == "begin":
                    meter.begin(name)
                    begun[name] = before_s
                else:
                    reading = meter.end(name)
                    after_s = time.perf_counter()
                    truth_j = board.curve.energy_j(after_s) - board.curve.energy_j(begun[name])
                    # What the calls themselves took lies on either side of the edges.
                    outside_s = after_s - begun[name] - reading.seconds
                    power_w = board.curve.power_w(after_s)
                    assert outside_s >= 0
                    slack_j = (0.1 + outside_s) * power_w + 0.01
                    assert abs(reading.counter_j - truth_j) <= slack_j
                time.sleep(pause_s)

        check()


def test_disagreements_of_two_boards_do_not_cancel(machine):
    simulation = machine(SimulatedBoard(curve=Constant(200.0)), SimulatedBoard(curve=Constant(200)))
    for board, shown_w in zip(simulation.boards, (150.0, 250.0), strict=True):
        board.reading_w = lambda t, shown_w=shown_w: shown_w
    with EnergyMeter() as meter, meter.window("work") as window:
        time.sleep(1.0)
    reading = window.reading
    assert reading.counter_j == pytest.approx(reading.integral_j, abs=25)
    assert reading.disagreement == pytest.approx(0.25, abs=0.1)


def test_one_missing_board_makes_the_sum_missing(machine):
    refused = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    machine(SimulatedBoard(), SimulatedBoard(denied=refused))
    with EnergyMeter() as meter, meter.window("work") as window:
        time.sleep(0.1)
    reading = window.reading
    assert math.isnan(reading.energy_j)
    assert reading.source == names.SOURCE_NONE
    assert "permission" in reading.reason.lower()
    assert not math.isnan(reading.devices[0].energy_j)


def test_a_board_without_a_counter_is_integrated(machine):
    machine(
        SimulatedBoard(curve=Constant(80.0), unsupported=("nvmlDeviceGetTotalEnergyConsumption",))
    )
    with EnergyMeter() as meter, meter.window("work") as window:
        time.sleep(0.4)
    assert window.reading.source == names.SOURCE_POWER
    assert window.reading.energy_j == pytest.approx(80 * window.reading.seconds, rel=0.01)


@pytest.mark.parametrize("selection", [None, ""])
def test_without_a_gpu_the_energy_is_an_estimate_and_says_so(monkeypatch, selection):
    if selection is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", selection)
    simulation = Simulation(boards=[], library_missing=selection is None)
    with simulated(simulation), EnergyMeter() as meter, meter.window("work") as window:
        sum(i * i for i in range(500_000))
    reading = window.reading
    assert reading.source == names.SOURCE_ESTIMATE
    assert reading.energy_j > 0
    assert reading.energy_j == pytest.approx(
        3.6e6 * (reading.carbon.cpu_kwh + reading.carbon.ram_kwh)
    )
    assert math.isnan(reading.counter_j) and math.isnan(reading.carbon.gpu_kwh)
    assert reading.reason  # why no GPU was measured
    assert meter.no_gpu_reason == reading.reason


@pytest.mark.parametrize(
    "simulation",
    [
        Simulation(boards=[SimulatedBoard(reset_required=True)]),
        Simulation(boards=[], library_missing=True, device_files=("/dev/nvidia0",)),
        Simulation(boards=[SimulatedBoard(name="A", reset_required=True), SimulatedBoard()]),
    ],
    ids=["not described", "library missing", "one of two"],
)
def test_boards_that_are_there_and_cannot_be_described_leave_the_energy_missing(
    monkeypatch, simulation
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with simulated(simulation), EnergyMeter() as meter, meter.window("work") as window:
        time.sleep(0.1)
    reading = window.reading
    assert math.isnan(reading.energy_j) and reading.source == names.SOURCE_NONE
    assert reading.reason == meter.no_gpu_reason != ""
    # The same of a process that is told to use none of them is an estimate.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with simulated(simulation), EnergyMeter() as meter, meter.window("work") as window:
        time.sleep(0.1)
    assert window.reading.source == names.SOURCE_ESTIMATE


def test_a_meter_in_a_forked_child_measures_the_board(machine):
    machine(SimulatedBoard(curve=Constant(150.0)), in_real_time=True)

    def work() -> str:
        with EnergyMeter() as meter, meter.window("child") as window:
            time.sleep(0.1)
        return window.reading.source

    with EnergyMeter() as meter, meter.window("parent"):  # its sampler reads while the child does
        assert in_a_fork(work) == names.SOURCE_COUNTER


def test_estimates_of_neighbouring_windows_add_up():
    with EnergyMeter(gpus=[]) as meter:
        marks = [meter.mark()]
        for pause_s in (0.2, 0.01, 0.03, 0.15, 0.005):  # some below what CodeCarbon can measure
            time.sleep(pause_s)
            marks.append(meter.mark())
        parts = [meter.between(a, b) for a, b in zip(marks, marks[1:], strict=False)]
        whole = meter.between(marks[0], marks[-1])
    assert all(part.energy_j > 0 for part in parts)
    # But for windows that were carried on too far: by less than CodeCarbon can measure.
    carried_on_j = 0.06 * whole.energy_j / whole.seconds
    assert sum(part.energy_j for part in parts) == pytest.approx(whole.energy_j, abs=carried_on_j)


def test_windows_of_several_threads_count_no_time_twice():
    interval_s = sys.getswitchinterval()
    meeting = threading.Barrier(8)

    def work(meter: EnergyMeter) -> None:
        for _ in range(12):
            meeting.wait()
            with meter.window(threading.current_thread().name):
                time.sleep(0.07)

    with EnergyMeter(gpus=[]) as meter:
        marks = [meter.mark()]
        time.sleep(0.5)
        marks.append(meter.mark())
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=work, args=(meter,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval_s)
        marks.append(meter.mark())
    totals = [mark.machine.carbon for mark in marks]
    # By the times at which CodeCarbon was read, which are not quite those of the marks.
    alone_w, together_w = (
        3.6e6 * (end.ram_kwh - start.ram_kwh) / (end.time_s - start.time_s)
        for start, end in itertools.pairwise(totals)
    )
    # The power of the memory is a constant.
    assert together_w == pytest.approx(alone_w, rel=0.2)


def test_the_gpu_is_waited_for_at_each_edge(machine):
    machine(SimulatedBoard())
    waits = []
    with EnergyMeter(synchronize=lambda: waits.append(1)) as meter:
        with meter.window("work"):
            assert len(waits) == 1
        assert len(waits) == 2


def test_an_error_in_a_window_stops_everything_and_still_gives_the_reading(machine):
    machine(SimulatedBoard(), in_real_time=True)
    with (
        pytest.raises(ZeroDivisionError),
        EnergyMeter() as meter,
        meter.window("work") as window,
    ):
        raise ZeroDivisionError
    assert window.reading.seconds > 0
    assert not sampler_threads()
    with pytest.raises(RuntimeError, match="not running"):
        meter.mark()


def test_misuse_is_refused_with_the_names(machine):
    machine(SimulatedBoard(), in_real_time=True)
    with EnergyMeter() as meter:
        with meter.window("open") as window, pytest.raises(RuntimeError, match="has not ended"):
            _ = window.reading
        meter.begin("twice")
        with pytest.raises(ValueError, match="'twice' has begun already"):
            meter.begin("twice")
        with pytest.raises(ValueError, match="'never' has not begun"):
            meter.end("never")
        meter.end("twice")
        with pytest.raises(ValueError, match=r"'twice' has not begun or has ended; open are \[\]"):
            meter.end("twice")
        with pytest.raises(RuntimeError, match="running already"):
            meter.__enter__()
        assert len(sampler_threads()) == 1  # the one it had
    assert not sampler_threads()


def test_a_meter_can_be_used_again(machine):
    machine(SimulatedBoard())
    meter = EnergyMeter()
    with meter:
        meter.begin("left open")
    with meter:
        meter.begin("left open")
        time.sleep(0.1)
        assert meter.end("left open").energy_j >= 0


@pytest.mark.parametrize("sample_hz", [0.0, 0.5, 101.0, math.nan])
def test_sampling_rates_out_of_range_are_refused(sample_hz):
    with pytest.raises(ValueError, match="sample_hz must be in"):
        EnergyMeter(sample_hz=sample_hz)


def test_an_unknown_country_is_refused():
    with pytest.raises(ValueError, match="'XXX'"):
        EnergyMeter(country="XXX")


def test_the_sampler_keeps_its_rate_and_reads_the_status_less_often(monkeypatch):
    clock = VirtualClock()

    class Trace:
        powers_s, statuses_s = [], []

        def sample_power(self) -> None:
            self.powers_s.append(clock())
            if len(self.powers_s) == 15:
                clock.sleep(0.32)  # a machine that was busy with something else

        def sample_status(self) -> None:
            self.statuses_s.append(clock())

    class Stopping:
        def wait(self, seconds: float) -> bool:
            clock.sleep(seconds)
            return len(Trace.powers_s) == 40

    monkeypatch.setattr(sampler, "time", SimpleNamespace(perf_counter=clock))
    of_one = sampler.Sampler([Trace()], sample_hz=20.0)
    monkeypatch.setattr(of_one, "_stopping", Stopping())
    of_one._sample(0)
    of_one._run()
    gaps_s = [end - start for start, end in itertools.pairwise(Trace.powers_s)]
    # The samples that were missed are left out.
    assert gaps_s == pytest.approx([0.05] * 14 + [0.32] + [0.05] * 24)
    assert Trace.statuses_s == Trace.powers_s[::10]


def test_samples_are_taken_in_the_background(machine):
    simulation = machine(SimulatedBoard(), in_real_time=True)
    with EnergyMeter(sample_hz=100.0):
        until(lambda: simulation.calls["nvmlDeviceGetPowerUsage"] >= 5)
    assert not sampler_threads()


def test_package_imports_neither_tensorflow_nor_mlflow():
    code = (
        "import sys, green_screen.power.meter, green_screen.power.idle, green_screen.power.rapl, "
        "green_screen.power.validity; "
        "print([m for m in ('tensorflow', 'mlflow', 'codecarbon') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
