"""What the levels do to the accuracy: of the runs that learnt, and how many diverged.

Which runs have learnt, and what a run that diverged counts for, is fixed here, before any data.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.space import FACTOR_NAMES
from green_screen.statistics.coding import Matrix, sort_levels
from green_screen.statistics.effects import level_contrasts
from green_screen.statistics.estimators import LeastSquares
from green_screen.statistics.model_matrix import Design, build_design
from green_screen.statistics.responses import TASK, UsableRuns, exclusion_reasons

DIFFERENCE_COLUMNS = (
    "factor",
    "within",
    "level",
    "reference",
    "points",
    "ci_low",
    "ci_high",
    "n_runs",
    "is_reference",
)
DIVERGED_COLUMNS = ("factor", "level", "n_runs", "n_diverged", "share", "ci_low", "ci_high")

# One guesser in a thousand is as good as a run that counts as having learnt.
GUESSING_P = 0.001
# Of fewer, the accuracies of those that happen to have learnt say nothing of the levels.
MIN_LEARNT = 0.5

LEARNT_RULE = (
    "A run has learnt if its loss stayed a number and its validation accuracy after the last epoch "
    "is above what guessing reaches: one guesser in a thousand, who always answers with the most "
    "frequent class, would be as good on as many images (binomial). If fewer than half of the "
    "runs that did not diverge have learnt, the training was too short to say anything of levels."
)


@dataclass(frozen=True, kw_only=True)
class AccuracyModel:
    """Main effects of the levels on an accuracy.

    Attributes:
        design: How a configuration becomes a row.
        regression: The fitted coefficients, as fractions of accuracy.
        alpha: Intervals have the level 1 - alpha.
    """

    design: Design
    regression: LeastSquares
    alpha: float

    def predict(self, effective: pd.DataFrame) -> pd.DataFrame:
        """Predict the accuracy of one new run of each configuration.

        Args:
            effective: Configurations, a column a factor, levels as text.

        Returns:
            Columns ``accuracy, accuracy_low, accuracy_high``, fractions; NaN where a level did not
            occur among the runs that learnt.
        """
        matrix = self._matrix(effective)
        value = self.regression.predict(matrix)
        half = self.regression.half_width(matrix, self.alpha)
        ends = np.clip([value, value - half, value + half], 0.0, 1.0)
        names_of = ("accuracy", "accuracy_low", "accuracy_high")
        return pd.DataFrame(dict(zip(names_of, ends, strict=True)), index=effective.index)

    def differs(self, effective: pd.DataFrame, from_this: int) -> npt.NDArray[np.bool_]:
        """Return which configurations are shown to have another accuracy than one of them.

        Scheffé's criterion (Biometrika 40, 1953), because they are many: where no level has an
        effect, any of them is shown to differ with a probability of alpha at most.

        Args:
            effective: As in :meth:`predict`.
            from_this: Place of the one.
        """
        matrix = self._matrix(effective)
        contrasts = matrix - matrix[[from_this]]
        known = contrasts[np.isfinite(contrasts).all(axis=1)]
        rank, df = np.linalg.matrix_rank(known), self.regression.residual_df_
        widest = np.sqrt(rank * stats.f.ppf(1 - self.alpha, rank, df)) if rank else np.inf
        error = standard_error(self.regression, contrasts)
        return np.asarray(np.abs(contrasts @ self.regression.coef_) > widest * error)

    def _matrix(self, effective: pd.DataFrame) -> Matrix:
        rows = effective[list(FACTOR_NAMES)].add_prefix(EFFECTIVE)
        # Of no block: an empty name would be that of the runs without a campaign.
        return self.design.matrix(rows.assign(machine=None, campaign=None))


@dataclass(frozen=True, kw_only=True)
class AccuracyAnalysis:
    """What the runs of a campaign say about an accuracy.

    Attributes:
        metric: The accuracy.
        n_runs: Runs that can be compared.
        n_diverged: Of them: the loss became not a number.
        n_learnt: Of them: by :data:`LEARNT_RULE`.
        spread_points: Standard deviation of a run around the model, in percentage points.
        differences: Columns :data:`DIFFERENCE_COLUMNS`, one row a level: percentage points above
            its factor's reference with the other factors averaged; NaN where the runs cannot tell.
        diverged: Columns :data:`DIVERGED_COLUMNS`, one row a level: the share of its runs that
            diverged, with Wilson's interval. Other factors differ between these runs.
        model: Predicts the accuracy of configurations; ``None`` if there is none.
        why: Why there is no model; empty if there is one.
    """

    metric: str
    n_runs: int
    n_diverged: int
    n_learnt: int
    spread_points: float
    differences: pd.DataFrame
    diverged: pd.DataFrame
    model: AccuracyModel | None
    why: str


def analyze_accuracy(
    runs: pd.DataFrame, metric: str = names.VAL_ACCURACY, *, alpha: float = 0.05
) -> AccuracyAnalysis:
    """Fit the accuracy of the runs that learnt by the levels' main effects.

    The terms are those of the energy model without its interactions and covariates, which are of
    kernels and boards: an accuracy has neither.

    Args:
        runs: Rows of :func:`~green_screen.results.runs.read_runs`.
        metric: The accuracy; which runs have learnt is decided by the validation's in any case.
        alpha: Intervals have the level 1 - alpha.
    """
    reason = exclusion_reasons(
        runs,
        positive=names.N_VALIDATION_IMAGES,
        known=(names.CHANCE_ACCURACY, names.VAL_ACCURACY, metric),
        same=(*TASK, "epochs"),
        measured=False,
    )
    usable = UsableRuns.split(runs, reason)
    used = usable.runs
    learnt = _has_learnt(used)
    sound = used[learnt].reset_index(drop=True)
    nothing = AccuracyAnalysis(
        metric=metric,
        n_runs=len(used),
        n_diverged=int(used["diverged"].sum()),
        n_learnt=len(sound),
        spread_points=float("nan"),
        differences=pd.DataFrame(columns=list(DIFFERENCE_COLUMNS)),
        diverged=_diverged_shares(used, alpha),
        model=None,
        why=_too_little(usable, learnt),
    )
    if nothing.why:
        return nothing
    design, _, _ = build_design(sound)
    terms = tuple(t for t in design.terms if t.kind in ("block", "main", "nested"))
    if {t.kind for t in terms} <= {"block"}:
        why = "the runs that learnt are too few, or agree in all factors"
        return dataclasses.replace(nothing, why=why)
    design = dataclasses.replace(design, terms=terms)
    y = sound[metric].to_numpy(dtype=np.float64)
    regression = LeastSquares().fit(design.matrix(sound), y)
    return dataclasses.replace(
        nothing,
        spread_points=100 * float(np.sqrt(regression.residual_variance_)),
        differences=_differences(design, regression, sound, alpha),
        model=AccuracyModel(design=design, regression=regression, alpha=alpha),
    )


def _has_learnt(runs: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Apply :data:`LEARNT_RULE` to each run."""
    images = runs[names.N_VALIDATION_IMAGES].to_numpy()
    guessed = stats.binom.isf(GUESSING_P, images, runs[names.CHANCE_ACCURACY].to_numpy()) / images
    above = runs[names.VAL_ACCURACY].to_numpy() > guessed
    return np.asarray(above & ~runs["diverged"].to_numpy(dtype=bool))


