"""Is the model fit to be believed: residuals, replicates, drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.diagnostic import het_breuschpagan

from green_screen import names
from green_screen.results.frame import configurations
from green_screen.statistics.coding import Matrix

# Where runs share a level and a drift: what was before them does not carry over to elsewhere.
PLACE = ["campaign", "machine"]

# scipy's Shapiro-Wilk p-value is not accurate above this many values.
_SHAPIRO_MAX = 5000

RESIDUAL_COLUMNS = (
    "run_id",
    "run_name",
    "position",
    "fitted",
    "observed",
    "residual",
    "studentized",
    "leverage",
    "cooks_distance",
)


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """How well the model fits the runs it was fitted to. Figures that do not exist are NaN.

    Attributes:
        n_runs: Runs of the fit.
        n_parameters: Rank of the model matrix.
        residual_df: Residual degrees of freedom.
        r2: In sample.
        r2_adjusted: In sample, for the number of parameters.
        residual_sd_percent: Residual standard deviation of the log response, as percent of energy.
        condition_number: Of the model matrix with columns of unit length (Belsley, Kuh and Welsch,
            Regression Diagnostics, 1980); above 30 it says that terms are hard to tell apart, and
            it is infinite if some parameters cannot be told apart at all.
        shapiro_p: Shapiro-Wilk: small if residuals are not normal. NaN above 5,000 runs.
        skewness: Of the residuals, 0 if normal.
        excess_kurtosis: Of the residuals, 0 if normal.
        breusch_pagan_p: Small if the spread of residuals changes with the levels.
        durbin_watson: In run order: about 2 if neighbours are unrelated, below 2 if alike. NaN if
            no runs are neighbours.
        max_cooks_distance: The strongest influence of one run on the coefficients.
        lack_of_fit_p: Small if configurations differ by more than replicates do, so that the
            model lacks terms. NaN without replicates.
    """

    n_runs: int
    n_parameters: int
    residual_df: int
    r2: float
    r2_adjusted: float
    residual_sd_percent: float
    condition_number: float
    shapiro_p: float
    skewness: float
    excess_kurtosis: float
    breusch_pagan_p: float
    durbin_watson: float
    max_cooks_distance: float
    lack_of_fit_p: float


@dataclass(frozen=True, kw_only=True)
class BaselineNoise:
    """What the replicated baseline says about noise and drift. Ratios are multiplicative.

    Attributes:
        n_replicates: Usable baseline runs.
        n_drifts: Campaigns and machines in them that each have a level and a drift of their own.
        noise_percent: Standard deviation of their log response around those, as percent.
        noise_low_percent: Lower end of its interval (chi squared).
        noise_high_percent: Upper end.
        drift_ratio: Response at a campaign's last position over that at its first, the geometric
            mean of the drifts; NaN if not estimable.
        drift_low: Lower end of its interval.
        drift_high: Upper end.
        drift_p: Small if there is drift.
    """

    n_replicates: int
    n_drifts: int
    noise_percent: float
    noise_low_percent: float
    noise_high_percent: float
    drift_ratio: float
    drift_low: float
    drift_high: float
    drift_p: float


def diagnose(fitted: Any, matrix: Matrix, runs: pd.DataFrame) -> tuple[Diagnostics, pd.DataFrame]:
    """Return the diagnostics and one row a run.

    Returns:
        The second has :data:`RESIDUAL_COLUMNS`: ``fitted`` and ``observed`` in the response's unit,
        ``residual`` of its log; ``studentized`` and ``cooks_distance`` are NaN for a run that alone
        decides a parameter.
    """
    residual = np.asarray(fitted.resid)
    influence = fitted.get_influence()
    leverage = np.asarray(influence.hat_matrix_diag)
    alone = leverage > 1 - 1e-8
    with np.errstate(divide="ignore", invalid="ignore"):
        studentized = np.where(alone, np.nan, influence.resid_studentized_internal)
        cooks = np.where(alone, np.nan, influence.cooks_distance[0])
    observed = np.asarray(fitted.model.endog)
    table = runs[["run_id", "run_name", "position"]].assign(
        fitted=np.exp(np.asarray(fitted.fittedvalues)),
        observed=np.exp(observed),
        residual=residual,
        studentized=studentized,
        leverage=leverage,
        cooks_distance=cooks,
    )
    n, rank = matrix.shape[0], round(fitted.df_model + 1)
    summary = Diagnostics(
        n_runs=n,
        n_parameters=rank,
        residual_df=n - rank,
        r2=float(fitted.rsquared),
        r2_adjusted=float(fitted.rsquared_adj),
        residual_sd_percent=percent(float(np.sqrt(fitted.scale))),
        condition_number=condition_number(matrix),
        shapiro_p=float(stats.shapiro(residual).pvalue) if n <= _SHAPIRO_MAX else np.nan,
        skewness=float(stats.skew(residual)),
        excess_kurtosis=float(stats.kurtosis(residual)),
        breusch_pagan_p=breusch_pagan_p(residual, matrix, rank),
        durbin_watson=durbin_watson(residual, runs),
        max_cooks_distance=float(np.nanmax(cooks)),
        lack_of_fit_p=lack_of_fit_p(observed, residual, configurations(runs), n - rank),
    )
    return summary, table


def condition_number(matrix: Matrix) -> float:
    """Return the largest over the smallest singular value, columns scaled to length 1.

    Infinite if the matrix lacks rank.
    """
    norms = np.linalg.norm(matrix, axis=0)
    singular = np.linalg.svd(matrix / np.where(norms > 0, norms, 1.0), compute_uv=False)
    lacks_rank = singular[-1] <= 1e-6 * singular[0]
    return float("inf") if lacks_rank else float(singular[0] / singular[-1])


def breusch_pagan_p(residual: Matrix, matrix: Matrix, rank: int) -> float:
    """Return the p-value of the Breusch-Pagan test, studentized by Koenker.

    Koenker, Journal of Econometrics 17 (1981) 107-112. The p-value of statsmodels takes each column
    for a degree of freedom, also those that depend on others.
    """
    statistic = het_breuschpagan(residual, matrix)[0]
    return float(stats.chi2.sf(statistic, rank - 1))


def durbin_watson(residual: Matrix, runs: pd.DataFrame) -> float:
    """Return the Durbin-Watson statistic of neighbours in run order: one campaign, one machine.

    Durbin and Watson, Biometrika 37 (1950) 409-428: the sum of n - 1 squared differences over that
    of n squares. With several places there are fewer differences, and their sum is raised to as
    many, so that 2 stays the value of unrelated neighbours. NaN without neighbours.
    """
    table = runs[[*PLACE, "position"]].assign(residual=residual)
    steps = table.sort_values("position", kind="stable").groupby(PLACE)["residual"].diff()
    return float((steps**2).mean() * (len(residual) - 1) / (residual @ residual))


def lack_of_fit_p(
    observed: Matrix, residual: Matrix, configuration: pd.Series[str], residual_df: int
) -> float:
    """Return the p-value of the lack-of-fit test against the pure error of replicates.

    Draper and Smith, Applied Regression Analysis, section 2.1. NaN without replicates.
    """
    groups = pd.Series(observed).groupby(configuration.to_numpy())
    pure = float(((observed - groups.transform("mean")) ** 2).sum())
    pure_df = len(observed) - groups.ngroups
    lack_df = residual_df - pure_df
    if pure_df < 1 or lack_df < 1 or pure <= 0:
        return float("nan")
    lack = max(float(residual @ residual) - pure, 0.0)
    return float(stats.f.sf((lack / lack_df) / (pure / pure_df), lack_df, pure_df))


def baseline_noise(runs: pd.DataFrame, metric: str, alpha: float) -> BaselineNoise | None:
    """Estimate noise and drift from the baseline's replicates; ``None`` with fewer than three.

    Each machine in each campaign has its own level and, with three runs at different positions, its
    own linear drift over the campaign, so that neither counts as noise.
    """
    baseline = runs[runs["kind"] == names.KIND_BASELINE]
    if len(baseline) < 3:
        return None
    y = np.log(baseline[metric].to_numpy(dtype=np.float64))
    positions = runs.groupby("campaign")["position"]
    first, last = positions.transform("min"), positions.transform("max")
    progress = ((runs["position"] - first) / (last - first))[baseline.index].to_numpy()
    place = baseline.groupby(PLACE).ngroup().to_numpy()
    levels = [(place == number).astype(np.float64) for number in np.unique(place)]
    drifts = [
        np.where(level > 0, progress, 0.0)
        for level in levels
        if len(np.unique(progress[level > 0])) >= 3 and np.isfinite(progress[level > 0]).all()
    ]
    matrix = np.column_stack([*levels, *drifts])
    inverse = np.linalg.pinv(matrix.T @ matrix)
    coefficients = inverse @ matrix.T @ y
    df = len(y) - matrix.shape[1]
    if df < 1:
        return None
    residual = y - matrix @ coefficients
    variance = float(residual @ residual) / df
    low, high = df * variance / stats.chi2.ppf([1 - alpha / 2, alpha / 2], df)
    mean_drift = np.zeros(matrix.shape[1])
    mean_drift[len(levels) :] = 1 / max(len(drifts), 1)
    slope = float(mean_drift @ coefficients) if drifts else np.nan
    error = float(np.sqrt(variance * (mean_drift @ inverse @ mean_drift)))
    half = float(stats.t.ppf(1 - alpha / 2, df)) * error
    return BaselineNoise(
        n_replicates=len(y),
        n_drifts=len(drifts),
        noise_percent=percent(np.sqrt(variance)),
        noise_low_percent=percent(np.sqrt(low)),
        noise_high_percent=percent(np.sqrt(high)),
        drift_ratio=float(np.exp(slope)),
        drift_low=float(np.exp(slope - half)),
        drift_high=float(np.exp(slope + half)),
        drift_p=float(2 * stats.t.sf(abs(slope) / error, df)) if error > 0 else np.nan,
    )


def percent(sd_log: float) -> float:
    """Return the coefficient of variation, in percent, of a log-normal quantity.

    sqrt(exp(s^2) - 1); Limpert, Stahel and Abbt, BioScience 51 (2001) 341-352.
    """
    return float(100.0 * np.sqrt(np.expm1(sd_log**2)))
