"""Predict the energy of a training before it runs: ``python -m entrypoints.predict --lr 0.01``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from green_screen.options import PredictOptions, parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Print the prediction; return 1 if there is none for this configuration."""
    options, factors = parse_options(PredictOptions, argv, __doc__ or "", factors=True)

    import mlflow
    import pandas as pd
    from mlflow.exceptions import MlflowException

    try:
        model = mlflow.pyfunc.load_model(options.model_uri)
        params = {"epochs": options.epochs, "images": options.images or 0}
        row = model.predict(pd.DataFrame([factors]), params=params).iloc[0]
    except (MlflowException, ValueError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 1
    print(", ".join(f"{factor}={level}" for factor, level in factors.items()))
    if not row["in_range"]:
        print(f"outside the range of the data: {row['outside']}")
    if pd.isna(row["energy_j"]):
        print("no prediction: nothing like this configuration was measured")
        return 1
    amount = f"{options.epochs} epochs" if options.images is None else f"{options.images} images"
    print(
        f"{amount}: {row['energy_j']:.4g} J, 95 % interval {row['energy_low_j']:.4g} to "
        f"{row['energy_high_j']:.4g} J"
    )
    print(
        f"{amount}: {row['energy_kwh']:.4g} kWh, 95 % interval {row['energy_low_kwh']:.4g} to "
        f"{row['energy_high_kwh']:.4g} kWh"
    )
    print("set-up and warm-up come on top")
    return 0


if __name__ == "__main__":
    sys.exit(main())
