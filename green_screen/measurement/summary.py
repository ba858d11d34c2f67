"""From readings to the figures of an epoch and of a run, under the names of ``names.py``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from green_screen import names
from green_screen.measurement.run_record import NAN, Epoch, RunRecord, mean, per_epoch
from green_screen.power import validity
from green_screen.power.meter import EnergyReading
from green_screen.power.nvml import COUNTER_UPDATE_S

_PHASE_METRICS = {
    "setup": names.SETUP_ENERGY_J,
    "conversion": names.CONVERSION_ENERGY_J,
    "checkpoint": names.CHECKPOINT_ENERGY_J,
    "evaluation": names.EVALUATION_ENERGY_J,
}
# From the worst to the best: a sum is only as good as its worst part.
_SOURCES = (names.SOURCE_ESTIMATE, names.SOURCE_RAPL, names.SOURCE_POWER, names.SOURCE_COUNTER)
_UNKNOWN = "not measured"


class Figure(NamedTuple):
    """A figure, and why it is NaN if it is."""

    value: float
    reason: str = ""


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


def epoch_missing(epoch: Epoch, metrics: Mapping[str, float]) -> dict[str, str]:
    """Return why each NaN among an epoch's metrics is missing."""
    reading, validation = epoch.reading, epoch.validation
    sampled = dict.fromkeys((names.GPU_INTEGRAL_J, names.GPU_POWER_MAX_W), reading.integral_reason)
    by_status = (
        names.GPU_TEMPERATURE_C,
        names.GPU_UTILIZATION_PERCENT,
        names.GPU_SM_CLOCK_MHZ,
        names.GPU_MEMORY_CLOCK_MHZ,
        names.GPU_MEMORY_USED_MIB,
    )
    by_carbon = (
        names.CODECARBON_CPU_KWH,
        names.CODECARBON_GPU_KWH,
        names.CODECARBON_RAM_KWH,
        names.EMISSIONS_KG_CO2EQ,
    )
    reasons = {
        **sampled,
        **dict.fromkeys(by_status, reading.status_reason),
        # That no GPU is used is no lack to CodeCarbon, which then has no figure for one.
        **dict.fromkeys(by_carbon, reading.carbon.reason or reading.reason),
        names.GPU_DISAGREEMENT_PERCENT: reading.reason or reading.integral_reason,
    }
    if validation is not None:
        reasons[names.TRAIN_ENERGY_J] = reading.reason or validation.reason
        reasons[names.VALIDATION_ENERGY_J] = validation.reason or (
            f"the validation took {validation.seconds:.2f} s, in which the energy counter, renewed "
            f"every {COUNTER_UPDATE_S} s, did not move"
        )
    gaps = [name for name, value in metrics.items() if math.isnan(value)]
    return {name: reasons.get(name, reading.reason) or _UNKNOWN for name in gaps}


def summarize(
    record: RunRecord, images_per_epoch: int | None, validation_images: int | None
) -> MeasurementSummary:
    """Return the run's metrics, tags and reasons for what is missing."""
    total_figures, incomplete = _total_figures(record)
    figures = {
        **_steady_figures(record, images_per_epoch),
        **_validation_figures(record, validation_images),
        **total_figures,
        **_idle_figures(record),
    }
    evidence = _evidence(record, figures, incomplete)
    found = validity.reasons(evidence)
    sources = {reading.source for reading in _all_readings(record)} - {names.SOURCE_NONE}
    tags = {
        names.TAG_ENERGY_SOURCE: min(sources, key=_SOURCES.index, default=names.SOURCE_NONE),
        names.TAG_CPU_SOURCE: record.totals[-1].carbon.cpu_source,
        names.TAG_MEASUREMENT_VALID: str(not found).lower(),
        names.TAG_INCOMPLETE: str(bool(incomplete)).lower(),
    }
    if record.starved:
        tags[names.TAG_STARVED] = "; ".join(record.starved)
    if record.left_out:
        tags[names.TAG_UNSTEADY] = record.left_out
    if found:
        tags[names.TAG_INVALID_REASON] = "; ".join(found)
    if record.boards:
        tags[names.TAG_GPU_DEVICES] = "; ".join(board.label for board in record.boards)
        limits = ("unknown" if math.isnan(w) else f"{w:.0f}" for w in record.power_limits_w)
        tags[names.TAG_GPU_POWER_LIMIT_W] = "; ".join(limits)
        if unchecked := validity.unchecked(evidence):
            tags[names.TAG_UNCHECKED] = "; ".join(unchecked)
    return MeasurementSummary(
        metrics={name: figure.value for name, figure in figures.items()},
        tags=tags,
        missing={
            name: figure.reason or _UNKNOWN
            for name, figure in figures.items()
            if math.isnan(figure.value)
        },
    )


