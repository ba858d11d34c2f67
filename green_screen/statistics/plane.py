"""What each level costs and what it does to the accuracy, side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd

from green_screen.statistics.accuracy import AccuracyAnalysis
from green_screen.statistics.coding import MOMENTUM
from green_screen.statistics.law import LAW_FACTORS
from green_screen.statistics.law_analysis import LawAnalysis
from green_screen.statistics.law_effects import marginal_ratios

PLANE_COLUMNS = (
    "factor",
    "within",
    "level",
    "reference",
    "ratio",
    "ratio_low",
    "ratio_high",
    "points",
    "points_low",
    "points_high",
    "verdict",
)

# (energy, accuracy), each -1, 0 or 1 where its interval shows less, nothing or more -> what it is.
VERDICTS = {
    (-1, -1): "paid for: less energy, less accuracy",
    (-1, 0): "free: less energy, no loss of accuracy is shown",
    (-1, 1): "a gain twice: less energy, more accuracy",
    (0, -1): "a loss: less accuracy, no saving is shown",
    (0, 0): "nothing is shown",
    (0, 1): "a gain: more accuracy, no cost is shown",
    (1, -1): "a loss twice: more energy, less accuracy",
    (1, 0): "a loss: more energy, no gain of accuracy is shown",
    (1, 1): "bought: more accuracy for more energy",
}


def level_plane(
    law: LawAnalysis, effects: pd.DataFrame, accuracy: AccuracyAnalysis, *, by_law: bool
) -> pd.DataFrame:
    """Return the levels whose energy and accuracy the runs both tell.

    Args:
        law: The energy law.
        effects: Of the log-linear model, columns of :data:`~.effects.EFFECT_COLUMNS`.
        accuracy: The levels' differences of accuracy.
        by_law: Whether the law tells the energies: then what does not enter it has the ratio 1 and
            no interval.

    Returns:
        Columns of :data:`PLANE_COLUMNS`: energy over the reference's, accuracy above it in
        percentage points, each with its interval; the other factors are averaged.
    """
    points = accuracy.differences
    points = points[~points["is_reference"].astype(bool) & points["points"].notna()]
    points = points.rename(columns={"ci_low": "points_low", "ci_high": "points_high"}).drop(
        columns=["n_runs", "is_reference"]
    )
    keys = ["factor", "within", "level"]
    if by_law and law.fit is not None:
        ratios = marginal_ratios(law.fit, law.runs, law.reference, law.alpha).assign(within="")
    else:
        ratios = effects[[*keys, "ratio", "ci_low", "ci_high"]]
    ratios = ratios.rename(columns={"ci_low": "ratio_low", "ci_high": "ratio_high"})
    table = points.merge(ratios, how="left", on=keys)
    if by_law:
        apart = ~table["factor"].isin(("batch_size", *LAW_FACTORS))
        apart |= table["factor"] == MOMENTUM
        table.loc[apart, ["ratio", "ratio_low", "ratio_high"]] = 1.0
    table = table[table["ratio"].notna()].reset_index(drop=True)
    energy = _sign(table["ratio_low"] - 1, table["ratio_high"] - 1)
    gained = _sign(table["points_low"], table["points_high"])
    verdicts = [VERDICTS[pair] for pair in zip(energy, gained, strict=True)]
    return table.assign(verdict=verdicts)[list(PLANE_COLUMNS)]


def _sign(low: pd.Series[float], high: pd.Series[float]) -> list[int]:
    return [int(sign) for sign in np.where(low > 0, 1, np.where(high < 0, -1, 0))]
