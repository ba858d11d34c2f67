"""The energy of each epoch of a training whose loop is another's: Lightning's or Transformers'."""

from __future__ import annotations

import math
from typing import Any

from green_screen import names
from green_screen.power.meter import EnergyMeter, Mark


class EpochMeter:
    """Measures epochs and the validation that lies in each, or follows it.

    Args:
        meter: Options of :class:`~green_screen.power.meter.EnergyMeter`.
    """

    def __init__(self, **meter: Any) -> None:
        """Prepare; measuring starts with :meth:`begin_training`.

        Raises:
            TypeError: The meter has no such option.
            ValueError: An option's value is out of range.
        """
        self._meter = EnergyMeter(**meter)
        self._epoch: Mark | None = None
        self._validation: Mark | None = None
        self._validation_j = math.nan

    @property
    def meter(self) -> EnergyMeter:
        """What measures."""
        return self._meter

    def begin_training(self) -> None:
        """Start the meter; what an earlier training that failed has left open is dropped."""
        self.end_training()
        self._meter.__enter__()

    def end_training(self) -> None:
        """Stop the meter, also after a failure."""
        self._epoch = self._validation = None
        if self._meter.running:
            self._meter.__exit__(None, None, None)

    def begin_epoch(self) -> None:
        """Begin an epoch."""
        self._epoch, self._validation_j = self._meter.mark(), math.nan

    def begin_validation(self) -> None:
        """Begin a validation; before the training there is none to be measured."""
        if self._meter.running:
            self._validation = self._meter.mark()

    def end_validation(self) -> dict[str, float]:
        """Return the validation's energy; of several in an epoch, that of all so far."""
        if self._validation is None:
            return {}
        reading = self._meter.between(self._validation, self._meter.mark(), "validation")
        self._validation = None
        before_j = 0.0 if math.isnan(self._validation_j) else self._validation_j
        # A board always draws power: 0 J says that this was shorter than the counter's period.
        self._validation_j = before_j + (reading.energy_j or math.nan)
        return {names.VALIDATION_ENERGY_J: self._validation_j}

    def end_epoch(self) -> dict[str, float]:
        """Return an epoch's energy, time and power, what it holds of validation included."""
        if self._epoch is None:
            return {}
        reading = self._meter.between(self._epoch, self._meter.mark(), "epoch")
        self._epoch = None
        return {
            names.EPOCH_ENERGY_J: reading.energy_j,
            names.EPOCH_TIME_S: reading.seconds,
            names.GPU_POWER_MEAN_W: reading.mean_power_w if reading.devices else math.nan,
        }


def known(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics that are numbers: other people's loggers take NaN for one."""
    return {name: value for name, value in metrics.items() if not math.isnan(value)}
