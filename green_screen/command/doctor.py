"""``green-screen doctor``: what can be measured on this machine, and what to do about the rest."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click

from green_screen.command.lasting import Lasting
from green_screen.power import nvml, rapl
from green_screen.power.nvml import Board, NvmlError
from green_screen.power.surroundings import surroundings
from green_screen.power.visible import visible_boards

Mark = Literal["ok", "note", "bad"]

# Above these the host, not the GPU, decides what is measured.
_MUCH_LOAD, _MUCH_STEAL_PERCENT = 0.5, 1.0
# Long enough to see a counter of 100 ms change several times.
_WATCH_COUNTER_S = 0.8
_OLD_KERNEL_CLOCKS = ("jiffies", "acpi_pm", "hpet")
_PACKAGES = (
    *("nvidia-ml-py", "codecarbon", "mlflow", "tensorflow", "tensorflow-addons", "keras"),
    *("tf-keras", "torch", "jax", "cupy", "ray"),
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the page.

    Attributes:
        mark: Whether it is well, worth knowing, or in the way of a measurement.
        what: What was looked at and found.
        meaning: What that means for a measurement, and what to do.
        measures: Whether by this alone energy can be measured.
    """

    mark: Mark
    what: str
    meaning: str
    measures: bool = False


@click.command(cls=Lasting)
def doctor() -> None:
    """Say on one page what can be measured here, what that means, and what to do.

    Exit status 1 if no energy can be measured, only estimated.
    """
    findings = tuple(examine())
    for finding in findings:
        click.echo(f"{finding.mark:<5} {finding.what}")
        click.echo(f"      {finding.meaning}")
    if any(finding.measures for finding in findings):
        click.echo("\nEnergy can be measured here.")
        return
    click.echo("\nNo energy can be measured here: figures are estimates, or missing.")
    sys.exit(1)


def examine() -> Iterator[Finding]:
    """Yield what there is to say, GPUs first."""
    yield from _boards()
    yield _cpu()
    yield from _host()
    yield _versions()
    yield from _places()


def _boards() -> Iterator[Finding]:
    try:
        listing = nvml.list_boards()
        visible = {board.uuid for board in visible_boards()}
        driver = nvml.driver_version()
    except NvmlError as error:
        yield Finding(
            mark="bad",
            what=f"no NVIDIA GPU: {error}",
            meaning="without one, energy is RAPL's or an estimate of CPU and memory; in a "
            "container, the engine must be told to pass the GPUs in",
        )
        return
    yield Finding(
        mark="ok" if visible else "bad",
        what=f"{len(listing.boards)} boards, {len(visible)} of them visible, driver {driver}",
        meaning="measured are the boards that CUDA_VISIBLE_DEVICES leaves "
        f"({os.environ.get('CUDA_VISIBLE_DEVICES', 'not set: all')})",
    )
    for failure in listing.failures:
        yield Finding(mark="bad", what=failure, meaning="its energy cannot be measured")
    for board in listing.boards:
        if board.uuid in visible:
            yield from _board(board)


def _board(board: Board) -> Iterator[Finding]:
    status = board.status()
    try:
        period_s, step_j = _counter_period(board)
        yield Finding(
            mark="ok",
            what=f"{board.label}: energy counter, renewed every {period_s * 1e3:.0f} ms",
            meaning=f"windows are off by up to {step_j:.1f} J at an edge as the board draws now; "
            f"at full power of 5 s or more they are within {100 * period_s / 5:.0f} %",
            measures=True,
        )
    except NvmlError as error:
        try:
            board.power_w()
            yield Finding(
                mark="note",
                what=f"{board.label}: no energy counter ({error})",
                meaning="its sampled power is integrated instead (nvml_power)",
                measures=True,
            )
        except NvmlError as no_power:
            yield Finding(
                mark="bad",
                what=f"{board.label}: neither counter nor power ({no_power})",
                meaning="its energy cannot be measured",
            )
    if board.instances:
        yield Finding(
            mark="note",
            what=f"{board.label}: divided into {len(board.instances)} MIG instances",
            meaning="readings are the whole board's: leave the other instances idle",
        )
    if status.processes > 0:
        yield Finding(
            mark="bad",
            what=f"{board.label}: {status.processes:.0f} processes are on it",
            meaning="their energy counts as yours: end them, or take another board",
        )
    yield Finding(
        mark="ok",
        what=f"{board.label}: {_figures(board, status)}",
        meaning="a lower limit or a locked clock changes what a training takes: keep them the same "
        "in all runs that are compared",
    )


