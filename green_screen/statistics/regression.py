"""The energy model: log response on the effective levels, with all that is needed to doubt it."""

from __future__ import annotations

import dataclasses
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import statsmodels.api as sm
from statsmodels.tools.sm_exceptions import SingularMatrixWarning

from green_screen.statistics.anova import ANOVA_COLUMNS, anova_table, type_two
from green_screen.statistics.coding import CodingKind, Matrix
from green_screen.statistics.diagnostics import (
    RESIDUAL_COLUMNS,
    BaselineNoise,
    Diagnostics,
    baseline_noise,
    diagnose,
)
from green_screen.statistics.effects import (
    COVARIATE_COLUMNS,
    EFFECT_COLUMNS,
    covariates_table,
    effects_table,
    simple_effects_table,
)
from green_screen.statistics.estimators import energy_pipeline
from green_screen.statistics.model_matrix import Design, build_design
from green_screen.statistics.prediction import EnergyModel, levels_seen
from green_screen.statistics.responses import EXCLUSION_RULE, RESPONSES, Response, usable_runs
from green_screen.statistics.validation import (
    IMPORTANCE_COLUMNS,
    CrossValidation,
    PermutationCheck,
    cross_validate,
    forest_importance,
    permutation_check,
)


@dataclass(frozen=True, kw_only=True)
class EnergyAnalysis:
    """What the runs of a campaign say about a response.

    Where something cannot be estimated, its table is empty or its attribute ``None``, and
    `statements` says why: there is never a number in its place.

    Attributes:
        response: What was regressed.
        coding: ``sum`` or ``treatment``.
        alpha: Intervals have the level 1 - alpha; findings have ``p_holm <= alpha``.
        n_read: Runs given.
        runs: The runs used.
        excluded: Columns ``run_id, run_name, reason``, one row a run left out.
        exclusion_rule: The rule by which they were.
        statements: What cannot be estimated and why, in full sentences.
        anova: Columns :data:`~.anova.ANOVA_COLUMNS`, one row a term.
        effects: Columns :data:`~.effects.EFFECT_COLUMNS`, one row a level.
        simple_effects: The same columns: levels of internal and precision at each batch size.
        covariates: Columns ``covariate, column, span, ratio, ci_low, ci_high, p``.
        residuals: One row a run; see :func:`~.diagnostics.diagnose`.
        diagnostics: The fit in sample.
        cross_validation: The fit on configurations held out.
        noise: Noise and drift of the replicated baseline.
        permutation: The check of the whole rule on permuted data.
        importance: Columns ``factor, importance, sd``: a random forest's second opinion.
        model: The fitted model, for predictions.
    """

    response: Response
    coding: CodingKind
    alpha: float
    n_read: int
    runs: pd.DataFrame
    excluded: pd.DataFrame
    exclusion_rule: str
    statements: tuple[str, ...]
    anova: pd.DataFrame
    effects: pd.DataFrame
    simple_effects: pd.DataFrame
    covariates: pd.DataFrame
    residuals: pd.DataFrame
    diagnostics: Diagnostics | None
    cross_validation: CrossValidation | None
    noise: BaselineNoise | None
    permutation: PermutationCheck | None
    importance: pd.DataFrame
    model: EnergyModel | None

    @property
    def findings(self) -> tuple[str, ...]:
        """The terms that move the response, after Holm's correction."""
        return tuple(self.anova.loc[self.anova["finding"].astype(bool), "term"])

    @property
    def exclusions(self) -> pd.DataFrame:
        """Columns ``reason, n_runs``, the most frequent reason first."""
        counts = self.excluded["reason"].value_counts()
        return counts.rename_axis("reason").reset_index(name="n_runs")


