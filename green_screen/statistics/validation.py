"""Would it hold on new configurations, and would the rule find things in noise?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold

from green_screen.results.frame import EFFECTIVE, configurations
from green_screen.space import FACTOR_NAMES
from green_screen.statistics.anova import Projections, TypeTwo
from green_screen.statistics.coding import Coding, Matrix, Term, sort_levels
from green_screen.statistics.estimators import LeastSquares
from green_screen.statistics.model_matrix import Design

FOLDS = 5
# A fold's fit with fewer has hardly an estimate of the noise, and intervals of no use.
MIN_FOLD_RESIDUAL_DF = 5
# With less of the held-out runs predicted, the figures would be those of a minority.
MIN_PREDICTED = 0.5
IMPORTANCE_COLUMNS = ("factor", "importance", "sd")

_PERMUTATION_BLOCK = 100
_IMPORTANCE_REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Predictions of configurations that the model had not seen: medians over the repeats.

    Attributes:
        folds: Folds a repeat; runs of one configuration share a fold.
        repeats: Repeats with other folds.
        n_configurations: Groups.
        predicted: Share of held-out runs that the rest can predict; the figures are of these.
        r2: Of the log response, held out.
        r2_low: 2.5 % quantile over the repeats.
        r2_high: 97.5 % quantile over the repeats.
        r2_batch_size: The same for batch size as the only factor; NaN if it has one level.
        skill: Share of batch size's squared error that the other terms remove, 1 - MSE / MSE_batch.
        median_ape_percent: Median absolute percentage error on the response's scale.
        coverage: Share of held-out runs inside their 1 - alpha prediction interval.
        interval_ratio: Median of an interval's upper over its lower end.
    """

    folds: int
    repeats: int
    n_configurations: int
    predicted: float
    r2: float
    r2_low: float
    r2_high: float
    r2_batch_size: float
    skill: float
    median_ape_percent: float
    coverage: float
    interval_ratio: float


@dataclass(frozen=True, kw_only=True)
class PermutationCheck:
    """How often the whole rule (terms, tests, Holm) finds something where there is nothing.

    Attributes:
        permutations: Random reorderings of the response among the runs.
        false_finding_rate: Share of them with at least one finding; it should not exceed alpha.
        rate_low: Lower end of its exact 95 % interval (Clopper and Pearson).
        rate_high: Upper end.
        p: Share of permutations whose strongest term is at least as strong as the observed one.
    """

    permutations: int
    false_finding_rate: float
    rate_low: float
    rate_high: float
    p: float


