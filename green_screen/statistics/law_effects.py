"""What each level does, twice: to the launching of a step and to the computing of an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.space import FACTOR_NAMES, IMPLEMENTED, Space
from green_screen.statistics.coding import Matrix, sort_levels
from green_screen.statistics.law import HALF, LAW_FACTORS, common_task
from green_screen.statistics.law_fit import TOLD, LawFit

# `part` is step, image, or a batch size; `told` says whether the runs tell the ratio.
RATIO_COLUMNS = ("factor", "change", "part", "ratio", "ci_low", "ci_high", "told", "n_runs")
LINE_COLUMNS = ("precision", "internal", "batch_size", "value", "low", "high")

_PRIOR_SPREAD = 1.0


def references(runs: pd.DataFrame) -> dict[str, str]:
    """Return the effective configuration that ratios are against: the most frequent baseline."""
    baselines = runs[runs["kind"] == names.KIND_BASELINE]
    if baselines.empty:
        return Space.load().baseline.as_params()
    return {f: str(baselines[EFFECTIVE + f].mode().iloc[0]) for f in FACTOR_NAMES}


def level_ratios(
    fit: LawFit | None, runs: pd.DataFrame, reference: Mapping[str, str], alpha: float
) -> pd.DataFrame:
    """Return the ratio of each level on launching, on computing, and on an image at each batch.

    Levels of one factor are changed from the reference, and half precision with XLA together,
    because that pair has an interaction.

    Returns:
        The columns of :data:`RATIO_COLUMNS`.
    """
    if fit is None:
        return pd.DataFrame(columns=list(RATIO_COLUMNS))
    batches = sort_levels("batch_size", set(runs[EFFECTIVE + "batch_size"]))
    changes = list(_changes(runs, reference))
    # Row 0 is the reference, then the changes; the same at each batch size after them.
    configs = [{**reference, **change} for _, change in [("", {}), *changes]]
    at_batches = [{**config, "batch_size": batch} for batch in batches for config in configs]
    rows = fit.design.rows(rows_at(common_task(runs), configs + at_batches))
    parts = [fit.log_step(rows), fit.log_image(rows)]
    logs, slopes = fit.log_energy(rows), fit.gradient(rows)
    n = len(configs)
    found: list[dict[str, object]] = []
    for i, (factor, change) in enumerate(changes, start=1):
        row = {
            "factor": factor,
            "change": ", ".join(f"{f}={level}" for f, level in change.items()),
            "n_runs": _having(runs, change),
        }
        for part, (values, contrasts) in zip(("step", "image"), parts, strict=True):
            contrast = contrasts[[i]] - contrasts[[0]]
            if contrast.any():
                error = float(fit.standard_error(contrast)[0])
                told = error < TOLD * _PRIOR_SPREAD
                ratio = float(values[i] - values[0])
                found.append(row | {"part": part, "log": ratio, "error": error, "told": told})
        for k, batch in enumerate(batches, start=1):
            error = float(fit.standard_error(slopes[[k * n + i]] - slopes[[k * n]])[0])
            ratio = float(logs[k * n + i] - logs[k * n])
            found.append(row | {"part": batch, "log": ratio, "error": error, "told": True})
    table = pd.DataFrame(
        found, columns=["factor", "change", "n_runs", "part", "log", "error", "told"]
    )
    half = fit.t(alpha) * table["error"]
    return table.assign(
        ratio=np.exp(table["log"]),
        ci_low=np.exp(table["log"] - half),
        ci_high=np.exp(table["log"] + half),
    )[list(RATIO_COLUMNS)]


def _having(runs: pd.DataFrame, levels: Mapping[str, str]) -> int:
    """Return how many runs have all of these levels."""
    having = [(runs[EFFECTIVE + factor] == level).to_numpy() for factor, level in levels.items()]
    return int(np.logical_and.reduce(having).sum())


def marginal_ratios(
    fit: LawFit, runs: pd.DataFrame, reference: Mapping[str, str], alpha: float
) -> pd.DataFrame:
    """Return one ratio a level on the energy of an image, the other factors averaged.

    The mean, on the log scale, over all combinations of the other factors' levels; of `precision`
    and `internal` over those of the other one that occur with the level and with the reference.

    Returns:
        Columns ``factor, level, ratio, ci_low, ci_high``, for batch size and the factors of the
        law; without the references.
    """
    factors = ("batch_size", *LAW_FACTORS)
    seen = {f: sort_levels(f, set(runs[EFFECTIVE + f])) for f in factors}
    grid = pd.MultiIndex.from_product(list(seen.values()), names=factors).to_frame(index=False)
    rows = fit.design.rows(
        grid.add_prefix(EFFECTIVE).assign(**common_task(runs), campaign="", position=np.nan)
    )
    logs, slopes = fit.log_energy(rows), fit.gradient(rows)

    def mean(inside: pd.Series[bool]) -> tuple[float, Matrix]:
        at = inside.to_numpy()
        return float(logs[at].mean()), slopes[at].mean(axis=0, keepdims=True)

    found = []
    for factor in factors:
        for level in seen[factor]:
            if level == reference[factor] or reference[factor] not in seen[factor]:
                continue
            shared = _with_both(grid, runs, factor, (level, reference[factor]))
            value, row = mean(shared & (grid[factor] == level))
            start, start_row = mean(shared & (grid[factor] == reference[factor]))
            half = fit.t(alpha) * float(fit.standard_error(row - start_row)[0])
            ends = np.exp(value - start + np.array([0.0, -half, half]))
            found.append((factor, level, *ends))
    return pd.DataFrame(found, columns=["factor", "level", "ratio", "ci_low", "ci_high"])


def _with_both(
    grid: pd.DataFrame, runs: pd.DataFrame, factor: str, levels: tuple[str, str]
) -> pd.Series[bool]:
    """Return which combinations have a partner's level that occurs with both levels of a factor."""
    partner = {"precision": "internal", "internal": "precision"}.get(factor)
    if partner is None:
        return pd.Series(True, index=grid.index)
    one, other = (
        set(runs.loc[runs[EFFECTIVE + factor] == level, EFFECTIVE + partner]) for level in levels
    )
    # Levels that never met share no partner's: the law's ratio is then that over all of them.
    return grid[partner].isin((one & other) or set(grid[partner]))


