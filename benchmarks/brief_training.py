"""A training without measurement, for what only asks whether a combination of levels trains."""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from green_screen import names
from green_screen.network import xla
from green_screen.options import TrainOptions
from green_screen.space import TrainingConfig, resolve
from green_screen.tracking import RunLogger
from green_screen.training.hardware import hardware_tags
from green_screen.training.run import evaluate, fit, quantized
from green_screen.training.setup import set_up


class _EpochTimes(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Notes how long each epoch takes, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._start_s = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds.append(time.perf_counter() - self._start_s)


def train_briefly(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Do what a run does with the network, and measure nothing."""
    flags = xla.settle_flags()
    effective = resolve(config).effective
    dataset, pipeline, model = set_up(effective, options)
    times = _EpochTimes()
    history = fit(model, pipeline, times, epochs=options.epochs)
    network = model
    if effective.internal == "post_quantization":
        network = quantized(options.model, model, dataset, pipeline)
    test_loss, _ = evaluate(network, pipeline)
    losses = {name: history[name] for name in ("loss", "val_loss")} | {"test_loss": [test_loss]}
    run.metrics({name: values[-1] for name, values in losses.items()})
    run.metrics({"first_epoch_s": times.seconds[0]})
    finite = all(np.isfinite(values).all() for values in losses.values())
    run.tags({names.TAG_DIVERGED: str(not finite).lower(), names.TAG_XLA_FLAGS: flags})
    run.tags(hardware_tags())
