"""LightningEnergyCallback: the energy of each epoch of a Lightning training, to its loggers."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from green_screen.measurement.epoch_meter import EpochMeter, known


class LightningEnergyCallback(Callback):  # type: ignore[misc]
    """Logs the joules, seconds and mean watts of each epoch, and the joules of its validation.

    Example::

        Trainer(max_epochs=5, callbacks=[LightningEnergyCallback()]).fit(module, data)

    Args:
        meter: Options of :class:`~green_screen.power.meter.EnergyMeter`.
    """

    def __init__(self, **meter: Any) -> None:
        """Prepare; the training starts the meter."""
        self._epochs = EpochMeter(**meter)
        self._validated: dict[str, float] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start to measure."""
        self._epochs.begin_training()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin an epoch."""
        self._epochs.begin_epoch()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a validation; the one that tries it out comes before the training."""
        self._epochs.begin_validation()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """End a validation."""
        self._validated = self._epochs.end_validation()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log an epoch, which holds its validation."""
        metrics = {**self._validated, **self._epochs.end_epoch()}
        self._validated = {}
        pl_module.log_dict(known(metrics))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop."""
        self._epochs.end_training()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Stop after a training that failed."""
        self._epochs.end_training()
