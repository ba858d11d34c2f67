"""Predict the energy of a training before it runs: ``python -m entrypoints.predict --lr 0.01``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from entrypoints.ending import ended
from green_screen.options import PredictOptions, parse_options
from green_screen.space import Space


def main(argv: Sequence[str] | None = None) -> int:
    """Print the prediction; return 1 if there is none for this configuration."""
    options, given = parse_options(PredictOptions, argv, __doc__ or "", factors=True)
    return ended("predict", lambda: _predict(options, given), ValueError, deliver=False)


def _predict(options: PredictOptions, given: dict[str, str]) -> int:
    import mlflow
    import pandas as pd

    from green_screen import tracking
    from green_screen.registry.energy_text import prediction_lines

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


if __name__ == "__main__":
    sys.exit(main())
