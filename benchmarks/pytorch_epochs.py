"""A PyTorch training's joules by epoch, by the meter and by the raw counter of the board.

Needs a GPU, Python 3.10 or newer, PyTorch, nvidia-ml-py and the package's ``power`` alone; run from
the repository's root, for about a minute::

    python -m benchmarks.pytorch_epochs

Each epoch is a window of the meter, which has to find out by itself that PyTorch is to be waited
for. Beside it the energy counter is read through the driver's library directly, of the board whose
identifier PyTorch tells, after PyTorch has been waited for. Both read a counter that moves in steps
of 0.1 s, at moments that differ: so much is no difference. The last row is an epoch whose window
does not wait for the GPU. The exit status is 1 if an epoch differs by more than the steps explain,
or if it was not PyTorch that was waited for.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Callable
from datetime import date

import torch
from torch import nn

from green_screen.power.meter import EnergyMeter, EnergyReading

BATCH = 512


class RawCounter:
    """The energy counter of the board that PyTorch uses, without this project's code."""

    def __init__(self) -> None:
        """Find the board by the identifier that PyTorch has for it."""
        self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
        self._handle = ctypes.c_void_p()
        self._call("nvmlInit_v2")
        uuid = str(torch.cuda.get_device_properties(0).uuid)
        self.uuid = uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"
        self._call("nvmlDeviceGetHandleByUUID", self.uuid.encode(), ctypes.byref(self._handle))

    def read_j(self) -> float:
        """Return the joules since the driver was loaded."""
        millijoules = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", self._handle, ctypes.byref(millijoules))
        return millijoules.value / 1000.0

    def _call(self, function: str, *arguments: object) -> None:
        result = getattr(self._nvml, function)(*arguments)
        if result != 0:
            raise RuntimeError(f"{function} answers {result}")


def trainer() -> Callable[[int], None]:
    """Return what trains a small convolutional network for so many steps on random images."""
    torch.manual_seed(0)
    device = torch.device("cuda")

    def block(n_in: int, n_out: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
        )

    model = nn.Sequential(
        *(block(3, 64), block(64, 128), nn.MaxPool2d(2), block(128, 256), block(256, 256)),
        *(nn.MaxPool2d(2), block(256, 512), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(512, 10),
    ).to(device)
    images = torch.randn(BATCH, 3, 32, 32, device=device)
    labels = torch.randint(0, 10, (BATCH,), device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss_of = nn.CrossEntropyLoss()

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss_of(model(images), labels).backward()
            optimizer.step()

    return train


def steps_for(train: Callable[[int], None], seconds: float) -> int:
    """Return how many steps last so long, after the first ones have tuned the kernels."""
    train(20)
    torch.cuda.synchronize()
    steps, begin_s = 50, time.perf_counter()
    train(steps)
    torch.cuda.synchronize()
    return max(1, round(steps * seconds / (time.perf_counter() - begin_s)))


def measured(
    meter: EnergyMeter, raw: RawCounter, name: str, work: Callable[[], None]
) -> tuple[EnergyReading, float]:
    """Return the meter's reading of some work, and the raw counter's joules around it."""
    torch.cuda.synchronize()
    begin_j = raw.read_j()
    with meter.window(name) as window:
        work()
    torch.cuda.synchronize()
    return window.reading, raw.read_j() - begin_j


def main() -> int:
    """Print the table and return whether the two agree and PyTorch was waited for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--epoch-s", type=float, default=5.0)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch has no GPU here")
    raw, train = RawCounter(), trainer()
    steps = steps_for(train, arguments.epoch_s)
    print(f"{date.today()}, Python {sys.version.split()[0]}, PyTorch {torch.__version__}")
    print(f"{torch.cuda.get_device_name(0)} ({raw.uuid}), {steps} steps of {BATCH} an epoch\n")
    print("| epoch | s | meter J | raw counter J | difference | steps explain | by power J | W |")
    print("|---|---|---|---|---|---|---|---|")
    agrees, sums_j = True, [0.0, 0.0]
    # PyTorch uses the first of the boards that CUDA shows.
    with EnergyMeter(gpus=[0]) as meter:
        if [board.uuid for board in meter.boards] != [raw.uuid]:
            sys.exit(f"the meter measures {meter.boards}: {meter.no_gpu_reason}")
        for epoch in range(arguments.epochs):
            reading, raw_j = measured(meter, raw, str(epoch), lambda: train(steps))
            agrees &= _row(str(epoch), reading, raw_j)
            sums_j = [sums_j[0] + reading.energy_j, sums_j[1] + raw_j]
        waited_for = meter.synchronized_by
    with EnergyMeter(gpus=[0], synchronize=lambda: None) as meter:
        _row("not waited for", *measured(meter, raw, "blind", lambda: train(steps)))
    ratio = sums_j[0] / sums_j[1] - 1
    print(f"\nall epochs: {sums_j[0]:.0f} J and {sums_j[1]:.0f} J ({100 * ratio:+.2f} %)")
    print(f"waited for: {waited_for or 'nothing'}")
    return 0 if agrees and waited_for == "PyTorch" else 1


def _row(name: str, reading: EnergyReading, raw_j: float) -> bool:
    difference = reading.energy_j / raw_j - 1
    explained = reading.resolution_j / raw_j
    print(
        f"| {name} | {reading.seconds:.2f} | {reading.energy_j:.1f} | {raw_j:.1f} "
        f"| {100 * difference:+.2f} % | {100 * explained:.2f} % | {reading.integral_j:.1f} "
        f"| {reading.mean_power_w:.0f} |"
    )
    return abs(difference) <= explained


if __name__ == "__main__":
    sys.exit(main())
