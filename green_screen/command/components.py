"""A reading told part by part: each board, the CPU and the memory, measured or estimated."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from green_screen import names
from green_screen.power import rapl
from green_screen.power.meter import EnergyReading

_J_PER_KWH = 3.6e6

interval_option = click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.2),
    default=1.0,
    show_default=True,
    help="Seconds between two readings.",
)


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part of the machine over one window; NaN where it does not tell.

    Attributes:
        name: Such as ``GPU NVIDIA H100 (GPU-...)``, ``CPU`` or ``memory``.
        energy_j: Joules.
        mean_power_w: Watts over the window.
        max_power_w: Highest sampled power; boards alone are sampled.
        measured: Whether a counter or a sensor said so; otherwise it is an estimate.
        source: What said so.
        reason: Why figures are missing, or not by the best source.
    """

    name: str
    energy_j: float
    mean_power_w: float
    max_power_w: float
    measured: bool
    source: str
    reason: str


def components(reading: EnergyReading) -> tuple[Component, ...]:
    """Return the parts of a reading: the boards first, then CPU and memory."""
    boards = (
        Component(
            name=f"GPU {device.device}",
            energy_j=device.energy_j,
            mean_power_w=_over(device.energy_j, device.seconds),
            max_power_w=device.max_power_w,
            measured=device.source != names.SOURCE_NONE,
            source=device.source,
            reason=device.reason,
        )
        for device in reading.devices
    )
    carbon = reading.carbon
    rest = (
        ("CPU", carbon.cpu_kwh, carbon.cpu_source),
        ("memory", carbon.ram_kwh, rapl.SOURCE_MODEL),
    )
    return (
        *boards,
        *(
            Component(
                name=name,
                energy_j=kwh * _J_PER_KWH,
                mean_power_w=_over(kwh * _J_PER_KWH, reading.seconds),
                max_power_w=math.nan,
                measured=source == rapl.SOURCE_RAPL,
                source=source if not math.isnan(kwh) else names.SOURCE_NONE,
                reason=carbon.reason if math.isnan(kwh) else "",
            )
            for name, kwh, source in rest
        ),
    )


def energy_text(reading: EnergyReading) -> str:
    """Return a reading's energy and mean power in a few words, an estimate called one."""
    if math.isnan(reading.energy_j):
        return f"energy unknown: {reading.reason}"
    word = " (estimate)" if reading.source == names.SOURCE_ESTIMATE else ""
    return f"{joules(reading.energy_j)}{word}, {reading.mean_power_w:.1f} W in the mean"


def joules(energy_j: float) -> str:
    """Return joules with a fitting unit."""
    for unit, factor in (("MJ", 1e6), ("kJ", 1e3)):
        if abs(energy_j) >= 10 * factor:
            return f"{energy_j / factor:.1f} {unit}"
    return f"{energy_j:.1f} J"


def table(found: Sequence[Component]) -> Iterator[str]:
    """Yield a line for each part."""
    width = max((len(part.name) for part in found), default=0)
    for part in found:
        if math.isnan(part.energy_j):
            yield f"  {part.name:<{width}}  not known: {part.reason}"
            continue
        peak = "" if math.isnan(part.max_power_w) else f", at most {part.max_power_w:.1f} W"
        kind = "measured" if part.measured else "estimate"
        yield (
            f"  {part.name:<{width}}  {joules(part.energy_j):>10}  {part.mean_power_w:.1f} W"
            f"{peak}  ({kind}: {part.source})"
        )


def _over(energy_j: float, seconds: float) -> float:
    return energy_j / seconds if seconds > 0 else math.nan
