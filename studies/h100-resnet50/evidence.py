"""How good the study is: its goals, met or not, and the uncertainty of one run's joules."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from answers import NotYetError, fitted
from reading import PLANNED, STEADY_POWER_W, Block

from green_screen import names
from green_screen.power.nvml import COUNTER_UPDATE_S
from green_screen.registry.energy_service import read_models
from green_screen.report.document import count, interval, number
from green_screen.results.frame import EFFECTIVE
from green_screen.space import Space
from green_screen.statistics.coding import Matrix
from green_screen.statistics.diagnostics import BaselineNoise, baseline_noise
from green_screen.statistics.law_responses import TRAINING_J, log_response, usable_law_runs

# Half-widths of what no run tells (docs/measuring.md): a board's sensor against an external meter,
# and the time of one reading of its counter.
SENSOR_PERCENT, READING_S = 5.0, 0.004
COVERAGE_FACTOR = 2.0
BOARD_SENSOR = "board sensor"

# Value, unit, whether it meets the goal, and what it rests on.
Reached = tuple[float, str, bool, str]


def goals_table(name: str, block: Block | None) -> pd.DataFrame:
    """Return ``goals.csv`` of a block; ``None`` is one without a run."""
    so_far = "" if block is not None and block.complete else " so far"
    rows = []
    for goal, (wanted, reached) in _goals(PLANNED[name]).items():
        try:
            if block is None:
                raise NotYetError(f"no run at {PLANNED[name]} pixels yet")
            value, unit, met, detail = reached(block)
            status = ("met" if met else "not met") + so_far
        except NotYetError as lacking:
            value, unit, status, detail = np.nan, "", "not yet measured", str(lacking)
        rows.append((name, goal, wanted, value, unit, status, detail))
    columns = ["block", "goal", "wanted", "value", "unit", "status", "detail"]
    return pd.DataFrame(rows, columns=columns)


def _goals(pixels: int) -> dict[str, tuple[str, Callable[[Block], Reached]]]:
    most = 5.0 if pixels > 100 else 8.0
    found: dict[str, tuple[str, Callable[[Block], Reached]]] = {
        "every planned run has finished": ("all runs", _runs),
        "every level was run and its measurement is valid": ("no level missing", _levels),
        "the law predicts configurations left out": ("R2 >= 0.98", _held_out),
        "the law predicts new configurations": (
            f"median error <= {most:.0f} %",
            lambda block: _prospective_error(block, most),
        ),
        "its intervals hold new runs": ("90 to 99 % of runs", _coverage),
        "the baseline repeats itself": ("standard deviation <= 2 %", _baseline),
        "no negative control is a finding": ("0 findings", _controls),
        "there is no drift beside the boards": ("95 % interval holds 0 %", _drift),
    }
    if pixels > 100:
        found["the GPU works at batches of 64 and 128"] = ("> 50 % of the power limit", _works)
    return found


def _runs(block: Block) -> Reached:
    others = block.runs[block.runs["status"] != "FINISHED"]
    causes = ", ".join(f"{n} {why}" for why, n in others["failure"].value_counts().items())
    boards = block.law.runs["machine"].nunique()
    detail = f"of {block.planned}, on {count(boards, 'board')}; not finished: {causes or 'none'}"
    return float(block.n_finished), "runs", block.n_finished >= block.planned, detail


def _levels(block: Block) -> Reached:
    runs = block.law.runs
    missing = [
        f"{factor}={level}"
        for factor, levels in Space.load().levels.items()
        for level in levels
        if str(level) not in set(runs[EFFECTIVE + factor])
    ]
    return float(len(missing)), "missing", not missing, ", ".join(missing) or "none is missing"


def _held_out(block: Block) -> Reached:
    held = block.law.choice.law
    if held is None:
        raise NotYetError(f"{block.progress}: {block.law.choice.why}")
    ends = f"95 % of repeats {interval(held.r2_low, held.r2_high)}"
    return held.r2, "R2", held.r2 >= 0.98, f"{ends}; {block.law.choice.why}"


def prospective(block: Block) -> tuple[Matrix, Matrix]:
    """Return the errors in percent of the predictions of new runs, and which intervals hold them.

    Raises:
        NotYetError: The block has no committed coefficients, or no runs that came after them.
    """
    if not block.coefficients:
        raise NotYetError(f"{block.progress}: coefficients are committed when all have finished")
    model = read_models(block.coefficients).law
    if block.new is None or model is None:
        raise NotYetError("the new configurations have not been run")
    runs = usable_law_runs(block.new.runs, TRAINING_J).runs
    fit = model.laws[TRAINING_J.name]
    rows = fit.design.rows(runs)
    error = fit.log_energy(rows) - log_response(runs, TRAINING_J)
    half = fit.half_width(rows, model.alpha, new_run=True)
    return 100 * np.abs(np.expm1(error)), np.abs(error) <= half


def _prospective_error(block: Block, most: float) -> Reached:
    error = prospective(block)[0]
    median, high = np.quantile(error, [0.5, 0.9])
    detail = f"{count(len(error), 'new run')}, 90th percentile {number(high)} %"
    return float(median), "%", median <= most, detail


def _coverage(block: Block) -> Reached:
    inside = prospective(block)[1]
    share = 100 * float(inside.mean())
    return share, "%", 90 <= share <= 99, f"{inside.sum()} of {count(len(inside), 'new run')}"


def _noise(block: Block) -> BaselineNoise | None:
    law = block.law
    return baseline_noise(law.runs, law.response.metric, law.alpha)


def _baseline(block: Block) -> Reached:
    noise = _noise(block)
    if noise is None:
        raise NotYetError(f"{block.progress}: too few repeat the baseline on one board")
    ends = interval(noise.noise_low_percent, noise.noise_high_percent)
    detail = f"{count(noise.n_replicates, 'run')} around boards and drifts, 95 % interval {ends} %"
    return noise.noise_percent, "%", noise.noise_percent <= 2, detail


def _controls(block: Block) -> Reached:
    law = block.law
    if law.controls.empty:
        raise NotYetError(f"{block.progress} are too few to test them")
    least = number(law.controls["p_holm"].min(), 2)
    detail = f"{count(len(law.controls), 'control')} tested, least p after Holm {least}"
    return float(len(law.violated)), "findings", law.violated.empty, detail


def drift(block: Block) -> tuple[float, float, float]:
    """Return the log ratio of last run to first by the law, its error, and its prior's.

    Raises:
        NotYetError: There is no law.
    """
    _, fit, _ = fitted(block)
    is_drift = np.array([name.startswith("drift ") for name in fit.design.names()])
    mean = is_drift / max(is_drift.sum(), 1)
    error = float(fit.standard_error(mean[None])[0])
    prior = fit.prior_spread * fit.noise / fit.penalty_noise  # as the fit has weighed it
    return float(mean @ fit.theta), error, float(np.linalg.norm(mean * prior))


def _drift(block: Block) -> Reached:
    """By the runs alone: information is what the law's is more than its prior's."""
    log, error, prior = drift(block)
    told = error**-2 - prior**-2
    if not told > 0:
        raise NotYetError(f"{block.progress} do not tell it")
    log, error = log * error**-2 / told, told**-0.5
    half = fitted(block)[1].t(block.law.alpha) * error
    value, low, high = 100 * np.expm1([log, log - half, log + half])
    return float(value), "%", low <= 0 <= high, f"first run to last, {low:+.1f} to {high:+.1f} %"


def _works(block: Block) -> Reached:
    runs = block.law.runs
    large = runs[runs[EFFECTIVE + "batch_size"].isin(("64", "128"))]
    share = 100 * float(large[STEADY_POWER_W].median()) / block.power_limit_w
    if not np.isfinite(share):
        raise NotYetError(f"{block.progress}: none at these batches, or no power limit")
    return share, "%", share > 50, f"median of {count(len(large), 'run')}"


_DIVISORS = {"normal": 1.0, "rectangular": np.sqrt(3.0), "triangular": np.sqrt(6.0)}


def uncertainty_table(name: str, block: Block | None) -> pd.DataFrame:
    """Return ``uncertainty.csv`` of a block: the budget of one run's joules (JCGM 100:2008).

    What is the board's cancels in the ratio of two runs on it; all else is each run's own.
    """
    given = ["component", "type", "distribution", "limit_percent", "counted", "basis"]
    table = pd.DataFrame(list(_components(block)) if block else [], columns=given)
    divisor = table["distribution"].map(_DIVISORS).astype("float64")
    one = table["limit_percent"].astype("float64") / divisor
    ratio = (np.sqrt(2.0) * one).where(table["component"] != BOARD_SENSOR, 0.0)
    table = table.assign(divisor=divisor, one_run_percent=one, ratio_percent=ratio)
    if block is not None:
        parts = table.loc[table["counted"] == "yes", ["one_run_percent", "ratio_percent"]]
        combined = np.sqrt((parts**2).sum())
        basis = "root of the sum of squares of what is counted"
        sums = [
            {"component": component, "basis": basis, **(factor * combined)}
            for component, factor in (("combined", 1.0), ("expanded, k = 2", COVERAGE_FACTOR))
        ]
        table = pd.concat([table, pd.DataFrame(sums)], ignore_index=True)
    columns = [*given[:4], "divisor", "one_run_percent", "ratio_percent", *given[4:]]
    return table[columns].assign(block=name)[["block", *columns]]


def _components(block: Block) -> Iterator[tuple[str, str, str, float, str, str]]:
    """Yield component, type, distribution, limit in percent, whether it is counted, and basis."""
    runs, noise = block.law.runs, _noise(block)
    basis = "published comparisons with external meters (arXiv 2312.02741); proportional, per board"
    yield BOARD_SENSOR, "B", "rectangular", SENSOR_PERCENT, "yes", basis
    few = f"{block.progress}: too few repeat the baseline on one board"
    if noise:
        ends = interval(noise.noise_low_percent, noise.noise_high_percent)
        few = f"{count(noise.n_replicates, 'baseline')}, 95 % interval {ends} %; holds the next 3"
    scatter = noise.noise_percent if noise else np.nan
    yield "replicates", "A", "normal", scatter, "yes" if noise else "no", few
    # Replicates differ by these too: they would count twice.
    counted = "no" if noise else "yes"
    resolution, error, window_s = (
        float(runs[metric].median())
        for metric in (
            names.WINDOW_RESOLUTION_PERCENT,
            names.WINDOW_ERROR_PERCENT,
            names.STEADY_WINDOW_S,
        )
    )
    basis = f"renewed every {COUNTER_UPDATE_S} s, both edges anywhere between; median of the runs"
    yield "counter resolution", "B", "triangular", resolution, counted, basis
    basis = f"a reading takes {READING_S} s; windows of {number(window_s)} s, the median"
    yield "window edges", "B", "triangular", 100 * READING_S / window_s, counted, basis
    basis = "standard error of a run's mean by its blocks, median of the runs"
    yield "scatter of blocks", "A", "normal", error, counted, basis
    try:
        log, error, _ = drift(block)
    except NotYetError as lacking:
        yield "drift", "A", "rectangular", np.nan, "no", str(lacking)
        return
    basis = "the law's over the campaign with its error, 2 % before any run; a run anywhere in it"
    yield "drift", "A", "rectangular", 50 * float(np.hypot(log, error)), "yes", basis
