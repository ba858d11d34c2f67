"""How a prediction of the registered energy model is said."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from green_screen import names
from green_screen.options import PredictOptions
from green_screen.statistics.law_prediction import PARTS_J

# A total, the unit in its columns, and the unit that is shown.
_TOTALS = (
    ("energy", "j", "J"),
    ("energy", "kwh", "kWh"),
    ("duration", "s", "s"),
    ("mean_power", "w", "W"),
    ("emissions", "kg_co2eq", "kg CO2eq (estimate)"),
)


def prediction_lines(row: Mapping[Hashable, Any], options: PredictOptions) -> Iterator[str]:
    """Yield the totals of a row of :func:`~.energy_service.predict_table`, and its parts if asked.

    Only the energy law knows the parts; the log-linear model predicts the steady energy alone.
    """
    amount = f"{options.epochs} epochs" if options.images is None else f"{options.images} images"
    estimate = " (estimate)" if row["energy_source"] == names.SOURCE_ESTIMATE else ""
    for name, unit, shown in _TOTALS:
        value, low, high = (row[f"{name}{end}_{unit}"] for end in ("", "_low", "_high"))
        if pd.notna(value):
            note = estimate if name == "energy" else ""
            yield (
                f"{amount}: {value:.4g} {shown}{note}, 95 % interval {low:.4g} to {high:.4g} "
                f"{shown}"
            )
    if row["model"] != "law":
        yield "set-up and warm-up come on top; only the energy law knows the parts"
    elif options.explain:
        for part in PARTS_J:
            share = row[part] / row["energy_j"]
            yield f"  {part.removesuffix('_j'):11s} {row[part]:.4g} J{estimate}, {share:.1%}"
