"""Epochs that are run for the measurement alone, because the steady window is too short."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import keras

from green_screen.measurement.run_measurement import RunMeasurement

# To be added to the declared epochs in `fit`, which needs a number: it ends by this callback.
MAX_FURTHER_EPOCHS = 1_000_000


class FurtherEpochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Lets a ``fit`` go on after its declared epochs until the steady window is long enough.

    In the same ``fit``, because the first epoch of another one would not be steady either. The
    network's weights are those of the declared epochs in the end. It belongs behind the
    :class:`~green_screen.measurement.callback.SMICallback` that measures.
    """

    def __init__(self, measurement: RunMeasurement, declared: int, *, done: int = 0) -> None:
        """Prepare.

        Args:
            measurement: What is under way.
            declared: The epochs of the training itself.
            done: How many of those an earlier process has done.
        """
        super().__init__()
        self._measurement = measurement
        self._declared = declared
        self._done = done
        self._phase = ExitStack()
        self._weights: list[Any] | None = None

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Begin at once where the declared epochs are done."""
        if self._done >= self._declared:
            self._begin()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Decide whether another epoch is run."""
        if epoch + 1 < self._declared:
            return
        if not self._measurement.needs_further_epoch:
            self.model.stop_training = True
        elif self._weights is None:
            self._begin()

    def _begin(self) -> None:
        self._phase.enter_context(self._measurement.phase("further"))
        self._weights = self.model.get_weights()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Give back the weights of the declared epochs."""
        if self._weights is not None:
            self.model.set_weights(self._weights)
            self._weights = None
        self._phase.close()
