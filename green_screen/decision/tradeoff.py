"""What energy buys: Pareto front, energy to an accuracy, break-even of levels, and its price."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from green_screen import names
from green_screen.power.emissions import check_country
from green_screen.results.frame import EFFECTIVE
from green_screen.space import FACTOR_NAMES, TrainingConfig, resolve
from green_screen.statistics.anova import holm
from green_screen.statistics.coding import Matrix, matrix_rank
from green_screen.statistics.estimators import LeastSquares
from green_screen.statistics.model_matrix import MIN_RESIDUAL_DF, Design
from green_screen.statistics.prediction import EnergyModel
from green_screen.statistics.regression import EnergyAnalysis
from green_screen.statistics.responses import MEASURED_TASK, UsableRuns, exclusion_reasons

J_PER_KWH = 3.6e6

# Energy that a run takes once, whatever the number of epochs.
ONCE_METRICS = (names.SETUP_ENERGY_J, names.WARMUP_ENERGY_J, names.CONVERSION_ENERGY_J)

BREAK_EVEN_COLUMNS = (
    "factor",
    "level",
    "reference",
    "once_extra_j",
    "once_low_j",
    "once_high_j",
    "saved_per_epoch_j",
    "saved_low_j",
    "saved_high_j",
    "break_even_epochs",
    "epochs_low",
    "epochs_high",
)

_DRAWS = 4000


def pareto_front(
    runs: pd.DataFrame,
    *,
    accuracy: str = names.TEST_ACCURACY,
    energy: str = names.ENERGY_TOTAL_J,
) -> pd.DataFrame:
    """Return the runs that no other run beats in both accuracy and energy.

    Args:
        runs: Rows of :func:`~green_screen.results.runs.read_runs`; those that
            :func:`front_candidates` leaves out take no part.
        accuracy: The metric on the one axis, more is better.
        energy: The metric on the other, less is better.

    Returns:
        Rows of `runs`, by rising energy; each is more accurate than all before it.
    """
    candidates = front_candidates(runs, accuracy=accuracy, energy=energy).runs
    ordered = candidates.sort_values([energy, accuracy], ascending=[True, False], kind="stable")
    best_before = ordered[accuracy].cummax().shift(fill_value=-np.inf)
    front: pd.DataFrame = ordered[ordered[accuracy] > best_before]
    return front.reset_index(drop=True)


def front_candidates(
    runs: pd.DataFrame,
    *,
    accuracy: str = names.TEST_ACCURACY,
    energy: str = names.ENERGY_TOTAL_J,
) -> UsableRuns:
    """Return the runs that can be compared in accuracy and energy, and why the others cannot."""
    reason = exclusion_reasons(runs, positive=energy, known=(accuracy,))
    return UsableRuns.split(runs, reason)


def accuracy_candidates(runs: pd.DataFrame) -> UsableRuns:
    """Return the runs whose energy to an accuracy can be compared, and why the others' cannot.

    They may have trained for different numbers of epochs.
    """
    reason = exclusion_reasons(
        runs, positive=names.SETUP_ENERGY_J, known=(names.VAL_ACCURACY,), same=MEASURED_TASK
    )
    return UsableRuns.split(runs, reason)


def reaching(runs: pd.DataFrame, target: float) -> pd.DataFrame:
    """Return those of :func:`accuracy_candidates` that end at a validation accuracy or above it.

    By rising energy of the whole training.
    """
    candidates = accuracy_candidates(runs).runs
    reach = candidates[candidates[names.VAL_ACCURACY] >= target]
    return reach.sort_values(names.ENERGY_TOTAL_J, kind="stable", ignore_index=True)


def energy_to_accuracy(runs: pd.DataFrame, epochs: pd.DataFrame, target: float) -> pd.DataFrame:
    """Return the energy each run had taken when it first reached a validation accuracy.

    Args:
        runs: Rows of :func:`~green_screen.results.runs.read_runs`; those that
            :func:`accuracy_candidates` leaves out take no part.
        epochs: Rows of :func:`~green_screen.results.runs.read_epochs` of those runs.
        target: Validation accuracy to reach, in [0, 1].

    Returns:
        Columns ``run_id, run_name, reached`` (bool), ``epoch`` (from 0, NaN if not reached) and
        ``energy_j``: set-up and all epochs up to that one, validation included; NaN if the target
        was not reached or an energy is missing. By rising energy.
    """
    runs = accuracy_candidates(runs).runs
    ordered = epochs.sort_values(["run_id", "epoch"])
    # A missing energy leaves every later sum unknown.
    sums = ordered.groupby("run_id")[names.EPOCH_ENERGY_J].transform(
        lambda values: np.cumsum(values.to_numpy())
    )
    hits = ordered.assign(sum_j=sums)[ordered[names.VAL_ACCURACY] >= target]
    first = hits.groupby("run_id").first()
    table = runs[["run_id", "run_name"]].copy()
    table["reached"] = table["run_id"].isin(first.index)
    table["epoch"] = table["run_id"].map(first["epoch"]).astype("float64")
    table["energy_j"] = runs[names.SETUP_ENERGY_J] + table["run_id"].map(first["sum_j"])
    return table.sort_values("energy_j", kind="stable", ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a campaign's energy costs.

    Attributes:
        energy_kwh: Energy of all runs counted, further epochs for measurement included.
        sources: How the energies counted were obtained, each a value of
            ``names.TAG_ENERGY_SOURCE``; a sum over several of them is as good as the worst.
        country: ISO 3166-1 code of three letters.
        intensity_g_per_kwh: Carbon intensity of the country's electricity, a yearly mean.
        emissions_kg_co2eq: Energy times intensity: an estimate.
        price_per_kwh: Price of a kilowatt-hour; NaN if none was given.
        money: Energy times price; NaN if no price was given.
        currency: Unit of price and money.
        n_runs: Runs counted.
        n_missing: Runs whose energy is unknown and not counted.
    """

    energy_kwh: float
    sources: tuple[str, ...]
    country: str
    intensity_g_per_kwh: float
    emissions_kg_co2eq: float
    price_per_kwh: float
    money: float
    currency: str
    n_runs: int
    n_missing: int


