"""CPU, memory and emissions: of the whole machine, with and without CodeCarbon."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from simulated_nvml import Constant, SimulatedBoard, Simulation, simulated
from test_rapl import domain
from virtual_time import time
from waiting import until

from green_screen import EnergyMeter, names
from green_screen.power import emissions, machine, rapl
from green_screen.power.emissions import CarbonTotals
from green_screen.power.machine import MachineTotals, Terms
from green_screen.power.rapl import RaplTotals

KWH_J = 3.6e6


@pytest.fixture
def alone(monkeypatch):
    """There is no CodeCarbon."""
    monkeypatch.setattr(emissions, "installed", lambda: False)


@pytest.fixture
def counters(tmp_path, monkeypatch):
    """Two packages and their memory, which the kernel lets one read."""
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path)
    found = [domain(tmp_path, str(n), f"package-{n}", f"{n + 1}0000000") for n in (0, 1)]
    return found + [domain(tmp_path, f"{n}:0", "dram", f"{n + 3}0000000") for n in (0, 1)]


def add_j(counter, joules: float) -> None:
    value = int(counter.read_text(encoding="ascii"))
    counter.write_text(str(value + round(joules * 1e6)), encoding="ascii")


def test_rapl_stands_for_the_model_and_emissions_follow_it():
    start = MachineTotals(CarbonTotals(), RaplTotals(0.0, 0.0))
    carbon = CarbonTotals(1.0, cpu_kwh=9.0, ram_kwh=1.0, emissions_kg=5.0)
    end = MachineTotals(carbon, RaplTotals(2 * KWH_J, 0.5 * KWH_J))
    reading = machine.between(start, end, Terms(cpu_source="rapl", by_rapl=True), uses_gpu=False)
    assert (reading.cpu_kwh, reading.ram_kwh, reading.dram_kwh) == (2.0, 1.0, 0.5)
    assert reading.emissions_kg_co2eq == pytest.approx(0.5 * (2 + 1))
    assert reading.reason == ""


def test_own_intensity_and_pue():
    totals = (
        MachineTotals(CarbonTotals()),
        MachineTotals(CarbonTotals(1.0, cpu_kwh=1.0, ram_kwh=1.0, emissions_kg=0.8)),
    )
    terms = Terms(cpu_source="codecarbon_estimate", pue=1.5)
    assert machine.between(*totals, terms, uses_gpu=False).emissions_kg_co2eq == pytest.approx(1.2)
    terms = Terms(cpu_source="codecarbon_estimate", g_per_kwh=50.0, pue=1.2)
    assert machine.between(*totals, terms, uses_gpu=False).emissions_kg_co2eq == pytest.approx(0.12)
    for bad in ({"carbon_intensity": -1.0}, {"carbon_intensity": math.nan}, {"pue": 0.9}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            EnergyMeter(**bad)


def test_a_part_that_codecarbon_takes_for_the_cpu_is_missing():
    totals = (
        MachineTotals(CarbonTotals()),
        MachineTotals(CarbonTotals(1.0, cpu_kwh=1.0, ram_kwh=1.0, emissions_kg=0.8)),
    )
    reading = machine.between(*totals, Terms(cpu_in_part=True), uses_gpu=False)
    assert math.isnan(reading.cpu_kwh) and math.isnan(reading.emissions_kg_co2eq)
    assert "some of the packages only" in reading.reason


def test_one_unreadable_package_makes_the_cpu_an_estimate(counters, monkeypatch):
    counters[1].unlink()
    counters[1].mkdir()
    with EnergyMeter(gpus=[]) as meter, meter.window("work") as window:
        time.sleep(0.2)
    assert window.reading.carbon.cpu_source == names.SOURCE_ESTIMATE
    assert window.reading.energy_j > 0


def test_readable_counters_are_the_cpu_beside_codecarbon_too(counters):
    with EnergyMeter(gpus=[]) as meter, meter.window("work") as window:
        time.sleep(0.2)
        add_j(counters[0], 20.0)
        add_j(counters[1], 12.0)
    reading = window.reading
    assert reading.carbon.cpu_source == names.SOURCE_RAPL
    assert reading.carbon.cpu_kwh * KWH_J == pytest.approx(32.0)
    assert reading.source == names.SOURCE_ESTIMATE  # for the memory's model


def test_the_counters_power_is_kept_as_it_was_read(counters):
    with EnergyMeter(gpus=[]) as meter:
        add_j(counters[0], 20.0)
        until(lambda: sum(sum(device.powers_w) for device in meter.samples) > 0)
        (cpu,) = meter.samples
    assert cpu.device == "cpu" and len(cpu.times_s) == len(cpu.powers_w)
    # Twice a second at most, and joules are not lost between two readings.
    (step_s,) = {20.0 / power_w for power_w in cpu.powers_w if power_w}
    assert 0 < step_s < 60


def test_counters_are_read_often_enough_to_see_them_wrap(counters):
    with EnergyMeter(gpus=[]) as meter, meter.window("work") as window:
        for _ in range(3):  # each step passes the range of 1000 J, seen or not
            seen = meter._machine._counters.read().cpu_j
            value = (int(counters[0].read_text()) + 900_000_000) % 1_000_000_000
            counters[0].write_text(str(value), encoding="ascii")
            until(lambda seen=seen: meter._machine._counters._cpu._total_j != seen)
    assert window.reading.carbon.cpu_kwh * KWH_J == pytest.approx(2700.0)


def test_without_codecarbon_rapl_is_the_energy(alone, counters):
    with EnergyMeter(gpus=[], carbon_intensity=400.0) as meter, meter.window("work") as window:
        add_j(counters[0], 20.0)
        add_j(counters[2], 4.0)
    reading = window.reading
    assert reading.source == names.SOURCE_RAPL
    assert reading.energy_j == pytest.approx(24.0)
    assert reading.system_energy_j == pytest.approx(24.0)
    assert reading.carbon.covers == ("cpu", "memory")
    assert reading.carbon.emissions_kg_co2eq == pytest.approx(24.0 / KWH_J * 0.4)


def test_without_codecarbon_and_counters_the_energy_is_missing_for_that_reason(
    alone, monkeypatch, tmp_path
):
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path / "nothing")
    with EnergyMeter(gpus=[]) as meter, meter.window("work") as window:
        pass
    reading = window.reading
    assert math.isnan(reading.energy_j) and reading.source == names.SOURCE_NONE
    assert "no GPU is used; CodeCarbon is not installed (pip install" in reading.reason
    assert math.isnan(reading.carbon.emissions_kg_co2eq)


def test_without_codecarbon_a_gpus_emissions_say_what_they_cover(alone, monkeypatch, tmp_path):
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path / "nothing")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with (
        simulated(Simulation(boards=[SimulatedBoard(curve=Constant(360.0))])),
        EnergyMeter(carbon_intensity=100.0) as meter,
        meter.window("work") as window,
    ):
        time.sleep(0.3)
    reading = window.reading
    assert reading.carbon.covers == ("gpu",)
    assert reading.carbon.emissions_kg_co2eq == pytest.approx(reading.energy_j / KWH_J * 0.1)
    assert math.isnan(reading.system_energy_j)


def test_boards_cpu_and_memory_add_up_to_the_system(counters, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    board = SimulatedBoard(curve=Constant(100.0))
    with (
        simulated(Simulation(boards=[board])),
        EnergyMeter() as meter,
        meter.window("work") as window,
    ):
        time.sleep(0.2)
        add_j(counters[1], 7.0)
        add_j(counters[3], 2.0)
    reading = window.reading
    assert reading.system_energy_j == pytest.approx(reading.energy_j + 9.0)


def test_the_meter_imports_nothing_that_is_optional():
    code = (
        "import sys\n"
        "for name in ('codecarbon', 'pynvml', 'mlflow', 'numpy', 'tensorflow'):\n"
        "    sys.modules[name] = None\n"
        "from green_screen import EnergyMeter\n"
        "with EnergyMeter(carbon_intensity=1.0) as meter, meter.window('w') as window:\n"
        "    pass\n"
        "print(window.reading.reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nvidia-ml-py is missing" in done.stdout
