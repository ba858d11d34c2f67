"""Predicts energy before anyone trains: the fitted model, its intervals and its JSON form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline, make_pipeline

from green_screen.results.frame import EFFECTIVE
from green_screen.space import FACTOR_NAMES, TrainingConfig, resolve
from green_screen.statistics.coding import (
    MOMENTUM,
    Coding,
    Covariate,
    Term,
    nested_name,
    sort_levels,
)
from green_screen.statistics.estimators import LeastSquares, ModelMatrix
from green_screen.statistics.model_matrix import Design

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run of one configuration is expected to take.

    Attributes:
        value: The median prediction, in the response's unit.
        low: Lower end of the prediction interval for one new run.
        high: Upper end.
        outside: What the data do not say about the configuration; empty if they say all. The
            three numbers are NaN if one of its levels, or a combination that matters, never
            occurred, and a mean over a factor's levels if its effect was not estimated.
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
        pipeline: From runs to the log response, fitted; see :func:`~.estimators.energy_pipeline`.
        seen: Factor -> the levels that occurred; momentum for each optimizer apart.
        context: What the data were made with: model, dataset, image size, samples, machine, energy
            source, number of runs.
        alpha: Intervals have the level 1 - alpha.
    """

    response: str
    unit: str
    pipeline: Pipeline
    seen: Mapping[str, tuple[str, ...]]
    context: Mapping[str, str]
    alpha: float = 0.05

    @property
    def design(self) -> Design:
        """How a configuration becomes a row."""
        encoder: ModelMatrix = self.pipeline[0]
        return encoder.design

    @property
    def regression(self) -> LeastSquares:
        """The fitted coefficients."""
        fitted: LeastSquares = self.pipeline[-1]
        return fitted

    @property
    def not_estimated(self) -> tuple[str, ...]:
        """The factors that varied but have no term in the model, named as in `seen`."""
        terms: set[str] = set()
        for term in self.design.terms:
            if term.kind == "nested":
                terms.update(map(nested_name, self.design.nests()))
            elif term.kind != "interaction":
                terms.update(term.factors)
        return tuple(key for key, seen in self.seen.items() if len(seen) > 1 and key not in terms)

    @property
    def basis(self) -> str:
        """What its predictions are for, in words."""
        known = self.context
        size = f" at {known['image_size']} pixels" if known["image_size"] else ""
        samples = f", {known['samples']} samples" if known["samples"] else ""
        return (
            f"{known['model'] or 'unknown model'} on {known['dataset'] or 'unknown data'}{size}"
            f"{samples}, {known['machine'] or 'unknown hardware'}, {known['n_runs']} runs"
        )

    def predict(self, config: TrainingConfig) -> Prediction:
        """Predict the response of a requested configuration, on the average machine and order."""
        effective = resolve(config).effective.as_params()
        row = pd.DataFrame([{EFFECTIVE + name: level for name, level in effective.items()}])
        # Of no block: an empty name would be that of the runs without a campaign.
        row["machine"] = row["campaign"] = None
        for covariate in self.design.covariates.values():
            row[covariate.column] = np.nan
        unseen = self._unseen(effective)
        outside = (*unseen, *self._unestimated(effective))
        center = float(self.pipeline.predict(row)[0])
        if unseen or np.isnan(center):
            reasons = unseen or (
                "the runs lack combinations of levels that this configuration needs, such as its "
                "batch size with its internal or precision",
            )
            return Prediction(value=np.nan, low=np.nan, high=np.nan, outside=reasons)
        half = float(self.regression.half_width(self.pipeline[:-1].transform(row), self.alpha)[0])
        return Prediction(
            value=float(np.exp(center)),
            low=float(np.exp(center - half)),
            high=float(np.exp(center + half)),
            outside=outside,
        )

    def _unseen(self, effective: Mapping[str, str]) -> tuple[str, ...]:
        """Name the levels that never occurred."""
        found = []
        for key, level in self._keys(effective):
            levels = self.seen.get(key)
            if levels is not None and level not in levels:
                found.append(f"{key}={level} does not occur in the data ({', '.join(levels)} do)")
        return tuple(found)

    def _unestimated(self, effective: Mapping[str, str]) -> tuple[str, ...]:
        """Name the factors whose level makes no difference to the number."""
        return tuple(
            f"the effect of {key} was not estimated: the number is the same for all its levels"
            for key, _ in self._keys(effective)
            if key in self.not_estimated
        )

    @staticmethod
    def _keys(effective: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Yield the key in `seen` and the level of each factor."""
        for factor, level in effective.items():
            yield nested_name(effective["optimizer"]) if factor == MOMENTUM else factor, level

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
                "not_estimated": list(self.not_estimated),
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
            pipeline=make_pipeline(ModelMatrix(design), regression),
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
        seen[nested_name(str(optimizer))] = sort_levels(MOMENTUM, set(inside[EFFECTIVE + MOMENTUM]))
    seen["machine"] = tuple(sorted(set(runs["machine"])))
    return seen


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The energy of training one configuration, with its prediction interval.

    Attributes:
        energy_j: Median prediction in joules; NaN where nothing like it was observed.
        low_j: Lower end of the interval for one new run.
        high_j: Upper end.
        outside: What the data do not say about the configuration; empty if they say all.
        source: How the energies that it was fitted to were obtained, a value of
            ``names.TAG_ENERGY_SOURCE``.
        basis: What it was fitted to, in words: model, data set, hardware, number of runs.
    """

    energy_j: float
    low_j: float
    high_j: float
    outside: tuple[str, ...]
    source: str
    basis: str


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
    model = models[response]
    one = model.predict(config)
    return Forecast(
        energy_j=one.value * times,
        low_j=one.low * times,
        high_j=one.high * times,
        outside=one.outside,
        source=model.context["energy_source"],
        basis=model.basis,
    )