def campaign_cost(
    runs: pd.DataFrame,
    *,
    country: str,
    price_per_kwh: float | None = None,
    currency: str = "EUR",
) -> Cost:
    """Return energy, emissions and money of all runs whose energy is known, failed ones included.

    Raises:
        ValueError: The country is unknown or the price is negative.
    """
    if price_per_kwh is not None and not price_per_kwh >= 0:
        raise ValueError(f"price_per_kwh must be at least 0, but got {price_per_kwh}")
    intensity = carbon_intensity_g_per_kwh(country)
    total = runs[names.ENERGY_TOTAL_J] + runs[names.FURTHER_ENERGY_J].fillna(0.0)
    total = total.fillna(runs[names.SCREENING_ENERGY_J])
    known = total.notna()
    energy_kwh = float(total[known].sum()) / J_PER_KWH if known.any() else float("nan")
    price = float("nan") if price_per_kwh is None else price_per_kwh
    return Cost(
        energy_kwh=energy_kwh,
        sources=tuple(sorted(set(runs.loc[known, "energy_source"]) - {""})),
        country=country,
        intensity_g_per_kwh=intensity,
        emissions_kg_co2eq=energy_kwh * intensity / 1000.0,
        price_per_kwh=price,
        money=energy_kwh * price,
        currency=currency,
        n_runs=int(known.sum()),
        n_missing=int((~known).sum()),
    )


