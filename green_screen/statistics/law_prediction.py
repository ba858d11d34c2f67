"""Predicts a whole training from the laws of its parts: joules, seconds, watts and emissions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from green_screen.results.frame import EFFECTIVE
from green_screen.space import FACTOR_NAMES, partition_percentages
from green_screen.statistics.coding import MOMENTUM, Matrix
from green_screen.statistics.law import EFFECTS, LAW_FACTORS, LawDesign, Rows
from green_screen.statistics.law_fit import LawFit
from green_screen.statistics.law_responses import VALIDATION_SHARE

_FORMAT = 1
_ARRAYS = ("theta", "covariance", "prior_spread")
_NUMBERS = ("noise", "residual_df", "objective", "penalty_noise")

# What a training's energy is split into; the sum is its total.
PARTS_J = (
    "launching_j",
    "computing_j",
    "validation_j",
    "evaluation_j",
    "warmup_j",
    "setup_j",
    "conversion_j",
)
FORECAST_COLUMNS = (
    *(f"energy_{end}" for end in ("j", "low_j", "high_j")),
    *(f"duration_{end}" for end in ("s", "low_s", "high_s")),
    *(f"mean_power_{end}" for end in ("w", "low_w", "high_w")),
    *(f"emissions_{end}" for end in ("kg_co2eq", "low_kg_co2eq", "high_kg_co2eq")),
    *PARTS_J,
)


@dataclass(frozen=True, kw_only=True)
class TrainingModel:
    """The laws of a training's parts; it needs no data to predict, and can be written as JSON.

    Attributes:
        laws: Name of a response of :mod:`~.law_responses` -> its law. ``training_j`` is there.
        images: Images of the data set, all parts; NaN if not known.
        per: What ``training_j`` is of: an image, or a pass over the data.
        task: What most runs trained: columns ``model, dataset, image_size, machine`` of a run.
        seen: Factor -> the effective levels that occurred; batch sizes are a range.
        context: What the runs were, for a reader.
        kg_per_j: Emissions of a joule, the median of the runs; an estimate, NaN if not known.
        alpha: Intervals have the level 1 - alpha.
    """

    laws: Mapping[str, LawFit]
    images: float
    per: str
    task: Mapping[str, str]
    seen: Mapping[str, tuple[str, ...]]
    context: Mapping[str, str]
    kg_per_j: float = float("nan")
    alpha: float = 0.05

    @property
    def basis(self) -> str:
        """What its predictions are for, in words."""
        known = self.context
        size = f" at {known['image_size']} pixels" if known["image_size"] else ""
        return (
            f"{known['model'] or 'unknown model'} on {known['dataset'] or 'unknown data'}{size}, "
            f"{known['machine'] or 'unknown hardware'}, {known['n_runs']} runs"
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What the runs did not have, and so is not in a prediction."""
        needed = ["training_s", "validation_j", "validation_s"]
        needed += ["setup_j", "setup_s", "warmup_j", "warmup_s"]
        if "validation_j" not in self.laws:
            needed.append("evaluation_j")
        return tuple(name for name in needed if name not in self.laws)

    @property
    def counts_epochs(self) -> bool:
        """Return whether an epoch's images are known, so that epochs can be predicted."""
        return self.per != "image" or bool(np.isfinite(self.images))

    def frame(self, effective: pd.DataFrame) -> pd.DataFrame:
        """Return configurations (a column a factor, levels as text) as rows of runs to predict.

        On the average board, in the middle of a campaign.
        """
        levels = effective[list(FACTOR_NAMES)].astype(str).add_prefix(EFFECTIVE)
        return levels.assign(**self.task, campaign="", position=np.nan)

    def outside(self, effective: Mapping[str, str]) -> tuple[str, ...]:
        """Name what the runs do not say about an effective configuration."""
        found = []
        for factor in LAW_FACTORS:
            if effective[factor] not in self.seen[factor]:
                levels = ", ".join(self.seen[factor])
                found.append(f"{factor}={effective[factor]} does not occur in the data ({levels})")
        sizes = [int(level) for level in self.seen["batch_size"]]
        if not min(sizes) <= int(effective["batch_size"]) <= max(sizes):
            found.append(
                f"batch_size={effective['batch_size']} lies outside {min(sizes)} to {max(sizes)}: "
                "the law is extended, which no run has tried"
            )
        return tuple(found)

    def predictable(self, effective: Mapping[str, str]) -> bool:
        """Return whether its levels occurred; another batch size is what the law is for."""
        return all(effective[factor] in self.seen[factor] for factor in LAW_FACTORS)

    def predict(
        self, effective: pd.DataFrame, *, epochs: int, images: int | None = None
    ) -> pd.DataFrame:
        """Predict whole trainings.

        Args:
            effective: Configurations, a column a factor, levels as text.
            epochs: Epochs of training and validation.
            images: Images to train on instead, without validation and evaluation.

        Returns:
            One row a configuration with :data:`FORECAST_COLUMNS`: each total with its 1 - alpha
            interval for one new run, and the parts of the energy, which are those of a run's own
            total but for the moments between its phases (``other_energy_j``). NaN where parts are
            missing.
        """
        rows = self.frame(effective)
        shares = [partition_percentages(text) for text in effective["partitioning"]]
        whole = self.images if self.per == "image" else 1.0
        if images is None:
            trained = epochs * whole * np.array([part[0] for part in shares]) / 100.0
            validated = epochs * whole * np.array([part[1] for part in shares]) / 100.0
            tested = np.array([part[2] for part in shares]) / 100.0
        else:
            trained = np.full(len(rows), images if self.per == "image" else images / self.images)
            validated = tested = np.zeros(len(rows))
        converts = (effective["internal"] == "post_quantization").to_numpy(dtype=float)
        counts = {
            "training": trained,
            "validation": validated,
            "evaluation": tested * (1 - converts),
            "integer_evaluation": tested * converts,
            "conversion": converts,
        }
        joules, half_j, parts = self._total("j", rows, counts)
        seconds, half_s, _ = self._total("s", rows, counts)
        watts = joules / seconds
        half_w = np.sqrt(half_j**2 + half_s**2)
        share = self.laws["training_j"].launching_share(self._rows("training_j", rows))
        training = parts.pop("training")
        split = {"launching": share * training, "computing": (1 - share) * training, **parts}
        found = {
            **_ends("energy", "j", joules, half_j),
            **_ends("duration", "s", seconds, half_s),
            **_ends("mean_power", "w", watts, half_w),
            **_ends("emissions", "kg_co2eq", joules * self.kg_per_j, half_j),
            **{f"{name}_j": values for name, values in split.items()},
        }
        return pd.DataFrame(found, index=effective.index)[list(FORECAST_COLUMNS)]

    def _rows(self, name: str, rows: pd.DataFrame) -> Rows:
        return self.laws[name].design.rows(rows)

    def _total(
        self, unit: str, rows: pd.DataFrame, counts: Mapping[str, Matrix]
    ) -> tuple[Matrix, Matrix, dict[str, Matrix]]:
        """Return the total, half the width of its log's interval, and the parts.

        What makes a run's images dear makes its validation dear too, so their errors are added;
        those of what is paid once are independent of them. A part without a law counts as nothing
        (`missing` names it), but for an evaluated image, which costs what a validated one does, and
        for validation: that of a third of a trained image, by arithmetic.
        """
        parts, errors = {}, {}
        spent_once = ("warmup", "setup", "conversion", "integer_evaluation")
        for name in ("training", "validation", "evaluation", *spent_once):
            key = f"{name}_{unit}"
            times = counts.get(name, np.ones(len(rows)))
            if key not in self.laws and name == "evaluation":
                key, times = f"validation_{unit}", times * self.images
            if key not in self.laws and name == "validation" and f"training_{unit}" in self.laws:
                key, times = f"training_{unit}", times * VALIDATION_SHARE
            if key not in self.laws:
                missing = np.nan if name == "training" else 0.0
                parts[name] = errors[name] = np.full(len(rows), missing)
                continue
            law, at = self.laws[key], self._rows(key, rows)
            parts[name] = np.exp(law.log_energy(at)) * times
            errors[name] = parts[name] * law.half_width(at, self.alpha, new_run=True)
        total = np.sum(list(parts.values()), axis=0)
        steady = errors["training"] + errors["validation"] + errors["evaluation"]
        once = [errors[name] ** 2 for name in spent_once]
        parts["evaluation"] = parts["evaluation"] + parts.pop("integer_evaluation")
        return total, np.sqrt(steady**2 + np.sum(once, axis=0)) / total, parts

    def to_json(self) -> str:
        """Return the model as JSON text."""
        return json.dumps(
            {
                "format": _FORMAT,
                "laws": {name: _law_to_dict(law) for name, law in self.laws.items()},
                "per": self.per,
                "images": None if np.isnan(self.images) else self.images,
                "task": dict(self.task),
                "seen": {factor: list(levels) for factor, levels in self.seen.items()},
                "context": dict(self.context),
                "kg_per_j": None if np.isnan(self.kg_per_j) else self.kg_per_j,
                "alpha": self.alpha,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> TrainingModel:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: The text is not such a model, or of another format version.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError(f"a training model of format {_FORMAT} was expected in this JSON")
        nan = float("nan")
        return cls(
            laws={name: _law_from_dict(law) for name, law in content["laws"].items()},
            images=nan if content["images"] is None else float(content["images"]),
            per=content["per"],
            task=content["task"],
            seen={factor: tuple(levels) for factor, levels in content["seen"].items()},
            context=content["context"],
            kg_per_j=nan if content["kg_per_j"] is None else float(content["kg_per_j"]),
            alpha=float(content["alpha"]),
        )


# Momentum and the other factors that enter no law may have any level.
SEEN_FACTORS = tuple(factor for factor in FACTOR_NAMES if factor != MOMENTUM)


def _ends(name: str, unit: str, value: Matrix, half: Matrix) -> dict[str, Matrix]:
    return {
        f"{name}_{unit}": value,
        f"{name}_low_{unit}": value * np.exp(-half),
        f"{name}_high_{unit}": value * np.exp(half),
    }


def _law_to_dict(law: LawFit) -> dict[str, Any]:
    design = law.design
    return {
        "step": [effect.name for effect in design.step],
        "image": [effect.name for effect in design.image],
        "tasks": list(design.tasks),
        "boards": list(design.boards),
        "drifts": {campaign: list(span) for campaign, span in design.drifts.items()},
        "launching": design.launching,
        **{name: getattr(law, name).tolist() for name in _ARRAYS},
        **{name: getattr(law, name) for name in _NUMBERS},
    }


def _law_from_dict(content: Mapping[str, Any]) -> LawFit:
    effects = {effect.name: effect for effect in EFFECTS}
    design = LawDesign(
        step=tuple(effects[name] for name in content["step"]),
        image=tuple(effects[name] for name in content["image"]),
        tasks=tuple(content["tasks"]),
        boards=tuple(content["boards"]),
        drifts={campaign: (first, last) for campaign, (first, last) in content["drifts"].items()},
        launching=content["launching"],
    )
    values: dict[str, Any] = {name: np.array(content[name]) for name in _ARRAYS}
    values |= {name: float(content[name]) for name in _NUMBERS}
    return LawFit(design=design, **values)
