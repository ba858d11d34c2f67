"""The registered energy model: its tables in and out, and how it is logged and registered."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from green_screen.space import FACTOR_NAMES, Space, TrainingConfig, resolve
from green_screen.statistics.law_analysis import LawAnalysis
from green_screen.statistics.law_prediction import FORECAST_COLUMNS, TrainingModel
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
    *(column for column in FORECAST_COLUMNS if not column.startswith("energy_")),
)
TEXT_COLUMNS = ("outside", "energy_source", "basis", "model")

_LAW = "law"


@dataclass(frozen=True, kw_only=True)
class EnergyModels:
    """What a registered version predicts with.

    Attributes:
        law: Predicts a whole training; ``None`` where the log-linear model describes the campaign.
        linear: Response -> log-linear model of the steady energy; empty beside a law.
    """

    law: TrainingModel | None
    linear: Mapping[str, EnergyModel]

    @property
    def context(self) -> Mapping[str, str]:
        """What the models were fitted to."""
        return self.law.context if self.law else next(iter(self.linear.values())).context


def predict_table(
    models: EnergyModels, table: pd.DataFrame, *, epochs: int, images: int | None
) -> pd.DataFrame:
    """Predict a table of configurations.

    Args:
        models: The law, or the log-linear models.
        table: One column a factor, levels as text; others are ignored.
        epochs: Epochs to predict for.
        images: Images to train on instead.

    Returns:
        :data:`NUMBER_COLUMNS` with the 95 % prediction interval of one new run, ``outside``: what
        the data do not say about the configuration, ``in_range`` (bool): whether that is nothing,
        ``energy_source``: how the energies behind it were obtained, ``basis``: the model, data set
        and hardware that it holds for, and ``model``: ``law`` or ``log-linear``. The law predicts a
        whole training with its duration, mean power, emissions and parts; the log-linear model the
        steady energy alone. NaN where the configuration's effects were never observed.

    Raises:
        ValueError: A number among the levels is not one.
    """
    records = table[list(FACTOR_NAMES)].astype(str).to_dict("records")
    configs = [config_of({str(k): str(level) for k, level in r.items()}) for r in records]
    if models.law is not None:
        return _by_law(models.law, configs, epochs=epochs, images=images)
    rows: list[dict[str, Any]] = []
    for config in configs:
        found = forecast(models.linear, config, epochs=epochs, images=images)
        joules = np.array([found.energy_j, found.low_j, found.high_j])
        numbers = [*joules.tolist(), *(joules / J_PER_KWH).tolist()]
        rows.append(
            dict(zip(NUMBER_COLUMNS[:6], numbers, strict=True))
            | {"in_range": not found.outside, "outside": "; ".join(found.outside)}
            | {"energy_source": found.source, "basis": found.basis, "model": "log-linear"}
        )
    columns = [*NUMBER_COLUMNS, "in_range", *TEXT_COLUMNS]
    return pd.DataFrame(rows).reindex(columns=columns)


def _by_law(
    law: TrainingModel, configs: Sequence[TrainingConfig], *, epochs: int, images: int | None
) -> pd.DataFrame:
    effective = [resolve(config).effective.as_params() for config in configs]
    found = law.predict(pd.DataFrame(effective), epochs=epochs, images=images)
    for end in ("", "_low", "_high"):
        found[f"energy{end}_kwh"] = found[f"energy{end}_j"] / J_PER_KWH
    unknown = [not law.predictable(levels) for levels in effective]
    found.loc[unknown, list(NUMBER_COLUMNS)] = np.nan
    outside = ["; ".join(law.outside(levels)) for levels in effective]
    return found.assign(
        in_range=[not text for text in outside],
        outside=outside,
        energy_source=law.context["energy_source"],
        basis=law.basis,
        model=_LAW,
    )[[*NUMBER_COLUMNS, "in_range", *TEXT_COLUMNS]]


def energy_models(
    law: LawAnalysis | None, analyses: Sequence[EnergyAnalysis]
) -> EnergyModels | None:
    """Return what describes a campaign: its law, unless the log-linear model was chosen.

    ``None`` if there is neither.
    """
    if law and law.model and law.choice.model != "log-linear" and law.model.counts_epochs:
        return EnergyModels(law=law.model, linear={})
    linear = {a.response.name: a.model for a in analyses if a.model is not None}
    return EnergyModels(law=None, linear=linear) if linear else None


def write_models(models: EnergyModels) -> str:
    """Return the models as one JSON text."""
    texts = {name: model.to_json() for name, model in models.linear.items()}
    if models.law is not None:
        texts[_LAW] = models.law.to_json()
    return json.dumps({name: json.loads(text) for name, text in texts.items()}, indent=1)


def read_models(text: str) -> EnergyModels:
    """Read what :func:`write_models` wrote."""
    content = {name: json.dumps(value) for name, value in json.loads(text).items()}
    law = content.pop(_LAW, None)
    return EnergyModels(
        law=None if law is None else TrainingModel.from_json(law),
        linear={name: EnergyModel.from_json(value) for name, value in content.items()},
    )


def log_energy_model(
    models: EnergyModels, *, registered_name: str | None = names.ENERGY_MODEL_NAME
) -> str:
    """Log the fitted models to the active run as a pyfunc model, and register it.

    A registered version carries what its predictions hold for as tags and description.

    Args:
        models: Of :func:`energy_models`.
        registered_name: Name in the registry; ``None`` does not register.

    Returns:
        The model's URI.
    """
    text = write_models(models)
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


def version_tags(models: EnergyModels) -> dict[str, str]:
    """Return what the models were fitted to, as tags of a registered version."""
    responses = models.law.laws if models.law else models.linear
    kind = _LAW if models.law else "log-linear"
    return {**models.context, "responses": ", ".join(responses), "energy_model": kind}


def description(models: EnergyModels) -> str:
    """Return the description of a registered version, in Markdown."""
    source = models.context["energy_source"]
    is_estimate = " (an estimate)" if source == names.SOURCE_ESTIMATE else ""
    if models.law is not None:
        law = models.law
        lacking = f" Not in it: {', '.join(law.missing)}." if law.missing else ""
        return (
            f"Predicts the energy, duration, mean power and emissions of a training from its "
            f"configuration by the energy law, with the {1 - law.alpha:.0%} interval of one new "
            f"run. Fitted to {law.basis}; it says nothing about others. Energies: "
            f"{source}{is_estimate}.{lacking}"
        )
    model = next(iter(models.linear.values()))
    missing = ", ".join(model.not_estimated)
    return (
        f"Predicts the steady energy of a training from its configuration, with the "
        f"{1 - model.alpha:.0%} interval of one new run. Fitted to {model.basis}; it says nothing "
        f"about others. Energies: {source}{is_estimate}."
        + (f" Not estimated, so without effect on the prediction: {missing}." if missing else "")
    )
