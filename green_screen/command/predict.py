"""Predict the energy of a training before it runs."""

from __future__ import annotations

import mlflow
import pandas as pd

from green_screen import tracking
from green_screen.options import PredictOptions
from green_screen.registry.energy_text import prediction_lines
from green_screen.space import Space

FAILURES = (ValueError,)


def work(options: PredictOptions, given: dict[str, str]) -> int:
    """Print the prediction; return 1 if there is none for this configuration."""
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
    print(*prediction_lines(row, options), sep="\n")
    return 0
