"""The decorator: each call is a window, whatever becomes of it."""

from __future__ import annotations

import pytest
from simulated_nvml import Constant, SimulatedBoard, Simulation, simulated
from virtual_time import simulated_in_virtual_time, time

from green_screen import EnergyMeter, EnergyReading, measured


@pytest.fixture(autouse=True)
def board(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    board = SimulatedBoard(curve=Constant(200.0))
    with simulated_in_virtual_time(Simulation(boards=[board])):
        yield


def test_each_call_is_a_window_of_a_meter_of_its_own():
    readings: list[EnergyReading] = []

    @measured("double", on_reading=readings.append)
    def double(value: int, *, pause_s: float) -> int:
        """Twice the value."""
        time.sleep(pause_s)
        return 2 * value

    assert [double(2, pause_s=0.2), double(3, pause_s=0.2)] == [4, 6]
    assert double.__name__ == "double" and double.__doc__ == "Twice the value."
    for reading in readings:
        assert reading.name == "double" and reading.source == "nvml_counter"
        assert reading.energy_j == pytest.approx(
            200 * reading.seconds, abs=1.01 * reading.resolution_j
        )


def test_a_running_meter_is_used_and_an_error_passes_with_its_reading():
    readings: list[EnergyReading] = []
    with EnergyMeter() as meter:

        class Model:
            @measured("fit", meter=meter, on_reading=readings.append)
            def fit(self) -> None:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            Model().fit()
    assert [reading.name for reading in readings] == ["fit"]
    with pytest.raises(RuntimeError, match="not running"):  # the meter has ended
        Model().fit()
    assert len(readings) == 1


def test_a_reading_is_printed_in_a_line(capsys):
    measured("work")(lambda: time.sleep(0.3))()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("work: ") and line.endswith(" W (nvml_counter)")


def test_a_missing_energy_is_printed_with_its_reason(capsys):
    lost = Simulation(boards=[SimulatedBoard(reset_required=True)])
    with simulated(lost):
        measured("work")(lambda: None)()
    assert "work: energy not known in" in (said := capsys.readouterr().out)
    assert "GPU requires restart" in said


async def later() -> None:
    """Do nothing yet."""


def steps():
    yield 1


@pytest.mark.parametrize("function", [later, steps])
def test_what_returns_before_its_work_is_done_is_refused(function):
    with pytest.raises(TypeError, match="open a window inside of it"):
        measured("work")(function)
