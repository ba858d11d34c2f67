"""Reads runs made elsewhere: folders with ``parameters.yaml`` and ``logs.csv``.

``logs.csv`` has one power reading a row: ``pre`` before the training, one at each epoch's end, and
``post``. The energy is the trapezoid of those readings over time. One reading an epoch says little
about what happens between two of them, so the source is tagged ``sampled_power``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from green_screen import names, strict_yaml
from green_screen.results.legacy_log import LEARNING, LegacyError, check_accuracy, read_log
from green_screen.space import FACTOR_NAMES, SpaceError, TrainingConfig, parse_level

_TEMPERATURE, _UTILIZATION = "gpu_temp_C", "gpu_util_%"
_LEARNING = dict(
    zip(
        LEARNING,
        (names.LOSS, names.ACCURACY, names.VAL_LOSS, names.VAL_ACCURACY),
        strict=True,
    )
)

_NO_PER_IMAGE = "the number of training images is not part of the imported form"


@dataclass(frozen=True, kw_only=True)
class LegacyRun:
    """One run read from a folder.

    Attributes:
        folder: The folder's name.
        config: The requested configuration; numbers may lie outside the published levels.
        model: The network's name, empty if not given.
        seed: The seed, or ``None``.
        metrics: Metrics of the run under the names of :mod:`green_screen.names`.
        epochs: One row an epoch: metrics of the epoch under those names.
        diverged: Whether a training loss is not finite.
    """

    folder: str
    config: TrainingConfig
    model: str
    seed: int | None
    metrics: Mapping[str, float]
    epochs: pd.DataFrame
    diverged: bool


@dataclass(frozen=True, kw_only=True)
class LegacyFolder:
    """What a folder of runs holds.

    Attributes:
        runs: The complete runs, in the order of their folders' names.
        skipped: Folder's name -> why it was left out.
    """

    runs: tuple[LegacyRun, ...]
    skipped: Mapping[str, str]


def read_folder(folder: str | Path) -> LegacyFolder:
    """Read every sub-folder; broken ones are listed with the reason and do not stop the others."""
    runs: list[LegacyRun] = []
    skipped: dict[str, str] = {}
    for path in sorted(p for p in Path(folder).iterdir() if p.is_dir()):
        try:
            runs.append(read_run(path))
        except (ValueError, OSError) as error:
            skipped[path.name] = " ".join(str(error).split())
    return LegacyFolder(runs=tuple(runs), skipped=skipped)


def read_run(folder: Path) -> LegacyRun:
    """Read one run.

    Raises:
        LegacyError: A file, a factor, a column or a row is missing, or a value is not what it
            must be.
    """
    parameters = _parameters(folder / "parameters.yaml")
    config = _config(parameters)
    log = read_log(folder / "logs.csv")
    power, time_s = log.power_w(), log.seconds()
    # Energy between a row and the one before it; the first epoch begins at the row `pre`.
    energy_j = np.diff(time_s) * (power[1:] + power[:-1]) / 2.0
    seconds = np.diff(time_s)
    n_epochs = len(power) - 2
    epochs = pd.DataFrame(
        {
            names.EPOCH_ENERGY_J: energy_j[:n_epochs],
            names.EPOCH_TIME_S: seconds[:n_epochs],
            names.GPU_POWER_MEAN_W: energy_j[:n_epochs] / seconds[:n_epochs],
            names.GPU_TEMPERATURE_C: log.reading(_TEMPERATURE)[1:-1],
            names.GPU_UTILIZATION_PERCENT: log.reading(_UTILIZATION)[1:-1],
            **{metric: log.learning(column) for column, metric in _LEARNING.items()},
        }
    )
    metrics = _run_metrics(energy_j, seconds, n_epochs, idle_w=float(power[0]))
    metrics[names.START_TEMPERATURE_C] = float(log.reading(_TEMPERATURE)[0])
    metrics[names.TEST_ACCURACY] = _optional_number(parameters, "test_accuracy")
    check_accuracy("parameters.yaml: test_accuracy", metrics[names.TEST_ACCURACY])
    metrics[names.N_PARAMETERS] = _optional_number(parameters, "n_parameters")
    return LegacyRun(
        folder=folder.name,
        config=config,
        model=str(parameters.get("model") or ""),
        seed=_seed(parameters),
        metrics=metrics,
        epochs=epochs,
        diverged=not np.isfinite(epochs[names.LOSS]).all(),
    )


def missing_reasons(run: LegacyRun) -> dict[str, str]:
    """Return metric -> why it is NaN."""
    reasons = {
        names.ENERGY_PER_1K_IMAGES_J: _NO_PER_IMAGE,
        names.SETUP_ENERGY_J: "the imported form begins with the training",
        names.CONVERSION_ENERGY_J: "not part of the imported form",
        names.ENERGY_PER_EPOCH_J: "a single epoch has no steady state",
    }
    return {
        name: reasons.get(name, "not given in the imported files")
        for name, value in run.metrics.items()
        if np.isnan(value)
    }


def _run_metrics(
    energy_j: npt.NDArray[np.float64],
    seconds: npt.NDArray[np.float64],
    n_epochs: int,
    idle_w: float,
) -> dict[str, float]:
    """Return the energies of a run; the steady state is all epochs but the first."""
    steady = slice(1, n_epochs)
    has_steady = n_epochs > 1
    per_epoch_j = float(energy_j[steady].mean()) if has_steady else np.nan
    epoch_s = float(seconds[steady].mean()) if has_steady else np.nan
    total_j, total_s = float(energy_j.sum()), float(seconds.sum())
    return {
        names.ENERGY_PER_EPOCH_J: per_epoch_j,
        names.ENERGY_PER_EPOCH_NET_J: per_epoch_j - idle_w * epoch_s,
        names.ENERGY_PER_1K_IMAGES_J: np.nan,
        names.SETUP_ENERGY_J: np.nan,
        names.CONVERSION_ENERGY_J: np.nan,
        names.WARMUP_ENERGY_J: float(energy_j[0]) - per_epoch_j,
        names.ENERGY_TOTAL_J: total_j,
        names.ENERGY_TOTAL_NET_J: total_j - idle_w * total_s,
        names.DURATION_S: total_s,
        names.IDLE_POWER_BEFORE_W: idle_w,
        names.IDLE_POWER_W: idle_w,
    }


def _parameters(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise LegacyError(f"{path.name} is missing")
    try:
        content = strict_yaml.read(path)
    except strict_yaml.YamlError as error:
        raise LegacyError(f"{path.name}: {error}") from None
    if not isinstance(content, dict):
        raise LegacyError(f"{path.name} must hold a mapping, but holds {type(content).__name__}")
    return {
        key: value.strip() if isinstance(value, str) else value for key, value in content.items()
    }


def _config(parameters: Mapping[str, Any]) -> TrainingConfig:
    absent = [factor for factor in FACTOR_NAMES if factor not in parameters]
    if absent:
        raise LegacyError(f"parameters.yaml lacks the factors {', '.join(absent)}")
    levels: dict[str, Any] = {}
    for factor in FACTOR_NAMES:
        value = "None" if parameters[factor] is None else parameters[factor]
        no_momentum = factor == "optimizer_momentum" and value == "None"
        try:
            levels[factor] = None if no_momentum else parse_level(factor, value)
        except SpaceError as error:
            raise LegacyError(f"parameters.yaml: {error}") from None
    return TrainingConfig(**levels)


def _seed(parameters: Mapping[str, Any]) -> int | None:
    try:
        given = parameters.get("seed")
        return None if given is None else strict_yaml.integer(str(given))
    except ValueError as error:
        raise LegacyError(f"parameters.yaml: seed {error}") from None


def _optional_number(parameters: Mapping[str, Any], key: str) -> float:
    """Return a number that need not be given; NaN where it is not."""
    value = parameters.get(key)
    if value is None:
        return float("nan")
    try:
        return strict_yaml.number(str(value))
    except ValueError:
        raise LegacyError(f"parameters.yaml: {key} must be a number, but is {value!r}") from None
