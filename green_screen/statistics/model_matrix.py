"""The design matrix of the energy model: which terms there are and how levels become columns.

The terms are fixed before any data are seen: the main effects of the factors, momentum nested in
the optimizers that use it, two interactions, machines and campaigns as blocks, and run order within
each campaign and start temperature as covariates. Only the number of runs and the levels that occur
decide which of them can be fitted; the response never does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.space import Space
from green_screen.statistics.coding import (
    CODINGS,
    MACHINE,
    MOMENTUM,
    NO_MOMENTUM,
    Coding,
    CodingKind,
    Covariate,
    Matrix,
    Term,
    factor_column,
    interaction_name,
    matrix_rank,
    nest_of,
    nested_name,
    products,
    sort_levels,
)

# Columns whose values each have a level of their own.
BLOCKS = (MACHINE, "campaign")

# Main effects in the order in which they are given up last: what is known to move energy first.
MAIN_EFFECTS = (
    "batch_size",
    "internal",
    "precision",
    "augmentation",
    "partitioning",
    "optimizer",
    "preprocessing",
    "lr_schedule",
    "lr",
)
INTERACTIONS = (("batch_size", "internal"), ("batch_size", "precision"))

RUN_ORDER = "run_order"
START_TEMPERATURE = "start_temperature"

# Share of an interaction's cells that must occur: with fewer it is mostly unknown.
MIN_CELLS = 0.75

# Fewer leave the t quantile large and the residuals without information.
MIN_RESIDUAL_DF = 10


@dataclass(frozen=True)
class Design:
    """Everything needed to turn runs into rows of the model matrix.

    Attributes:
        terms: In the order of the columns, after the intercept.
        codings: Factor -> coding; ``optimizer_momentum`` has one for each optimizer, under
            ``optimizer_momentum(<optimizer>)``.
        covariates: Name -> covariate; of several campaigns each has a run order of its own, under
            ``run_order(<campaign>)``.
    """

    terms: tuple[Term, ...]
    codings: Mapping[str, Coding]
    covariates: Mapping[str, Covariate]

    def columns(self) -> list[str]:
        """Return a name for each column, the intercept first."""
        found = ["intercept"]
        for term in self.terms:
            found.extend(self._labels(term))
        return found

    def slices(self) -> dict[str, slice]:
        """Return term name -> its columns."""
        found: dict[str, slice] = {}
        start = 1
        for term in self.terms:
            found[term.name] = slice(start, start + len(self._labels(term)))
            start = found[term.name].stop
        return found

    def matrix(self, runs: pd.DataFrame) -> Matrix:
        """Return the model matrix of `runs`, NaN in the columns of a level that is unknown.

        An unknown machine or campaign counts as the average of the known ones, like an unknown
        covariate: they are held constant, not predicted for.
        """
        blocks = [np.ones((len(runs), 1)), *(self._block(term, runs) for term in self.terms)]
        return np.hstack(blocks)

    def marginal_row(
        self, fixed: Mapping[str, str], over: Mapping[str, tuple[str, ...]] | None = None
    ) -> Matrix:
        """Return the row of the mean response with some factors fixed, the others averaged.

        The average gives each level of the other factors the same weight and takes covariates at
        their centre: the estimated marginal mean (population marginal mean) of Searle, Speed and
        Milliken, The American Statistician 34 (1980) 216-221.

        Args:
            fixed: Factor -> level.
            over: Factor -> the levels to average over, where that is not all of them.
        """
        blocks = [np.ones((1, 1))]
        for term in self.terms:
            if term.kind == "covariate":
                blocks.append(np.zeros((1, len(term.factors))))
            elif term.kind == "interaction":
                first, second = (self._marginal(f, fixed, over or {}) for f in term.factors)
                blocks.append(products(first, second))
            elif term.kind == "nested":
                blocks.extend(self._nested_marginal(optimizer, fixed) for optimizer in self.nests())
            else:
                blocks.append(self._marginal(term.factors[0], fixed, over or {}))
        return np.hstack(blocks)

    def nests(self) -> tuple[str, ...]:
        """Return the optimizers within which momentum has an effect of its own."""
        return tuple(filter(None, map(nest_of, self.codings)))

    def _labels(self, term: Term) -> list[str]:
        if term.kind == "covariate":
            return list(term.factors)
        if term.kind == "nested":
            return [
                f"{nested_name(nest)}[{level}]"
                for nest in self.nests()
                for level in self.codings[nested_name(nest)].columns
            ]
        labels = [
            [f"{factor}[{level}]" for level in self.codings[factor].columns]
            for factor in term.factors
        ]
        if len(labels) == 1:
            return labels[0]
        return [f"{a}:{b}" for a in labels[0] for b in labels[1]]

    def _block(self, term: Term, runs: pd.DataFrame) -> Matrix:
        if term.kind == "covariate":
            return np.hstack([self._covariate(name, runs) for name in term.factors])
        if term.kind == "nested":
            return np.hstack([self._nested(nest, runs) for nest in self.nests()])
        if term.kind == "block":
            coding = self.codings[term.name]
            block = coding.encode(runs[term.name])
            block[np.isnan(block).any(axis=1)] = coding.mean()
            return block
        encoded = [self.codings[f].encode(runs[factor_column(f)]) for f in term.factors]
        return encoded[0] if len(encoded) == 1 else products(*encoded)

    def _covariate(self, name: str, runs: pd.DataFrame) -> Matrix:
        covariate = self.covariates[name]
        values = runs[covariate.column]
        if (campaign := _campaign_of(name)) is not None:
            # To the runs of others it says nothing, so they count as average.
            values = values.where(runs["campaign"] == campaign)
        return covariate.encode(values)

    def _nested(self, nest: str, runs: pd.DataFrame) -> Matrix:
        coding = self.codings[nested_name(nest)]
        inside = (runs[EFFECTIVE + "optimizer"] == nest).to_numpy()
        encoded = coding.encode(runs[EFFECTIVE + MOMENTUM])
        encoded[~inside] = 0.0
        return encoded

    def _marginal(
        self, factor: str, fixed: Mapping[str, str], over: Mapping[str, tuple[str, ...]]
    ) -> Matrix:
        coding = self.codings[factor]
        return coding.mean((fixed[factor],) if factor in fixed else over.get(factor))

    def _nested_marginal(self, nest: str, fixed: Mapping[str, str]) -> Matrix:
        coding = self.codings[nested_name(nest)]
        if "optimizer" in fixed:
            weight = float(fixed["optimizer"] == nest)
        else:
            optimizers = self.codings.get("optimizer")
            weight = 1.0 / len(optimizers.levels) if optimizers else 1.0
        if weight and fixed.get("optimizer") == nest and fixed.get(MOMENTUM) in coding.levels:
            return coding.mean((fixed[MOMENTUM],))
        return coding.mean() * weight


def build_design(
    runs: pd.DataFrame, *, coding: CodingKind = "sum"
) -> tuple[Design, Matrix, list[str]]:
    """Choose the terms that these runs can estimate.

    Returns:
        The design, its model matrix for `runs`, and a statement for each term of the pre-stated
        model that was left out, with the reason. A design without terms means that nothing can be
        estimated. The matrix may lack rank where cells of an interaction are empty.

    Raises:
        ValueError: `coding` is not one of :data:`CODINGS`.
    """
    if coding not in CODINGS:
        raise ValueError(f"coding must be one of {', '.join(CODINGS)}, but got {coding!r}")
    codings, statements = _codings(runs, coding)
    covariates = _covariates(runs, statements)
    design, matrix, rank = Design((), codings, covariates), np.ones((len(runs), 1)), 1
    too_few: list[str] = []
    for term in _candidates(codings, covariates):
        trial = Design((*design.terms, term), codings, covariates)
        trial_matrix = trial.matrix(runs)
        trial_rank = matrix_rank(trial_matrix)
        lost = len(trial.columns()) - len(design.columns()) - (trial_rank - rank)
        if objection := _objection(term, design, runs):
            statements.append(f"{term.name}: {objection}")
        elif trial_rank == rank:
            statements.append(_coincidence(term, design))
        elif too_few or len(runs) - trial_rank < MIN_RESIDUAL_DF:
            too_few.append(term.name)
        else:
            if lost:
                statements.append(
                    f"{term.name}: {lost} of its {lost + trial_rank - rank} parameters cannot be "
                    f"told apart from other terms, because combinations of levels are missing "
                    f"among the runs"
                )
            design, matrix, rank = trial, trial_matrix, trial_rank
    if too_few:
        statements.append(
            f"{', '.join(too_few)}: cannot be estimated, {len(runs)} usable runs are too few for "
            f"more than {rank} parameters and {MIN_RESIDUAL_DF} residual degrees of freedom"
        )
    return design, matrix, statements


def _candidates(codings: Mapping[str, Coding], covariates: Mapping[str, Covariate]) -> list[Term]:
    """Return the terms of the pre-stated model; what is given up first comes last."""
    found = [Term(name, "block", (name,)) for name in BLOCKS if name in codings]
    found += [Term(f, "main", (f,)) for f in MAIN_EFFECTS if f in codings]
    if any(map(nest_of, codings)):
        found.append(Term(nested_name("optimizer"), "nested", ("optimizer", MOMENTUM)))
    for name in (RUN_ORDER, START_TEMPERATURE):
        if parts := tuple(part for part in covariates if part.partition("(")[0] == name):
            found.append(Term(name, "covariate", parts))
    found += [
        Term(interaction_name(pair), "interaction", pair)
        for pair in INTERACTIONS
        if all(factor in codings for factor in pair)
    ]
    return found


def _objection(term: Term, design: Design, runs: pd.DataFrame) -> str:
    """Return why an interaction may not enter the model; empty for all other terms."""
    if term.kind != "interaction":
        return ""
    present = {other.name for other in design.terms}
    without = [factor for factor in term.factors if factor not in present]
    if without:
        return f"not estimated, because the main effect of {' and '.join(without)} is not"
    cells = runs[[factor_column(factor) for factor in term.factors]].drop_duplicates()
    share = len(cells) / math.prod(len(design.codings[f].levels) for f in term.factors)
    if share < MIN_CELLS:
        return (
            f"not estimated, only {share:.0%} of its combinations of levels occur and the rule "
            f"asks for {MIN_CELLS:.0%}"
        )
    return ""


def _codings(runs: pd.DataFrame, kind: CodingKind) -> tuple[dict[str, Coding], list[str]]:
    codings: dict[str, Coding] = {}
    statements: list[str] = []
    reference = _references(runs)
    for block in BLOCKS:
        levels = tuple(sorted(set(runs[block])))
        if len(levels) > 1:
            codings[block] = Coding(levels, levels[0], kind)
    for factor in MAIN_EFFECTS:
        levels = sort_levels(factor, set(runs[factor_column(factor)]))
        if len(levels) > 1:
            codings[factor] = Coding(levels, _pick(reference.get(factor), levels), kind)
        elif levels:
            statements.append(
                f"{factor}: cannot be estimated, all usable runs have the level {levels[0]}"
            )
    momentum = runs[EFFECTIVE + MOMENTUM]
    uses = runs[momentum != NO_MOMENTUM]
    for optimizer in sort_levels("optimizer", set(uses[EFFECTIVE + "optimizer"])):
        inside = uses[uses[EFFECTIVE + "optimizer"] == optimizer]
        levels = sort_levels(MOMENTUM, set(inside[EFFECTIVE + MOMENTUM]))
        if len(levels) > 1:
            chosen = _pick(reference.get(MOMENTUM), levels)
            codings[nested_name(optimizer)] = Coding(levels, chosen, kind)
        else:
            statements.append(
                f"{nested_name(optimizer)}: cannot be estimated, all usable runs of {optimizer} "
                f"have the momentum {levels[0]}"
            )
    return codings, statements


def _references(runs: pd.DataFrame) -> dict[str, str]:
    """Return factor -> its level in the baseline of these runs, or else in the published one."""
    published: dict[str, Any] = Space.load().baseline.as_params()
    baselines = runs[runs["kind"] == names.KIND_BASELINE]
    if baselines.empty:
        return published
    seen = {factor: baselines[EFFECTIVE + factor].mode().iloc[0] for factor in published}
    if seen[MOMENTUM] == NO_MOMENTUM:
        seen[MOMENTUM] = published[MOMENTUM]
    return seen


def _pick(wanted: str | None, levels: tuple[str, ...]) -> str:
    return wanted if wanted in levels else levels[0]


def _covariates(runs: pd.DataFrame, statements: list[str]) -> dict[str, Covariate]:
    found: dict[str, Covariate] = {}
    for term, column in ((RUN_ORDER, "position"), (START_TEMPERATURE, names.START_TEMPERATURE_C)):
        values = runs[column].dropna()
        missing = f"{column} is missing in {len(runs) - len(values)} of {len(runs)} runs"
        if len(values) < len(runs) / 2:
            statements.append(f"{term}: not held constant, {missing}")
            continue
        # A degree is the same in every campaign; the tenth run of one has no more to do with the
        # tenth of another than any two of their runs.
        apart = _by_campaign(values, runs) if term == RUN_ORDER else {term: values}
        for name, part in apart.items():
            # The effect is then that of going from the lowest value to the highest.
            spread = float(part.max() - part.min())
            if spread > 0:
                found[name] = Covariate(column, float(part.mean()), spread)
        if len(values) < len(runs) and any(name in found for name in apart):
            statements.append(f"{term}: {missing}, which count as average")
    return found


def _by_campaign(values: pd.Series[float], runs: pd.DataFrame) -> dict[str, pd.Series[float]]:
    campaigns = runs["campaign"].reindex(values.index)
    if campaigns.nunique() < 2:
        return {RUN_ORDER: values}
    parts = values.groupby(campaigns, sort=False)
    return {f"{RUN_ORDER}({campaign})": part for campaign, part in parts}


def _campaign_of(name: str) -> str | None:
    """Return the campaign that a run order is of; ``None`` for a covariate of all runs."""
    _, nested, campaign = name.partition("(")
    return campaign.removesuffix(")") if nested else None


def _coincidence(term: Term, design: Design) -> str:
    present = ", ".join(other.name for other in design.terms) or "the intercept"
    return (
        f"{term.name}: cannot be estimated, among these runs it coincides with a combination of "
        f"{present}"
    )