def _too_little(usable: UsableRuns, learnt: npt.NDArray[np.bool_]) -> str:
    """Return why nothing can be said of accuracies; empty if something can."""
    used, excluded = usable.runs, usable.excluded
    if used.empty:
        reasons = excluded["reason"].value_counts()
        why = f": {reasons.index[0]}" if len(reasons) else ""
        return f"no run has an accuracy that can be compared with guessing{why}"
    steady = len(used) - int(used["diverged"].sum())
    if learnt.sum() < MIN_LEARNT * steady or not learnt.any():
        return (
            f"{int(learnt.sum())} of the {steady} runs that did not diverge have learnt more than "
            "guessing: the training was too short to say what a level does to the accuracy"
        )
    return ""


def _differences(
    design: Design, regression: LeastSquares, runs: pd.DataFrame, alpha: float
) -> pd.DataFrame:
    rows, contrasts = level_contrasts(design, runs)
    table = pd.DataFrame(rows)
    stacked: Matrix = np.vstack(contrasts)
    is_reference = table["level"] == table["reference"]
    known = regression.estimable(stacked)
    points = 100 * stacked @ regression.coef_
    t = stats.t.ppf(1 - alpha / 2, regression.residual_df_)
    half = 100 * t * standard_error(regression, stacked)
    compared = known & ~is_reference.to_numpy()
    return table.assign(
        points=np.where(known, points, np.nan),
        ci_low=np.where(compared, points - half, np.nan),
        ci_high=np.where(compared, points + half, np.nan),
        is_reference=is_reference,
    )[list(DIFFERENCE_COLUMNS)]


def standard_error(regression: LeastSquares, contrasts: Matrix) -> Matrix:
    """Return the standard errors of differences of means, one a row."""
    variance = ((contrasts @ regression.gram_inverse_) * contrasts).sum(axis=1)
    return np.asarray(np.sqrt(regression.residual_variance_ * np.clip(variance, 0.0, None)))


def _diverged_shares(runs: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Return the share of each level's runs that diverged, with Wilson's interval.

    Wilson, Journal of the American Statistical Association 22 (1927) 209-212.
    """
    found = []
    for factor in FACTOR_NAMES:
        column = runs[EFFECTIVE + factor]
        for level in sort_levels(factor, set(column)):
            inside = column == level
            n, k = int(inside.sum()), int(runs.loc[inside, "diverged"].sum())
            ends = stats.binomtest(k, n).proportion_ci(1 - alpha, method="wilson")
            found.append((factor, level, n, k, k / n, ends.low, ends.high))
    return pd.DataFrame(found, columns=list(DIVERGED_COLUMNS))
