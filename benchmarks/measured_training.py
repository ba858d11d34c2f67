"""A training of the project's own, one epoch at a time, with or without a meter."""

from __future__ import annotations

import math
import time
from typing import Protocol

import keras

from green_screen.data.data import load_dataset
from green_screen.data.pipeline import Pipeline, ahead_on_device, make_pipeline
from green_screen.measurement.run_measurement import synchronize_gpu
from green_screen.power.meter import EnergyMeter, EnergyReading, Mark
from green_screen.space import Space
from green_screen.training.setup import compiled_model

LEVELS = {"internal": "jit_compilation", "partitioning": "90-5-5"}


class Size(Protocol):
    """How large the training is."""

    model: str
    samples: int
    batch_size: int


class EpochMarks(keras.callbacks.Callback):
    """Times one epoch, and takes the marks of ``RunMeasurement`` if there is a meter."""

    def __init__(self, meter: EnergyMeter | None) -> None:
        """Prepare for one epoch."""
        super().__init__()
        self.meter = meter
        self.seconds = math.nan
        self.marks: list[Mark] = []
        self._begin_s = 0.0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Start the clock when the GPU is idle."""
        synchronize_gpu()
        self._begin_s = time.perf_counter()
        self._mark()

    def on_test_begin(self, logs: object = None) -> None:
        """Separate training from validation."""
        self._mark()

    def on_test_end(self, logs: object = None) -> None:
        """Separate validation from what follows."""
        self._mark()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Stop the clock when the GPU has done its work and everything was read."""
        if self.meter is not None:
            self.marks[-1] = self.meter.with_carbon(self.marks[-1])
        synchronize_gpu()
        self.seconds = time.perf_counter() - self._begin_s

    def _mark(self) -> None:
        if self.meter is not None:
            self.marks.append(self.meter.mark(read_carbon=False))

    def readings(self) -> tuple[EnergyReading, EnergyReading]:
        """Return the training's and the whole epoch's reading."""
        assert self.meter is not None
        start, trained, end = self.marks
        return self.meter.between(start, trained), self.meter.between(start, end)


class Training:
    """A compiled model and its data, one epoch at a time."""

    def __init__(self, size: Size) -> None:
        """Build, compile and run two epochs: what comes after is the steady state."""
        config = Space.load().parse({**LEVELS, "batch_size": size.batch_size})
        dataset = load_dataset("synthetic", image_size=32, samples=size.samples, seed=0)
        self.pipeline: Pipeline = make_pipeline(dataset, config, seed=0)
        self.model = compiled_model(
            size.model,
            config,
            image_size=32,
            n_classes=len(dataset.class_names),
            total_steps=10**6,
            seed=0,
        )
        for _ in range(2):
            self.epoch(None)

    @property
    def images(self) -> int:
        """Training images of an epoch."""
        return self.pipeline.steps_per_epoch * self.pipeline.batch_size

    def epoch(self, meter: EnergyMeter | None) -> EpochMarks:
        """Train one epoch, measured if there is a meter."""
        marks = EpochMarks(meter)
        self.model.fit(
            ahead_on_device(self.pipeline.train),
            steps_per_epoch=self.pipeline.steps_per_epoch,
            validation_data=self.pipeline.validation,
            callbacks=[marks],
            verbose=0,
        )
        return marks
