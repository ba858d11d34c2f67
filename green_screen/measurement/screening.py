"""From a screening's readings to its figures and the forecast, under the names of ``names.py``."""

from __future__ import annotations

import math

from green_screen import names
from green_screen.measurement.forecast import (
    Interval,
    Spread,
    energy_spread,
    forecast,
    metrics_of,
    time_spread,
)
from green_screen.measurement.run_measurement import RunMeasurement
from green_screen.measurement.run_record import per_epoch
from green_screen.measurement.summary import MeasurementSummary, of_a_part
from green_screen.power.reading import EnergyReading

_NOT_TRAINED = "a screening measures a part of the training: see forecast_energy_j"


def screening_summary(
    measurement: RunMeasurement,
    *,
    epochs: int,
    steps_per_epoch: int,
    images_per_epoch: int,
    validation_images: int,
) -> MeasurementSummary:
    """Return what a screening comes to.

    Args:
        measurement: The blocks of steps and of validation are done.
        epochs: Of the declared training, as are the next three.
        steps_per_epoch: Training steps.
        images_per_epoch: Training images.
        validation_images: Validation images.
    """
    whole = measurement.summary(images_per_epoch, validation_images)
    summary = of_a_part(
        whole, _NOT_TRAINED, energy=names.SCREENING_ENERGY_J, time=names.SCREENING_S
    )
    metrics, missing = summary.metrics, summary.missing
    blocks = measurement.steady_state.epochs
    energy, seconds = energy_spread(blocks), time_spread(blocks)
    epoch_j, epoch_s = per_epoch(blocks)
    found = {
        names.STEADY_BLOCKS: float(energy.n),
        names.ENERGY_PER_STEP_J: epoch_j / steps_per_epoch,
        names.STEP_S: epoch_s / steps_per_epoch,
        names.WINDOW_ERROR_PERCENT: 100 * energy.standard_error,
        names.WINDOW_RESOLUTION_PERCENT: 100 * energy.resolution,
        names.WINDOW_DRIFT_PERCENT: 100 * energy.drift,
        **_forecasts(metrics, energy, seconds, epochs, measurement),
    }
    few = f"{energy.n} steady blocks are too few to tell how well their energy is known"
    why = missing.get(names.ENERGY_PER_EPOCH_J) or missing.get(names.SETUP_ENERGY_J) or few
    for name, value in found.items():
        if math.isnan(value):
            of_carbon = name.endswith("_kg_co2eq") and measurement.total_reading.carbon.reason
            missing[name] = of_carbon or why
    return MeasurementSummary({**metrics, **found}, summary.tags, missing)


def _forecasts(
    metrics: dict[str, float],
    energy: Spread,
    seconds: Spread,
    epochs: int,
    measurement: RunMeasurement,
) -> dict[str, float]:
    epoch_s = sum(
        per_epoch(blocks)[1]
        for blocks in (measurement.steady_state.epochs, measurement.steady_validations.epochs)
    )
    joules = forecast(
        metrics[names.SETUP_ENERGY_J] + metrics[names.WARMUP_ENERGY_J],
        metrics[names.ENERGY_PER_EPOCH_J],
        epochs,
        energy.half_width,
    )
    time_s = forecast(
        metrics[names.SETUP_S] + metrics[names.WARMUP_S], epoch_s, epochs, seconds.half_width
    )
    emissions = _emissions(measurement.total_reading, joules, time_s)
    return {
        **metrics_of(joules, time_s),
        names.FORECAST_EMISSIONS_KG_CO2EQ: emissions.value,
        names.FORECAST_EMISSIONS_LOW_KG_CO2EQ: emissions.low,
        names.FORECAST_EMISSIONS_HIGH_KG_CO2EQ: emissions.high,
    }


def _emissions(total: EnergyReading, joules: Interval, time_s: Interval) -> Interval:
    """Return emissions by the country's carbon per kWh and by what CPU and RAM drew so far."""
    carbon = total.carbon
    gpu_kwh = carbon.gpu_kwh if total.devices else 0.0
    kg_per_kwh = carbon.emissions_kg_co2eq / (carbon.cpu_kwh + gpu_kwh + carbon.ram_kwh)
    # Without a GPU the joules are those of CPU and RAM.
    beside_kwh_per_s = (carbon.cpu_kwh + carbon.ram_kwh) / total.seconds if total.devices else 0.0

    def kg(energy_j: float, seconds: float) -> float:
        return kg_per_kwh * (energy_j / 3.6e6 + beside_kwh_per_s * seconds)

    return Interval(
        kg(joules.value, time_s.value), kg(joules.low, time_s.low), kg(joules.high, time_s.high)
    )
