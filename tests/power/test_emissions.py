"""CodeCarbon: silent, offline, read as running totals that lose nothing."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from simulated_nvml import Constant, SimulatedBoard, Simulation, child_environment
from virtual_time import time
from waiting import keep_busy

from green_screen.power import emissions, machine
from green_screen.power.emissions import CarbonTotals, CarbonTracker
from green_screen.power.machine import MachineTotals


def between(start: CarbonTotals | None, end: CarbonTotals | None, *, with_gpu: bool, **gpu: float):
    totals = MachineTotals(start), MachineTotals(end)
    return machine.between(*totals, machine.Terms(), uses_gpu=with_gpu, **gpu)


def test_totals_rise_and_stop():
    tracker = CarbonTracker(country="DEU", gpu_indices=[])
    tracker.start()
    try:
        first = tracker.read()
        keep_busy(0.15)
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
    reading = between(first, second, with_gpu=False)
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
    later = last.at(12.5, before)
    assert dataclasses.astuple(later)[:5] == pytest.approx((12.5, 1.25, 2.5, 3.75, 5.0))


def test_a_window_that_begins_between_two_readings_takes_its_part_of_what_lies_between():
    """Carried on at a high rate, its beginning came to more than the next reading said."""
    first = CarbonTotals(0.0, 0.0, 0.0, 0.0, 0.0)
    high = CarbonTotals(1.0, 10.0, 10.0, 10.0, 1.0)
    low = CarbonTotals(2.0, 11.0, 11.0, 11.0, 1.1)
    low = dataclasses.replace(low, readings=(high, low))
    start = high.at(1.9, first)
    assert start.cpu_kwh == pytest.approx(19.0)
    ends = [(low, 0.1), (low.at(2.5, high), 0.6), (CarbonTotals(3.0, 30.0, 30.0, 30.0, 3.0), 11.0)]
    for end, kwh in ends:
        reading = between(start, end, with_gpu=True)
        assert (reading.cpu_kwh, reading.ram_kwh) == (pytest.approx(kwh), pytest.approx(kwh))
    # Before a reading that the window's end does not follow from, nothing is to be corrected.
    assert between(high, low, with_gpu=True).cpu_kwh == pytest.approx(1.0)


@pytest.mark.parametrize("lacking", ["cpu", "gpu", "ram"])
def test_a_zero_is_a_missing_sensor_and_takes_the_emissions_with_it(lacking):
    start = CarbonTotals(0.0, 1.0, 1.0, 1.0, 1.0)
    parts = {"cpu_kwh": 2.0, "gpu_kwh": 2.0, "ram_kwh": 2.0, f"{lacking}_kwh": 1.0}
    reading = between(start, CarbonTotals(1.0, emissions_kg=2.0, **parts), with_gpu=True)
    assert math.isnan(getattr(reading, f"{lacking}_kwh"))
    assert math.isnan(reading.emissions_kg_co2eq)
    assert lacking in reading.reason


@pytest.mark.parametrize("lacking", ["cpu", "gpu", "ram"])
def test_a_component_that_was_silent_for_a_part_of_the_window_is_missing(lacking):
    place = ("cpu", "gpu", "ram").index(lacking)
    totals = [CarbonTotals(float(n), n, n, n, n) for n in range(4)]
    silent = tuple(int(place == i) for i in range(3))
    totals[2:] = [dataclasses.replace(total, silent=silent) for total in totals[2:]]
    for start, end in ((0, 2), (0, 3), (1, 3)):
        reading = between(totals[start], totals[end], with_gpu=True)
        assert math.isnan(getattr(reading, f"{lacking}_kwh"))
        assert math.isnan(reading.emissions_kg_co2eq)
        assert f"no figure for {lacking} in a part of the time" in reading.reason
    for start, end in ((0, 1), (2, 3)):  # before it fell silent, and after it came back
        assert between(totals[start], totals[end], with_gpu=True).reason == ""


def test_where_codecarbon_has_no_gpu_the_emissions_are_those_of_the_meters_joules():
    start, end = CarbonTotals(), CarbonTotals(1.0, cpu_kwh=1.0, ram_kwh=1.0, emissions_kg=0.8)
    reading = between(start, end, with_gpu=True, gpu_j=3 * 3.6e6)
    assert math.isnan(reading.gpu_kwh)
    assert reading.emissions_kg_co2eq == pytest.approx(0.4 * (1 + 1 + 3))
    assert reading.covers == ("cpu", "memory", "gpu")


def test_no_figures_are_missing_figures():
    reading = between(None, CarbonTotals(), with_gpu=False)
    assert math.isnan(reading.cpu_kwh) and math.isnan(reading.emissions_kg_co2eq)
    assert "no figures" in reading.reason


@pytest.mark.parametrize("country", ["ZZZ", "usa", ""])
def test_a_country_without_a_carbon_intensity_is_refused(country):
    with pytest.raises(ValueError, match="three-letter code"):
        emissions.check_country(country)


_OFFLINE = """
import json, os, socket, sys, time
attempts, opened = [], []
def refuse(*args, **kwargs):
    attempts.append(repr(args))  # a library may swallow the error
    raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from green_screen import EnergyMeter
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
with EnergyMeter() as meter:
    opened.clear()
    with meter.window("first") as first:
        time.sleep(0.2)
    loaded = [path for path in opened if path.endswith((".csv", ".json", ".py", ".pyc"))]
    time.sleep(0.3)
    with meter.window("second") as second:
        time.sleep(0.5)
        # What a test has the boards do there.
        getattr(sys.modules.get("sitecustomize"), "in_second_window", lambda: None)()
        time.sleep(0.5)
    time.sleep(0.3)
    with meter.window("third") as third:
        time.sleep(0.5)
