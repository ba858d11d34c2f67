"""The command measures any program, on boards that obey physics."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_nvml import Constant, SimulatedBoard, Simulation, child_environment

POWER_W = 60.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The variables of a process that sees one board of 60 W."""
    simulation = Simulation(boards=[SimulatedBoard(curve=Constant(POWER_W))])
    found = {**os.environ, **child_environment(simulation, tmp_path / "simulation")}
    found["PYTHONPATH"] += os.pathsep + os.getcwd()
    return found


def green_screen(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "green_screen", *arguments],
        capture_output=True,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def test_the_energy_is_the_boards_counter_and_the_status_is_the_programs(
    environment: dict[str, str], tmp_path: Path
) -> None:
    code = "import sys, time; print('out'); time.sleep(1.5); sys.exit(7)"
    json_file, csv_file = tmp_path / "all.json", tmp_path / "moments.csv"
    files = ("--json", str(json_file), "--csv", str(csv_file), "--interval", "0.5")
    ended = green_screen("measure", *files, "--", sys.executable, "-c", code, env=environment)
    assert ended.returncode == 7, ended.stderr
    assert ended.stdout == "out\n"
    found = json.loads(json_file.read_text())
    assert (found["exit_status"], found["energy_source"]) == (7, "nvml_counter")
    # Two edges of 100 ms each, and what a busy machine takes between clock and counter.
    assert found["energy_j"] == pytest.approx(POWER_W * found["seconds"], rel=0.5)
    gpu, cpu, memory = found["components"]
    assert gpu["measured"] and gpu["name"].startswith("GPU")
    assert memory["name"] == "memory" and not memory["measured"]
    rows = list(csv.DictReader(csv_file.open()))
    boards = [row for row in rows if row["component"] == gpu["name"]]
    assert len(boards) >= 1
    assert sum(float(row["energy_j"]) for row in boards) == pytest.approx(found["energy_j"])
    assert "nvml_counter" in ended.stderr and "estimate" in ended.stderr


def test_a_missing_figure_is_null_and_has_its_reason(
    environment: dict[str, str], tmp_path: Path
) -> None:
    environment["CUDA_VISIBLE_DEVICES"] = ""
    json_file = tmp_path / "all.json"
    ended = green_screen("measure", "--json", str(json_file), "true", env=environment)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(json_file.read_text())
    assert (
        found["energy_source"] == "codecarbon_estimate" and "no GPU is visible" in found["reason"]
    )
    assert found["max_power_w"] is None


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [("no-such-program", 127, "there is no program"), (".", 126, "cannot be run")],
)
def test_what_cannot_be_run_is_said_as_a_shell_would(
    program: str, status: int, said: str, tmp_path: Path
) -> None:
    ended = green_screen("measure", program)
    assert ended.returncode == status
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("measure:")]
    assert said in line


def test_a_signal_reaches_the_program_and_its_energy_is_said() -> None:
    code = "import signal, time; print('up', flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-m", "green_screen", "measure", "--", sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert " s, " in said and "CPU" in said


def test_nothing_that_cannot_be_written_ends_the_program_or_hides_its_status(
    tmp_path: Path,
) -> None:
    """Readers that have gone, as of ``| head -1``, and a full disk."""
    marker = tmp_path / "ran to its end"
    code = f"import sys, time; time.sleep(0.6); open({str(marker)!r}, 'w'); sys.exit(7)"
    program = ("--interval", "0.2", "--", sys.executable, "-c", code)
    reader, gone = os.pipe()
    os.close(reader)
    files = ("--csv", "-", "--json", "/dev/full")
    command = [sys.executable, "-m", "green_screen", "measure", *files, *program]
    assert subprocess.run(command, stdout=gone, stderr=gone).returncode == 7
    os.close(gone)
    marker.unlink()

    ended = green_screen("measure", "--csv", "/dev/full", "--json", "/dev/full", *program)
    assert ended.returncode == 7 and marker.exists()
    told = [line for line in ended.stderr.splitlines() if line.startswith("measure: ")]
    assert [line.split(" cannot be written: ")[0] for line in told] == [
        "measure: the file of --csv",
        "measure: the file of --json",
    ]
    assert "CPU" in ended.stderr


def test_options_that_cannot_be_used_start_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    program = ("--", "touch", str(marker))
    for options in (
        ("--interval", "0"),
        ("--country", "XYZ"),
        ("--json", str(tmp_path / "a" / "b")),
    ):
        ended = green_screen("measure", *options, *program)
        assert ended.returncode == 2, ended.stderr
    assert not marker.exists()
    assert green_screen("measure").returncode == 2


def test_watch_shows_each_part_measured_or_estimated(environment: dict[str, str]) -> None:
    ended = green_screen(
        "watch", "--count", "2", "--interval", "0.3", env={**environment, "COLUMNS": "160"}
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if "GPU" in line]
    assert len(lines) == 2 and all("nvml_counter" in line for line in lines)
    assert "estimate" in ended.stdout
