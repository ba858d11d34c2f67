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
import yaml

from green_screen import names
from green_screen.results.frame import config_of
from green_screen.space import FACTOR_NAMES, IMPLEMENTED, TrainingConfig, canonical

_TIME, _POWER, _TEMPERATURE = "time", "gpu_power_W", "gpu_temp_C"
_UTILIZATION = "gpu_util_%"
_LEARNING = {
    "loss": names.LOSS,
    "accuracy": names.ACCURACY,
    "val_loss": names.VAL_LOSS,
    "val_accuracy": names.VAL_ACCURACY,
}
_REQUIRED_COLUMNS = ("epoch", _TIME, *_LEARNING, _POWER)

_NO_PER_IMAGE = "the number of training images is not part of the imported form"


class LegacyError(ValueError):
    """A folder that is not a complete run of the public form."""


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
        except (LegacyError, ValueError, OSError, yaml.YAMLError) as error:
            skipped[path.name] = " ".join(str(error).split())
    return LegacyFolder(runs=tuple(runs), skipped=skipped)


def read_run(folder: Path) -> LegacyRun:
    """Read one run.

    Raises:
        LegacyError: A file, a factor, a column or a row is missing, or time does not increase.
    """
    parameters = _parameters(folder / "parameters.yaml")
    config = _config(parameters)
    log = _log(folder / "logs.csv")
    power = _numbers(log, _POWER)
    time_s = _seconds(log)
    if not np.isfinite(power).all():
        raise LegacyError(f"logs.csv: {_POWER} is missing in {(~np.isfinite(power)).sum()} rows")
    if not np.isfinite(time_s).all() or not (np.diff(time_s) > 0).all():
        raise LegacyError("logs.csv: time must increase from each row to the next")
    # Energy between a row and the one before it; the first epoch begins at the row `pre`.
    energy_j = np.diff(time_s) * (power[1:] + power[:-1]) / 2.0
    seconds = np.diff(time_s)
    n_epochs = len(log) - 2
    epochs = pd.DataFrame(
        {
            names.EPOCH_ENERGY_J: energy_j[:n_epochs],
            names.EPOCH_TIME_S: seconds[:n_epochs],
            names.GPU_POWER_MEAN_W: energy_j[:n_epochs] / seconds[:n_epochs],
            names.GPU_TEMPERATURE_C: _numbers(log, _TEMPERATURE)[1:-1],
            names.GPU_UTILIZATION_PERCENT: _numbers(log, _UTILIZATION)[1:-1],
            **{metric: _numbers(log, column)[1:-1] for column, metric in _LEARNING.items()},
        }
    )
    metrics = _run_metrics(energy_j, seconds, n_epochs, idle_w=float(power[0]))
    metrics[names.START_TEMPERATURE_C] = float(_numbers(log, _TEMPERATURE)[0])
    metrics[names.TEST_ACCURACY] = _optional_number(parameters, "test_accuracy")
    metrics[names.N_PARAMETERS] = _optional_number(parameters, "n_parameters")
    seed = _optional_number(parameters, "seed")
    return LegacyRun(
        folder=folder.name,
        config=config,
        model=str(parameters.get("model") or ""),
        seed=None if np.isnan(seed) else int(seed),
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
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise LegacyError(f"{path.name} must hold a mapping, but holds {type(content).__name__}")
    return {
        str(key).strip(): value.strip() if isinstance(value, str) else value
        for key, value in content.items()
    }


def _config(parameters: Mapping[str, Any]) -> TrainingConfig:
    absent = [factor for factor in FACTOR_NAMES if factor not in parameters]
    if absent:
        raise LegacyError(f"parameters.yaml lacks the factors {', '.join(absent)}")
    levels = {factor: canonical(parameters[factor]) for factor in FACTOR_NAMES}
    for factor, implemented in IMPLEMENTED.items():
        if levels[factor] not in implemented:
            raise LegacyError(f"parameters.yaml: {factor}={levels[factor]!r} is not a known level")
    return config_of(levels)


def _log(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise LegacyError(f"{path.name} is missing")
    log = pd.read_csv(path, dtype=str, skipinitialspace=True)
    log.columns = log.columns.str.strip()
    absent = [column for column in _REQUIRED_COLUMNS if column not in log.columns]
    if absent:
        raise LegacyError(f"{path.name} lacks the columns {', '.join(absent)}")
    marks = log["epoch"].str.strip().str.lower().tolist()
    if len(marks) < 3 or marks[0] != "pre" or marks[-1] != "post":
        raise LegacyError(f"{path.name} must have a row pre, one row an epoch and a row post")
    numbers = pd.to_numeric(pd.Series(marks[1:-1]), errors="coerce").to_numpy(dtype=np.float64)
    if not np.array_equal(numbers, numbers[0] + np.arange(len(numbers))):
        raise LegacyError(f"{path.name}: epochs must count up by one, but are {marks[1:-1]}")
    return log


def _numbers(log: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    if column not in log.columns:
        return np.full(len(log), np.nan)
    return pd.to_numeric(log[column], errors="coerce").to_numpy(dtype=np.float64)


def _seconds(log: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the rows' moments in seconds, whether given as numbers or as dates."""
    seconds = _numbers(log, _TIME)
    if np.isfinite(seconds).any():
        return seconds
    moments = pd.to_datetime(log[_TIME], errors="coerce")
    return ((moments - moments.iloc[0]) / pd.Timedelta(seconds=1)).to_numpy(dtype=np.float64)


def _optional_number(parameters: Mapping[str, Any], key: str) -> float:
    try:
        return float(parameters[key])
    except (KeyError, TypeError, ValueError):
        return float("nan")
