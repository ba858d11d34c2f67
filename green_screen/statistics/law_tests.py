"""Tests of the energy law: whole factors, negative controls, permutations, groups of residuals."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from green_screen.results.frame import EFFECTIVE, configurations
from green_screen.space import FACTOR_NAMES, MOMENTUM_OPTIMIZERS
from green_screen.statistics.anova import Projections, holm, orthonormal
from green_screen.statistics.coding import MOMENTUM, Matrix, nested_name, sort_levels
from green_screen.statistics.law import CONTROLS, LAW_FACTORS, LawDesign, jacobian
from green_screen.statistics.law_fit import LawFit, fit_law
from green_screen.statistics.validation import PermutationCheck, permuted_rule

TEST_COLUMNS = ("term", "df", "f", "p", "p_holm", "finding")
CONTROL_COLUMNS = (*TEST_COLUMNS, "level", "ratio", "ci_low", "ci_high")
GROUP_COLUMNS = ("group", "n_configurations", "percent", "p_holm")

# A control is not tested where it would leave fewer residual degrees of freedom.
_MIN_CONTROL_DF = 5.0
# A group of fewer configurations is a matter of single ones.
_MIN_GROUP = 4


def factor_tests(fit: LawFit, runs: pd.DataFrame, y: Matrix, alpha: float) -> pd.DataFrame:
    """Test whole factors by comparing the law with the law without them.

    F is the growth of the penalised sum of squares over the parameters lost, against the noise. For
    ``batch_size`` launching is left out: the energy of an image is then the same at every batch.

    Returns:
        The columns of :data:`TEST_COLUMNS`; a finding has ``p_holm <= alpha``. ``df`` counts the
        parameters that the runs determine, so it need not be whole.
    """
    found = []
    for factor in ("batch_size", *LAW_FACTORS):
        nested = _without(fit.design, factor)
        if nested == fit.design:
            continue
        start = _kept(fit, nested)
        small = fit_law(nested, nested.rows(runs), y, start=start, noise=fit.penalty_noise)
        found.append({"term": factor, **_compared(small, fit)})
    return _corrected(pd.DataFrame(found, columns=["term", "df", "f", "p"]), alpha)


def control_tests(
    fit: LawFit, runs: pd.DataFrame, y: Matrix, alpha: float
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Test the factors that cannot act on the energy of an image, each by a ratio a level.

    They are a family of their own for Holm's correction: a finding here says that the campaign, its
    measuring or the law is at fault, not that the factor acts.

    Returns:
        The columns of :data:`CONTROL_COLUMNS`, one row a control, with the level that lies farthest
        from the others, its ratio and interval; and why others were not tested.
    """
    found, untested = [], []
    for control in CONTROLS:
        columns = control_columns(control, runs)
        if not columns:
            untested.append(f"{control}: all usable runs have the same level")
            continue
        if fit.residual_df - len(columns) < _MIN_CONTROL_DF:
            untested.append(f"{control}: {len(runs)} usable runs are too few")
            continue
        design = dataclasses.replace(fit.design, controls=columns)
        start = np.append(fit.theta, np.zeros(len(columns)))
        large = fit_law(design, design.rows(runs), y, start=start, noise=fit.penalty_noise)
        estimates = large.theta[-len(columns) :]
        far = int(np.argmax(np.abs(estimates)))
        error = float(np.sqrt(np.diag(large.covariance))[-len(columns) :][far])
        half = large.t(alpha) * error
        found.append(
            {
                "term": control,
                **_compared(fit, large),
                "level": columns[far],
                "ratio": float(np.exp(estimates[far])),
                "ci_low": float(np.exp(estimates[far] - half)),
                "ci_high": float(np.exp(estimates[far] + half)),
            }
        )
    shape = ["term", "df", "f", "p", "level", "ratio", "ci_low", "ci_high"]
    table = _corrected(pd.DataFrame(found, columns=shape), alpha)
    return table[list(CONTROL_COLUMNS)], tuple(untested)


def law_permutation(
    fit: LawFit, runs: pd.DataFrame, y: Matrix, *, permutations: int, alpha: float, seed: int
) -> PermutationCheck | None:
    """Repeat the factors' tests on permuted residuals of the law without any effect.

    Fitting each of them anew would take hours for a large campaign: the tests are those of the law
    linearised where nothing acts (score tests), which agree with the nested fits there.
    """
    if permutations < 1 or not (fit.design.step or fit.design.image):
        return None
    bare = dataclasses.replace(fit.design, step=(), image=())
    null = fit_law(bare, bare.rows(runs), y)
    rows = fit.design.rows(runs)
    slopes = jacobian(_widened(null, fit.design), fit.design, rows)
    bases = {}
    for factor in LAW_FACTORS:
        own = _mask(fit.design, factor)
        if own.any():
            given = orthonormal(slopes[:, ~own])
            block = slopes[:, own]
            left = block - given @ (given.T @ block)
            bases[factor] = orthonormal(left, float(np.linalg.norm(block, axis=0).max()))
    bases = {factor: basis for factor, basis in bases.items() if basis.shape[1]}
    if not bases:
        return None
    residual = y - null.log_energy(bare.rows(runs))
    return permuted_rule(
        Projections(bases, orthonormal(slopes)),
        np.ones(len(bases), dtype=bool),
        residual,
        permutations=permutations,
        alpha=alpha,
        seed=seed,
    )


