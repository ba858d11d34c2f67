"""Which framework is waited for: those of the process that use a GPU, none of which is started."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
from simulated_nvml import SimulatedBoard, Simulation, simulated

from green_screen import EnergyMeter, names
from green_screen.power import frameworks


class Torch:
    """PyTorch as far as the meter asks it, with so many bytes reserved on each device."""

    def __init__(self, reserved: list[int], *, initialized: bool = True) -> None:
        self.waits: list[int] = []
        self.cuda = SimpleNamespace(
            is_initialized=lambda: initialized,
            device_count=lambda: len(reserved),
            memory_reserved=lambda device: reserved[device],
            synchronize=self.waits.append,
        )


@pytest.fixture
def imported(monkeypatch):
    for module, _, _ in frameworks._FRAMEWORKS:
        monkeypatch.delitem(sys.modules, module, raising=False)
    return lambda name, module: monkeypatch.setitem(sys.modules, name, module)


def test_without_a_framework_nothing_is_waited_for(imported):
    assert frameworks.on_gpu() == {}


def test_pytorch_is_waited_for_on_the_devices_that_it_uses(imported, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    torch = Torch([10, 0, 20])
    with simulated(Simulation(boards=[SimulatedBoard()])), EnergyMeter() as meter:
        with meter.window("before"):
            pass
        assert meter.synchronized_by == ""
        imported("torch", torch)
        with meter.window("after"):
            assert torch.waits == [0, 2]
        assert torch.waits == [0, 2, 0, 2]
        assert meter.synchronized_by == "PyTorch"
        meter.mark(synchronize=False)
        assert len(torch.waits) == 4


@pytest.mark.parametrize("torch", [Torch([1], initialized=False), Torch([0]), object(), None])
def test_one_that_uses_no_gpu_is_left_alone(imported, torch):
    imported("torch", torch)
    assert frameworks.on_gpu() == {}


def test_a_gpu_that_a_framework_uses_and_nvml_does_not_show_is_no_estimate_of_the_cpu(imported):
    imported("torch", Torch([10]))  # as of AMD's, which PyTorch calls cuda too
    with (
        simulated(Simulation(library_missing=True)),
        EnergyMeter() as meter,
        meter.window("work") as window,
    ):
        pass
    reading = window.reading
    assert math.isnan(reading.energy_j) and reading.source == names.SOURCE_NONE
    assert reading.reason.startswith("PyTorch uses a GPU that is not measured: NVML cannot list")


def test_own_synchronization_replaces_it(imported):
    torch = Torch([10])
    imported("torch", torch)
    waits = []
    with EnergyMeter(gpus=[], synchronize=lambda: waits.append(1)) as meter:
        with meter.window("work"):
            pass
        assert meter.synchronized_by == "synchronize"
    assert len(waits) == 2 and not torch.waits


def test_cupy_without_a_driver_is_left_alone(imported):
    def fail() -> None:
        raise RuntimeError("cudaErrorInsufficientDriver")

    imported("cupy", SimpleNamespace(cuda=None, get_default_memory_pool=fail))
    assert frameworks.on_gpu() == {}


def test_tensorflow_is_not_started_by_the_question():
    code = (
        "import tensorflow as tf\n"
        "from tensorflow.python.eager import context\n"
        "from green_screen.power import frameworks\n"
        "assert frameworks.on_gpu() == {}\n"
        "assert not context.context()._initialized\n"
        "tf.constant(1.0) + 1\n"
        "assert context.context()._initialized\n"
        "assert frameworks.on_gpu() == {}\n"  # there is no GPU for it
        "tf.config.list_logical_devices = lambda kind: [kind]\n"
        "frameworks.on_gpu()['TensorFlow']()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": "."},
    )
    assert done.returncode == 0, done.stderr
