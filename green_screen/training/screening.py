"""The protocol `screening`: a window of steps instead of all epochs, and what they would take."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import yaml

from green_screen import names
from green_screen.data.pipeline import Pipeline, ahead_on_device
from green_screen.measurement.blocks import BLOCK_S, MAX_STEPS, Blocks
from green_screen.measurement.forecast import energy_spread
from green_screen.measurement.run_measurement import RunMeasurement
from green_screen.measurement.run_record import per_epoch
from green_screen.measurement.screening import screening_summary
from green_screen.training.setup import Prepared

NO_ACCURACY = "a screening trains too few steps to have one"

# The validation is a small part of an epoch: its window need not be as long as that of the steps.
_VALIDATION_SHARE = 0.25
# By so much of an epoch's energy its own may be uncertain for the counter's coarseness.
_MAX_VALIDATION_RESOLUTION = 0.005


def screen(training: Prepared) -> None:
    """Measure steps until they are steady and well known, then validation, and log the forecast.

    The network, its batches and its learning rates are those of the declared training. There is no
    accuracy: what a network has learnt after some steps says nothing of it.
    """
    options, run, measurement = training.options, training.run, training.measurement
    model, pipeline = training.model, training.pipeline
    blocks = Blocks(
        measurement,
        steps_per_epoch=pipeline.steps_per_epoch,
        max_window_s=options.max_window_s,
    )
    history = model.fit(
        ahead_on_device(pipeline.train), steps_per_epoch=MAX_STEPS, callbacks=[blocks], verbose=0
    )
    validate(model, pipeline, measurement, max_window_s=options.max_window_s)

    for step, (steps, block) in enumerate(zip(blocks.steps, measurement.epochs, strict=True)):
        run.metrics(
            {
                names.BLOCK_STEPS: steps,
                names.BLOCK_S: block.reading.seconds,
                names.BLOCK_ENERGY_J: block.reading.energy_j,
            },
            step=step,
        )
    for step, block in enumerate(measurement.validations):
        run.metrics(
            {
                names.VALIDATION_BLOCK_S: block.reading.seconds,
                names.VALIDATION_BLOCK_ENERGY_J: block.reading.energy_j,
            },
            step=step,
        )
    summary = screening_summary(
        measurement,
        epochs=options.epochs,
        steps_per_epoch=pipeline.steps_per_epoch,
        images_per_epoch=pipeline.images_per_epoch,
        validation_images=pipeline.n_validation,
    )
    no_accuracy = (names.VAL_ACCURACY, names.TEST_ACCURACY)
    run.metrics({**summary.metrics, **dict.fromkeys(no_accuracy, math.nan)})
    missing = {**summary.missing, **dict.fromkeys(no_accuracy, NO_ACCURACY)}
    run.tags(summary.tags)
    run.tags({names.MISSING_PREFIX + metric: why for metric, why in missing.items()})
    if not np.isfinite(history.history["loss"]).all():
        run.tags({names.TAG_DIVERGED: "true"})
    text = yaml.safe_dump(
        {**training.parameters, "protocol": options.protocol}, sort_keys=False, allow_unicode=True
    )
    (training.folder / names.PARAMETERS_YAML).write_text(text, encoding="utf-8")


def validate(
    model: Any, pipeline: Pipeline, measurement: RunMeasurement, *, max_window_s: float
) -> None:
    """Validate in blocks until the energy of a validation is known well enough for an epoch's.

    A validation that is longer than a block is done in parts: where it begins anew is then a small
    part of a block too.
    """
    n_steps = -(-pipeline.n_validation // pipeline.evaluation_batch_size)
    steps, end_s = min(8, n_steps), math.inf
    while True:
        with measurement.validating(work=steps / n_steps):
            model.evaluate(pipeline.validation, steps=steps, verbose=0)
        now_s = time.perf_counter()
        steady = measurement.steady_validations.epochs
        if not steady:  # that was the first one
            end_s = now_s + 2 * _VALIDATION_SHARE * max_window_s
            continue
        spread, (one_j, one_s) = energy_spread(steady), per_epoch(steady)
        epoch_j = per_epoch(measurement.steady_state.epochs)[0] + one_j
        # Not so while the counter has not moved: then it says nothing of the energy.
        known = spread.resolution * one_j <= _MAX_VALIDATION_RESOLUTION * epoch_j
        longest_s = _VALIDATION_SHARE * max_window_s
        if (len(steady) > 1 and known) or spread.seconds > longest_s or now_s > end_s:
            return
        steps = min(n_steps, max(8, round(n_steps * BLOCK_S / one_s)))
