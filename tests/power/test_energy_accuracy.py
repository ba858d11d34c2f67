"""The benchmark of the measuring, whole on a simulated board, and its going on after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from simulated_nvml import Constant, SimulatedBoard, Simulation, simulated

from benchmarks import energy_accuracy

SMALL = ["--model", "resnet8", "--samples", "400", "--batch-size", "32", "--matrix", "64"]
SMALL += ["--warm-up-s", "0.1", "--window-s", "0.5", "--repeats", "1", "--end-epochs", "2"]


@pytest.fixture
def board(monkeypatch):
    """Put one board behind pynvml, in this process."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with simulated(Simulation(boards=[SimulatedBoard(curve=Constant(200.0))])):
        yield


def benchmark(folder: Path, *arguments: str) -> int:
    return energy_accuracy.main(["--out", str(folder), *SMALL, *arguments])


def content(folder: Path, part: str) -> dict:
    return json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))


def test_all_parts(tmp_path, store, board):
    assert benchmark(tmp_path, "--pairs", "2", "--replicates", "1") == 0
    windows = content(tmp_path, "a")["records"]
    assert [window["load"] for window in windows] == ["GPU-bound", "host-bound"]
    for window in windows:
        true_j = 200 * window["seconds"]
        # At its edges clock and counter are read one after the other; test_meter.py knows no edges.
        assert window["integral_j"] == pytest.approx(true_j, rel=0.5)
        assert window["counter_j"] == pytest.approx(true_j, rel=0.5)
    assert len(content(tmp_path, "b")["records"]) == 2
    # The runs are processes of their own, which see no simulated board.
    for run in content(tmp_path, "c")["records"]:
        assert run["energy_source"] == "codecarbon_estimate"
        assert run["energy_per_1k_images_j"] > 0
    assert [epoch["last_power_w"] for epoch in content(tmp_path, "d")["records"]] == [200.0] * 2
    for part in "abcd":
        assert "NVIDIA Simulated" in (tmp_path / f"{part}.md").read_text(encoding="utf-8")

    # What is there is kept, what is missing is measured, and nothing is mixed with other settings.
    del windows[1]
    changed = {**content(tmp_path, "a"), "records": windows}
    (tmp_path / "a.json").write_text(json.dumps(changed), encoding="utf-8")
    assert benchmark(tmp_path, "--pairs", "2", "--replicates", "1", "--parts", "a") == 0
    resumed = content(tmp_path, "a")["records"]
    assert resumed[0] == windows[0] and resumed[1]["load"] == "host-bound"
    with pytest.raises(SystemExit, match="other settings"):
        benchmark(tmp_path, "--pairs", "3", "--replicates", "1", "--parts", "a")


def test_without_a_gpu_it_says_so(tmp_path):
    with (
        simulated(Simulation(boards=[], library_missing=True)),
        pytest.raises(SystemExit, match="needs a GPU"),
    ):
        benchmark(tmp_path, "--parts", "a")
