"""The code of the registered model ``green-screen-energy``: MLflow loads it from this file.

Nothing is pickled: the fitted models lie beside it as JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from green_screen.registry.energy_service import MODELS_KEY, predict_table, read_models


class EnergyForecaster(PythonModel):
    """Configurations in, joules and kilowatt-hours with their interval out."""

    def load_context(self, context: Any) -> None:
        """Read the fitted models."""
        text = Path(context.artifacts[MODELS_KEY]).read_text(encoding="utf-8")
        self._models = read_models(text)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return one row a configuration; see :func:`.energy_service.predict_table`."""
        given = params or {}
        return predict_table(
            self._models,
            model_input,
            epochs=int(given.get("epochs", 1)),
            images=int(given.get("images", 0)) or None,
        )


mlflow.models.set_model(EnergyForecaster())
