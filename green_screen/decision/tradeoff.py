"""What energy buys: Pareto front, energy to an accuracy, and its price."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.power.emissions import check_country
from green_screen.statistics.responses import MEASURED_TASK, UsableRuns, exclusion_reasons

J_PER_KWH = 3.6e6


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
    # Where no run has a figure the mapped column has the type of the names, not of the figures.
    table["epoch"] = table["run_id"].map(first["epoch"]).astype("float64")
    sum_j = table["run_id"].map(first["sum_j"]).astype("float64")
    table["energy_j"] = runs[names.SETUP_ENERGY_J] + sum_j
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
        search_kwh: What halving searches among the campaigns took; NaN if there is none.
        full_kwh: What full training of all their runs would have taken, a forecast.
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
    search_kwh: float = math.nan
    full_kwh: float = math.nan


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
    total = runs[names.ENERGY_TOTAL_J].fillna(_column(runs, names.TRAINED_ENERGY_J))
    for beside in (names.FURTHER_ENERGY_J, names.ENERGY_LOST_J):
        total = total + _column(runs, beside).fillna(0.0)
    total = total.fillna(_column(runs, names.SCREENING_ENERGY_J))
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


def _column(runs: pd.DataFrame, name: str) -> pd.Series[float]:
    return runs[name] if name in runs else pd.Series(math.nan, index=runs.index)


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