def fit_energy_model(
    runs: pd.DataFrame,
    *,
    response: str = "epoch",
    coding: CodingKind = "sum",
    alpha: float = 0.05,
    permutations: int = 1000,
    cv_repeats: int = 20,
    trees: int = 100,
    seed: int = 22,
) -> EnergyAnalysis:
    """Regress the log of a response on the effective levels.

    Args:
        runs: Rows of :func:`~green_screen.results.runs.read_runs`.
        response: A key of :data:`~.responses.RESPONSES`.
        coding: ``sum`` or ``treatment``; effects and tests do not depend on it.
        alpha: Level of the tests; intervals have 1 - alpha.
        permutations: Of the check of the whole rule; 0 leaves it out.
        cv_repeats: Repeats of the 5-fold cross-validation; 0 leaves it out.
        trees: Of the random forest that gives a second opinion; 0 leaves it out.
        seed: Of folds, permutations and the forest.

    Raises:
        ValueError: `response` or `coding` is unknown. Runs that say nothing raise nothing: the
            statements of the result say what they lack.
    """
    if response not in RESPONSES:
        raise ValueError(f"response must be one of {', '.join(RESPONSES)}, but got {response!r}")
    chosen = RESPONSES[response]
    usable = usable_runs(runs, chosen)
    used = usable.runs
    log_response = np.log(used[chosen.metric].to_numpy(dtype=np.float64))
    noise = baseline_noise(used, chosen.metric, alpha)
    design, matrix, statements = build_design(used, coding=coding)
    if len(used) and not np.ptp(log_response) > 0:
        design, matrix, _ = build_design(used.iloc[:0], coding=coding)
        statements = [f"nothing can be estimated: {chosen.metric} is the same in all usable runs"]
    statements = [*_situation(len(runs), len(used), chosen), *statements]
    if noise is None:
        statements.append(
            "noise and drift: cannot be estimated, too few usable runs of the baseline for the "
            "campaigns and machines they are from"
        )
    nothing = EnergyAnalysis(
        response=chosen,
        coding=coding,
        alpha=alpha,
        n_read=len(runs),
        runs=used,
        excluded=usable.excluded,
        exclusion_rule=EXCLUSION_RULE,
        statements=tuple(statements),
        anova=pd.DataFrame(columns=list(ANOVA_COLUMNS)),
        effects=pd.DataFrame(columns=list(EFFECT_COLUMNS)),
        simple_effects=pd.DataFrame(columns=list(EFFECT_COLUMNS)),
        covariates=pd.DataFrame(columns=list(COVARIATE_COLUMNS)),
        residuals=pd.DataFrame(columns=list(RESIDUAL_COLUMNS)),
        diagnostics=None,
        cross_validation=None,
        noise=noise,
        permutation=None,
        importance=pd.DataFrame(columns=list(IMPORTANCE_COLUMNS)),
        model=None,
    )
    if not design.terms:
        return nothing
    return _with_fit(
        nothing,
        design,
        matrix,
        log_response,
        permutations=permutations,
        repeats=cv_repeats,
        trees=trees,
        seed=seed,
    )


def _with_fit(
    nothing: EnergyAnalysis,
    design: Design,
    matrix: Matrix,
    y: Matrix,
    *,
    permutations: int,
    repeats: int,
    trees: int,
    seed: int,
) -> EnergyAnalysis:
    runs, alpha = nothing.runs, nothing.alpha
    with warnings.catch_warnings():
        # Empty cells of an interaction; the statements name what they leave unknown.
        warnings.simplefilter("ignore", SingularMatrixWarning)
        fitted = sm.OLS(y, matrix).fit()
        diagnostics, residuals = diagnose(fitted, matrix, runs)
    pipeline = energy_pipeline(design).fit(runs, y)
    regression = pipeline[-1]
    projections = type_two(design, matrix)
    effects = effects_table(design, fitted, regression, runs, alpha)
    simple_effects = simple_effects_table(design, fitted, regression, runs, alpha)
    with ThreadPoolExecutor(1) as pool:
        # The forest and the linear algebra leave the interpreter free most of the time.
        forest = pool.submit(forest_importance, runs, y, trees=trees, seed=seed)
        validation, why_not = cross_validate(
            runs, y, design, repeats=repeats, alpha=alpha, seed=seed
        )
        permutation = permutation_check(
            projections, matrix, y, permutations=permutations, alpha=alpha, seed=seed
        )
        importance = forest.result()
    statements = [*nothing.statements, *_unknown(effects), *_unknown(simple_effects)]
    if why_not:
        statements.append(f"cross-validation: {why_not}")
    elif validation is not None and validation.predicted < 1:
        statements.append(
            f"cross-validation: {1 - validation.predicted:.1%} of held-out runs cannot be "
            f"predicted from the rest; its figures are of the others"
        )
    return dataclasses.replace(
        nothing,
        statements=tuple(statements),
        anova=anova_table(projections, y, alpha),
        effects=effects,
        simple_effects=simple_effects,
        covariates=covariates_table(design, fitted, alpha),
        residuals=residuals,
        diagnostics=diagnostics,
        cross_validation=validation,
        permutation=permutation,
        importance=importance,
        model=EnergyModel(
            response=nothing.response.name,
            unit=nothing.response.unit,
            pipeline=pipeline,
            seen=levels_seen(runs),
            context=_context(runs),
            alpha=alpha,
        ),
    )


def _situation(n_read: int, n_used: int, response: Response) -> list[str]:
    """Say first what there was to work with, if that was nothing."""
    if n_read == 0:
        return ["nothing can be estimated: no runs were given"]
    if n_used == 0:
        return [
            f"nothing can be estimated: none of the {n_read} runs finished with a valid "
            f"measurement of {response.metric}"
        ]
    return []


def _unknown(effects: pd.DataFrame) -> list[str]:
    """Name the effects of levels that the missing combinations leave unknown."""
    unknown = effects[effects["ratio"].isna()]
    return [
        f"{row['factor']}={row['level']} against {row['reference']}"
        f"{' at ' + row['within'] if row['within'] else ''}: cannot be estimated, the runs lack "
        f"combinations of levels that it would be averaged over"
        for row in unknown.to_dict("records")
    ]


def _context(runs: pd.DataFrame) -> dict[str, str]:
    found = {
        column: ", ".join(sorted(set(runs[column]) - {""}))
        for column in ("model", "dataset", "machine", "energy_source")
    }
    for column in ("image_size", "samples"):
        found[column] = ", ".join(f"{value:g}" for value in sorted(set(runs[column].dropna())))
    return {**found, "n_runs": str(len(runs))}