def of_a_part(
    summary: MeasurementSummary,
    why: str,
    *,
    energy: str = names.TRAINED_ENERGY_J,
    time: str = names.TRAINED_S,
) -> MeasurementSummary:
    """Return the summary of a run that is a part of the training: it has no totals.

    Args:
        summary: As if it were whole.
        why: Why it has none.
        energy: What its own energy is called.
        time: The same of its time.
    """
    metrics, missing = dict(summary.metrics), dict(summary.missing)
    own = {names.ENERGY_TOTAL_J: energy, names.DURATION_S: time}
    without = (names.ENERGY_TOTAL_NET_J, names.SYSTEM_ENERGY_J, names.EMISSIONS_TOTAL_KG_CO2EQ)
    for whole in (*own, *without):
        value, reason = metrics[whole], missing.get(whole, "")
        metrics[whole], missing[whole] = NAN, why
        if whole in own:
            metrics[own[whole]] = value
            if math.isnan(value):
                missing[own[whole]] = reason
    return MeasurementSummary(metrics, summary.tags, missing)


def _steady_figures(record: RunRecord, images_per_epoch: int | None) -> dict[str, Figure]:
    """Return the figures of the steady state."""
    steady = record.whole_steady
    count = sum(e.work for e in steady) or NAN
    reason = _unsteady_reason(record)
    idle_w, idle_reason = _idle_figures(record)[names.IDLE_POWER_W]
    net_reason = reason or idle_reason
    no_images = "" if images_per_epoch else "how many images an epoch has is not known"
    validation_j, validation_s = _own_validation(record)
    epoch_j, epoch_s = per_epoch(steady)
    epoch_j, epoch_s = epoch_j + validation_j, epoch_s + validation_s
    thousands = (images_per_epoch or NAN) * count / 1000
    train_j = sum(e.train_j for e in steady)
    train_s = sum(e.train_s for e in steady)
    train_net_j = train_j - idle_w * train_s
    status_reason = steady[0].reading.status_reason if steady else reason
    clock_reason = status_reason or "no reading of the clock found the GPU at work"
    return {
        names.ENERGY_PER_EPOCH_J: Figure(epoch_j, reason),
        names.ENERGY_PER_EPOCH_NET_J: Figure(epoch_j - idle_w * epoch_s, net_reason),
        names.ENERGY_PER_1K_IMAGES_J: Figure(train_j / thousands, reason or no_images),
        names.ENERGY_PER_1K_IMAGES_NET_J: Figure(train_net_j / thousands, net_reason or no_images),
        names.STEADY_IMAGES_PER_S: Figure(
            1000 * thousands / train_s if steady else NAN, reason or no_images
        ),
        **_warmup_figures(record, epoch_j - validation_j, epoch_s - validation_s),
        names.STEADY_WINDOW_S: Figure(sum(e.reading.seconds for e in steady)),
        names.STEADY_EPOCHS: Figure(float(sum(e.work for e in steady))),
        names.UNSTEADY_EPOCHS: Figure(
            float(sum(e.work for e in record.epochs) - sum(e.work for e in record.steady))
        ),
        names.STEADY_SM_CLOCK_MHZ: Figure(
            mean(e.reading.busy_sm_clock_mhz for e in steady), clock_reason
        ),
        names.STEADY_POWER_CAPPED_PERCENT: Figure(
            100 * mean(e.reading.power_capped for e in steady), clock_reason
        ),
    }


def _own_validation(record: RunRecord) -> tuple[float, float]:
    """Return joules and seconds of a validation outside of epochs; 0 where epochs hold it."""
    if not record.validations:
        return 0.0, 0.0
    return per_epoch(record.steady_validations)


def _warmup_figures(record: RunRecord, epoch_j: float, epoch_s: float) -> dict[str, Figure]:
    """Return what the declared epochs or blocks before the steady state took beyond steady ones.

    Args:
        record: The run.
        epoch_j: Energy of a steady epoch, without the validation if that lies outside of it.
        epoch_s: Time of the same.
    """
    validation_j, validation_s = _own_validation(record)
    extra_j = extra_s = 0.0
    reason = _unsteady_reason(record)
    for parts, steady, unit_j, unit_s in (
        (record.declared, record.steady, epoch_j, epoch_s),
        (record.validations, record.steady_validations, validation_j, validation_s),
    ):
        for part in parts:
            if part not in steady:
                extra_j += part.reading.energy_j - part.work * unit_j
                extra_s += part.reading.seconds - part.work * unit_s
                reason = (part.reading.reason if math.isnan(extra_j) else "") or reason
    return {
        names.WARMUP_ENERGY_J: Figure(extra_j, reason),
        names.WARMUP_S: Figure(extra_s, reason),
    }


