"""Effects of levels as ratios: how many times the reference's energy a level takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from green_screen.statistics.coding import MOMENTUM, Matrix, factor_column, nested_name
from green_screen.statistics.estimators import LeastSquares
from green_screen.statistics.model_matrix import Design

EFFECT_COLUMNS = (
    "factor",
    "within",
    "level",
    "reference",
    "ratio",
    "ci_low",
    "ci_high",
    "p",
    "n_runs",
    "is_reference",
)

COVARIATE_COLUMNS = ("covariate", "column", "span", "ratio", "ci_low", "ci_high", "p")


def effects_table(
    design: Design, fitted: Any, regression: LeastSquares, runs: pd.DataFrame, alpha: float
) -> pd.DataFrame:
    """Return the marginal effect of each level against its factor's reference.

    Args:
        design: The model's terms.
        fitted: statsmodels results of the log response on the design's matrix.
        regression: The same fit by the normal equations: it knows what is estimable.
        runs: The runs of the fit.
        alpha: 1 - alpha is the level of the intervals, which are not adjusted for their number.

    Returns:
        Columns :data:`EFFECT_COLUMNS`. ``ratio`` is the level's mean response over the reference's
        with all other factors averaged: those in an interaction with it over the levels that
        occur together with both. For momentum, ``within`` names the optimizer. The
        reference's own row has ratio 1 and no interval; a ratio that these runs cannot estimate
        is NaN.
    """
    rows, contrasts = level_contrasts(design, runs)
    return _ratios(rows, contrasts, fitted, regression, alpha)


def level_contrasts(
    design: Design, runs: pd.DataFrame
) -> tuple[list[dict[str, Any]], list[Matrix]]:
    """Return each level with its reference, and the contrast of the coefficients between them.

    Returns:
        Rows with ``factor, within, level, reference, n_runs``, and for each the difference of the
        marginal rows of the level and of the reference.
    """
    rows: list[dict[str, Any]] = []
    contrasts: list[Matrix] = []
    for term in design.terms:
        if term.kind == "main":
            nests: tuple[str, ...] = ("",)
        elif term.kind == "nested":
            nests = design.nests()
        else:
            continue
        for nest in nests:
            factor = MOMENTUM if nest else term.factors[0]
            coding = design.codings[nested_name(nest) if nest else factor]
            fixed = {"optimizer": nest} if nest else {}
            inside = runs[runs[factor_column("optimizer")] == nest] if nest else runs
            counts = inside[factor_column(factor)].value_counts()
            for level in coding.levels:
                rows.append(
                    {
                        "factor": factor,
                        "within": f"optimizer={nest}" if nest else "",
                        "level": level,
                        "reference": coding.reference,
                        "n_runs": int(counts.get(level, 0)),
                    }
                )
                shared = _shared_levels(design, factor, level, coding.reference, runs)
                start = design.marginal_row({**fixed, factor: coding.reference}, shared)
                contrasts.append(design.marginal_row({**fixed, factor: level}, shared) - start)
    return rows, contrasts


def simple_effects_table(
    design: Design, fitted: Any, regression: LeastSquares, runs: pd.DataFrame, alpha: float
) -> pd.DataFrame:
    """Return the effect of each level at each batch size, for the interactions in the model.

    The columns are those of :func:`effects_table`; ``within`` names the batch size.
    """
    rows: list[dict[str, Any]] = []
    contrasts: list[Matrix] = []
    for term in design.terms:
        if term.kind != "interaction":
            continue
        outer, factor = term.factors
        coding = design.codings[factor]
        for outer_level in design.codings[outer].levels:
            inside = runs[runs[factor_column(outer)] == outer_level]
            counts = inside[factor_column(factor)].value_counts()
            start = design.marginal_row({outer: outer_level, factor: coding.reference})
            for level in coding.levels:
                rows.append(
                    {
                        "factor": factor,
                        "within": f"{outer}={outer_level}",
                        "level": level,
                        "reference": coding.reference,
                        "n_runs": int(counts.get(level, 0)),
                    }
                )
                contrasts.append(design.marginal_row({outer: outer_level, factor: level}) - start)
    return _ratios(rows, contrasts, fitted, regression, alpha)


def covariates_table(design: Design, fitted: Any, alpha: float) -> pd.DataFrame:
    """Return the effect of going from a covariate's lowest value to its highest.

    Columns ``covariate, column, span, ratio, ci_low, ci_high, p``; ``span`` in the column's unit.
    """
    index = design.columns()
    rows = []
    for name, covariate in design.covariates.items():
        if name not in index:
            continue
        j = index.index(name)
        low, high = np.asarray(fitted.conf_int(alpha))[j]
        rows.append(
            {
                "covariate": name,
                "column": covariate.column,
                "span": covariate.scale,
                "ratio": float(np.exp(np.asarray(fitted.params)[j])),
                "ci_low": float(np.exp(low)),
                "ci_high": float(np.exp(high)),
                "p": float(np.asarray(fitted.pvalues)[j]),
            }
        )
    return pd.DataFrame(rows, columns=list(COVARIATE_COLUMNS))


def _shared_levels(
    design: Design, factor: str, level: str, reference: str, runs: pd.DataFrame
) -> dict[str, tuple[str, ...]]:
    """Return, for each factor in an interaction with `factor`, the levels to average over."""
    shared: dict[str, tuple[str, ...]] = {}
    for term in design.terms:
        if term.kind != "interaction" or factor not in term.factors:
            continue
        (other,) = (name for name in term.factors if name != factor)
        with_level, with_reference = (
            set(runs.loc[runs[factor_column(factor)] == value, factor_column(other)])
            for value in (level, reference)
        )
        both = with_level & with_reference
        if both:
            shared[other] = tuple(x for x in design.codings[other].levels if x in both)
    return shared


def _ratios(
    rows: list[dict[str, Any]],
    contrasts: list[Matrix],
    fitted: Any,
    regression: LeastSquares,
    alpha: float,
) -> pd.DataFrame:
    if not rows:
        return pd.DataFrame(columns=list(EFFECT_COLUMNS))
    table = pd.DataFrame(rows)
    stacked = np.vstack(contrasts)
    table["is_reference"] = table["level"] == table["reference"]
    estimate = stacked @ np.asarray(fitted.params)
    covariance = np.asarray(fitted.cov_params())
    error = np.sqrt(np.clip(np.einsum("ij,jk,ik->i", stacked, covariance, stacked), 0.0, None))
    half = stats.t.ppf(1 - alpha / 2, fitted.df_resid) * error
    known = regression.estimable(stacked)
    compared = known & ~table["is_reference"].to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(estimate / error), fitted.df_resid)
    table["ratio"] = np.where(known, np.exp(estimate), np.nan)
    table["ci_low"] = np.where(compared, np.exp(estimate - half), np.nan)
    table["ci_high"] = np.where(compared, np.exp(estimate + half), np.nan)
    table["p"] = np.where(compared, p, np.nan)
    return table[list(EFFECT_COLUMNS)]
