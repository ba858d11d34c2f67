"""Whether the driver has yet to make a training's kernels: told by a mark in its own folder."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from green_screen.power.nvml import Board
from green_screen.space import Space
from green_screen.training import kernels

BOARD = Board(index=0, uuid="GPU-1", pci_bus_id="0000:19:00.0", name="NVIDIA H100")
BASELINE = Space.load().baseline


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_CACHE_PATH", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_CACHE_DISABLE", raising=False)
    return tmp_path / "cache"


def made(board: Board = BOARD, model: str = "resnet8", **factors: object) -> bool:
    needed = kernels.needed((board,), model, dataclasses.replace(BASELINE, **factors))
    assert needed is not None
    return needed.made


def test_they_are_made_once_for_each_board_and_kind_of_network(folder):
    assert not made()
    kernels.needed((BOARD,), "resnet8", BASELINE).note()
    assert made()
    assert made(dataclasses.replace(BOARD, uuid="GPU-2"), batch_size=32, internal="jit_compilation")
    assert not made(dataclasses.replace(BOARD, name="NVIDIA A100"))
    assert not made(precision="float16")
    assert not made(internal="pre_quantization")
    assert not made(model="resnet50")
    shutil.rmtree(folder)
    assert not made()


def test_where_the_driver_keeps_none_there_are_none_to_make_in_advance(folder, monkeypatch):
    monkeypatch.setenv("CUDA_CACHE_DISABLE", "1")
    assert kernels.needed((BOARD,), "resnet8", BASELINE) is None
    monkeypatch.setenv("CUDA_CACHE_DISABLE", "0")
    monkeypatch.setenv("CUDA_CACHE_PATH", str(folder / "file" / "cache"))
    folder.mkdir()
    (folder / "file").touch()
    kernels.needed((BOARD,), "resnet8", BASELINE).note()  # a warning, no error
    assert not made()


def test_a_campaign_needs_one_of_each_kind():
    """By what is executed: quantization-aware training is done in float32."""

    def levels(**factors: object) -> object:
        return dataclasses.replace(BASELINE, **factors)

    double, aware = levels(precision="float64"), levels(internal="pre_quantization")
    other = levels(internal="pre_quantization", precision="float16")
    configs = [BASELINE, double, levels(batch_size=4), aware, other, double]
    assert kernels.one_of_each_kind(configs) == [BASELINE, double, aware]


def test_without_a_board_none_are_needed():
    assert kernels.needed((), "resnet8", BASELINE) is None


def test_a_process_of_its_own_makes_them(monkeypatch, caplog):
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    config = dataclasses.replace(BASELINE, batch_size=32)
    double = dataclasses.replace(config, precision="float64")
    assert kernels.make_apart([config, double], "resnet8", 8) == [True, True]
    assert not caplog.records
    assert kernels.make_apart([config], "resnet7", 8) == [False]
    assert "not made in advance" in caplog.text and "resnet7" in caplog.text


def test_processes_that_make_them_end_with_this_one(monkeypatch):
    """As by a signal that comes while it waits for them."""
    started = []

    class Interrupting(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

        def wait(self, timeout=None):
            if len(started) == 2 and not any(process.returncode for process in started):
                monkeypatch.undo()
                raise KeyboardInterrupt
            return super().wait(timeout)

    monkeypatch.setattr(kernels.subprocess, "Popen", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        kernels.make_apart([BASELINE, BASELINE], "resnet8", 8)
    assert [process.poll() for process in started] == [-signal.SIGKILL] * 2
