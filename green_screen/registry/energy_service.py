"""The registered energy model: its tables in and out, and how it is logged and registered."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

import green_screen
from green_screen import names
from green_screen.decision.tradeoff import J_PER_KWH
from green_screen.registry.registry import ensure_registered_model
from green_screen.results.frame import config_of
from green_screen.space import FACTOR_NAMES, Space
from green_screen.statistics.prediction import EnergyModel, forecast
from green_screen.statistics.regression import EnergyAnalysis

MODELS_KEY = "models"
REQUIREMENTS = ("mlflow", "numpy", "pandas", "scipy", "scikit-learn", "statsmodels", "pyyaml")

NUMBER_COLUMNS = (
    "energy_j",
    "energy_low_j",
    "energy_high_j",
    "energy_kwh",
    "energy_low_kwh",
    "energy_high_kwh",
)
TEXT_COLUMNS = ("outside", "energy_source", "basis")


def predict_table(
    models: Mapping[str, EnergyModel], table: pd.DataFrame, *, epochs: int, images: int | None
) -> pd.DataFrame:
    """Predict a table of configurations.

    Args:
        models: Response -> model.
        table: One column a factor, levels as text; others are ignored.
        epochs: Epochs to predict for.
        images: Images to train on instead.

    Returns:
        :data:`NUMBER_COLUMNS` with the 95 % prediction interval of one new run, ``outside``: what
        the data do not say about the configuration, ``in_range`` (bool): whether that is nothing,
        ``energy_source``: how the energies behind it were obtained, and ``basis``: the model, data
        set and hardware that it holds for. Energies are NaN where the configuration's effects were
        never observed.

    Raises:
        ValueError: A number among the levels is not one.
    """
    rows: list[dict[str, Any]] = []
    for record in table[list(FACTOR_NAMES)].astype(str).to_dict("records"):
        config = config_of({str(key): str(level) for key, level in record.items()})
        found = forecast(models, config, epochs=epochs, images=images)
        joules = np.array([found.energy_j, found.low_j, found.high_j])
        numbers = [*joules.tolist(), *(joules / J_PER_KWH).tolist()]
        rows.append(
            dict(zip(NUMBER_COLUMNS, numbers, strict=True))
            | {"in_range": not found.outside, "outside": "; ".join(found.outside)}
            | {"energy_source": found.source, "basis": found.basis}
        )
    return pd.DataFrame(rows, columns=[*NUMBER_COLUMNS, "in_range", *TEXT_COLUMNS])


def write_models(analyses: Sequence[EnergyAnalysis]) -> str:
    """Return the models of several analyses as one JSON text.

    Raises:
        ValueError: None of the analyses could estimate a model.
    """
    models = {a.response.name: a.model.to_json() for a in analyses if a.model is not None}
    if not models:
        raise ValueError("no energy model can be logged: none of the analyses estimated one")
    return json.dumps({name: json.loads(text) for name, text in models.items()}, indent=1)


def read_models(text: str) -> dict[str, EnergyModel]:
    """Read what :func:`write_models` wrote."""
    return {name: EnergyModel.from_json(json.dumps(v)) for name, v in json.loads(text).items()}


def log_energy_model(
    analyses: Sequence[EnergyAnalysis], *, registered_name: str | None = names.ENERGY_MODEL_NAME
) -> str:
    """Log the fitted models to the active run as a pyfunc model, and register it.

    A registered version carries what its predictions hold for as tags and description.

    Args:
        analyses: Of the responses ``epoch`` and ``per_1k_images``.
        registered_name: Name in the registry; ``None`` does not register.

    Returns:
        The model's URI.

    Raises:
        ValueError: None of the analyses could estimate a model.
    """
    text = write_models(analyses)
    models = read_models(text)
    # That the example is checked against the signature is no news to who reads the analysis.
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    example = pd.DataFrame([Space.load().baseline.as_params()])
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", factor) for factor in FACTOR_NAMES]),
        outputs=Schema(
            [
                *(ColSpec("double", column) for column in NUMBER_COLUMNS),
                ColSpec("boolean", "in_range"),
                *(ColSpec("string", column) for column in TEXT_COLUMNS),
            ]
        ),
        params=ParamSchema([ParamSpec("epochs", "long", 1), ParamSpec("images", "long", 0)]),
    )
    package = Path(green_screen.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "energy_models.json"
        path.write_text(text, encoding="utf-8")
        info = mlflow.pyfunc.log_model(
            name="energy_model",
            python_model=str(package / "registry" / "energy_pyfunc.py"),
            artifacts={MODELS_KEY: str(path)},
            code_paths=[str(package)],
            signature=signature,
            input_example=example,
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            # At step 0, MLflow would give it the figures of the analysis, which are of other models
            # than this one, and those that are missing as 0.
            step=1,
        )
    if registered_name is not None:
        # Not by log_model, which prints what it does into what the analysis says.
        client = MlflowClient()
        ensure_registered_model(client, registered_name)
        made = client.create_model_version(
            registered_name, info.model_uri, run_id=info.run_id, model_id=info.model_id
        )
        number = str(made.version)
        for key, value in version_tags(models).items():
            client.set_model_version_tag(registered_name, number, key, value)
        client.update_model_version(registered_name, number, description(models))
    return str(info.model_uri)


def version_tags(models: Mapping[str, EnergyModel]) -> dict[str, str]:
    """Return what the models were fitted to, as tags of a registered version."""
    context = next(iter(models.values())).context
    return {**context, "responses": ", ".join(models)}


def description(models: Mapping[str, EnergyModel]) -> str:
    """Return the description of a registered version, in Markdown."""
    model = next(iter(models.values()))
    source = model.context["energy_source"]
    is_estimate = " (an estimate)" if source == names.SOURCE_ESTIMATE else ""
    missing = ", ".join(model.not_estimated)
    return (
        f"Predicts the steady energy of a training from its configuration, with the "
        f"{1 - model.alpha:.0%} interval of one new run. Fitted to {model.basis}; it says nothing "
        f"about others. Energies: {source}{is_estimate}."
        + (f" Not estimated, so without effect on the prediction: {missing}." if missing else "")
    )