def _figures(board: Board, status: nvml.Status) -> str:
    try:
        limit = f"limit {board.power_limit_w():.0f} W"
    except NvmlError:
        limit = "limit unknown"
    persistence = {True: "on", False: "off", None: "unknown"}[board.persistence_mode()]
    clock, most = status.sm_clock_mhz, board.max_sm_clock_mhz()
    clocks = f"{clock:.0f} of {most:.0f} MHz" if math.isfinite(clock + most) else "clock unknown"
    return f"{limit}, {clocks}, {status.temperature_c:.0f} °C, persistence mode {persistence}"


def _counter_period(board: Board) -> tuple[float, float]:
    """Return how long a counter stands still, in seconds, and by how many joules it then moves."""
    end_s = time.perf_counter() + _WATCH_COUNTER_S
    changes: list[tuple[float, float]] = []
    last_j = board.energy_j()
    while (now_s := time.perf_counter()) < end_s:
        energy_j = board.energy_j()
        if energy_j != last_j:
            changes.append((now_s, energy_j))
            last_j = energy_j
        time.sleep(0.001)
    if len(changes) < 2:
        raise NvmlError(f"it moved {len(changes)} times within {_WATCH_COUNTER_S:g} s")
    (first_s, first_j), (last_s, end_j) = changes[0], changes[-1]
    steps = len(changes) - 1
    return (last_s - first_s) / steps, (end_j - first_j) / steps


def _cpu() -> Finding:
    source = rapl.cpu_source()
    if source.source == rapl.SOURCE_RAPL:
        return Finding(
            mark="ok",
            what="the CPU's energy counters (RAPL) can be read",
            meaning="its energy is measured",
            measures=True,
        )
    return Finding(mark="note", what="the CPU's energy is not measured", meaning=source.hint)


def _host() -> Iterator[Finding]:
    host = surroundings()
    if host.container:
        yield Finding(
            mark="note",
            what=f"a container ({host.container})",
            meaning="CPU and memory are the whole host's, your neighbours' work included",
        )
    busy = host.load > _MUCH_LOAD
    yield Finding(
        mark="note" if busy else "ok",
        what=f"load {host.load:.2f} processes a core in the last minute",
        meaning="a GPU waits for a busy host: let other work end first"
        if busy
        else "the host is free",
    )
    if host.steal_percent > _MUCH_STEAL_PERCENT:
        yield Finding(
            mark="note",
            what=f"{host.steal_percent:.1f} % of the CPU's time went to other guests of its host",
            meaning="small batches wait for the CPU: repeat the baseline through a campaign",
        )
    if host.governor:
        steady = host.governor == "performance"
        yield Finding(
            mark="ok" if steady else "note",
            what=f"CPU governor {host.governor}",
            meaning="the CPU's clock is steady"
            if steady
            else "the CPU's clock follows the load: for steady runs set it to performance "
            "(cpupower frequency-set -g performance)",
        )
    if host.clock_source in _OLD_KERNEL_CLOCKS:
        yield Finding(
            mark="note",
            what=f"the system's clock is {host.clock_source}",
            meaning="reading the time is slow, which shows in windows of milliseconds",
        )


def _versions() -> Finding:
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return Finding(
        mark="ok",
        what=", ".join(found),
        meaning="the meter works with any of these; the experiment needs Python 3.11 with "
        "TensorFlow 2.15 (pip install 'green-screen[experiment]')",
    )


def _places() -> Iterator[Finding]:
    if importlib.util.find_spec("mlflow") is None:
        yield Finding(
            mark="note",
            what="MLflow is not installed",
            meaning="figures go to files alone; pip install 'green-screen[mlflow]' logs them",
        )
    else:
        uri = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{Path.cwd() / 'mlflow.db'}")
        store = re.sub(r"(?<=://)[^/@]*@", "***@", uri)  # its password is nobody's to read
        yield Finding(mark="ok", what=f"store {store}", meaning="runs are logged there")
    cache = os.environ.get("CUDA_CACHE_PATH", str(Path.home() / ".nv" / "ComputeCache"))
    filled = Path(cache).is_dir() and any(Path(cache).iterdir())
    yield Finding(
        mark="ok" if filled else "note",
        what=f"CUDA's cache of kernels {cache}: {'filled' if filled else 'empty'}",
        meaning="later runs find their kernels there"
        if filled
        else "the first run on a GPU compiles its kernels: up to a minute and kilojoules more",
    )