def cross_validate(
    runs: pd.DataFrame, y: Matrix, design: Design, *, repeats: int, alpha: float, seed: int
) -> tuple[CrossValidation | None, str]:
    """Cross-validate the model in folds of whole configurations.

    A held-out run is scored where the fit without its fold determines its mean and has at least
    :data:`MIN_FOLD_RESIDUAL_DF` residual degrees of freedom: anything else would be a prediction
    that the model does not make.

    Returns:
        The figures, or ``None`` and why there are none (nothing if no repeat was asked for).
    """
    if repeats < 1:
        return None, ""
    groups, known = pd.factorize(configurations(runs))
    if len(known) < FOLDS:
        return None, f"needs at least {FOLDS} different configurations among the runs"
    # The designs are fixed, so the runs are encoded once and not in every fold.
    matrix = design.matrix(runs)
    batch_design = _batch_size_design(runs)
    batch_matrix = batch_design.matrix(runs)
    scores, shares = [], []
    for repeat in range(repeats):
        splitter = GroupKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        predicted, half, by_batch = (np.full_like(y, np.nan) for _ in range(3))
        for train, test in splitter.split(matrix, y, groups):
            model = LeastSquares().fit(matrix[train], y[train])
            if model.residual_df_ < MIN_FOLD_RESIDUAL_DF:
                continue
            predicted[test] = model.predict(matrix[test])
            half[test] = model.half_width(matrix[test], alpha)
            alone = LeastSquares().fit(batch_matrix[train], y[train])
            by_batch[test] = alone.predict(batch_matrix[test])
        scored = np.isfinite(predicted) & np.isfinite(by_batch)
        shares.append(np.mean(scored))
        if shares[-1] < MIN_PREDICTED:
            continue
        true, predicted, half, by_batch = (v[scored] for v in (y, predicted, half, by_batch))
        error, total = np.mean((true - predicted) ** 2), np.var(true)
        error_batch = np.mean((true - by_batch) ** 2)
        scores.append(
            (
                1 - error / total,
                1 - error_batch / total if batch_design.terms else np.nan,
                1 - error / error_batch if batch_design.terms else np.nan,
                100 * np.median(np.abs(np.expm1(predicted - true))),
                np.mean(np.abs(true - predicted) <= half),
                np.median(np.exp(2 * half)),
            )
        )
    share = float(np.median(shares))
    if share < MIN_PREDICTED:
        return None, (
            f"{1 - share:.0%} of held-out runs cannot be predicted from the rest (the fit without "
            f"their fold does not determine them, or leaves fewer than {MIN_FOLD_RESIDUAL_DF} "
            f"residual degrees of freedom), so there are no figures of held-out runs"
        )
    table = np.array(scores)
    median = np.median(table, axis=0)
    found = CrossValidation(
        folds=FOLDS,
        repeats=repeats,
        n_configurations=len(known),
        predicted=share,
        r2=float(median[0]),
        r2_low=float(np.quantile(table[:, 0], 0.025)),
        r2_high=float(np.quantile(table[:, 0], 0.975)),
        r2_batch_size=float(median[1]),
        skill=float(median[2]),
        median_ape_percent=float(median[3]),
        coverage=float(median[4]),
        interval_ratio=float(median[5]),
    )
    return found, ""


def permutation_check(
    type_two: TypeTwo, matrix: Matrix, y: Matrix, *, permutations: int, alpha: float, seed: int
) -> PermutationCheck | None:
    """Repeat the tests on permuted responses; ``None`` if the model tests no hypothesis.

    The residuals of the nuisance terms (machines and covariates) are permuted, so that their
    effects stay where they are (Freedman and Lane, Journal of Business & Economic Statistics 1
    (1983) 292-298).
    """
    by_name = {term.name: term for term in type_two.design.terms}
    tested = np.array([by_name[name].is_hypothesis for name in type_two.bases], dtype=bool)
    if not tested.any() or permutations < 1:
        return None
    slices = type_two.design.slices()
    nuisance = [matrix[:, :1]]
    nuisance += [matrix[:, slices[t.name]] for t in type_two.design.terms if not t.is_hypothesis]
    given = np.hstack(nuisance)
    residual = y - given @ np.linalg.lstsq(given, y, rcond=None)[0]
    return permuted_rule(
        type_two, tested, residual, permutations=permutations, alpha=alpha, seed=seed
    )


def permuted_rule(
    projections: Projections,
    tested: Matrix,
    residual: Matrix,
    *,
    permutations: int,
    alpha: float,
    seed: int,
) -> PermutationCheck:
    """Apply the rule to permutations of a response in which there is nothing.

    Args:
        projections: Of the terms.
        tested: Which of them are hypotheses.
        residual: What the nuisance terms leave of the response.
        permutations: How many.
        alpha: Of Holm's correction.
        seed: Of the permutations.
    """
    strongest = _smallest_p(projections, tested, residual[:, None])[0]
    rng = np.random.default_rng(seed)
    smallest: list[float] = []
    while len(smallest) < permutations:
        block = min(_PERMUTATION_BLOCK, permutations - len(smallest))
        shuffled = rng.permuted(np.repeat(residual[:, None], block, axis=1), axis=0)
        smallest.extend(_smallest_p(projections, tested, shuffled))
    values = np.array(smallest)
    # Holm's first step decides whether anything at all is found.
    found = int(np.sum(values <= alpha / tested.sum()))
    interval = stats.binomtest(found, permutations).proportion_ci(0.95)
    return PermutationCheck(
        permutations=permutations,
        false_finding_rate=found / permutations,
        rate_low=float(interval.low),
        rate_high=float(interval.high),
        p=float((1 + np.sum(values <= strongest)) / (permutations + 1)),
    )