def law_lines(
    fit: LawFit, runs: pd.DataFrame, reference: Mapping[str, str], alpha: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the law as lines: the response per image against the batch size.

    Returns:
        Columns of :data:`LINE_COLUMNS`, with the band of the mean, for each precision x internal
        that occurs, at the reference's other levels; and their crossovers, where launching and
        computing cost the same: columns ``precision, internal, batch_size, low, high, value``.
    """
    sizes = np.array(sorted({int(level) for level in runs[EFFECTIVE + "batch_size"]}))
    batches = np.geomspace(sizes.min(), sizes.max(), 40)
    task = common_task(runs)
    # Quantized afterwards a network trains as it does without.
    internals = runs[EFFECTIVE + "internal"].replace("post_quantization", "None")
    occurring = set(zip(runs[EFFECTIVE + "precision"], internals, strict=True))
    ordered = [(a, b) for a in IMPLEMENTED["precision"] for b in IMPLEMENTED["internal"]]
    lines, crossings = [], []
    for precision, internal in (cell for cell in ordered if cell in occurring):
        cell = {**reference, "precision": precision, "internal": internal}
        frame = rows_at(task, [{**cell, "batch_size": repr(float(b))} for b in batches])
        rows = fit.design.rows(frame)
        logs, half = fit.log_energy(rows), fit.half_width(rows, alpha, new_run=False)
        lines.append(
            pd.DataFrame(
                {
                    "precision": precision,
                    "internal": internal,
                    "batch_size": batches,
                    "value": np.exp(logs),
                    "low": np.exp(logs - half),
                    "high": np.exp(logs + half),
                }
            )
        )
        one = fit.design.rows(rows_at(task, [cell]))
        (launch, by_launch), (compute, by_compute) = fit.log_step(one), fit.log_image(one)
        at = float((launch - compute)[0])
        width = fit.t(alpha) * float(fit.standard_error(by_launch - by_compute)[0])
        here = fit.design.rows(rows_at(task, [{**cell, "batch_size": repr(float(np.exp(at)))}]))
        crossings.append(
            (
                precision,
                internal,
                np.exp(at),
                np.exp(at - width),
                np.exp(at + width),
                float(np.exp(fit.log_energy(here)[0])),
            )
        )
    columns = ["precision", "internal", "batch_size", "low", "high", "value"]
    return (
        pd.concat(lines, ignore_index=True)[list(LINE_COLUMNS)],
        pd.DataFrame(crossings, columns=columns),
    )


def rows_at(task: Mapping[str, Any], configs: list[dict[str, str]]) -> pd.DataFrame:
    """Return configurations as runs of a task (:func:`~.law.common_task`), on the average board."""
    frame = pd.DataFrame(configs).add_prefix(EFFECTIVE)
    return frame.assign(**task, campaign="", position=np.nan)


def _changes(
    runs: pd.DataFrame, reference: Mapping[str, str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield factor and changed levels."""
    for factor in LAW_FACTORS:
        for level in sort_levels(factor, set(runs[EFFECTIVE + factor])):
            same = level == "post_quantization" and reference[factor] == "None"
            if level != reference[factor] and not same:
                yield factor, {factor: level}
    xla = runs[EFFECTIVE + "internal"] == "jit_compilation"
    for precision in HALF:
        if (xla & (runs[EFFECTIVE + "precision"] == precision)).any():
            yield "precision x internal", {"precision": precision, "internal": "jit_compilation"}