def carbon_intensity_g_per_kwh(country: str) -> float:
    """Return the carbon intensity of a country's electricity in g CO2eq per kWh.

    A yearly mean from the data that CodeCarbon brings along (Our World in Data, Ember).

    Raises:
        ValueError: The code is not among those data.
    """
    check_country(country)
    from codecarbon.input import DataSource

    mix = DataSource().get_global_energy_mix_data()
    return float(mix[country]["carbon_intensity"])


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """What levels cost once and when they have paid it back.

    Attributes:
        levels: Columns :data:`BREAK_EVEN_COLUMNS`, one row a level that costs more once.
        statement: Why there are no rows; empty if there are.
        unknown: The same if nothing could be estimated; empty if it is known that there are none.
    """

    levels: pd.DataFrame
    statement: str
    unknown: str = ""


def break_even(analysis: EnergyAnalysis, config: TrainingConfig | None = None) -> BreakEven:
    """Return after how many epochs each level that costs more energy once has paid it back.

    What a run takes once (:func:`once_j`) is regressed on the main effects, in joules.
    A level is listed if it takes more than the reference, after Holm's correction for all levels.
    What it saves in each epoch is that of `config` by the energy model. The interval of the ratio
    comes from draws of both estimates.

    Args:
        analysis: An analysis of the energy per epoch.
        config: The configuration to change one level of; by default the references of all factors.

    Returns:
        The levels. ``break_even_epochs`` is infinite if the level saves nothing, and so is
        ``epochs_high`` if that cannot be ruled out. No rows, and a statement, if nothing can be
        estimated.

    Raises:
        ValueError: The analysis is of another response, or `config` has a level that its runs lack.
    """
    if analysis.response.name != "epoch":
        raise ValueError(
            f"the analysis must be of the response epoch, but got {analysis.response.name}"
        )
    model = analysis.model
    if model is None:
        return _no_break_even("no model of the energy per epoch was fitted")
    settings = {f: c.reference for f, c in model.design.codings.items() if f in FACTOR_NAMES}
    if config is not None:
        settings = resolve(config).effective.as_params()
    for factor, level in settings.items():
        coding = model.design.codings.get(factor)
        if coding is not None and level not in coding.levels:
            raise ValueError(
                f"config must have levels that the runs have, but got {factor}={level}; "
                f"they have {', '.join(coding.levels)}"
            )
    once = once_j(analysis.runs)
    known = np.isfinite(once)
    additive = Design(
        tuple(term for term in model.design.terms if term.kind != "interaction"),
        model.design.codings,
        model.design.covariates,
    )
    matrix = additive.matrix(analysis.runs[known])
    rank = matrix_rank(matrix) if len(matrix) else 0
    if len(matrix) - rank < MIN_RESIDUAL_DF:
        return _no_break_even(
            f"{' + '.join(ONCE_METRICS)} is known of {len(matrix)} of {len(once)} usable runs, "
            f"too few for {rank} parameters and {MIN_RESIDUAL_DF} residual degrees of freedom"
        )
    extra = LeastSquares().fit(matrix, once[known].to_numpy())
    rows = []
    for factor in (term.factors[0] for term in additive.terms if term.kind == "main"):
        coding = model.design.codings[factor]
        for level in coding.columns:
            start = settings | {factor: coding.reference}
            change = start | {factor: level}
            contrast = additive.marginal_row(change) - additive.marginal_row(start)
            if extra.estimable(contrast).all():
                rows.append(
                    {"factor": factor, "level": level, "reference": coding.reference}
                    | _pay_back(extra, contrast, model, start, change, analysis.alpha)
                )
    if not rows:
        return _no_break_even("the runs lack the combinations of levels that tell them apart")
    table = pd.DataFrame(rows)
    costs_more = (table["once_extra_j"] > 0) & (holm(table["p"].to_numpy()) <= analysis.alpha)
    if not costs_more.any():
        statement = (
            "No level is shown to cost more energy once than its reference, so none has anything "
            "to pay back."
        )
        return BreakEven(levels=pd.DataFrame(columns=list(BREAK_EVEN_COLUMNS)), statement=statement)
    levels = table.loc[costs_more, list(BREAK_EVEN_COLUMNS)].reset_index(drop=True)
    return BreakEven(levels=levels, statement="")


