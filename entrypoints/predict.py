"""Predict the energy of a training before it runs: ``python -m entrypoints.predict --lr 0.01``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from entrypoints.ending import ended
from green_screen import names
from green_screen.options import PredictOptions, parse_options
from green_screen.space import Space
from green_screen.statistics.law_prediction import PARTS_J

# Columns of a total and of the ends of its interval, and their unit.
ENDS = [
    (f"{name}_{unit}", f"{name}_low_{unit}", f"{name}_high_{unit}", shown)
    for name, unit, shown in (
        ("energy", "j", "J"),
        ("energy", "kwh", "kWh"),
        ("duration", "s", "s"),
        ("mean_power", "w", "W"),
        ("emissions", "kg_co2eq", "kg CO2eq (estimate)"),
    )
]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the prediction; return 1 if there is none for this configuration."""
    options, given = parse_options(PredictOptions, argv, __doc__ or "", factors=True)
    return ended("predict", lambda: _predict(options, given), ValueError, deliver=False)


def _predict(options: PredictOptions, given: dict[str, str]) -> int:
    import mlflow
    import pandas as pd

    from green_screen import tracking

    tracking.check_store()
    factors = {**Space.load(options.config).baseline.as_params(), **given}
    model = mlflow.pyfunc.load_model(options.model_uri)
    params = {"epochs": options.epochs, "images": options.images or 0}
    row = model.predict(pd.DataFrame([factors]), params=params).iloc[0]
    print(", ".join(f"{factor}={level}" for factor, level in factors.items()))
    print(f"for {row['basis']}; energies: {row['energy_source']}")
    if not row["in_range"]:
        print(f"what the data do not say: {row['outside']}")
    if pd.isna(row["energy_j"]):
        print("no prediction: nothing like this configuration was measured")
        return 1
    amount = f"{options.epochs} epochs" if options.images is None else f"{options.images} images"
    note = " (estimate)" if row["energy_source"] == names.SOURCE_ESTIMATE else ""
    for name, low, high, unit in ENDS:
        if pd.notna(row[name]):
            print(
                f"{amount}: {row[name]:.4g} {unit}{note if unit in ('J', 'kWh') else ''}, 95 % "
                f"interval {row[low]:.4g} to {row[high]:.4g} {unit}"
            )
    if row["model"] != "law":
        print(
            "set-up and warm-up come on top; the parts are known where the law describes a campaign"
        )
    elif options.explain:
        for part in PARTS_J:
            share = row[part] / row["energy_j"]
            print(f"  {part.removesuffix('_j'):11s} {row[part]:.4g} J{note}, {share:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
