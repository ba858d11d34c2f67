"""Which model describes a campaign: decided by configurations that neither has seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from green_screen.results.frame import configurations
from green_screen.statistics.coding import Matrix
from green_screen.statistics.estimators import LeastSquares
from green_screen.statistics.law import Rows, task_of
from green_screen.statistics.law_fit import LawFit, fit_law
from green_screen.statistics.model_matrix import build_design
from green_screen.statistics.validation import FOLDS, MIN_FOLD_RESIDUAL_DF, MIN_PREDICTED

Model = Literal["law", "log-linear"]

CHOICE_RULE = (
    "Both models predict the same held-out configurations (5 folds of whole configurations, "
    "repeated). Over the runs that both predict, the one with the smaller mean squared error of "
    "the log response describes the campaign; one that predicts fewer than half of the held-out "
    "runs loses to one that predicts more. The law is not fitted to a campaign at one batch size."
)
# Folds are repeated until so many runs have been predicted: more would change no digit.
_PREDICTIONS = 20_000


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """How a model predicts configurations that it has not seen: medians over the repeats.

    Attributes:
        parameters: That it determines.
        predicted: Share of held-out runs that it predicts; the other figures are of the runs that
            both models predict, or of these if the other one predicts too few.
        r2: Of the log response.
        r2_low: 2.5 % quantile over the repeats.
        r2_high: 97.5 % quantile over the repeats.
        median_ape_percent: Median absolute percentage error.
        ape90_percent: Its 90th percentile.
        coverage: Share of runs inside their 1 - alpha prediction interval.
    """

    parameters: float
    predicted: float
    r2: float
    r2_low: float
    r2_high: float
    median_ape_percent: float
    ape90_percent: float
    coverage: float


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Both models side by side.

    Attributes:
        model: The one that describes the campaign by :data:`CHOICE_RULE`; ``None`` if neither can
            be validated.
        law: Figures of the law; ``None`` if there are none.
        log_linear: Figures of the log-linear model; ``None`` if there are none.
        repeats: Of the folds.
        why: In a sentence.
    """

    model: Model | None
    law: HeldOut | None
    log_linear: HeldOut | None
    repeats: int
    why: str


def choose(
    fit: LawFit | None, runs: pd.DataFrame, y: Matrix, *, repeats: int, alpha: float, seed: int
) -> Choice:
    """Compare both models on held-out configurations.

    Args:
        fit: The law fitted to all runs; ``None`` if it cannot be.
        runs: The usable runs.
        y: Log of the response per image.
        repeats: Of the folds, at most.
        alpha: Of the prediction intervals.
        seed: Of the folds.
    """
    groups, known = pd.factorize(configurations(runs) + task_of(runs))
    repeats = min(repeats, max(_PREDICTIONS // max(len(runs), 1), 2))
    if fit is None or len(known) < FOLDS or repeats < 1:
        why = (
            "the law is not fitted to these runs, so the log-linear model describes them"
            if fit is None
            else f"fewer than {FOLDS} configurations cannot be divided into folds"
        )
        model: Model | None = "log-linear" if fit is None else None
        return Choice(model=model, law=None, log_linear=None, repeats=0, why=why)
    design, matrix, _ = build_design(runs)
    rows = fit.design.rows(runs)
    folds = []
    for repeat in range(repeats):
        by_law, by_line = (np.full((2, len(y)), np.nan) for _ in range(2))
        for train, test in GroupKFold(FOLDS, shuffle=True, random_state=seed + repeat).split(
            matrix, y, groups
        ):
            by_law[:, test] = _law_fold(fit, rows, y, train, test, alpha)
            if design.terms:
                by_line[:, test] = _line_fold(matrix, y, train, test, alpha)
        folds.append((by_law, by_line))
    shares = [float(np.mean([np.isfinite(f[i][0]).mean() for f in folds])) for i in (0, 1)]
    usable = [share >= MIN_PREDICTED for share in shares]
    ranks = (len(y) - fit.residual_df, float(np.linalg.matrix_rank(matrix)))
    scores = [
        _scores([(f[i], f[1 - i]) for f in folds], y, ranks[i], shares[i], usable[1 - i])
        if usable[i]
        else None
        for i in (0, 1)
    ]
    law, line = scores
    if law and line:
        first: Model = "law" if law.r2 >= line.r2 else "log-linear"
        why = (
            f"held-out R2 of the law {law.r2:.3f}, median error {law.median_ape_percent:.1f} %; of "
            f"the log-linear model {line.r2:.3f} and {line.median_ape_percent:.1f} %"
        )
        return Choice(model=first, law=law, log_linear=line, repeats=repeats, why=why)
    only: Model | None = "law" if law else "log-linear" if line else None
    lost = "the log-linear model" if law else "the law" if line else "either model"
    why = f"{lost} cannot predict half of the held-out configurations from the rest"
    return Choice(model=only, law=law, log_linear=line, repeats=repeats, why=why)


def _law_fold(
    fit: LawFit, rows: Rows, y: Matrix, train: Matrix, test: Matrix, alpha: float
) -> Matrix:
    """Return prediction and half width of the test runs, NaN where the rest do not tell."""
    part = fit_law(fit.design, rows.at(train), y[train], start=fit.theta, noise=fit.noise)
    if part.residual_df < MIN_FOLD_RESIDUAL_DF:
        return np.full((2, len(test)), np.nan)
    held = rows.at(test)
    unknown = np.logical_or(*(_unseen(c, train, test) for c in (rows.step, rows.image)))
    found = np.vstack([part.log_energy(held), part.half_width(held, alpha, new_run=True)])
    found[:, unknown] = np.nan
    return found


def _unseen(columns: Matrix, train: Matrix, test: Matrix) -> Matrix:
    """Return which test rows have an effect that no training row has."""
    absent = ~(columns[train] != 0).any(axis=0)
    return np.asarray((columns[test][:, absent] != 0).any(axis=1))


def _line_fold(matrix: Matrix, y: Matrix, train: Matrix, test: Matrix, alpha: float) -> Matrix:
    model = LeastSquares().fit(matrix[train], y[train])
    if model.residual_df_ < MIN_FOLD_RESIDUAL_DF:
        return np.full((2, len(test)), np.nan)
    return np.vstack([model.predict(matrix[test]), model.half_width(matrix[test], alpha)])


def _scores(
    folds: list[tuple[Matrix, Matrix]], y: Matrix, parameters: float, share: float, both: bool
) -> HeldOut:
    found = []
    for (predicted, half), (other, _) in folds:
        scored = np.isfinite(predicted) & (np.isfinite(other) if both else True)
        error = predicted[scored] - y[scored]
        percent = 100 * np.abs(np.expm1(error))
        found.append(
            (
                1 - np.mean(error**2) / np.var(y[scored]),
                np.median(percent),
                np.quantile(percent, 0.9),
                np.mean(np.abs(error) <= half[scored]),
            )
        )
    table = np.array(found)
    r2, ape, ape90, coverage = np.median(table, axis=0)
    return HeldOut(
        parameters=parameters,
        predicted=share,
        r2=float(r2),
        r2_low=float(np.quantile(table[:, 0], 0.025)),
        r2_high=float(np.quantile(table[:, 0], 0.975)),
        median_ape_percent=float(ape),
        ape90_percent=float(ape90),
        coverage=float(coverage),
    )
