"""From readings to the figures of an epoch and of a run, under the names of ``names.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from green_screen import names
from green_screen.power import validity
from green_screen.power.idle import idle_power_w
from green_screen.power.meter import EnergyReading
from green_screen.training.run_record import NAN, Epoch, RunRecord, mean

_PHASE_METRICS = {
    "setup": names.SETUP_ENERGY_J,
    "conversion": names.CONVERSION_ENERGY_J,
    "evaluation": names.EVALUATION_ENERGY_J,
}
# From the worst to the best: a sum is only as good as its worst part.
_SOURCES = (names.SOURCE_ESTIMATE, names.SOURCE_POWER, names.SOURCE_COUNTER)


@dataclass(frozen=True)
class MeasurementSummary:
    """What a run's measuring comes to, under the names of ``names.py``.

    Attributes:
        metrics: NaN where something is missing.
        tags: Sources, validity, devices.
        missing: Metric -> why it is NaN.
    """

    metrics: dict[str, float]
    tags: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)


def epoch_metrics(epoch: Epoch, images: int | None) -> dict[str, float]:
    """Return the metrics of one epoch; those of a further epoch have names of their own."""
    reading = epoch.reading
    if epoch.further:
        return {
            names.FURTHER_EPOCH_ENERGY_J: reading.energy_j,
            names.FURTHER_EPOCH_TIME_S: reading.seconds,
        }
    metrics = {
        names.EPOCH_TIME_S: reading.seconds,
        names.TRAIN_TIME_S: epoch.train_s,
        names.EPOCH_ENERGY_J: reading.energy_j,
        names.TRAIN_ENERGY_J: epoch.train_j,
        names.GPU_ENERGY_J: reading.energy_j if reading.devices else NAN,
        names.GPU_INTEGRAL_J: reading.integral_j,
        names.GPU_DISAGREEMENT_PERCENT: 100 * reading.disagreement,
        names.GPU_RESOLUTION_J: reading.resolution_j,
        names.GPU_POWER_MEAN_W: reading.mean_power_w if reading.devices else NAN,
        names.GPU_POWER_MAX_W: reading.max_power_w,
        names.GPU_TEMPERATURE_C: reading.temperature_c,
        names.GPU_UTILIZATION_PERCENT: reading.utilization_percent,
        names.GPU_SM_CLOCK_MHZ: reading.sm_clock_mhz,
        names.GPU_MEMORY_CLOCK_MHZ: reading.memory_clock_mhz,
        names.GPU_MEMORY_USED_MIB: reading.memory_used_mib,
        names.CODECARBON_CPU_KWH: reading.carbon.cpu_kwh,
        names.CODECARBON_GPU_KWH: reading.carbon.gpu_kwh,
        names.CODECARBON_RAM_KWH: reading.carbon.ram_kwh,
        names.EMISSIONS_KG_CO2EQ: reading.carbon.emissions_kg_co2eq,
    }
    if epoch.validation is not None:
        # A board always draws power: 0 J says that the validation was shorter than the counter's
        # period, and its energy lies in the training's.
        metrics[names.VALIDATION_ENERGY_J] = epoch.validation.energy_j or NAN
    if images is not None and epoch.train_s > 0:
        metrics[names.IMAGES_PER_S] = images / epoch.train_s
    return metrics


def summarize(record: RunRecord, images_per_epoch: int | None) -> MeasurementSummary:
    """Return the run's metrics, tags and reasons for what is missing."""
    steady_metrics, missing = _steady_metrics(record, images_per_epoch)
    total_metrics, incomplete = _total_metrics(record)
    metrics = {**steady_metrics, **total_metrics, **_idle_metrics(record)}
    for name, value in metrics.items():
        if math.isnan(value):
            missing.setdefault(name, _reason(record, incomplete))
    found = validity.reasons(_evidence(record, incomplete))
    sources = {reading.source for reading in _all_readings(record)} - {names.SOURCE_NONE}
    tags = {
        names.TAG_ENERGY_SOURCE: min(sources, key=_SOURCES.index, default=names.SOURCE_NONE),
        names.TAG_CPU_SOURCE: record.cpu_source,
        names.TAG_MEASUREMENT_VALID: str(not found).lower(),
        names.TAG_INCOMPLETE: str(bool(incomplete)).lower(),
    }
    if found:
        tags[names.TAG_INVALID_REASON] = "; ".join(found)
    if record.boards:
        tags[names.TAG_GPU_DEVICES] = "; ".join(board.label for board in record.boards)
    return MeasurementSummary(metrics, tags, missing)