def groups_off(
    fit: LawFit, runs: pd.DataFrame, y: Matrix, alpha: float, most: int = 5
) -> pd.DataFrame:
    """Name the levels, and pairs of levels, whose configurations are off together.

    A configuration counts once, by the mean of its runs: a baseline that is repeated and off is
    one configuration that the law misses, not a group.

    Returns:
        The columns of :data:`GROUP_COLUMNS`: ``percent`` is how much more than the law the group
        takes. By the t distribution of a group's mean, Holm over all groups; the strongest first,
        and no group that a stronger one explains (nine of ten configurations in common).
    """
    of_run = pd.factorize(configurations(runs))[0]
    residual = y - fit.log_energy(fit.design.rows(runs))
    means = np.bincount(of_run, residual) / np.bincount(of_run)
    groups, members = _groups(runs.iloc[np.unique(of_run, return_index=True)[1]])
    size = members.sum(axis=1)
    large = (size >= _MIN_GROUP) & (size <= len(means) - _MIN_GROUP)
    members, size, groups = members[large], size[large], groups[large]
    off = members @ means / size
    p = holm(2 * stats.t.sf(np.abs(off) * np.sqrt(size) / fit.noise, fit.residual_df))
    kept: list[int] = []
    for i in np.lexsort((groups, p)):
        common = (members[kept] & members[i]).sum(axis=1) / np.minimum(size[kept], size[i])
        if p[i] <= alpha and len(kept) < most and not (common > 0.9).any():
            kept.append(int(i))
    values = zip(groups[kept], size[kept], 100 * np.expm1(off[kept]), p[kept], strict=True)
    return pd.DataFrame(list(values), columns=list(GROUP_COLUMNS))


def _groups(runs: pd.DataFrame) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.bool_]]:
    """Return the names of all levels and pairs of levels, and which runs are in each."""
    single = [
        (factor, f"{factor}={level}", (runs[EFFECTIVE + factor] == level).to_numpy())
        for factor in FACTOR_NAMES
        for level in sorted(set(runs[EFFECTIVE + factor]))
    ]
    pairs = [
        (f"{one[1]}, {other[1]}", one[2] & other[2])
        for one, other in itertools.combinations(single, 2)
        if one[0] != other[0]
    ]
    names, members = zip(*((name, inside) for _, name, inside in single), *pairs, strict=True)
    return np.array(names, dtype=object), np.array(members)


def _without(design: LawDesign, factor: str) -> LawDesign:
    if factor == "batch_size":
        return dataclasses.replace(design, launching=False)
    return dataclasses.replace(
        design,
        step=tuple(e for e in design.step if factor not in e.levels),
        image=tuple(e for e in design.image if factor not in e.levels),
    )


def _kept(fit: LawFit, nested: LawDesign) -> Matrix:
    """Return the parameters of a fit that a nested design still has."""
    known = dict(zip(fit.design.names(), fit.theta, strict=True))
    return np.array([known[name] for name in nested.names()])


def _widened(fit: LawFit, design: LawDesign) -> Matrix:
    """Return a fit's parameters for a design that has more: no effect of those."""
    known = dict(zip(fit.design.names(), fit.theta, strict=True))
    return np.array([known.get(name, 0.0) for name in design.names()])


def _mask(design: LawDesign, factor: str) -> Matrix:
    """Return which parameters are effects of `factor`."""
    without = set(_without(design, factor).names())
    return np.array([name not in without for name in design.names()], dtype=bool)


def _compared(small: LawFit, large: LawFit) -> dict[str, float]:
    """Return df, F and p of what the larger law has beside the smaller one."""
    df = max(small.residual_df - large.residual_df, 1e-3)
    f = max(small.objective - large.objective, 0.0) / df / large.noise**2
    return {"df": df, "f": f, "p": float(stats.f.sf(f, df, large.residual_df))}


def _corrected(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    p = holm(table["p"].to_numpy(dtype=np.float64)) if len(table) else np.array([])
    return table.assign(p_holm=p, finding=p <= alpha)


def control_columns(control: str, runs: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns of a control: its levels but the most frequent one."""
    if control == "post_quantization":
        internal = set(runs[EFFECTIVE + "internal"])
        return ("internal=post_quantization",) if {control} < internal else ()
    if control == MOMENTUM:
        return tuple(
            f"{nested_name(optimizer)}={level}"
            for optimizer in MOMENTUM_OPTIMIZERS
            for level in _others(MOMENTUM, runs[runs[EFFECTIVE + "optimizer"] == optimizer])
        )
    return tuple(f"{control}={level}" for level in _others(control, runs))


def _others(factor: str, runs: pd.DataFrame) -> tuple[str, ...]:
    counts = runs[EFFECTIVE + factor].value_counts()
    return sort_levels(factor, set(counts.index[1:]))
