"""One training run, from the requested configuration to the logged result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from green_screen import names, tracking
from green_screen.data.data import ImageDataset
from green_screen.data.pipeline import Pipeline, ahead_on_device
from green_screen.measurement.callback import SMICallback
from green_screen.measurement.further import MAX_FURTHER_EPOCHS, FurtherEpochs
from green_screen.measurement.run_measurement import MeasurementSummary
from green_screen.measurement.summary import of_a_part
from green_screen.network import int8, quantization
from green_screen.network.model import build_model
from green_screen.network.precision import dtype_policy
from green_screen.options import TrainOptions
from green_screen.space import TrainingConfig
from green_screen.tracking import ModelLink, RunLogger
from green_screen.training import serving
from green_screen.training.checkpoint import Checkpoints, checkpoints
from green_screen.training.screening import screen
from green_screen.training.setup import Prepared, prepared


def train(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Train once as `config` asks, measure it, and log everything to `run`.

    Args:
        config: The requested configuration; what is executed is ``space.resolve(config)``.
        options: What the training takes beside its factors.
        run: Where it is logged; its run is active and its tags of kind and place are set.

    Raises:
        OptionError: The training cannot be done as it is asked for; nothing has been trained then.
        SpaceError: The levels cannot be combined.
    """
    with prepared(config, options, run) as training:
        PROTOCOLS[options.protocol](training)


def train_fully(training: Prepared) -> None:
    """Train all epochs, measure them and the test, and log everything.

    What an earlier process has done of the same training is not done again.
    """
    with checkpoints(training) as kept:
        callback = train_epochs(training, kept)
        if not kept.to_the_end:
            log_rung(training, kept)
            return
        network = converted(training)
        with training.measurement.phase("evaluation"):
            test_loss, test_accuracy = evaluate(network, training.pipeline)
        log_all(training, kept, callback, network, (test_loss, test_accuracy))


def train_epochs(training: Prepared, kept: Checkpoints) -> SMICallback:
    """Train the epochs that are left, and return what has measured them."""
    measurement, pipeline = training.measurement, training.pipeline
    if names.TAG_EPOCHS_TRAINED in training.run.opened_with:
        # What was not known of a run, or in doubt, may be known once it has gone on.
        training.run.untag(tag for tag in training.run.opened_with if _is_of_summary(tag))
    callback = SMICallback(
        directory=training.folder,
        images_per_epoch=pipeline.images_per_epoch,
        measurement=measurement,
        logger=kept,
    )
    callback.set_model(training.model)
    kept.attach(callback)
    further = FurtherEpochs(measurement, kept.until, done=kept.first_epoch)
    if kept.first_epoch < kept.until or measurement.needs_further_epoch:
        fit(
            training.model,
            pipeline,
            callback,
            *kept.callbacks,
            epochs=kept.until,
            first_epoch=kept.first_epoch,
            further=further,
        )
    return callback


def _is_of_summary(tag: str) -> bool:
    of_wait = tag.startswith(names.MISSING_PREFIX + "cooldown")
    doubts = (names.TAG_INVALID_REASON, names.TAG_UNSTEADY, names.TAG_STARVED, names.TAG_UNCHECKED)
    return tag in doubts or (tag.startswith(names.MISSING_PREFIX) and not of_wait)


def converted(training: Prepared) -> Any:
    """Return what is tested and kept: the network, or what `post_quantization` makes of it."""
    if training.config.internal != "post_quantization":
        return training.model
    with training.measurement.phase("conversion"):
        network = quantized(
            training.options.model, training.model, training.dataset, training.pipeline
        )
    log_conversion(network, training.run)
    return network


def log_all(
    training: Prepared,
    kept: Checkpoints,
    callback: SMICallback,
    network: Any,
    test: tuple[float, float],
) -> None:
    """Log the model if that is asked for, and what the run comes to."""
    run, pipeline = training.run, training.pipeline
    logged: ModelLink | None = None
    if training.options.log_model:
        run.flush(tracking.patience_s())  # MLflow copies the run's parameters to the model
        logged = tracking.patiently(
            lambda: serving.log_model(network, pipeline.preprocessing, training.dataset)
        )

    summary = training.measurement.summary(pipeline.images_per_epoch, pipeline.n_validation)
    kept.log()
    log_result(summary, kept.losses, test, run, logged)
    run.tags({names.TAG_EPOCHS_TRAINED: kept.until})
    test_loss, test_accuracy = test
    callback.finish(
        {
            **training.parameters,
            names.N_PARAMETERS: quantization.n_parameters(training.model),
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
        }
    )


