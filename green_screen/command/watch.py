"""``green-screen watch``: the power of this machine as it changes."""

from __future__ import annotations

import itertools
import math
import sys
import time

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from green_screen.command.components import components, interval_option, joules
from green_screen.power.meter import EnergyMeter, EnergyReading


@click.command()
@interval_option
@click.option("--count", type=click.IntRange(min=1), help="End after so many readings.")
def watch(interval_s: float, count: int | None) -> None:
    """Show what each GPU, the CPU and the memory draw, until Ctrl-C."""
    console = Console(highlight=False)
    with EnergyMeter() as meter, Live(console=console, auto_refresh=False) as live:
        start = last = meter.mark()
        try:
            for _ in range(count) if count else itertools.count():
                time.sleep(interval_s)
                now = meter.mark()
                shown = table(meter.between(last, now), meter.between(start, now))
                last = now
                if console.is_terminal:
                    live.update(shown, refresh=True)
                else:
                    console.print(shown)
        except KeyboardInterrupt:
            sys.exit(130)


def table(now: EnergyReading, so_far: EnergyReading) -> Table:
    """Return the latest reading, and the energy since the start, as a table."""
    shown = Table(title=f"{so_far.seconds:.0f} s")
    for name in ("part", "power (W)", "energy so far", "temperature (°C)", "busy (%)", "source"):
        shown.add_column(name, justify="left" if name in ("part", "source") else "right")
    for place, (part, total) in enumerate(zip(components(now), components(so_far), strict=True)):
        device = now.devices[place] if place < len(now.devices) else None
        kind = "measured" if part.measured else "estimate"
        shown.add_row(
            part.name,
            _text(part.mean_power_w),
            "-" if math.isnan(total.energy_j) else joules(total.energy_j),
            _text(device.temperature_c if device else math.nan),
            _text(device.utilization_percent if device else math.nan),
            f"not known: {part.reason}" if math.isnan(part.energy_j) else f"{kind}: {part.source}",
        )
    return shown


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
