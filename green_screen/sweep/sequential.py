"""The order in which a campaign learns most of the energy law, and when it has learnt enough."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.space import Space, TrainingConfig, resolve
from green_screen.statistics.information import Information
from green_screen.statistics.law import CONTROLS, LAW_FACTORS, LawDesign, common_task, law_design
from green_screen.statistics.law_fit import LawFit, enough, fit_law
from green_screen.statistics.law_responses import (
    log_response,
    training_response,
    usable_law_runs,
)
from green_screen.statistics.law_tests import control_columns
from green_screen.sweep.design import Plan

# What is known well enough: the 95 % interval of the mean energy, of nine configurations in ten.
QUANTILE = 0.9
ALPHA = 0.05


def informative(
    candidates: Sequence[TrainingConfig], baseline: TrainingConfig, n_runs: int
) -> list[TrainingConfig]:
    """Return candidates of which, for every n, the first n tell as much of the law as n can.

    As nothing of the law is known yet, for several laws at once; see
    :class:`~green_screen.statistics.information.Information`.
    """
    runs = as_runs([*candidates, baseline])
    design = _design(runs)
    information = Information(design)
    information.add(design.rows(runs.tail(1)))
    chosen = information.in_order(design.rows(runs.head(len(candidates))), n_runs)
    return [candidates[index] for index in chosen]


class Sequencer:
    """Chooses a campaign's next run by what the finished ones say of the law.

    The plan says which configurations there are and at which places baselines and replicates stand;
    the next configuration is the one of those left that tells most. From the same finished runs the
    same choice follows, so that a resumed campaign goes on as it would have.

    Attributes:
        half_width: How far the 95 % interval of the mean energy reaches from it, as a fraction, for
            nine in ten of all configurations; infinite before the law can be fitted.
        fit: The law as the runs so far have it; ``None`` before it can be fitted.
    """

    def __init__(self, plan: Plan) -> None:
        """Begin without any run."""
        self._plan = plan
        runs = as_runs([run.config for run in plan.runs])
        self._design = _design(runs)
        self._rows = self._design.rows(runs)
        self.fit: LawFit | None = None
        self._every = all_configurations(plan.space)
        self.half_width = math.inf

    def learn(self, runs: pd.DataFrame) -> None:
        """Fit the law to all runs so far, a row each as of `read_runs`, if they are enough."""
        response = training_response(runs)
        used = usable_law_runs(runs, response).runs
        if used.empty:
            return
        design = response.design(used)
        if enough(design, used):
            return
        self.fit = fit_law(design, design.rows(used), log_response(used, response))
        every = as_runs(self._every, common_task(used))
        widths = self.fit.half_width(design.rows(every), ALPHA, new_run=False)
        self.half_width = float(np.expm1(np.quantile(widths, QUANTILE)))

    def next(self, waiting: Sequence[int]) -> int:
        """Return the position, of those that wait, to be run now."""
        planned = self._plan.runs
        begun = sorted(set(range(len(planned))) - set(waiting))
        kind = planned[min(len(begun), len(planned) - 1)].kind
        due = [
            position
            for position in waiting
            if planned[position].kind == kind and planned[position].replicate_of not in waiting
        ]
        if kind == names.KIND_BASELINE and due:
            return due[0]
        due = due or list(waiting)
        information = Information(self._design, self.fit)
        information.add(self._rows.at(np.array(begun, dtype=int)))
        return due[int(np.argmax(information.gains(self._rows.at(np.array(due)))))]


def _design(runs: pd.DataFrame) -> LawDesign:
    """Return the law's parameters with those of what cannot act, which is to be seen too."""
    controls = itertools.chain.from_iterable(control_columns(name, runs) for name in CONTROLS)
    return dataclasses.replace(law_design(runs), controls=tuple(controls))


def as_runs(
    configs: Sequence[TrainingConfig], task: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Return configurations, as they are executed, as rows of runs of one task."""
    rows = [resolve(config).effective.as_params() for config in configs]
    columns = {"model": "", "dataset": "", "image_size": math.nan, "machine": "", **(task or {})}
    frame = pd.DataFrame(rows).add_prefix(EFFECTIVE)
    return frame.assign(**columns, campaign="", position=math.nan)


def all_configurations(space: Space) -> list[TrainingConfig]:
    """Return all combinations of the levels that can act on the energy of an image."""
    factors = (*LAW_FACTORS, "batch_size")
    return [
        space.parse(dict(zip(factors, levels, strict=True)))
        for levels in itertools.product(*(space.levels[factor] for factor in factors))
    ]