def log_rung(training: Prepared, kept: Checkpoints) -> None:
    """Log what a run comes to that a search has stopped before its last epoch, for now."""
    pipeline, epochs = training.pipeline, training.options.epochs
    summary = training.measurement.summary(pipeline.images_per_epoch, pipeline.n_validation)
    kept.nothing_is_lost()
    kept.log()
    why = f"{kept.until} of {epochs} epochs are trained"
    log_result(of_a_part(summary, why), kept.losses, None, training.run)
    training.run.tags({names.TAG_EPOCHS_TRAINED: kept.until})


def log_result(
    summary: MeasurementSummary,
    history: dict[str, list[float]],
    test: tuple[float, float] | None,
    run: RunLogger,
    model: ModelLink | None = None,
) -> None:
    """Log the run's figures, to its model too, and whether its loss ceased to be a number."""
    tested = dict(zip((names.TEST_LOSS, names.TEST_ACCURACY), test or (), strict=False))
    run.metrics({**summary.metrics, **tested}, model=model)
    tags = {**summary.tags}
    tags.update({names.MISSING_PREFIX + metric: why for metric, why in summary.missing.items()})
    losses = [*history["loss"], *history["val_loss"], *(test or ())[:1]]
    if not np.isfinite(losses).all():
        tags[names.TAG_DIVERGED] = "true"
    run.tags(tags, model=model)


def fit(
    model: Any,
    pipeline: Pipeline,
    *callbacks: Any,
    epochs: int,
    first_epoch: int = 0,
    further: FurtherEpochs | None = None,
) -> dict[str, list[float]]:
    """Train up to some epochs, longer if `further` asks for it, and return the epochs' history."""
    history = model.fit(
        ahead_on_device(pipeline.train_from(first_epoch)),
        steps_per_epoch=pipeline.steps_per_epoch,
        validation_data=pipeline.validation,
        initial_epoch=first_epoch,
        epochs=epochs + MAX_FURTHER_EPOCHS if further else epochs,
        callbacks=[*callbacks, further] if further else list(callbacks),
        verbose=0,
    )
    return {name: values[: epochs - first_epoch] for name, values in history.history.items()}


def quantized(name: str, model: Any, dataset: ImageDataset, pipeline: Pipeline) -> Any:
    """Return the trained network as a full-integer TensorFlow Lite model.

    Whatever it was trained in, it is converted from float32, which is what TensorFlow Lite's
    integers are made from. Training images calibrate it, as they are without augmentation. A
    network whose weights or activations are not finite has no integers to become, and is returned
    as it is.
    """
    with dtype_policy("float32"):
        copy = build_model(
            name,
            image_size=dataset.images.shape[1],
            n_classes=len(dataset.class_names),
            seed=0,
        )
    copy.set_weights([weight.astype(np.float32) for weight in model.get_weights()])
    images = dataset.images[pipeline.split.train[: int8.CALIBRATION_IMAGES]]
    try:
        return int8.to_int8(copy, pipeline.preprocessing.apply(images))
    except int8.NotFiniteError:
        return model


def log_conversion(network: Any, run: RunLogger) -> None:
    """Log the size of the converted network, or that there is none."""
    size = float(len(network)) if isinstance(network, bytes) else math.nan
    run.metrics({names.INT8_MODEL_BYTES: size})
    run.missing(
        {names.INT8_MODEL_BYTES: size},
        "weights or activations of the trained network are not finite: nothing was converted, and "
        "the test is the network's",
    )


def evaluate(network: Any, pipeline: Pipeline) -> tuple[float, float]:
    """Return loss and accuracy on the test part."""
    if isinstance(network, bytes):
        return int8.evaluate(network, pipeline.test)
    loss, accuracy = network.evaluate(pipeline.test, verbose=0)
    return loss, accuracy


PROTOCOLS: dict[str, Callable[[Prepared], None]] = {"full": train_fully, "screening": screen}
