"""What the law is fitted to: joules and seconds of an image, in training and in validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.space import partition_percentages
from green_screen.statistics.coding import Matrix
from green_screen.statistics.law import LAW_FACTORS, LawDesign, law_design, level_design
from green_screen.statistics.responses import UsableRuns, exclusion_reasons

# The forward pass is a third of the arithmetic of a training step (the backward pass has two
# products for each of its one), so a validated image counts as a third of a trained one where the
# energies of both were not measured apart.
VALIDATION_SHARE = 1.0 / 3.0


@dataclass(frozen=True, kw_only=True)
class LawResponse:
    """A quantity of an image.

    Attributes:
        name: For tables and files.
        metric: The run metric that it is made of.
        unit: ``J`` or ``s``; of an image, or of a pass over the data if `per` says so.
        label: What it is.
        per: What the number is divided by.
        value: From runs to the quantity.
        factors: The factors that can act on it.
        launching: Whether it is spent a step or an image; what is spent once a run is neither.
        converted: Of runs that convert after the training (post_quantization), or of the others;
            ``None``: of both.
    """

    name: str
    metric: str
    unit: str
    label: str
    value: Callable[[pd.DataFrame], pd.Series[float]]
    per: str = "image"
    factors: tuple[str, ...] = LAW_FACTORS
    launching: bool = True
    converted: bool | None = None

    def design(self, runs: pd.DataFrame) -> LawDesign:
        """Return the law's parameters for this response and these runs."""
        if self.launching:
            return law_design(runs, self.factors)
        return level_design(runs, self.factors)


def usable_law_runs(runs: pd.DataFrame, response: LawResponse) -> UsableRuns:
    """Return the runs that a law is fitted to: comparable in model and energy source.

    Other data, sizes and hardware have ratios of their own, so runs that differ in them stay.
    """
    same = ("model", "energy_source") if response.unit == "J" else ("model",)
    if response.converted is not None:
        converts = runs[EFFECTIVE + "internal"] == "post_quantization"
        runs = runs[converts == response.converted]
    return UsableRuns.split(runs, exclusion_reasons(runs, positive=response.metric, same=same))


def log_response(runs: pd.DataFrame, response: LawResponse) -> Matrix:
    """Return the log of a response of usable runs."""
    return np.asarray(np.log(response.value(runs).to_numpy(dtype=np.float64)))


def training_response(runs: pd.DataFrame) -> LawResponse:
    """Return the joules of a trained image, from the metric that most runs have.

    Energies of training alone are preferred; an epoch's are divided by its images where their
    numbers are known, and by its share of the data where they are not (imported runs).
    """
    known = {
        metric: int((runs[metric] > 0).sum())
        for metric in (names.ENERGY_PER_1K_IMAGES_J, names.ENERGY_PER_EPOCH_J)
    }
    if known[names.ENERGY_PER_1K_IMAGES_J] >= known[names.ENERGY_PER_EPOCH_J]:
        return TRAINING_J
    counted = (runs[names.N_TRAIN_IMAGES] > 0).sum() >= known[names.ENERGY_PER_EPOCH_J]
    return EPOCH_J if counted else PASS_J


def _epoch(runs: pd.DataFrame) -> pd.Series[float]:
    validation = runs[names.N_VALIDATION_IMAGES].fillna(0.0)
    images = runs[names.N_TRAIN_IMAGES] + VALIDATION_SHARE * validation
    return runs[names.ENERGY_PER_EPOCH_J] / images


def _pass(runs: pd.DataFrame) -> pd.Series[float]:
    shares = runs[EFFECTIVE + "partitioning"].map(partition_percentages)
    weight = shares.map(lambda parts: (parts[0] + VALIDATION_SHARE * parts[1]) / 100.0)
    return runs[names.ENERGY_PER_EPOCH_J] / weight.astype(float)


def _evaluation(runs: pd.DataFrame) -> pd.Series[float]:
    shares = runs[EFFECTIVE + "partitioning"].map(partition_percentages)
    return runs[names.EVALUATION_ENERGY_J] / shares.map(lambda parts: parts[2] / 100.0).astype(
        float
    )


_FORWARD = ("precision", "internal")


def _of_image(name: str, unit: str, metric: str, *factors: str) -> LawResponse:
    """Return joules of an image from those of a thousand, or seconds from images a second."""
    return LawResponse(
        name=f"{name}_{unit.lower()}",
        metric=metric,
        unit=unit,
        label=f"{name} {'energy' if unit == 'J' else 'time'} per image",
        value=lambda runs: runs[metric] / 1e3 if unit == "J" else 1.0 / runs[metric],
        factors=factors or LAW_FACTORS,
    )


TRAINING_J = _of_image("training", "J", names.ENERGY_PER_1K_IMAGES_J)
EPOCH_J = LawResponse(
    name="training_j",
    metric=names.ENERGY_PER_EPOCH_J,
    unit="J",
    label="epoch energy per image, a validated image counted as a third of a trained one",
    value=_epoch,
)
PASS_J = LawResponse(
    name="training_j",
    metric=names.ENERGY_PER_EPOCH_J,
    unit="J",
    label="epoch energy per pass over the data, a validated image counted as a third",
    value=_pass,
    per="pass over the data",
)


def _once(name: str, metric: str, unit: str, label: str, *factors: str) -> LawResponse:
    return LawResponse(
        name=name,
        metric=metric,
        unit=unit,
        label=label,
        value=lambda runs: runs[metric],
        per="run",
        factors=factors,
        launching=False,
    )


# Beside the training energy: what a whole training is made of.
PARTS: tuple[LawResponse, ...] = (
    _of_image("training", "s", names.STEADY_IMAGES_PER_S),
    _of_image("validation", "J", names.VALIDATION_ENERGY_PER_1K_IMAGES_J, *_FORWARD),
    _of_image("validation", "s", names.STEADY_VALIDATION_IMAGES_PER_S, *_FORWARD),
    LawResponse(
        name="evaluation_j",
        metric=names.EVALUATION_ENERGY_J,
        unit="J",
        label="evaluation energy",
        value=_evaluation,
        per="pass over the data",
        factors=_FORWARD,
        converted=False,
    ),
    # The integer model is tested image by image on the processor, whatever the training was like.
    LawResponse(
        name="integer_evaluation_j",
        metric=names.EVALUATION_ENERGY_J,
        unit="J",
        label="evaluation energy of the integer model",
        value=_evaluation,
        per="pass over the data",
        factors=(),
        launching=False,
        converted=True,
    ),
    _once("setup_j", names.SETUP_ENERGY_J, "J", "set-up energy"),
    _once("setup_s", names.SETUP_S, "s", "set-up time"),
    _once("warmup_j", names.WARMUP_ENERGY_J, "J", "warm-up energy", *_FORWARD),
    _once("warmup_s", names.WARMUP_S, "s", "warm-up time", *_FORWARD),
    _once("conversion_j", names.CONVERSION_ENERGY_J, "J", "conversion energy"),
)
