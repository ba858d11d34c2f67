"""Predicts energy before anyone trains: the fitted model, its intervals and its JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from green_screen.analysis.coding import MOMENTUM, Coding, Covariate, Term, sort_levels
from green_screen.analysis.effects import estimable
from green_screen.analysis.estimators import LeastSquares
from green_screen.analysis.model_matrix import Design
from green_screen.analysis.runs import EFFECTIVE
from green_screen.space import FACTOR_NAMES, TrainingConfig, resolve

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run of one configuration is expected to take.

    Attributes:
        value: The median prediction, in the response's unit.
        low: Lower end of the prediction interval for one new run.
        high: Upper end.
        outside: Why the configuration lies outside the range of the data; empty if it does not.
            Where the effect was never observed, the three numbers are NaN.
    """

    value: float
    low: float
    high: float
    outside: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class EnergyModel:
    """A fitted energy model that can be written as JSON and needs no data to predict.

    Attributes:
        response: Name of the response, a key of :data:`~.responses.RESPONSES`.
        unit: The response's unit.
        design: How a configuration becomes a row.
        regression: The fitted coefficients.
        seen: Factor -> the levels that occurred; momentum for each optimizer apart.
        context: What the data were made with: model, dataset, machine, energy source, runs.
        alpha: Intervals have the level 1 - alpha.
    """

    response: str
    unit: str
    design: Design
    regression: LeastSquares
    seen: Mapping[str, tuple[str, ...]]
    context: Mapping[str, str]
    alpha: float = 0.05

    def predict(self, config: TrainingConfig) -> Prediction:
        """Predict the response of a requested configuration, on the average machine and order."""
        effective = resolve(config).effective.as_params()
        row = pd.DataFrame([{EFFECTIVE + name: level for name, level in effective.items()}])
        row["machine"] = next(iter(self.seen.get("machine", ("",))))
        for covariate in self.design.covariates.values():
            row[covariate.column] = np.nan
        outside = self._outside(effective)
        matrix = self.design.matrix(row)
        if "machine" in self.design.slices():
            columns = self.design.slices()["machine"]
            matrix[:, columns] = self.design.codings["machine"].mean()
        if np.isnan(matrix).any() or not estimable(matrix, self.regression.row_space_)[0]:
            reasons = outside or (
                "this combination of batch size with internal or precision was not observed",
            )
            return Prediction(value=np.nan, low=np.nan, high=np.nan, outside=reasons)
        center = float(self.regression.predict(matrix)[0])
        half = float(self.regression.half_width(matrix, self.alpha)[0])
        return Prediction(
            value=float(np.exp(center)),
            low=float(np.exp(center - half)),
            high=float(np.exp(center + half)),
            outside=outside,
        )

    def _outside(self, effective: Mapping[str, str]) -> tuple[str, ...]:
        found = []
        for factor, level in effective.items():
            key = factor
            if factor == MOMENTUM:
                key = f"{MOMENTUM}({effective['optimizer']})"
                if effective["optimizer"] not in self.seen["optimizer"]:
                    continue
            levels = self.seen.get(key, ())
            if level not in levels:
                found.append(f"{key}={level} does not occur in the data ({', '.join(levels)} do)")
        return tuple(found)

    def to_json(self) -> str:
        """Return the model as JSON text."""
        regression = self.regression
        return json.dumps(
            {
                "format": _FORMAT,
                "response": self.response,
                "unit": self.unit,
                "alpha": self.alpha,
                "context": dict(self.context),
                "seen": {key: list(levels) for key, levels in self.seen.items()},
                "terms": [[t.name, t.kind, list(t.factors)] for t in self.design.terms],
                "codings": {
                    key: [list(c.levels), c.reference, c.kind]
                    for key, c in self.design.codings.items()
                },
                "covariates": {
                    key: [c.column, c.center, c.scale] for key, c in self.design.covariates.items()
                },
                "columns": self.design.columns(),
                "coefficients": regression.coef_.tolist(),
                "gram_inverse": regression.gram_inverse_.tolist(),
                "row_space": regression.row_space_.tolist(),
                "residual_variance": regression.residual_variance_,
                "residual_df": regression.residual_df_,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> EnergyModel:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: The text is not such a model, or of another format version.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"an energy model of format {_FORMAT} was expected in this JSON")
        regression = LeastSquares()
        regression.coef_ = np.array(content["coefficients"])
        regression.gram_inverse_ = np.array(content["gram_inverse"])
        regression.row_space_ = np.array(content["row_space"])
        regression.residual_variance_ = float(content["residual_variance"])
        regression.residual_df_ = int(content["residual_df"])
        design = Design(
            tuple(Term(name, kind, tuple(factors)) for name, kind, factors in content["terms"]),
            {
                key: Coding(tuple(levels), reference, kind)
                for key, (levels, reference, kind) in content["codings"].items()
            },
            {key: Covariate(*values) for key, values in content["covariates"].items()},
        )
        return cls(
            response=content["response"],
            unit=content["unit"],
            design=design,
            regression=regression,
            seen={key: tuple(levels) for key, levels in content["seen"].items()},
            context=content["context"],
            alpha=content["alpha"],
        )


def levels_seen(runs: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return factor -> the effective levels among `runs`, momentum for each optimizer apart."""
    seen = {
        factor: sort_levels(factor, set(runs[EFFECTIVE + factor]))
        for factor in FACTOR_NAMES
        if factor != MOMENTUM
    }
    for optimizer, inside in runs.groupby(EFFECTIVE + "optimizer"):
        seen[f"{MOMENTUM}({optimizer})"] = sort_levels(MOMENTUM, set(inside[EFFECTIVE + MOMENTUM]))
    seen["machine"] = tuple(sorted(set(runs["machine"])))
    return seen


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The energy of training one configuration, with its prediction interval.

    Attributes:
        energy_j: Median prediction in joules; NaN where nothing like it was observed.
        low_j: Lower end of the interval for one new run.
        high_j: Upper end.
        outside: Why the configuration lies outside the range of the data; empty if it does not.
    """

    energy_j: float
    low_j: float
    high_j: float
    outside: tuple[str, ...]


def forecast(
    models: Mapping[str, EnergyModel],
    config: TrainingConfig,
    *,
    epochs: int,
    images: int | None = None,
) -> Forecast:
    """Predict the steady energy of a training: what set-up and warm-up take comes on top.

    A run's deviation from the model holds for all its epochs, so the interval of one epoch is
    multiplied by their number.

    Args:
        models: Response -> model; ``epoch`` is used for epochs, ``per_1k_images`` for images.
        config: The requested configuration.
        epochs: Epochs of training and validation.
        images: Images to train on instead, without validation.

    Raises:
        ValueError: There is no model for what was asked.
    """
    response, times = (
        ("epoch", float(epochs)) if images is None else ("per_1k_images", images / 1e3)
    )
    if response not in models:
        raise ValueError(f"no model of {response} was fitted; there are {', '.join(models)}")
    one = models[response].predict(config)
    return Forecast(
        energy_j=one.value * times,
        low_j=one.low * times,
        high_j=one.high * times,
        outside=one.outside,
    )