def forest_importance(runs: pd.DataFrame, y: Matrix, *, trees: int, seed: int) -> pd.DataFrame:
    """Return each factor's importance in a random forest: a second opinion without the model.

    Importance is the loss of held-out R2 when a factor's values are permuted (Breiman, Machine
    Learning 45 (2001) 5-32), in folds of whole configurations.

    Returns:
        Columns ``factor, importance`` and ``sd`` (over folds and permutations), the most important
        first; no rows with fewer than five configurations, or where no fold has two runs.
    """
    groups, known = pd.factorize(configurations(runs))
    if len(known) < FOLDS or trees < 1:
        return pd.DataFrame(columns=list(IMPORTANCE_COLUMNS))
    codes = np.column_stack([_ordinal(factor, runs) for factor in FACTOR_NAMES])
    drops = []
    splitter = GroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in splitter.split(codes, y, groups):
        if len(test) < 2:
            continue  # a single run has no R2
        forest = RandomForestRegressor(
            trees, max_samples=min(len(train), 2000), n_jobs=2, random_state=seed
        ).fit(codes[train], y[train])
        drops.append(_drops(forest, codes[test], y[test], seed))
    if not drops:
        return pd.DataFrame(columns=list(IMPORTANCE_COLUMNS))
    together = np.hstack(drops)
    table = pd.DataFrame(
        {"factor": FACTOR_NAMES, "importance": together.mean(axis=1), "sd": together.std(axis=1)}
    )
    return table.sort_values("importance", ascending=False, ignore_index=True)


def _drops(forest: RandomForestRegressor, codes: Matrix, y: Matrix, seed: int) -> Matrix:
    """Return the loss of R2 (factors x repeats) when a factor's values are permuted.

    The numbers are those of scikit-learn's ``permutation_importance``, which asks the forest once a
    permutation. Most of that is the cost of asking, so here all permutations are predicted at once.
    """
    rng = np.random.RandomState(np.random.RandomState(seed).randint(np.iinfo(np.int32).max + 1))
    places = np.arange(len(codes))
    # Each repeat shuffles on from the one before, with the same shuffles for every factor.
    shuffles, before = [], np.arange(len(codes))
    for _ in range(_IMPORTANCE_REPEATS):
        rng.shuffle(places)
        before = before[places]
        shuffles.append(before)
    permuted = np.tile(codes.astype(np.float32), (codes.shape[1], _IMPORTANCE_REPEATS, 1, 1))
    for factor, column in enumerate(codes.T):
        for repeat, shuffle in enumerate(shuffles):
            permuted[factor, repeat, :, factor] = column[shuffle]
    forest.set_params(n_jobs=1)  # sums in a fixed order, so that results repeat to the last digit
    predicted = forest.predict(permuted.reshape(-1, codes.shape[1])).reshape(permuted.shape[:3])
    whole = r2_score(y, forest.predict(codes))
    return np.array([[whole - r2_score(y, one) for one in repeats] for repeats in predicted])


def _smallest_p(projections: Projections, tested: Matrix, responses: Matrix) -> Matrix:
    _, f, _ = projections.f_statistics(responses)
    p = stats.f.sf(f, projections.term_df()[:, None], projections.residual_df)
    return np.asarray(p[tested].min(axis=0))


def _batch_size_design(runs: pd.DataFrame) -> Design:
    levels = sort_levels("batch_size", set(runs[EFFECTIVE + "batch_size"]))
    if len(levels) < 2:
        return Design((), {}, {})
    coding = Coding(levels, levels[0], "sum")
    return Design((Term("batch_size", "main", ("batch_size",)),), {"batch_size": coding}, {})


def _ordinal(factor: str, runs: pd.DataFrame) -> Matrix:
    values = runs[EFFECTIVE + factor]
    categories = list(sort_levels(factor, set(values)))
    return np.asarray(pd.Categorical(values, categories=categories).codes, dtype=np.float64)
