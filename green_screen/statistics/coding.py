"""How one factor or covariate becomes columns, and what the terms of the energy model are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from green_screen.results.frame import EFFECTIVE
from green_screen.space import IMPLEMENTED

Matrix = npt.NDArray[np.float64]
CodingKind = Literal["sum", "treatment"]

CODINGS: tuple[CodingKind, ...] = ("sum", "treatment")
NO_MOMENTUM = "None"
MOMENTUM = "optimizer_momentum"
MACHINE = "machine"

_NUMERIC_FACTORS = ("batch_size", "lr", MOMENTUM)


@dataclass(frozen=True)
class Coding:
    """How the levels of a factor become columns: k levels, k - 1 columns.

    Attributes:
        levels: The levels that occur, in their natural order.
        reference: The level that others are compared with (and that has no column of its own).
        kind: ``sum`` (columns sum to zero over the levels) or ``treatment``.
    """

    levels: tuple[str, ...]
    reference: str
    kind: CodingKind

    @property
    def columns(self) -> tuple[str, ...]:
        """The levels that have a column."""
        return tuple(level for level in self.levels if level != self.reference)

    def matrix(self) -> Matrix:
        """Return the contrast matrix, levels x columns."""
        rows = np.zeros((len(self.levels), len(self.columns)))
        for j, level in enumerate(self.columns):
            rows[self.levels.index(level), j] = 1.0
        if self.kind == "sum":
            rows[self.levels.index(self.reference)] = -1.0
        return rows

    def encode(self, values: pd.Series[str]) -> Matrix:
        """Return the rows of the contrast matrix for `values`; NaN for a level that is unknown."""
        codes = pd.Index(self.levels).get_indexer(pd.Index(values))  # -1, the last row, if unknown
        rows = np.vstack([self.matrix(), np.full((1, len(self.columns)), np.nan)])
        return np.asarray(rows[codes], dtype=np.float64)

    def mean(self, over: tuple[str, ...] | None = None) -> Matrix:
        """Return the row of the average over some levels (default: all), each weighing the same.

        It is NaN if one of them is unknown.
        """
        levels = self.levels if over is None else over
        if not set(levels) <= set(self.levels):
            return np.full((1, len(self.columns)), np.nan)
        rows = self.matrix()[[self.levels.index(level) for level in levels]]
        return np.asarray(rows.mean(axis=0, keepdims=True))


@dataclass(frozen=True)
class Covariate:
    """A number that varies between runs and is held constant: centred, in units of `scale`."""

    column: str
    center: float
    scale: float

    def encode(self, values: pd.Series[float]) -> Matrix:
        """Return the scaled column; what is missing counts as the average."""
        scaled = (values.to_numpy(dtype=np.float64) - self.center) / self.scale
        return np.asarray(np.nan_to_num(scaled, nan=0.0)[:, None])


@dataclass(frozen=True)
class Term:
    """One term of the model.

    Attributes:
        name: For tables: a factor, ``a x b``, or ``optimizer_momentum(optimizer)``.
        kind: ``block``, ``covariate``, ``main``, ``nested`` or ``interaction``.
        factors: What it is made of; a term contains another if it has all its factors.
    """

    name: str
    kind: Literal["block", "covariate", "main", "nested", "interaction"]
    factors: tuple[str, ...]

    @property
    def is_hypothesis(self) -> bool:
        """Whether it is tested as a finding; blocks and covariates are only held constant."""
        return self.kind in ("main", "nested", "interaction")

    def contains(self, other: Term) -> bool:
        """Whether `other` is marginal to this term."""
        return self != other and set(other.factors) <= set(self.factors)


def nested_name(optimizer: str) -> str:
    """Return the name under which momentum within `optimizer` is coded."""
    return f"{MOMENTUM}({optimizer})"


def nest_of(name: str) -> str:
    """Return the optimizer that a :func:`nested_name` holds; empty for other names."""
    before, opened, inside = name.partition("(")
    return inside[:-1] if opened and before == MOMENTUM else ""


def factor_column(factor: str) -> str:
    """Return the column of a runs table that holds `factor`."""
    return EFFECTIVE + factor


def interaction_name(factors: tuple[str, str]) -> str:
    """Return the name of an interaction term."""
    return f"{factors[0]} x {factors[1]}"


def sort_levels(factor: str, levels: set[str]) -> tuple[str, ...]:
    """Return levels in their natural order: numbers by size, names as they are implemented."""
    if factor in _NUMERIC_FACTORS:
        last = {NO_MOMENTUM} & levels
        return (*sorted(levels - last, key=float), *last)
    known = IMPLEMENTED.get(factor, ())
    return tuple(level for level in known if level in levels) + tuple(sorted(levels - set(known)))


def matrix_rank(matrix: Matrix) -> int:
    """Return the numerical rank of a tall matrix, its columns scaled to unit length."""
    norms = np.linalg.norm(matrix, axis=0)
    scaled = matrix / np.where(norms > 0, norms, 1.0)
    gram = np.linalg.eigvalsh(scaled.T @ scaled)
    return int(np.sum(gram > 1e-9 * max(float(gram[-1]), 1e-300)))


def products(first: Matrix, second: Matrix) -> Matrix:
    """Return the products of each column of one with each of the other, row by row."""
    return np.asarray((first[:, :, None] * second[:, None, :]).reshape(len(first), -1))
