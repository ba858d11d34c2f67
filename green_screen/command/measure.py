"""``green-screen measure -- PROGRAM``: the energy of the machine while any program runs."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO, Any

import click

from green_screen.command.components import (
    Component,
    components,
    energy_text,
    interval_option,
    table,
)
from green_screen.command.lasting import Lasting
from green_screen.power.meter import EnergyMeter, EnergyReading

# What a shell returns for a program that it cannot run, and for one that is not there.
CANNOT_RUN, NOT_FOUND = 126, 127
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


@click.command(cls=Lasting, context_settings={"ignore_unknown_options": True})
@click.option("--json", "json_file", type=click.File("w", lazy=False), help="Write the result.")
@click.option("--csv", "csv_file", type=click.File("w", lazy=False), help="Write a row a moment.")
@interval_option
@click.option("--country", default="USA", show_default=True, help="Of the carbon intensity.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def measure(
    program: tuple[str, ...],
    json_file: IO[str] | None,
    csv_file: IO[str] | None,
    interval_s: float,
    country: str,
) -> None:
    """Run PROGRAM and say what this machine's GPUs, CPU and memory took meanwhile.

    Its output and its exit status are passed on; what was measured goes to standard error.
    """
    try:
        meter = EnergyMeter(country=country)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--country") from error
    with meter:
        status, reading = run(meter, program, interval_s, _row_writer(csv_file))
    found = components(reading)
    if json_file is not None:
        text = json.dumps(result(program, status, reading, found), indent=2)
        _written("--json", json_file, lambda: json_file.write(text + "\n"))
    click.echo(f"{reading.seconds:.1f} s, {energy_text(reading)}", err=True)
    for line in table(found):
        click.echo(line, err=True)
    sys.exit(status)


def run(
    meter: EnergyMeter,
    program: Sequence[str],
    interval_s: float,
    on_moment: Callable[[float, EnergyReading], None],
) -> tuple[int, EnergyReading]:
    """Run a program to its end under a running meter.

    Args:
        meter: It measures already.
        program: The program and its arguments.
        interval_s: Seconds between two moments.
        on_moment: Told of each: the seconds since the start, and the reading since the last one.

    Returns:
        The exit status, 128 plus the signal's number if one ended it, and the reading of all.
    """
    show = sys.stderr.isatty()
    start = last = meter.mark()
    try:
        process = subprocess.Popen(program)
    except FileNotFoundError:
        click.echo(f"measure: there is no program {program[0]!r} on the PATH", err=True)
        sys.exit(NOT_FOUND)
    except OSError as error:
        click.echo(f"measure: {program[0]!r} cannot be run: {error}", err=True)
        sys.exit(CANNOT_RUN)
    with _signals_to(process):
        due_s = time.monotonic() + interval_s
        while True:
            try:
                code = process.wait(max(0.0, due_s - time.monotonic()))
                break
            except subprocess.TimeoutExpired:
                due_s += interval_s
                now = meter.mark()
                on_moment(now.time_s - start.time_s, meter.between(last, now))
                last = now
                if show:
                    so_far = meter.between(start, now)
                    line = f"{so_far.seconds:.0f} s, {energy_text(so_far)}"
                    click.echo(f"\r\x1b[K{line}", nl=False, err=True)
    end = meter.mark()
    on_moment(end.time_s - start.time_s, meter.between(last, end))
    if show:
        click.echo("\r\x1b[K", nl=False, err=True)
    return code if code >= 0 else 128 - code, meter.between(start, end, " ".join(program))


def result(
    program: Sequence[str], status: int, reading: EnergyReading, found: Sequence[Component]
) -> dict[str, Any]:
    """Return what was measured in a form for JSON: ``null`` stands for what is missing."""
    return {
        "program": list(program),
        "exit_status": status,
        "seconds": reading.seconds,
        "energy_j": _known(reading.energy_j),
        "energy_source": reading.source,
        "reason": reading.reason,
        "mean_power_w": _known(reading.mean_power_w),
        "max_power_w": _known(reading.max_power_w),
        "emissions_kg_co2eq_estimate": _known(reading.carbon.emissions_kg_co2eq),
        "components": [
            {
                "name": part.name,
                "energy_j": _known(part.energy_j),
                "mean_power_w": _known(part.mean_power_w),
                "max_power_w": _known(part.max_power_w),
                "measured": part.measured,
                "source": part.source,
                "reason": part.reason,
            }
            for part in found
        ],
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _written(option: str, file: IO[str], write: Callable[[], object]) -> bool:
    """Write to the file of an option; return whether that was possible, and say why not."""
    try:
        write()
        file.flush()
    except OSError as error:
        click.echo(f"measure: the file of {option} cannot be written: {error}", err=True)
        return False
    return True


def _row_writer(file: IO[str] | None) -> Callable[[float, EnergyReading], None]:
    if file is None:
        return lambda time_s, reading: None
    writer = csv.writer(file)
    writer.writerow(("time_s", "component", "energy_j", "mean_power_w", "measured", "source"))
    works = True

    def write(time_s: float, reading: EnergyReading) -> None:
        nonlocal works
        works = works and _written("--csv", file, lambda: write_rows(time_s, reading))

    def write_rows(time_s: float, reading: EnergyReading) -> None:
        for part in components(reading):
            figures = [
                "" if math.isnan(x) else f"{x:.4f}" for x in (part.energy_j, part.mean_power_w)
            ]
            row = (f"{time_s:.3f}", part.name, *figures, str(part.measured).lower(), part.source)
            writer.writerow(row)

    return write


@contextmanager
def _signals_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Pass signals on, so that the program ends as it would alone and its energy is still said.

    A terminal sends SIGINT to the program itself: here it is ignored.
    """

    def pass_on(number: int, frame: FrameType | None) -> None:
        if process.poll() is None:
            os.kill(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
