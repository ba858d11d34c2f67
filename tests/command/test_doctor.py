"""The doctor says of each thing what it means, and whether anything can be measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_nvml import Constant, SimulatedBoard, Simulation, child_environment

from green_screen.power.surroundings import governor


def doctor(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "green_screen", "doctor"],
        capture_output=True,
        text=True,
        env=environment,
    )


def seen(board: SimulatedBoard, folder: Path) -> dict[str, str]:
    found = {**os.environ, **child_environment(Simulation(boards=[board]), folder)}
    found["PYTHONPATH"] += os.pathsep + os.getcwd()
    return found


def test_a_board_with_a_counter_can_be_measured(tmp_path: Path) -> None:
    ended = doctor(seen(SimulatedBoard(curve=Constant(70.0)), tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "energy counter, renewed every" in ended.stdout
    assert "Energy can be measured here." in ended.stdout


def test_the_status_does_not_depend_on_who_reads(tmp_path: Path) -> None:
    reader, gone = os.pipe()
    os.close(reader)
    environment = seen(SimulatedBoard(curve=Constant(70.0)), tmp_path)
    command = [sys.executable, "-m", "green_screen", "doctor"]
    assert subprocess.run(command, stdout=gone, stderr=gone, env=environment).returncode == 0
    os.close(gone)


def test_without_a_board_the_status_says_so() -> None:
    ended = doctor({**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    if "RAPL) can be read" in ended.stdout:
        pytest.skip("this machine's CPU can be measured")
    assert ended.returncode == 1
    assert "No energy can be measured here" in ended.stdout


def test_a_password_in_the_stores_address_is_not_shown() -> None:
    uri = "postgresql://somebody:secret@host/runs"
    ended = doctor({**os.environ, "MLFLOW_TRACKING_URI": uri})
    assert "postgresql://***@host/runs" in ended.stdout and "secret" not in ended.stdout


def test_governors_are_read_from_every_cpu(tmp_path: Path) -> None:
    assert governor(tmp_path) == ""
    for cpu, text in enumerate(("powersave", "performance", "powersave")):
        folder = tmp_path / f"cpu{cpu}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text(text + "\n")
    assert governor(tmp_path) == "performance,powersave"