def _unsteady_reason(record: RunRecord) -> str:
    """Return why there is no steady state, or why one of its epochs is left out; empty if not."""
    if not record.steady:
        return (
            f"{len(record.epochs)} epoch was run and the steady state is what follows the first: "
            "run at least 2 epochs, or set min_window_s above 0"
        )
    gaps = (epoch.reading.reason for epoch in record.steady if not epoch.is_known)
    of_epochs, of_validations = (
        _unmoved([e.reading for e in part]) for part in (record.steady, record.steady_validations)
    )
    return next(gaps, "") or of_epochs or of_validations


def _unmoved(readings: Sequence[EnergyReading]) -> str:
    """Return in words that no energy was counted in all these readings; empty if some was."""
    if not readings or sum(reading.energy_j for reading in readings) != 0:
        return ""
    seconds = sum(reading.seconds for reading in readings)
    return f"in {seconds:.2f} s the count of the energy ({readings[0].source}) did not move"


def _validation_figures(record: RunRecord, images: int | None) -> dict[str, Figure]:
    """Return the figures of the validation in the steady state; none where nothing is validated."""
    inside = [e.validation for e in record.whole_steady if e.validation is not None]
    readings = inside or [e.reading for e in record.steady_validations]
    if images is None or not (record.validations or any(e.validation for e in record.epochs)):
        return {}
    work = float(len(inside)) or sum(e.work for e in record.steady_validations)
    energy_j, seconds = sum(r.energy_j for r in readings), sum(r.seconds for r in readings)
    thousands = images * work / 1000
    reason = _unsteady_reason(record) or next((r.reason for r in readings if r.reason), "")
    return {
        names.VALIDATION_ENERGY_PER_1K_IMAGES_J: Figure(
            # See epoch_metrics: 0 J is shorter than the counter's period.
            (energy_j or NAN) / thousands if readings else NAN,
            reason or _unmoved(readings),
        ),
        names.STEADY_VALIDATION_IMAGES_PER_S: Figure(
            1000 * thousands / seconds if seconds else NAN, reason
        ),
    }


def _total_figures(record: RunRecord) -> tuple[dict[str, Figure], str]:
    """Return the figures of the whole run, and why a part of it was not measured if so."""
    parts: dict[str, list[EnergyReading]] = {phase: [] for phase in _PHASE_METRICS}
    for reading in record.phases:
        parts.setdefault(reading.name, []).append(reading)
    further = [e.reading for e in record.epochs if e.further]
    inside = [r for r in record.phases if r.name in _PHASE_METRICS]
    inside += [e.reading for e in (*record.declared, *record.validations)]
    known = [r for r in inside if not math.isnan(r.energy_j)]
    measured_j = sum(r.energy_j for r in known)
    incomplete = next((r.reason or _UNKNOWN for r in inside if math.isnan(r.energy_j)), "")
    spans = (*record.totals, *record.outside)
    if not record.boards and not any(math.isnan(r.energy_j) for r in record.totals):
        # CodeCarbon knows the processor's load in steps of 10 ms, so a phase of a few of them may
        # have no figure. That is no gap: a total that has one holds them.
        incomplete = ""
    total_j = sum(r.energy_j for r in record.totals) - sum(r.energy_j for r in record.outside)
    total_s = sum(r.seconds for r in record.totals) - sum(r.seconds for r in record.outside)
    other_j, duration_s = NAN, total_s
    if math.isnan(total_j):
        why = (r.reason for r in spans if math.isnan(r.energy_j) and r.reason)
        incomplete = incomplete or next(why, _UNKNOWN)
        # What was measured, and of the idle power as much as fell into that.
        total_j = measured_j if known else NAN
        total_s = sum(r.seconds for r in known)
    elif not incomplete:
        other_j = total_j - measured_j
    idle_w, idle_reason = _idle_figures(record)[names.IDLE_POWER_W]
    figures = {
        metric: _sum(parts[phase]) for phase, metric in _PHASE_METRICS.items() if parts[phase]
    }
    emissions_kg = sum(r.carbon.emissions_kg_co2eq for r in record.totals)
    emissions_kg -= sum(r.carbon.emissions_kg_co2eq for r in record.outside)
    if parts["setup"]:
        figures[names.SETUP_S] = Figure(sum(r.seconds for r in parts["setup"]))
    if parts.get("checkpoint"):
        figures[names.CHECKPOINT_S] = Figure(sum(r.seconds for r in parts["checkpoint"]))
    if parts.get("kernels"):
        figures[names.KERNELS_ENERGY_J] = _sum(parts["kernels"])
        figures[names.KERNELS_S] = Figure(sum(r.seconds for r in parts["kernels"]))
    figures |= {
        names.OTHER_ENERGY_J: Figure(other_j, incomplete),
        names.ENERGY_TOTAL_J: Figure(total_j, incomplete),
        names.ENERGY_TOTAL_NET_J: Figure(
            total_j - idle_w * total_s, idle_reason if math.isnan(idle_w) else incomplete
        ),
        names.SYSTEM_ENERGY_J: _system_figure(record),
        names.DURATION_S: Figure(duration_s),
        names.EMISSIONS_TOTAL_KG_CO2EQ: Figure(
            emissions_kg, next((r.carbon.reason for r in spans if r.carbon.reason), "")
        ),
    }
    if further:
        figures[names.FURTHER_EPOCHS] = Figure(float(len(further)))
        figures[names.FURTHER_ENERGY_J] = _sum(further)
    return figures, incomplete


