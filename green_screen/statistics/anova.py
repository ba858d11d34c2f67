"""Type II analysis of variance: one projection a term, reused for any number of responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from green_screen.statistics.coding import Matrix
from green_screen.statistics.model_matrix import Design

ANOVA_COLUMNS = (
    "term",
    "kind",
    "df",
    "sum_sq",
    "f",
    "p",
    "p_holm",
    "finding",
    "partial_eta_sq",
    "partial_omega_sq",
)


@dataclass(frozen=True)
class Projections:
    """The projections that give the sums of squares of any response over the same runs.

    Attributes:
        bases: Term name -> orthonormal basis (runs x df) of what the term adds to the others.
        space: Orthonormal basis of the whole model.
    """

    bases: Mapping[str, Matrix]
    space: Matrix

    @property
    def residual_df(self) -> int:
        """Residual degrees of freedom of the whole model."""
        return int(self.space.shape[0] - self.space.shape[1])

    def f_statistics(self, responses: Matrix) -> tuple[Matrix, Matrix, Matrix]:
        """Return sums of squares and F (terms x responses) and the residual sums of squares.

        Args:
            responses: Runs x responses.
        """
        residual = ((responses - self.space @ (self.space.T @ responses)) ** 2).sum(axis=0)
        sums = np.vstack(
            [((basis.T @ responses) ** 2).sum(axis=0) for basis in self.bases.values()]
        )
        df = self.term_df()[:, None]
        return sums, (sums / df) / (residual / self.residual_df), residual

    def term_df(self) -> npt.NDArray[np.int64]:
        """Return the degrees of freedom of each term."""
        return np.array([basis.shape[1] for basis in self.bases.values()])


@dataclass(frozen=True)
class TypeTwo(Projections):
    """Type II: each term beside all terms that do not contain it.

    Attributes:
        design: The model's terms.
    """

    design: Design


def type_two(design: Design, matrix: Matrix) -> TypeTwo:
    """Prepare the Type II sums of squares of a design.

    Each term is tested after all terms that do not contain it: main effects after each other, an
    interaction after everything (Langsrud, Statistics and Computing 13 (2003) 163-167).
    """
    slices = design.slices()
    bases: dict[str, Matrix] = {}
    for term in design.terms:
        before = [matrix[:, :1]]
        before += [
            matrix[:, slices[other.name]]
            for other in design.terms
            if other != term and not other.contains(term)
        ]
        given = orthonormal(np.hstack(before))
        own = matrix[:, slices[term.name]]
        basis = orthonormal(own - given @ (given.T @ own), np.linalg.norm(own, axis=0).max())
        if basis.shape[1]:
            bases[term.name] = basis
    return TypeTwo(bases, orthonormal(matrix), design)


def anova_table(type_two_: TypeTwo, response: Matrix, alpha: float) -> pd.DataFrame:
    """Return the table of :data:`ANOVA_COLUMNS`, one row a term.

    ``p_holm`` corrects for the terms that are hypotheses; a finding has ``p_holm <= alpha``. Effect
    sizes are partial eta squared,
    SS / (SS + SSE), and partial omega squared, df (F - 1) / (df (F - 1) + n), which is less biased
    (Olejnik and Algina, Psychological Methods 8 (2003) 434-447) and cut off at 0.
    """
    sums, f, residual = type_two_.f_statistics(response[:, None])
    df, n = type_two_.term_df(), len(response)
    sum_sq, f_values = sums[:, 0], f[:, 0]
    by_name = {term.name: term for term in type_two_.design.terms}
    table = pd.DataFrame(
        {
            "term": list(type_two_.bases),
            "kind": [by_name[name].kind for name in type_two_.bases],
            "df": df,
            "sum_sq": sum_sq,
            "f": f_values,
            "p": stats.f.sf(f_values, df, type_two_.residual_df),
        }
    )
    tested = np.array([by_name[name].is_hypothesis for name in type_two_.bases])
    table["p_holm"] = np.nan
    table["finding"] = False
    if tested.any():
        corrected = holm(table.loc[tested, "p"].to_numpy())
        table.loc[tested, "p_holm"] = corrected
        table.loc[tested, "finding"] = corrected <= alpha
    table["partial_eta_sq"] = sum_sq / (sum_sq + residual[0])
    excess = df * (f_values - 1.0)
    table["partial_omega_sq"] = np.clip(excess / (excess + n), 0.0, None)
    return table[list(ANOVA_COLUMNS)]


def holm(p: Matrix) -> Matrix:
    """Return p-values adjusted for their number: Holm, Scandinavian Journal of Statistics 6 (1979).

    The function of statsmodels collects garbage in each call, which takes longer than a whole fit.
    """
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def orthonormal(columns: Matrix, scale: float | None = None) -> Matrix:
    """Return an orthonormal basis of the columns' span; `scale` says what counts as length 1."""
    norms = np.linalg.norm(columns, axis=0)
    unit = columns / np.where(norms > 0, norms, 1.0) if scale is None else columns / scale
    left, singular, _ = np.linalg.svd(unit, full_matrices=False)
    return np.asarray(left[:, singular > 1e-6])
