"""How far the factors of a design can be told apart, and how to bring them further apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import helmert

IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]

# Exchanges tried for each run of a design: more bring next to nothing (docs/campaigns.md).
_PROPOSALS_PER_RUN = 200
_MAX_PROPOSALS = 40_000


def decouple(levels: IntArray, counts: Sequence[int], rng: np.random.Generator) -> IntArray:
    """Exchange values within columns towards a nearly orthogonal array.

    An exchange keeps how often each level occurs. It is accepted if it does not raise the sum,
    over all pairs of factors, of the squared cell counts of their contingency tables. Given the
    margins this sum is least where all pairs of levels occur equally often, that is, in an
    orthogonal array; it is the J2 criterion up to constants (Xu 2002, "An algorithm for
    constructing orthogonal and nearly-orthogonal arrays with mixed levels and small runs",
    Technometrics 44(4)).

    Args:
        levels: Level indices [runs, factors].
        counts: Levels of each factor.
        rng: Source of the proposals.

    Returns:
        Level indices of the same shape.
    """
    table = levels.copy()
    n_runs, n_factors = table.shape
    width = max(counts)
    # cells[f, g, a, b]: how often factor f has level a while factor g has level b.
    cells = np.zeros((n_factors, n_factors, width, width), dtype=np.int64)
    for f, g in itertools.product(range(n_factors), repeat=2):
        np.add.at(cells[f, g], (table[:, f], table[:, g]), 1)
    n_proposals = min(_PROPOSALS_PER_RUN * n_runs, _MAX_PROPOSALS)
    factors = rng.integers(0, n_factors, n_proposals)
    pairs = rng.integers(0, n_runs, (n_proposals, 2))
    everyone = np.arange(n_factors)
    for f, (i, j) in zip(factors, pairs, strict=True):
        a, b = table[i, f], table[j, f]
        if a == b:
            continue
        others = everyone[everyone != f]
        # Where both runs agree in the other factor, the exchange changes nothing.
        others = others[table[i, others] != table[j, others]]
        at_i, at_j = table[i, others], table[j, others]
        # Two cells lose one and two gain one; (n-1)^2 - n^2 = 1 - 2n and (n+1)^2 - n^2 = 2n + 1.
        gain = cells[f, others, a, at_j] + cells[f, others, b, at_i]
        loss = cells[f, others, a, at_i] + cells[f, others, b, at_j]
        if int(np.sum(2 * (gain - loss) + 4)) > 0:
            continue
        for column, value, step in ((at_i, a, -1), (at_j, b, -1), (at_j, a, 1), (at_i, b, 1)):
            cells[f, others, value, column] += step
            cells[others, f, column, value] += step
        table[i, f], table[j, f] = b, a
    return table


def cramers_v(first: IntArray, second: IntArray) -> float:
    """Return Cramer's V of two columns of levels: 0 unassociated, 1 one determines the other.

    V = sqrt(chi2 / (n (k - 1))) with k the smaller number of levels that occur (Cramer 1946,
    Mathematical Methods of Statistics, p. 282). A column with one level is associated with none.
    """
    rows, columns = np.unique(first, return_inverse=True), np.unique(second, return_inverse=True)
    observed = np.zeros((len(rows[0]), len(columns[0])))
    np.add.at(observed, (rows[1], columns[1]), 1)
    smaller = min(observed.shape)
    if smaller < 2:
        return 0.0
    expected = observed.sum(axis=1, keepdims=True) * observed.sum(axis=0) / observed.sum()
    chi2 = float(np.sum((observed - expected) ** 2 / expected))
    return float(np.sqrt(chi2 / (observed.sum() * (smaller - 1))))


def worst_association(levels: IntArray, factors: Sequence[str]) -> tuple[float, str]:
    """Return the greatest Cramer's V of any two columns and the pair, such as ``lr, batch_size``.

    The pair is empty if there are not two factors that vary.
    """
    best, pair = 0.0, ""
    for f, g in itertools.combinations(range(levels.shape[1]), 2):
        value = cramers_v(levels[:, f], levels[:, g])
        if value > best:
            best, pair = value, f"{factors[f]}, {factors[g]}"
    return best, pair


def condition_number(levels: IntArray, nested: Mapping[int, int] | None = None) -> float:
    """Return the condition number of the main effects' model matrix, an intercept included.

    Factors are coded by orthonormal (Helmert) contrasts of the levels that occur and columns are
    scaled to length one. 1 is a balanced orthogonal design; infinite means that effects cannot be
    told apart.

    Args:
        levels: Level indices [runs, factors].
        nested: Factor -> the factor within whose levels it has effects of its own.
    """
    nested = nested or {}
    blocks: list[FloatArray] = [np.ones((len(levels), 1))]
    for factor, column in enumerate(levels.T):
        groups = levels[:, nested[factor]] if factor in nested else np.zeros(len(levels))
        for group in np.unique(groups):
            inside = groups == group
            present, index = np.unique(column[inside], return_inverse=True)
            block = np.zeros((len(levels), len(present) - 1))
            block[inside] = helmert(len(present)).T[index]
            blocks.append(block)
    matrix = np.hstack(blocks)
    if matrix.shape[1] > matrix.shape[0]:
        return float("inf")
    singular = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0), compute_uv=False)
    if singular[-1] < singular[0] * np.finfo(float).eps * max(matrix.shape):
        return float("inf")
    return float(singular[0] / singular[-1])
