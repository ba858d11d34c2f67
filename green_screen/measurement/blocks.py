"""Steps in blocks, measured until their energy is known well enough."""

from __future__ import annotations

import time
from typing import Any

import keras

from green_screen.measurement.forecast import energy_spread
from green_screen.measurement.run_measurement import RunMeasurement

# To be given to `fit`, which needs a number: the one epoch ends by this callback.
MAX_STEPS = 1_000_000_000
# Long enough for the counter, which moves ten times a second, and for the 4 ms of its reading.
BLOCK_S = 1.5
# What a window is measured for.
MAX_ERROR, MAX_RESOLUTION = 0.005, 0.01
# A run that does not become steady is left to itself after so many of its longest windows.
_MAX_WINDOWS = 2


class Blocks(keras.callbacks.Callback):  # type: ignore[misc]
    """Measures the steps of one ``fit`` in blocks and ends it when the steady ones are enough.

    They are when the standard error of their mean energy is at most 0.5 % and the counter's
    resolution at most 1 %, or when they are as long as they may be, or at the latest after twice
    that time from the end of the first block. The first block is the first execution, which
    traces, compiles and tunes.
    """

    # Else Keras waits for the GPU after each execution to hand over numbers.
    _supports_tf_logs = True

    def __init__(
        self, measurement: RunMeasurement, *, steps_per_epoch: int, max_window_s: float
    ) -> None:
        """Prepare.

        Args:
            measurement: What is under way.
            steps_per_epoch: Of the training that the blocks stand for.
            max_window_s: Longest steady window.
        """
        super().__init__()
        self._measurement = measurement
        self._steps_per_epoch = steps_per_epoch
        self._max_window_s = max_window_s
        self._done = 0
        self._planned = 1
        self._end_s: float | None = None
        self.steps: list[int] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin the first block."""
        self._measurement.begin_fit()
        self._measurement.begin_epoch(0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """End the block if it has its steps: `batch` counts them from 0, several at a time."""
        steps = batch + 1 - self._done
        if steps < self._planned:
            return
        self._done = batch + 1
        self.steps.append(steps)
        self._measurement.end_block(work=steps / self._steps_per_epoch)
        seconds = self._measurement.epochs[-1].reading.seconds
        # The first one says nothing of a step; the second is a single execution again.
        self._planned = max(1, round(steps * BLOCK_S / seconds)) if len(self.steps) > 1 else 1
        self.model.stop_training = self._enough()

    def _enough(self) -> bool:
        now_s = time.perf_counter()
        if self._end_s is None:
            self._end_s = now_s + _MAX_WINDOWS * self._max_window_s
        spread = energy_spread(self._measurement.steady_state.epochs)
        if spread.seconds >= self._max_window_s or now_s >= self._end_s:
            return True
        return spread.standard_error <= MAX_ERROR and spread.resolution <= MAX_RESOLUTION