def content(window):
    reading = window.reading
    return {"source": reading.source, "seconds": reading.seconds, "joules": reading.energy_j,
            "cpu_j": reading.carbon.cpu_kwh * 3.6e6, "ram_j": reading.carbon.ram_kwh * 3.6e6,
            "gpu_j": reading.carbon.gpu_kwh * 3.6e6, "reason": reading.carbon.reason,
            "kg": reading.carbon.emissions_kg_co2eq, "cpu_source": reading.carbon.cpu_source}
print(json.dumps({"attempts": attempts, "loaded": loaded,
                  "windows": [content(w) for w in (first, second, third)]}))
"""


def run_offline(environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Measure three windows in a process of their own and return what they say."""
    path = os.pathsep.join(p for p in (environment.get("PYTHONPATH"), os.getcwd()) if p)
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE],
        env={**os.environ, **environment, "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not [path.name for path in folder.iterdir() if path.suffix == ".csv"]
    (line,) = done.stdout.splitlines()
    content = json.loads(line)
    assert content["attempts"] == []
    return content


def ram_w(windows: list[dict[str, Any]]) -> float:
    """Return the memory's power over all windows, of whose edges each is read a little late."""
    return sum(w["ram_j"] for w in windows) / sum(w["seconds"] for w in windows)


def test_it_is_silent_and_offline_and_heeds_no_configuration_from_outside(tmp_path):
    plain = run_offline({}, tmp_path)
    first = plain["windows"][0]
    assert first["source"] == "codecarbon_estimate" and math.isnan(first["gpu_j"])
    # What CodeCarbon loads at its first reading it does not load in the first window.
    assert plain["loaded"] == []
    settings = "pue=3.0\nforce_ram_power=1000\nforce_carbon_intensity_g_co2e_kwh=99999\n"
    settings += "co2_signal_api_token=abc\noutput_dir=/nowhere\n"
    (tmp_path / ".codecarbon.config").write_text(f"[codecarbon]\n{settings}", encoding="utf-8")
    variables = {"CODECARBON_PUE": "4.0", "CODECARBON_FORCE_CPU_POWER": "5000"}
    configured = run_offline(variables, tmp_path)
    # The memory's model is a constant; the processor's follows the load of the machine.
    assert ram_w(configured["windows"]) == pytest.approx(ram_w(plain["windows"]), rel=0.3)
    for window in (*plain["windows"], *configured["windows"]):
        grams_per_kwh = window["kg"] / window["joules"] * 3.6e9
        assert 100 < grams_per_kwh < 1000
        assert window["cpu_j"] / window["seconds"] < 1000


def test_its_gpu_energy_is_that_of_the_board_in_use(tmp_path):
    simulation = Simulation(
        boards=[SimulatedBoard(curve=Constant(1600.0)), SimulatedBoard(curve=Constant(400.0))]
    )
    environment = dict(child_environment(simulation, tmp_path / "simulation"))
    environment["CUDA_VISIBLE_DEVICES"] = simulation.boards[1].uuid
    windows = run_offline(environment, tmp_path)["windows"]
    for window in windows:
        assert window["source"] == "nvml_counter"
        assert window["reason"] == "" and window["kg"] > 0
    # Each reads the counter for itself, at its own time: but it is not the other board's.
    codecarbon_j, meter_j = (sum(window[key] for window in windows) for key in ("gpu_j", "joules"))
    assert codecarbon_j == pytest.approx(meter_j, rel=0.5)


def test_after_a_restart_of_the_driver_its_dead_counter_is_a_gap(tmp_path):
    """Its handle stays dead: what it adds up from then on lacks the GPU."""
    simulation = Simulation(boards=[SimulatedBoard(curve=Constant(400.0))])
    environment = dict(child_environment(simulation, tmp_path / "simulation"))
    site = tmp_path / "simulation" / "sitecustomize.py"
    site.write_text(site.read_text(encoding="utf-8") + _RESTART, encoding="utf-8")
    first, second, third = run_offline(environment, tmp_path)["windows"]
    assert first["gpu_j"] > 0 and first["reason"] == ""
    for window in (second, third):
        assert math.isnan(window["gpu_j"])
        assert "no figure for gpu" in window["reason"]
    # Our own meter finds the new driver, and emissions are those of its joules.
    assert third["source"] == "nvml_counter" and third["joules"] > 0 and third["kg"] > 0


_RESTART = """
import time

import pynvml

def in_second_window():
    now = time.perf_counter()
    pynvml.nvmlInit.__self__.boards[0].driver_restarts = ((now, now + 0.2),)
    time.sleep(0.3)
"""


_SCONTROL = """#!/bin/sh
echo "JobId=1 NumCPUs=1 AllocTRES=cpu=1,mem=1M,node=1"
"""


@pytest.mark.parametrize("scontrol", [False, True], ids=["without scontrol", "with scontrol"])
def test_in_a_job_of_slurms_the_figures_are_those_of_the_machine(tmp_path, scontrol):
    plain = run_offline({}, tmp_path)["windows"]
    environment = {"SLURM_JOB_ID": "1", "SLURM_JOBID": "1", "PATH": str(tmp_path)}
    if scontrol:
        command = tmp_path / "scontrol"
        command.write_text(_SCONTROL, encoding="utf-8")
        command.chmod(0o755)
        environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    found = run_offline(environment, tmp_path)["windows"]
    # The memory's model is a constant: a megabyte would be 10 W or less.
    assert ram_w(found) == pytest.approx(ram_w(plain), rel=0.3)
    for window, before in zip(found, plain, strict=True):
        assert window["cpu_source"] == before["cpu_source"] and window["reason"] == ""
        assert window["cpu_j"] > 0 and window["kg"] > 0
