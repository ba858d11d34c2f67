"""Whether a run's energy can be compared with that of others: each doubt is a reason in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

MAX_DISAGREEMENT = 0.02
# Leakage grows with temperature: the same work takes more energy on a hot board. Idle boards of
# servers rest between 25 and 45 degrees.
MAX_START_TEMPERATURE_C = 55.0
MAX_CLOCK_DEVIATION = 0.05


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The clock of a run's steady state, and what can have lowered it.

    Attributes:
        sm_mhz: The metric ``steady_sm_clock_mhz``; NaN if it is not known.
        power_capped: Share of its readings in which the power limit held it; NaN if not known.
        power_limit_w: What the board is held to, as the tag ``gpu_power_limit_w`` has it.
    """

    sm_mhz: float
    power_capped: float = math.nan
    power_limit_w: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a run saw of its measuring conditions; NaN or ``None`` for what it could not see.

    Attributes:
        other_processes: Most processes beside this one seen on one of its GPUs.
        throttled: Reason -> share of the steady readings that gave it.
        start_temperature_c: Of the hottest GPU before the run.
        sm_clock_mhz: Mean over the steady epochs.
        disagreement: Of counter and integral over the steady state, as a fraction, beyond what the
            resolution of the one and the lag of the other explain.
        steady_window_s: Length of the steady epochs.
        min_window_s: What it should be at least.
        incomplete: Why a part of the run was not measured; empty if all was.
        lost: What says that not only work was done in a part of the run, in words.
        steady_epochs: How many epochs are the steady state.
        shared_mig: MIG instances on the measured boards beside the one in use.
        device_mismatch: How the GPUs of the framework and of NVML differ; empty if they agree.
    """

    other_processes: float = math.nan
    throttled: Mapping[str, float] | None = None
    start_temperature_c: float = math.nan
    sm_clock_mhz: float = math.nan
    disagreement: float = math.nan
    steady_window_s: float = math.nan
    min_window_s: float = 0.0
    incomplete: str = ""
    lost: tuple[str, ...] = ()
    steady_epochs: int = 0
    shared_mig: int = 0
    device_mismatch: str = ""


def reasons(evidence: Evidence) -> tuple[str, ...]:
    """Return why the measurement should not be trusted; empty if nothing speaks against it.

    Comparisons with NaN are false: what was not seen is not held against a run, and
    :func:`unchecked` tells it.
    """
    found: list[str] = []
    if evidence.incomplete:
        found.append(f"incomplete: {evidence.incomplete}")
    if evidence.device_mismatch and evidence.device_mismatch != evidence.incomplete:
        found.append(evidence.device_mismatch)
    found += evidence.lost
    if evidence.other_processes > 0:
        found.append(f"{evidence.other_processes:.0f} other processes on the GPU")
    if evidence.shared_mig > 0:
        found.append(
            f"{evidence.shared_mig} other MIG instances on the board, whose energy is counted too"
        )
    for reason, share in (evidence.throttled or {}).items():
        found.append(f"throttled: {reason} in {share:.0%} of the readings")
    if evidence.start_temperature_c > MAX_START_TEMPERATURE_C:
        found.append(
            f"hot start: {evidence.start_temperature_c:.0f} C, above {MAX_START_TEMPERATURE_C:.0f}"
        )
    if evidence.disagreement > MAX_DISAGREEMENT:
        found.append(
            f"counter and integral disagree by {evidence.disagreement:.1%}, "
            f"above {MAX_DISAGREEMENT:.0%}"
        )
    if evidence.steady_window_s < evidence.min_window_s:
        found.append(
            f"steady window of {evidence.steady_window_s:.1f} s, "
            f"shorter than {evidence.min_window_s:.1f} s"
        )
    return tuple(found)


def unchecked(evidence: Evidence) -> tuple[str, ...]:
    """Return which of the rules for a GPU could not be checked for want of a reading."""
    rules = {
        "other processes": math.isnan(evidence.other_processes),
        "throttling": evidence.throttled is None,
        "start temperature": math.isnan(evidence.start_temperature_c),
        "clocks": math.isnan(evidence.sm_clock_mhz),
        "counter against integral": math.isnan(evidence.disagreement),
        # By a single one nobody can tell.
        "steady state": evidence.steady_epochs == 1,
    }
    return tuple(rule for rule, lacks in rules.items() if lacks)


def clock_reason(run: Clock, baseline: Clock) -> str:
    """Return why a run's clock forbids to compare it with its baseline; empty if it does not.

    A clock is not held against a run if the load has set it: a board at its power limit lowers the
    clock until the load fits. As no clock is below 0, readings at the limit lower a mean by no more
    than their share of it; a fall that is greater has another cause. The same goes for a baseline
    at the limit and a run with a higher clock. The limit must be the same, because a board with
    another one is set differently.

    A run alone does not know the baseline's clock: whoever has both asks. A clock that is not known
    is not held against the run; readings at the limit that are not known excuse nothing.
    """
    deviation = run.sm_mhz / baseline.sm_mhz - 1 if baseline.sm_mhz else math.nan
    if not abs(deviation) > MAX_CLOCK_DEVIATION:
        return ""
    lower, higher = (run, baseline) if deviation < 0 else (baseline, run)
    same_limit = run.power_limit_w == baseline.power_limit_w
    if same_limit and 1 - lower.sm_mhz / higher.sm_mhz <= lower.power_capped:
        return ""
    limits = f", at a power limit of {run.power_limit_w} W instead of {baseline.power_limit_w} W"
    return (
        f"clocks: {run.sm_mhz:.0f} MHz is {deviation:+.0%} from the baseline's "
        f"{baseline.sm_mhz:.0f} MHz{'' if same_limit else limits}"
    )
