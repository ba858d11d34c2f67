"""The benchmark of the measuring, whole on a simulated board, and its going on after a stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_nvml import Constant, SimulatedBoard, Simulation, child_environment

SMALL = ["--model", "resnet8", "--samples", "400", "--batch-size", "32", "--matrix", "64"]
SMALL += ["--window-s", "0.5", "--repeats", "1", "--replicate-s", "0.1"]


def benchmark(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    simulation = Simulation(boards=[SimulatedBoard(curve=Constant(200.0))])
    environment = {**os.environ, **child_environment(simulation, folder / "simulation")}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.energy_accuracy", "--out", str(folder), *SMALL]
        + list(arguments),
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )


def content(folder: Path, part: str) -> dict:
    return json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))


def test_all_parts(tmp_path):
    done = benchmark(tmp_path, "--pairs", "2", "--replicates", "2")
    assert done.returncode == 0, done.stderr
    windows = content(tmp_path, "a")["records"]
    assert [window["load"] for window in windows] == ["GPU-bound", "host-bound"]
    for window in windows:
        true_j = 200 * window["seconds"]
        assert window["integral_j"] == pytest.approx(true_j, rel=0.01)
        assert window["counter_j"] == pytest.approx(true_j, abs=21)
    assert len(content(tmp_path, "b")["records"]) == 2
    replicates = content(tmp_path, "c")["records"]
    assert len(replicates) == 2 and replicates[0]["epochs"][0]["last_power_w"] == 200.0
    for part in "abcd":
        assert "NVIDIA Simulated" in (tmp_path / f"{part}.md").read_text(encoding="utf-8")

    # What is there is kept, what is missing is measured, and nothing is mixed with other settings.
    del windows[1]
    changed = {**content(tmp_path, "a"), "records": windows}
    (tmp_path / "a.json").write_text(json.dumps(changed), encoding="utf-8")
    again = benchmark(tmp_path, "--pairs", "2", "--replicates", "2", "--parts", "a")
    assert again.returncode == 0, again.stderr
    resumed = content(tmp_path, "a")["records"]
    assert resumed[0] == windows[0] and resumed[1]["load"] == "host-bound"
    other = benchmark(tmp_path, "--pairs", "3", "--replicates", "2", "--parts", "a")
    assert other.returncode != 0 and "other settings" in other.stderr


def test_without_a_gpu_it_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.energy_accuracy", "--out", str(tmp_path), "--parts", "a"]
        + SMALL,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode != 0
    assert "needs a GPU" in done.stderr
