"""CodeCarbon: silent, offline, read as running totals that lose nothing."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from simulated_nvml import Constant, SimulatedBoard, Simulation, child_environment

from green_screen.power import emissions
from green_screen.power.emissions import CarbonTotals, CarbonTracker


def test_totals_rise_and_stop():
    tracker = CarbonTracker(country="DEU", gpu_indices=[])
    tracker.start()
    try:
        first = tracker.read()
        time.sleep(0.15)
        second = tracker.read()
        third = tracker.read()  # too soon for CodeCarbon to measure again
    finally:
        tracker.stop()
    assert first is not None and second is not None and third is not None
    assert second.cpu_kwh > first.cpu_kwh
    assert second.ram_kwh > first.ram_kwh
    assert second.emissions_kg > first.emissions_kg
    assert third.ram_kwh > second.ram_kwh
    assert second.gpu_kwh == 0.0
    reading = emissions.between(first, second, with_gpu=False)
    assert math.isnan(reading.gpu_kwh)  # no sensor: missing, not 0
    assert reading.emissions_kg_co2eq > 0
    assert reading.reason == ""


def test_emissions_follow_the_country():
    def kg_per_kwh(country: str) -> float:
        tracker = CarbonTracker(country=country, gpu_indices=[])
        tracker.start()
        time.sleep(0.1)
        totals = tracker.read()
        tracker.stop()
        assert totals is not None
        return totals.emissions_kg / (totals.cpu_kwh + totals.ram_kwh)

    assert kg_per_kwh("SWE") < kg_per_kwh("POL") / 5


def test_between_two_measurements_the_rate_is_carried_on():
    before = CarbonTotals(10.0, 1.0, 2.0, 3.0, 4.0)
    last = CarbonTotals(12.0, 1.2, 2.4, 3.6, 4.8)
    later = dataclasses.astuple(last.at(12.5, before))
    assert later == pytest.approx((12.5, 1.25, 2.5, 3.75, 5.0))


@pytest.mark.parametrize("lacking", ["cpu", "gpu", "ram"])
def test_a_zero_is_a_missing_sensor_and_takes_the_emissions_with_it(lacking):
    start = CarbonTotals(0.0, 1.0, 1.0, 1.0, 1.0)
    parts = {"cpu_kwh": 2.0, "gpu_kwh": 2.0, "ram_kwh": 2.0, f"{lacking}_kwh": 1.0}
    reading = emissions.between(start, CarbonTotals(1.0, emissions_kg=2.0, **parts), with_gpu=True)
    assert math.isnan(getattr(reading, f"{lacking}_kwh"))
    assert math.isnan(reading.emissions_kg_co2eq)
    assert lacking in reading.reason


def test_no_figures_are_missing_figures():
    reading = emissions.between(None, CarbonTotals(), with_gpu=False)
    assert math.isnan(reading.cpu_kwh) and math.isnan(reading.emissions_kg_co2eq)
    assert "no figures" in reading.reason


@pytest.mark.parametrize("country", ["ZZZ", "usa", ""])
def test_a_country_without_a_carbon_intensity_is_refused(country):
    with pytest.raises(ValueError, match="three-letter code"):
        emissions.check_country(country)


_OFFLINE = """
import socket, time
def refuse(*args, **kwargs):
    raise AssertionError("the network was used")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from green_screen import EnergyMeter
with EnergyMeter() as meter:
    with meter.window("work") as window:
        time.sleep(0.3)
print(window.reading.source, window.reading.carbon.gpu_kwh, window.reading.energy_j / 3.6e6)
"""


def run_offline(environment: dict[str, str], folder: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not [path.name for path in folder.iterdir() if path.suffix == ".csv"]
    return done.stdout.splitlines()


def test_nothing_is_printed_no_file_is_written_and_no_network_is_used(tmp_path):
    (line,) = run_offline({"PYTHONPATH": os.getcwd()}, tmp_path)
    assert line.startswith("codecarbon_estimate nan")


def test_its_gpu_energy_is_that_of_the_board_in_use(tmp_path):
    simulation = Simulation(
        boards=[SimulatedBoard(curve=Constant(50.0)), SimulatedBoard(curve=Constant(400.0))]
    )
    environment = dict(child_environment(simulation, tmp_path / "simulation"))
    environment["PYTHONPATH"] += os.pathsep + os.getcwd()
    environment["CUDA_VISIBLE_DEVICES"] = simulation.boards[1].uuid
    (line,) = run_offline(environment, tmp_path)
    source, gpu_kwh, counter_kwh = line.split()
    assert source == "nvml_counter"
    # Each reads the counter for itself, which steps 40 J ten times a second.
    assert float(gpu_kwh) == pytest.approx(float(counter_kwh), abs=1.01 * 40 / 3.6e6)
    assert float(gpu_kwh) > 80 / 3.6e6
