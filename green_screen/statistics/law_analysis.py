"""What the energy law says about a campaign, and what it cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.statistics.choice import Choice, choose
from green_screen.statistics.coding import Matrix, sort_levels
from green_screen.statistics.law import LAW_FACTORS, common_task, hardware_of, level_design
from green_screen.statistics.law_effects import level_ratios, references
from green_screen.statistics.law_fit import LawFit, enough, fit_law
from green_screen.statistics.law_prediction import SEEN_FACTORS, TrainingModel
from green_screen.statistics.law_responses import (
    PARTS,
    LawResponse,
    log_response,
    training_response,
    usable_law_runs,
)
from green_screen.statistics.law_tests import (
    CONTROL_COLUMNS,
    GROUP_COLUMNS,
    TEST_COLUMNS,
    control_tests,
    factor_tests,
    groups_off,
    law_permutation,
)
from green_screen.statistics.validation import PermutationCheck


@dataclass(frozen=True, kw_only=True)
class LawAnalysis:
    """The law of a campaign's training energy, with all that is needed to doubt it.

    Attributes:
        response: What the law is of.
        alpha: Intervals have the level 1 - alpha; findings have ``p_holm <= alpha``.
        runs: The runs used.
        excluded: Columns ``run_id, run_name, reason``, one row a run left out.
        residual: Of the log response, one a run used.
        statements: What cannot be said and why.
        fit: The law; ``None`` if it cannot be fitted.
        reference: Factor -> effective level that ratios are against.
        ratios: Columns of :data:`~.law_effects.RATIO_COLUMNS`.
        tests: Of whole factors, columns of :data:`~.law_tests.TEST_COLUMNS`.
        controls: Of what cannot act, columns of :data:`~.law_tests.CONTROL_COLUMNS`.
        groups: Levels whose runs are off together, columns of :data:`~.law_tests.GROUP_COLUMNS`.
        permutation: The check of the whole rule on permuted data.
        choice: The law beside the log-linear model on held-out configurations.
        model: Predicts whole trainings; ``None`` without a law.
    """

    response: LawResponse
    alpha: float
    runs: pd.DataFrame
    excluded: pd.DataFrame
    residual: Matrix
    statements: tuple[str, ...]
    fit: LawFit | None
    reference: Mapping[str, str]
    ratios: pd.DataFrame
    tests: pd.DataFrame
    controls: pd.DataFrame
    groups: pd.DataFrame
    permutation: PermutationCheck | None
    choice: Choice
    model: TrainingModel | None

    @property
    def violated(self) -> pd.DataFrame:
        """The negative controls that are findings: the campaign cannot be trusted."""
        return self.controls[self.controls["finding"].astype(bool)]


def analyze_law(
    runs: pd.DataFrame,
    *,
    alpha: float = 0.05,
    permutations: int = 1000,
    cv_repeats: int = 20,
    seed: int = 22,
) -> LawAnalysis:
    """Fit the law to a campaign and test it.

    Args:
        runs: Rows of :func:`~green_screen.results.runs.read_runs`, of one campaign or several.
        alpha: Level of the tests; intervals have 1 - alpha.
        permutations: Of the check of the whole rule.
        cv_repeats: Of the folds of whole configurations, at most.
        seed: Of folds and permutations.
    """
    response = training_response(runs)
    usable = usable_law_runs(runs, response)
    used = usable.runs
    y = log_response(used, response)
    fit, why = _fitted(response, used, y)
    choice = choose(fit, used, y, repeats=cv_repeats, alpha=alpha, seed=seed)
    reference = references(used)
    if fit is None:
        return LawAnalysis(
            response=response,
            alpha=alpha,
            runs=used,
            excluded=usable.excluded,
            residual=np.array([]),
            statements=(f"the energy law: {why}",),
            fit=None,
            reference=reference,
            ratios=level_ratios(None, used, reference, alpha),
            tests=pd.DataFrame(columns=list(TEST_COLUMNS)),
            controls=_controls_alone(used, y, alpha),
            groups=pd.DataFrame(columns=list(GROUP_COLUMNS)),
            permutation=None,
            choice=choice,
            model=None,
        )
    residual = y - fit.log_energy(fit.design.rows(used))
    controls, untested = control_tests(fit, used, y, alpha)
    ratios = level_ratios(fit, used, reference, alpha)
    model, missing = _training_model(runs, response, fit, used, alpha)
    return LawAnalysis(
        response=response,
        alpha=alpha,
        runs=used,
        excluded=usable.excluded,
        residual=residual,
        statements=(
            *_untold(ratios),
            *(f"negative control {text}" for text in untested),
            *missing,
        ),
        fit=fit,
        reference=reference,
        ratios=ratios,
        tests=factor_tests(fit, used, y, alpha),
        controls=controls,
        groups=groups_off(fit, used, y, alpha),
        permutation=law_permutation(
            fit, used, y, permutations=permutations, alpha=alpha, seed=seed
        ),
        choice=choice,
        model=model,
    )


def _controls_alone(runs: pd.DataFrame, y: Matrix, alpha: float) -> pd.DataFrame:
    """Test the negative controls where the law cannot be fitted: beside the factors' main ratios.

    At one batch size launching and computing are one; with several, batch size needs the law.
    """
    design = level_design(runs, LAW_FACTORS)
    several = runs[EFFECTIVE + "batch_size"].nunique() > 1
    if runs.empty or several or enough(design, runs) or not np.ptp(y) > 0:
        return pd.DataFrame(columns=list(CONTROL_COLUMNS))
    return control_tests(fit_law(design, design.rows(runs), y), runs, y, alpha)[0]


def _fitted(response: LawResponse, runs: pd.DataFrame, y: Matrix) -> tuple[LawFit | None, str]:
    if runs.empty:
        return None, f"no run has a usable {response.label}"
    design = response.design(runs)
    why = enough(design, runs)
    if why:
        return None, why
    if response.launching and not np.ptp(y) > 0:
        return None, f"{response.metric} is the same in all usable runs"
    return fit_law(design, design.rows(runs), y), ""


def _training_model(
    runs: pd.DataFrame, response: LawResponse, fit: LawFit, used: pd.DataFrame, alpha: float
) -> tuple[TrainingModel, list[str]]:
    """Fit the other parts of a training too; say what the runs lack."""
    laws, missing = {response.name: fit}, []
    for part in PARTS:
        usable = usable_law_runs(runs, part).runs
        law, why = _fitted(part, usable, log_response(usable, part))
        if law is not None:
            laws[part.name] = law
        elif not (
            (part.name == "evaluation_j" and "validation_j" in laws)
            or (
                part.name in ("conversion_j", "integer_evaluation_j")
                and not (used[EFFECTIVE + "internal"] == "post_quantization").any()
            )
        ):
            missing.append(f"{part.label}: not in predictions, {why}")
    most = common_task(used)
    parts = used[EFFECTIVE + "partitioning"].str.partition("-")[0].astype(float) / 100.0
    same = used["dataset"] == most["dataset"]
    rates = used[names.EMISSIONS_TOTAL_KG_CO2EQ] / used[names.ENERGY_TOTAL_J]
    model = TrainingModel(
        laws=laws,
        images=float((used[names.N_TRAIN_IMAGES] / parts)[same].median()),
        per=response.per,
        task=most,
        seen={f: sort_levels(f, set(used[EFFECTIVE + f])) for f in SEEN_FACTORS},
        context=_context(used, most),
        kg_per_j=float(rates.median()),
        alpha=alpha,
    )
    return model, missing


def _context(runs: pd.DataFrame, task: Mapping[str, Any]) -> dict[str, str]:
    size = task["image_size"]
    machines = sorted({hardware_of(machine) for machine in runs["machine"]} - {""})
    return {
        "model": str(task["model"]),
        "dataset": str(task["dataset"]),
        "image_size": "" if pd.isna(size) else f"{size:g}",
        "machine": ", ".join(machines),
        "energy_source": ", ".join(sorted(set(runs["energy_source"]) - {""})),
        "n_runs": str(len(runs)),
    }


def _untold(ratios: pd.DataFrame) -> list[str]:
    """Name the ratios that the runs cannot tell."""
    found = []
    for part, what in (("step", "launching"), ("image", "computing")):
        levels = ratios.loc[ratios["part"].eq(part) & ~ratios["told"].astype(bool), "change"]
        if len(levels):
            found.append(
                f"the ratio on {what} of {'; '.join(levels)}: these runs cannot tell it (there is "
                f"hardly a run in which {what} decides)"
            )
    return found
