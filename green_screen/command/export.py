"""``green-screen export``: a training's energy in the forms that others ask for."""

from __future__ import annotations

import sys
from typing import IO

import click

from green_screen.command import extras

_FORMS = ("model-card", "boamps", "sci", "annex-xi")


@click.command()
@click.argument("run_or_model")
@click.option("--format", "form", type=click.Choice(_FORMS), required=True)
@click.option("--output", type=click.File("w", lazy=True), default="-", help="A file; - is stdout.")
@click.option("--pue", type=float, default=1.0, show_default=True, help="Of the building.")
@click.option("--carbon-intensity", type=float, help="g CO2eq per kWh, instead of the country's.")
@click.option("--embodied", type=float, help="kg CO2eq of making the hardware, for sci.")
@click.option("--lifetime", type=float, default=4.0, show_default=True, help="Its years of use.")
def export(
    run_or_model: str,
    form: str,
    output: IO[str],
    pue: float,
    carbon_intensity: float | None,
    embodied: float | None,
    lifetime: float,
) -> None:
    """Export the energy of RUN_OR_MODEL: a run id, runs:/ID or models:/NAME/VERSION."""
    if lacking := extras.missing("analysis"):
        raise click.ClickException(f"export needs {lacking}")
    from green_screen.options import OptionError
    from green_screen.report.exports import Assumptions, exported
    from green_screen.report.facts import ExportError, training_facts

    try:
        assumptions = Assumptions(
            pue=pue,
            intensity_g_per_kwh=carbon_intensity,
            embodied_kg_co2eq=embodied,
            lifetime_years=lifetime,
        )
    except ExportError as error:
        click.echo(f"export: {error}", err=True)
        sys.exit(2)
    try:
        output.write(exported(training_facts(run_or_model), form, assumptions))
    except (ExportError, OptionError) as error:
        click.echo(f"export: {error}", err=True)
        sys.exit(2 if isinstance(error, OptionError) else 1)
