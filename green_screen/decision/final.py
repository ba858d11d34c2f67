"""The final comparison: what the selected and the recommended configuration save.

The runs come in rounds, one of each configuration, next to each other in time and with the same
seed: what drifts, and which images are in the test part, is then the same for all of a round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from green_screen import names

BASELINE = "baseline"
SELECTED = "selected"  # the best run of the campaign, by the rule
RECOMMENDED = "recommended"  # what no run had tried, by the energy law
ROLES = (BASELINE, SELECTED, RECOMMENDED)

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
class Contrast:
    """One configuration's final runs against another's.

    Attributes:
        role: Of the one.
        reference: Of the other.
        energy_metric: The energy of the headline.
        ratios: Metric of :data:`QUANTITIES` -> `role` over `reference`.
        means: Metric -> role -> arithmetic mean over the same pairs, that of the test accuracy too;
            NaN without any.
        accuracy_difference: Test accuracy, `role` minus `reference`, as a fraction.
    """

    role: str
    reference: str
    energy_metric: str
    ratios: dict[str, Estimate]
    means: dict[str, dict[str, float]]
    accuracy_difference: Estimate

    @property
    def energy_ratio(self) -> Estimate:
        """`role` over `reference` of the headline's energy."""
        return self.ratios[self.energy_metric]


@dataclass(frozen=True, kw_only=True)
class FinalComparison:
    """The final runs and what they say.

    Attributes:
        runs: Rows of :func:`green_screen.results.runs.to_frame` with the columns ``role`` (one of
            :data:`ROLES`) and ``pair`` (the round, from 0).
        energy_metric: The energy of the headline.
        contrasts: The selected configuration against the baseline, the recommended one against the
            best run, and against the baseline where that is another one; of what there are runs.
        statements: What is missing, and why.
    """

    runs: pd.DataFrame
    energy_metric: str
    contrasts: tuple[Contrast, ...]
    statements: tuple[str, ...]

    def between(self, role: str, reference: str) -> Contrast | None:
        """Return the contrast of two roles, if there is one."""
        found = (c for c in self.contrasts if (c.role, c.reference) == (role, reference))
        return next(found, None)

    @property
    def roles(self) -> tuple[str, ...]:
        """The configurations that there are runs of."""
        return tuple(role for role in ROLES if (self.runs["role"] == role).any())

    @property
    def best_run(self) -> str:
        """The role of the campaign's best run: the baseline's where nothing was better."""
        return SELECTED if SELECTED in self.roles else BASELINE

    @property
    def saving(self) -> Contrast | None:
        """The selected configuration against the baseline; ``None`` where they are the same."""
        return self.between(SELECTED, BASELINE)

    @property
    def recommended(self) -> Contrast | None:
        """The recommended configuration against the best run; ``None`` without one."""
        return self.between(RECOMMENDED, self.best_run)

    @property
    def kept(self) -> str:
        """The role of the configuration to keep.

        The recommended one if it takes less energy than the best run, with the whole interval, at
        a test accuracy that is not shown to be lower; without intervals nothing is shown.
        """
        found = self.recommended
        if found is None or self.of(RECOMMENDED)["diverged"].any():
            return self.best_run
        ratio, accuracy = found.energy_ratio, found.accuracy_difference
        better = ratio.high < 1 and accuracy.has_interval and not accuracy.high < 0
        return RECOMMENDED if better else self.best_run

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
    """Compare the configurations by their rounds of final runs.

    Two runs of a round are a pair, which counts for a quantity if both finished with a valid
    measurement and have it; and for anything but the duration if both energies come from one
    source. An accuracy needs no measurement. Ratios are compared on the log scale: the geometric
    mean of the pairs' ratios with the paired t interval, transformed back.
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
            f"their round come from different sources ({sources})."
        )
    compared = _compared(set(runs["role"]))
    contrasts = tuple(
        _contrast(runs, finished, valid, mixed, *roles, energy_metric, alpha) for roles in compared
    )
    for found in contrasts:
        what = "" if len(contrasts) == 1 else f" of the {found.role} and the {found.reference}"
        of = {"energy": found.energy_ratio, "test accuracy": found.accuracy_difference}
        statements += [_too_few(name + what, e.pairs) for name, e in of.items() if e.pairs < 2]
    return FinalComparison(
        runs=runs,
        energy_metric=energy_metric,
        contrasts=contrasts,
        statements=tuple(statements),
    )


def _compared(roles: set[str]) -> tuple[tuple[str, str], ...]:
    """Return which roles are compared with which."""
    wanted = ((SELECTED, BASELINE), (RECOMMENDED, SELECTED), (RECOMMENDED, BASELINE))
    return tuple(pair for pair in wanted if set(pair) <= roles)


def _contrast(
    runs: pd.DataFrame,
    finished: pd.Series[bool],
    valid: pd.Series[bool],
    mixed: pd.Series[bool],
    role: str,
    reference: str,
    energy_metric: str,
    alpha: float,
) -> Contrast:
    ratios, means = {}, {}
    for metric in QUANTITIES:
        usable = valid & (runs[metric] > 0)
        if metric != names.DURATION_S:
            usable &= ~mixed
        pairs = _pairs(runs[usable], metric, role, reference)
        means[metric] = _means(pairs)
        logs = np.log(pairs[role].to_numpy() / pairs[reference].to_numpy())
        estimate = paired_t(logs, alpha)
        ratios[metric] = Estimate(
            value=float(np.exp(estimate.value)),
            low=float(np.exp(estimate.low)),
            high=float(np.exp(estimate.high)),
            pairs=estimate.pairs,
        )
    accuracy = _pairs(runs[finished], names.TEST_ACCURACY, role, reference)
    means[names.TEST_ACCURACY] = _means(accuracy)
    return Contrast(
        role=role,
        reference=reference,
        energy_metric=energy_metric,
        ratios=ratios,
        means=means,
        accuracy_difference=paired_t((accuracy[role] - accuracy[reference]).to_numpy(), alpha),
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


def _pairs(runs: pd.DataFrame, metric: str, role: str, reference: str) -> pd.DataFrame:
    """Return one row a complete pair, a column a role."""
    table = runs.pivot(index="pair", columns="role", values=metric)
    return table.reindex(columns=[reference, role]).dropna()


def _means(pairs: pd.DataFrame) -> dict[str, float]:
    return {str(role): float(pairs[role].mean()) for role in pairs}


def _too_few(what: str, pairs: int) -> str:
    if pairs == 0:
        return f"No pair of final runs counts for the {what}: its difference is not known."
    return (
        f"One pair of final runs counts for the {what}, and an interval needs at least 2: its "
        "difference may be noise."
    )


def _of_mixed_sources(runs: pd.DataFrame) -> pd.Series[bool]:
    """Return whether the energies of a run's round come from more than one source."""
    return runs.groupby("pair")["energy_source"].transform("nunique") > 1