def _steady_metrics(
    record: RunRecord, images_per_epoch: int | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Return the figures of the steady state, and why they are missing if they are."""
    steady = record.whole_steady
    count = len(steady) or NAN
    epoch_j = sum(e.reading.energy_j for e in steady) / count
    epoch_s = sum(e.reading.seconds for e in steady) / count
    thousands = (images_per_epoch or NAN) * count / 1000
    first_j = record.epochs[0].reading.energy_j if record.epochs else NAN
    train_net_j = sum(e.train_j - record.idle_power_w * e.train_s for e in steady)
    metrics = {
        names.ENERGY_PER_EPOCH_J: epoch_j,
        names.ENERGY_PER_EPOCH_NET_J: epoch_j - record.idle_power_w * epoch_s,
        names.ENERGY_PER_1K_IMAGES_J: sum(e.train_j for e in steady) / thousands,
        names.ENERGY_PER_1K_IMAGES_NET_J: train_net_j / thousands,
        names.WARMUP_ENERGY_J: first_j - epoch_j,
        names.STEADY_WINDOW_S: sum(e.reading.seconds for e in steady),
        names.STEADY_EPOCHS: float(len(steady)),
        names.STEADY_SM_CLOCK_MHZ: mean(e.reading.sm_clock_mhz for e in steady),
    }
    if not record.steady:
        reason = (
            f"{len(record.epochs)} epoch was run and the steady state is what follows the first: "
            "run at least 2 epochs, or set min_window_s above 0"
        )
        return metrics, {name: reason for name, value in metrics.items() if math.isnan(value)}
    if images_per_epoch is None:
        reason = "how many images an epoch has is not known"
        per_image = (names.ENERGY_PER_1K_IMAGES_J, names.ENERGY_PER_1K_IMAGES_NET_J)
        return metrics, dict.fromkeys(per_image, reason)
    return metrics, {}


def _total_metrics(record: RunRecord) -> tuple[dict[str, float], str]:
    """Return the figures of the whole run, and why the total lacks a part if it does."""
    parts: dict[str, list[EnergyReading]] = {phase: [] for phase in _PHASE_METRICS}
    for reading in record.phases:
        parts.setdefault(reading.name, []).append(reading)
    further = [e.reading for e in record.epochs if e.further]
    inside = [r for r in record.phases if r.name != "further"]
    inside += [e.reading for e in record.declared]
    measured_j = sum(r.energy_j for r in inside if not math.isnan(r.energy_j))
    incomplete = next((r.reason for r in inside if math.isnan(r.energy_j)), "")
    total_j, other_j = record.total.energy_j, NAN
    if math.isnan(total_j):
        incomplete = incomplete or record.total.reason
        total_j = measured_j if measured_j > 0 else NAN
    elif not incomplete:
        other_j = total_j - measured_j
    net_j = total_j - record.idle_power_w * record.total.seconds
    metrics = {
        metric: sum(reading.energy_j for reading in parts[phase])
        for phase, metric in _PHASE_METRICS.items()
        if parts[phase]
    }
    metrics |= {
        names.OTHER_ENERGY_J: other_j,
        names.ENERGY_TOTAL_J: total_j,
        names.ENERGY_TOTAL_NET_J: net_j,
        names.DURATION_S: record.total.seconds,
        names.EMISSIONS_TOTAL_KG_CO2EQ: record.total.carbon.emissions_kg_co2eq,
    }
    if further:
        metrics[names.FURTHER_EPOCHS] = float(len(further))
        metrics[names.FURTHER_ENERGY_J] = sum(reading.energy_j for reading in further)
    return metrics, incomplete


def _idle_metrics(record: RunRecord) -> dict[str, float]:
    before, after = (
        idle_power_w(reading) if reading is not None else NAN
        for reading in (record.idle_before, record.idle_after)
    )
    start_c = record.idle_before.temperature_c if record.idle_before is not None else NAN
    return {
        names.IDLE_POWER_W: record.idle_power_w,
        names.IDLE_POWER_BEFORE_W: before,
        names.IDLE_POWER_AFTER_W: after,
        names.START_TEMPERATURE_C: start_c,
    }


def _evidence(record: RunRecord, incomplete: str) -> validity.Evidence:
    readings = [epoch.reading for epoch in record.whole_steady]
    counter_j = sum(reading.counter_j for reading in readings)
    integral_j = sum(reading.integral_j for reading in readings)
    # What the counter's steps explain is no disagreement.
    resolution_j = max((reading.resolution_j for reading in readings), default=NAN)
    excess_j = max(0.0, abs(counter_j - integral_j) - resolution_j)
    disagreement = excess_j / counter_j if counter_j > 0 else NAN
    throttled: dict[str, list[float]] = {}
    for device in (device for reading in readings for device in reading.devices):
        for reason, share in device.throttled.items():
            throttled.setdefault(reason, []).append(share)
    return validity.Evidence(
        other_processes=record.other_processes,
        throttled={reason: max(shares) for reason, shares in throttled.items()},
        start_temperature_c=_idle_metrics(record)[names.START_TEMPERATURE_C],
        disagreement=disagreement,
        steady_window_s=sum(reading.seconds for reading in readings),
        min_window_s=record.min_window_s,
        incomplete=incomplete,
        shared_mig=sum(max(0, board.mig_instances - 1) for board in record.boards),
        device_mismatch=record.device_mismatch,
    )


def _all_readings(record: RunRecord) -> list[EnergyReading]:
    return [record.total, *(e.reading for e in record.epochs), *record.phases]


def _reason(record: RunRecord, incomplete: str) -> str:
    """Return why a figure is missing that has no reason of its own."""
    if incomplete:
        return incomplete
    if not record.boards:
        return f"no GPU was measured: {record.total.reason}"
    return record.total.reason or record.total.carbon.reason or "not measured"