def _system_figure(record: RunRecord) -> Figure:
    """Return what GPUs, CPU and memory took of what the total is of, if all were measured."""
    system_j = sum(r.system_energy_j for r in record.totals)
    system_j -= sum(r.system_energy_j for r in record.outside)
    unknown = [r for r in record.totals if math.isnan(r.system_energy_j)]
    worst = (unknown or record.totals)[0]
    if worst.source == names.SOURCE_NONE:
        return Figure(system_j, worst.reason)
    cpu = worst.carbon.cpu_source
    if cpu != names.SOURCE_RAPL:
        return Figure(system_j, f"the CPU's energy is not counted ({cpu})")
    return Figure(system_j, "the memory's energy is not counted")


def _sum(readings: list[EnergyReading]) -> Figure:
    reasons = dict.fromkeys(r.reason for r in readings if math.isnan(r.energy_j))
    return Figure(sum(r.energy_j for r in readings), "; ".join(reasons))


def _idle_figures(record: RunRecord) -> dict[str, Figure]:
    before, context, after = (
        Figure(idle.power_w, idle.reading.reason)
        if idle is not None
        else Figure(NAN, "the run ended before its idle power was measured")
        for idle in (record.idle_before, record.idle_in_context, record.idle_after)
    )
    first = record.idle_before or record.idle_in_context
    figures = {
        names.IDLE_POWER_W: context,
        names.START_TEMPERATURE_C: Figure(
            first.reading.temperature_c if first else NAN,
            first.reading.status_reason if first else before.reason,
        ),
    }
    if record.idle_in_context is not None:
        figures[names.IDLE_POWER_CONTEXT_W] = context
    if not record.idle_once:
        figures[names.IDLE_POWER_BEFORE_W] = before
        figures[names.IDLE_POWER_AFTER_W] = after
        figures[names.IDLE_POWER_W] = Figure(
            mean((context.value, after.value)), context.reason or after.reason
        )
    return figures


def _evidence(
    record: RunRecord, figures: Mapping[str, Figure], incomplete: str
) -> validity.Evidence:
    steady = [device for epoch in record.whole_steady for device in epoch.reading.devices]
    seen = [device for epoch in record.epochs for device in epoch.reading.devices]
    throttled: dict[str, float] = {}
    for device in steady:
        for reason, share in (device.throttled or {}).items():
            throttled[reason] = max(share, throttled.get(reason, 0.0))
    processes = [d.processes for d in seen if not math.isnan(d.processes)]
    disagreements = [span.unexplained_disagreement for span in record.steady_spans]
    return validity.Evidence(
        # This process has a context on the board, so one of those found is itself; in a container
        # its id there is not the one it knows.
        other_processes=max(0.0, max(processes) - 1) if processes else NAN,
        throttled=throttled if any(d.throttled is not None for d in steady) else None,
        start_temperature_c=figures[names.START_TEMPERATURE_C].value,
        sm_clock_mhz=figures[names.STEADY_SM_CLOCK_MHZ].value,
        disagreement=max((d for d in disagreements if not math.isnan(d)), default=NAN),
        steady_window_s=figures[names.STEADY_WINDOW_S].value,
        min_window_s=record.min_window_s,
        incomplete=incomplete,
        lost=record.lost,
        steady_epochs=len(record.steady),
        shared_mig=sum(max(0, len(board.instances) - 1) for board in record.boards),
        device_mismatch=record.device_mismatch,
    )


def _all_readings(record: RunRecord) -> list[EnergyReading]:
    blocks = (*record.epochs, *record.validations)
    return [*record.totals, *(e.reading for e in blocks), *record.phases]
