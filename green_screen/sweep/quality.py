"""How well the factors of a design can be told apart, as requested and as executed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from green_screen.space import FACTOR_NAMES, Space, TrainingConfig, canonical, resolve
from green_screen.sweep.association import condition_number, worst_association

_NESTED = {FACTOR_NAMES.index("optimizer_momentum"): FACTOR_NAMES.index("optimizer")}


@dataclass(frozen=True)
class Quality:
    """What a set of configurations can tell of their factors.

    Attributes:
        worst: The greatest Cramer's V of two factors.
        pair: The two, such as ``lr, optimizer``; empty if there are not two that vary.
        condition: The main effects' condition number, of the levels that occur.
        missing: Levels that never occur, as ``factor=level``, of the factors that vary.
        constant: Factors that have one level alone.
    """

    worst: float
    pair: str
    condition: float
    missing: tuple[str, ...]
    constant: tuple[str, ...]

    def text(self) -> str:
        """Return it in one line."""
        if len(self.constant) == len(FACTOR_NAMES):
            return "no factor varies"
        if not math.isfinite(self.condition):
            apart = "not all main effects can be told apart"
        elif self.missing:
            apart = f"condition number {self.condition:.2f} for the levels that occur"
        else:
            apart = f"condition number {self.condition:.2f}"
        parts = [f"worst association {self.worst:.3f} ({self.pair or 'none'})", apart]
        if self.missing:
            parts.append(f"never {', '.join(self.missing)}")
        if self.constant:
            parts.append(f"constant {', '.join(self.constant)}")
        return "; ".join(parts)


def quality(space: Space, configs: Sequence[TrainingConfig], *, effective: bool = False) -> Quality:
    """Return the quality of a design from its runs without baselines and replicates.

    Args:
        space: Its levels are those that could occur.
        configs: What is requested.
        effective: Whether what is executed counts instead. Momentum is then compared within the
            optimizers that use it, as in the analysis.
    """
    if effective:
        configs = [resolve(config).effective for config in configs]
    columns, missing, constant = [], [], []
    for factor in FACTOR_NAMES:
        values = [config.as_params()[factor] for config in configs]
        present, column = np.unique(values, return_inverse=True)
        columns.append(column)
        if len(present) == 1:
            constant.append(factor)
            continue
        levels = map(canonical, space.levels[factor])
        missing += [f"{factor}={level}" for level in levels if level not in present]
    table = np.column_stack(columns)
    worst, pair = worst_association(table, FACTOR_NAMES)
    condition = condition_number(table, _NESTED if effective else None)
    return Quality(worst, pair, condition, tuple(missing), tuple(constant))
