"""The final comparison: what the selected configuration saves against the baseline.

The runs come in pairs, one of each configuration, next to each other in time and with the same
seed: what drifts, and which images are in the test part, is then the same for both of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from green_screen import names

SELECTED = "selected"
BASELINE = "baseline"

# What is compared: metric -> what it is and its unit.
QUANTITIES: dict[str, tuple[str, str]] = {
    names.ENERGY_TOTAL_J: ("energy of the whole training", "J"),
    names.ENERGY_PER_EPOCH_J: ("energy per epoch", "J"),
    names.ENERGY_PER_1K_IMAGES_J: ("training energy per 1,000 images", "J"),
    names.DURATION_S: ("duration of the whole training", "s"),
    names.EMISSIONS_TOTAL_KG_CO2EQ: ("emissions, estimate", "kg CO2eq"),
}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An estimate with its interval; the interval is NaN if fewer than two pairs are usable.

    Attributes:
        value: The estimate.
        low: Lower end of the interval.
        high: Upper end.
        pairs: Pairs of runs that it rests on.
    """

    value: float
    low: float
    high: float
    pairs: int

    @property
    def has_interval(self) -> bool:
        """Whether there were enough pairs for an interval."""
        return bool(np.isfinite(self.low))


@dataclass(frozen=True, kw_only=True)
class FinalComparison:
    """The final runs and what they say.

    Attributes:
        runs: Rows of :func:`green_screen.results.runs.to_frame` with the columns ``role``
            (``baseline`` or ``selected``) and ``pair`` (from 0).
        energy_metric: The energy of the headline.
        ratios: Metric of :data:`QUANTITIES` -> selected over baseline.
        means: Metric -> role -> arithmetic mean over the same pairs, that of the test accuracy too;
            NaN without any.
        accuracy_difference: Test accuracy, selected minus baseline, as a fraction.
        statements: What is missing, and why.
    """

    runs: pd.DataFrame
    energy_metric: str
    ratios: dict[str, Estimate]
    means: dict[str, dict[str, float]]
    accuracy_difference: Estimate
    statements: tuple[str, ...]

    @property
    def energy_ratio(self) -> Estimate:
        """Selected over baseline of the headline's energy."""
        return self.ratios[self.energy_metric]

    @property
    def source(self) -> str:
        """How the energies of the final runs were obtained; empty if that is not known."""
        sources = set(self.runs["energy_source"]) - {""}
        # Of several, an estimate is what the whole must be called.
        return (
            names.SOURCE_ESTIMATE if names.SOURCE_ESTIMATE in sources else min(sources, default="")
        )

    def of(self, role: str) -> pd.DataFrame:
        """Return the finished runs of a role."""
        return self.runs[(self.runs["role"] == role) & (self.runs["status"] == "FINISHED")]


def compare(
    runs: pd.DataFrame, *, energy_metric: str = names.ENERGY_TOTAL_J, alpha: float = 0.05
) -> FinalComparison:
    """Compare the two configurations by their pairs of final runs.

    A pair counts for a quantity if both of its runs finished with a valid measurement and have it;
    and for anything but the duration if both energies come from one source. An accuracy needs no
    measurement. Ratios are compared on the log scale: the geometric mean of the pairs' ratios with
    the paired t interval, transformed back.
    Accuracies are compared by the mean of the pairs' differences with the paired t interval.

    Args:
        runs: Final runs with the columns ``role`` and ``pair``.
        energy_metric: The energy of the headline, a key of :data:`QUANTITIES`.
        alpha: The intervals have the level 1 - alpha.
    """
    finished = runs["status"] == "FINISHED"
    valid = finished & (runs["measurement_valid"].str.lower() != "false")
    statements = []
    if not finished.all():
        failed = ", ".join(runs.loc[~finished, "run_name"])
        statements.append(
            f"{(~finished).sum()} of {len(runs)} final runs did not finish: {failed}."
        )
    if (finished & ~valid).any():
        bad = runs[finished & ~valid]
        reasons = "; ".join(sorted(set(bad["invalid_reason"]) - {""})) or "no reason recorded"
        statements.append(
            f"{len(bad)} of {len(runs)} final runs have an invalid measurement and do not count "
            f"for energies: {reasons}."
        )
    mixed = valid & _of_mixed_sources(runs[valid]).reindex(runs.index, fill_value=False)
    if mixed.any():
        sources = " and ".join(sorted(set(runs.loc[mixed, "energy_source"])))
        statements.append(
            f"{mixed.sum()} of {len(runs)} final runs do not count for energies, because those of "
            f"their pair come from different sources ({sources})."
        )
    ratios, means = {}, {}
    for metric in QUANTITIES:
        usable = valid & (runs[metric] > 0)
        if metric != names.DURATION_S:
            usable &= ~mixed
        pairs = _pairs(runs[usable], metric)
        means[metric] = _means(pairs)
        logs = np.log(pairs[SELECTED].to_numpy() / pairs[BASELINE].to_numpy())
        estimate = paired_t(logs, alpha)
        ratios[metric] = Estimate(
            value=float(np.exp(estimate.value)),
            low=float(np.exp(estimate.low)),
            high=float(np.exp(estimate.high)),
            pairs=estimate.pairs,
        )
    accuracy = _pairs(runs[finished], names.TEST_ACCURACY)
    means[names.TEST_ACCURACY] = _means(accuracy)
    difference = paired_t((accuracy[SELECTED] - accuracy[BASELINE]).to_numpy(), alpha)
    if set(runs["role"]) == {BASELINE, SELECTED}:
        compared = {"energy": ratios[energy_metric], "test accuracy": difference}
        statements += [_too_few(what, e.pairs) for what, e in compared.items() if e.pairs < 2]
    return FinalComparison(
        runs=runs,
        energy_metric=energy_metric,
        ratios=ratios,
        means=means,
        accuracy_difference=difference,
        statements=tuple(statements),
    )


def paired_t(differences: np.ndarray[tuple[int], np.dtype[np.float64]], alpha: float) -> Estimate:
    """Return the mean of differences and its t interval; NaN where there are too few.

    Student, Biometrika 6 (1908) 1-25.
    """
    n = len(differences)
    mean = float(differences.mean()) if n else float("nan")
    half = float("nan")
    if n >= 2:
        error = float(differences.std(ddof=1)) / np.sqrt(n)
        half = float(stats.t.ppf(1 - alpha / 2, n - 1)) * error
    return Estimate(value=mean, low=mean - half, high=mean + half, pairs=n)


def _pairs(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return one row a complete pair, columns ``baseline`` and ``selected``."""
    table = runs.pivot(index="pair", columns="role", values=metric)
    return table.reindex(columns=[BASELINE, SELECTED]).dropna()


def _means(pairs: pd.DataFrame) -> dict[str, float]:
    return {role: float(pairs[role].mean()) for role in (BASELINE, SELECTED)}


def _too_few(what: str, pairs: int) -> str:
    if pairs == 0:
        return f"No pair of final runs counts for the {what}: its difference is not known."
    return (
        f"One pair of final runs counts for the {what}, and an interval needs at least 2: its "
        "difference may be noise."
    )


def _of_mixed_sources(runs: pd.DataFrame) -> pd.Series[bool]:
    """Return whether the energies of a run's pair come from more than one source."""
    return runs.groupby("pair")["energy_source"].transform("nunique") > 1
