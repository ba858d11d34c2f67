"""The files of a training: ``logs.csv`` with a row for each epoch, ``parameters.yaml``."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from green_screen import names
from green_screen.power.idle import Idle

logger = logging.getLogger(__name__)

# Column of logs.csv -> metric, after `epoch` and `time`. The names up to energy_J are older than
# this project: published logs of runs have them.
_COLUMNS: dict[str, str] = {
    "loss": names.LOSS,
    "accuracy": names.ACCURACY,
    "val_loss": names.VAL_LOSS,
    "val_accuracy": names.VAL_ACCURACY,
    "gpu_power_W": names.GPU_POWER_MEAN_W,
    "gpu_temp_C": names.GPU_TEMPERATURE_C,
    "gpu_util_%": names.GPU_UTILIZATION_PERCENT,
    "energy_J": names.EPOCH_ENERGY_J,
    "train_energy_J": names.TRAIN_ENERGY_J,
    "validation_energy_J": names.VALIDATION_ENERGY_J,
    "gpu_energy_J": names.GPU_ENERGY_J,
    "epoch_time_s": names.EPOCH_TIME_S,
    "train_time_s": names.TRAIN_TIME_S,
    "learning_rate": names.LEARNING_RATE,
    "codecarbon_cpu_kWh": names.CODECARBON_CPU_KWH,
    "codecarbon_gpu_kWh": names.CODECARBON_GPU_KWH,
    "codecarbon_ram_kWh": names.CODECARBON_RAM_KWH,
    "emissions_kg_CO2eq": names.EMISSIONS_KG_CO2EQ,
}


class LogFiles:
    """Writes both files into one folder."""

    def __init__(self, directory: Path, *, of_a_run: bool) -> None:
        """Prepare; nothing is written before :meth:`start`.

        Args:
            directory: The folder, made if missing.
            of_a_run: Whether they belong to a run of this project, which has written what it knows
                of its parameters before, and is not whole without its files. In anybody else's
                training, files that can no longer be written are left alone after a warning.
        """
        self.directory = directory
        self._of_a_run = of_a_run
        self._writable = True
        self._first_s: float | None = None

    def start(self) -> None:
        """Begin the files anew.

        Raises:
            OSError: They cannot be written.
        """
        self._writable, self._first_s = True, None
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._of_a_run:
            # An earlier training's would pass for this one's, should this one fail.
            self._parameters.unlink(missing_ok=True)
        with self.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(("epoch", "time", *_COLUMNS))

    def go_on(self, elapsed_s: float) -> None:
        """Go on with a file that is there already.

        Args:
            elapsed_s: How long ago its first row was written.
        """
        self._first_s = time.perf_counter() - elapsed_s

    def idle_row(self, label: str, idle: Idle | None) -> None:
        """Append what was measured while the machine waited; nothing if it was not."""
        if idle is None:
            return
        reading = idle.reading
        row = {
            names.GPU_POWER_MEAN_W: idle.power_w if reading.devices else math.nan,
            names.GPU_TEMPERATURE_C: reading.temperature_c,
            names.GPU_UTILIZATION_PERCENT: reading.utilization_percent,
        }
        self.row(label, row)

    def row(self, label: str, metrics: Mapping[str, float]) -> None:
        """Append a row, its time counted from the first; what is missing is an empty cell."""
        now = time.perf_counter()
        if self._first_s is None:
            self._first_s = now
        elapsed_s = now - self._first_s
        values = [metrics.get(metric, math.nan) for metric in _COLUMNS.values()]
        cells = ["" if math.isnan(value) else repr(float(value)) for value in values]

        def append() -> None:
            with self.csv.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow([label, f"{elapsed_s:.3f}", *cells])

        self._write(append)

    def parameters(self, parameters: Mapping[str, Any]) -> None:
        """Write what was run."""
        text = yaml.safe_dump(dict(parameters), sort_keys=False, allow_unicode=True)
        self._write(lambda: self._parameters.write_text(text, encoding="utf-8"))

    def _write(self, write: Callable[[], object]) -> None:
        if not self._writable:
            return
        try:
            write()
        except OSError as error:
            if self._of_a_run:
                raise
            self._writable = False
            logger.warning(
                "%s can no longer be written (%s): the training goes on, and what it measures "
                "from here is not in the files",
                self.directory,
                error,
            )

    @property
    def csv(self) -> Path:
        """Where ``logs.csv`` is."""
        return self.directory / names.LOGS_CSV

    @property
    def _parameters(self) -> Path:
        return self.directory / names.PARAMETERS_YAML