def once_j(runs: pd.DataFrame) -> pd.Series[float]:
    """Return the energy that a run takes once: set-up, warm-up and conversion.

    NaN where a part is unknown. Only post-training quantization converts; what did not happen took
    no energy, which is a true 0.
    """
    converts = runs[EFFECTIVE + "internal"] == "post_quantization"
    parts = runs[list(ONCE_METRICS)].copy()
    parts[names.CONVERSION_ENERGY_J] = parts[names.CONVERSION_ENERGY_J].where(converts, 0.0)
    return parts.sum(axis=1, skipna=False)


def _no_break_even(why: str) -> BreakEven:
    text = f"When a level has paid back what it costs once cannot be estimated: {why}."
    levels = pd.DataFrame(columns=list(BREAK_EVEN_COLUMNS))
    return BreakEven(levels=levels, statement=text, unknown=text)


def _pay_back(
    once: LeastSquares,
    once_contrast: Matrix,
    model: EnergyModel,
    start: dict[str, str],
    change: dict[str, str],
    alpha: float,
) -> dict[str, float]:
    """Compare two settings: extra energy once, saving an epoch, and their ratio with intervals."""
    rng = np.random.default_rng(0)
    before, after = model.design.marginal_row(start), model.design.marginal_row(change)
    extra_j, extra_draws = _draws(once, once_contrast, rng)
    log_j, log_draws = _draws(model.regression, np.vstack([before, after]), rng)
    if not model.regression.estimable(np.vstack([before, after])).all():
        log_j, log_draws = np.full_like(log_j, np.nan), np.full_like(log_draws, np.nan)
    saved_j = float(np.exp(log_j[0]) - np.exp(log_j[1]))
    saved_draws = np.exp(log_draws[0]) - np.exp(log_draws[1])
    error_j = np.sqrt(once_contrast @ once.gram_inverse_ @ once_contrast.T).item()
    error_j *= np.sqrt(once.residual_variance_)
    quantiles = [alpha / 2, 1 - alpha / 2]
    # A level that saves nothing never pays back; one that costs nothing has paid at once.
    epochs_draws = np.where(
        saved_draws > 0, np.clip(extra_draws[0], 0, None) / np.abs(saved_draws), np.inf
    )
    epochs_draws[np.isnan(saved_draws)] = np.nan
    once_low_j, once_high_j = np.quantile(extra_draws[0], quantiles)
    saved_low_j, saved_high_j = np.quantile(saved_draws, quantiles)
    # No interpolation: it would turn an infinite neighbour into NaN.
    low, high = np.quantile(epochs_draws, quantiles, method="inverted_cdf")
    epochs = max(float(extra_j[0]), 0.0) / saved_j if saved_j > 0 else np.inf
    return {
        "p": float(2 * stats.t.sf(abs(extra_j[0]) / error_j, once.residual_df_)),
        "once_extra_j": float(extra_j[0]),
        "once_low_j": float(once_low_j),
        "once_high_j": float(once_high_j),
        "saved_per_epoch_j": saved_j,
        "saved_low_j": float(saved_low_j),
        "saved_high_j": float(saved_high_j),
        "break_even_epochs": epochs if np.isfinite(saved_j) else np.nan,
        "epochs_low": float(low),
        "epochs_high": float(high),
    }


def _draws(
    regression: LeastSquares, rows: Matrix, rng: np.random.Generator
) -> tuple[Matrix, Matrix]:
    """Return the estimates of `rows` and draws of them (rows x draws) from their t distribution."""
    center = rows @ regression.coef_
    covariance = rows @ regression.gram_inverse_ @ rows.T * regression.residual_variance_
    draws = stats.multivariate_t(
        center, covariance, df=regression.residual_df_, allow_singular=True, seed=rng
    ).rvs(_DRAWS)
    return center, np.asarray(draws).reshape(_DRAWS, len(center)).T
