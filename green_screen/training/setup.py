"""What comes before the first step of a run, whatever is measured of it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import yaml
from numpy.typing import NDArray

from green_screen import names
from green_screen.data.data import ImageDataset, load_dataset
from green_screen.data.pipeline import Pipeline, make_pipeline
from green_screen.measurement.run_measurement import RunMeasurement
from green_screen.measurement.trace_file import write_trace
from green_screen.measurement.used_gpus import synchronize_gpu
from green_screen.network import quantization, xla
from green_screen.network.execution import trace_once
from green_screen.network.model import build_model
from green_screen.network.optimizer import make_optimizer
from green_screen.network.precision import dtype_policy
from green_screen.options import TrainOptions, option_params
from green_screen.space import Resolved, TrainingConfig, resolve
from green_screen.tracking import RunLogger
from green_screen.training import kernels, serving
from green_screen.training.hardware import hardware_tags, host_tags
from green_screen.training.request import check_training

# Steps that TensorFlow makes between two returns to Python: the same for every level, so that none
# is favoured. More saves little, and delays the answer to a signal (8 steps of a batch of 128 take
# ten seconds on 2 CPU cores).
STEPS_PER_EXECUTION = 8


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A training that is ready for its first step, and measured.

    Attributes:
        config: The effective configuration.
        options: What it takes beside its factors.
        run: Where it is logged.
        folder: Its files become artifacts of the run.
        parameters: What was run, for ``parameters.yaml``.
        measurement: What is under way; the set-up is done.
        dataset: The images.
        pipeline: Their batches.
        model: The network, compiled.
    """

    config: TrainingConfig
    options: TrainOptions
    run: RunLogger
    folder: Path
    parameters: dict[str, Any]
    measurement: RunMeasurement
    dataset: ImageDataset
    pipeline: Pipeline
    model: Any


@contextmanager
def prepared(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> Iterator[Prepared]:
    """Set a training up as `config` asks and log what it is.

    That the data set can be used has been seen by ``request.check_trainings``: it is opened once.

    Args:
        config: The requested configuration; what is executed is ``space.resolve(config)``.
        options: What the training takes beside its factors.
        run: Where it is logged; its run is active and its tags of kind and place are set.

    Raises:
        OptionError: The training cannot be done as it is asked for; nothing has been trained then.
        SpaceError: The levels cannot be combined.
    """
    flags = xla.settle_flags()
    resolved = resolve(config)
    effective = resolved.effective
    check_training(options, effective.internal)
    log_request(resolved, options, run)
    run.tags({names.TAG_XLA_FLAGS: flags})
    parameters = {
        **effective.as_params(),
        "model": options.model,
        "dataset": options.dataset,
        "epochs": options.epochs,
        "seed": options.seed,
    }
    measurement = RunMeasurement(
        country=options.country,
        min_window_s=options.min_window_s,
        idle_once=options.protocol == "screening",
    )
    with (
        _artifact_folder(run) as folder,
        _traced(measurement, folder, run) if options.trace else nullcontext(),
        measurement,
    ):
        # A run that fails has its parameters too; its results are added in the end.
        text = yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True)
        (folder / names.PARAMETERS_YAML).write_text(text, encoding="utf-8")
        kernel_set = kernels.needed(measurement.boards, options.model, effective)
        if kernel_set is not None and not kernel_set.made:
            run.tags({names.TAG_FIRST_ON_MACHINE: "true"})
            with measurement.phase("kernels"):
                [made] = kernels.make_apart([effective], options.model, options.image_size)
            if made:
                kernel_set.note()
        with measurement.phase("setup"):
            dataset, pipeline, model = set_up(effective, options)
        log_data(dataset, pipeline, model, run)
        measurement.measure_idle()
        yield Prepared(
            config=effective,
            options=options,
            run=run,
            folder=folder,
            parameters=parameters,
            measurement=measurement,
            dataset=dataset,
            pipeline=pipeline,
            model=model,
        )


def set_up(config: TrainingConfig, options: TrainOptions) -> tuple[ImageDataset, Pipeline, Any]:
    """Return the images, their batches and the compiled network of an effective configuration."""
    with ThreadPoolExecutor(1) as pool:
        # The driver takes as long to make a context as the images take to be read.
        context = pool.submit(synchronize_gpu)
        dataset = load_dataset(
            options.dataset,
            image_size=options.image_size,
            samples=options.samples,
            seed=options.seed,
        )
        context.result()
    pipeline = make_pipeline(dataset, config, seed=options.seed)
    model = compiled_model(
        options.model,
        config,
        image_size=options.image_size,
        n_classes=len(dataset.class_names),
        total_steps=options.epochs * pipeline.steps_per_epoch,
        seed=options.seed,
    )
    return dataset, pipeline, model


def log_request(resolved: Resolved, options: TrainOptions, run: RunLogger) -> None:
    """Log what was asked for, what is executed instead and why, and on which hardware."""
    effective = resolved.effective.as_params()
    run.params(
        {
            **resolved.requested.as_params(),
            **{names.EFFECTIVE_PREFIX + name: level for name, level in effective.items()},
            **option_params(options),
        }
    )
    run.tags({names.TAG_RULES: json.dumps([dataclasses.asdict(r) for r in resolved.rules])})
    run.tags({**hardware_tags(), **host_tags()})


def log_data(dataset: ImageDataset, pipeline: Pipeline, model: Any, run: RunLogger) -> None:
    """Log what the training works on."""
    run.dataset(serving.mlflow_dataset(dataset), "training")
    run.params({"dataset_sha256": dataset.digest})
    if dataset.left_out:
        run.tags({names.TAG_DATASET_LEFT_OUT: dataset.left_out})
    run.tags({names.TAG_AUGMENTATION_OPS: json.dumps(pipeline.augmentation_ops)})
    run.metrics(
        {
            names.N_PARAMETERS: quantization.n_parameters(model),
            names.N_TRAIN_IMAGES: pipeline.images_per_epoch,
            names.N_VALIDATION_IMAGES: pipeline.n_validation,
            names.CHANCE_ACCURACY: chance_accuracy(dataset.labels[pipeline.split.validation]),
        }
    )


def chance_accuracy(labels: NDArray[np.int64]) -> float:
    """Return the accuracy of a network that always answers with the most frequent class."""
    return float(np.bincount(labels).max() / len(labels))


def compiled_model(
    name: str,
    config: TrainingConfig,
    *,
    image_size: int,
    n_classes: int,
    total_steps: int,
    seed: int,
) -> Any:
    """Return a network, compiled as an effective configuration asks.

    Args:
        name: A name of :mod:`green_screen.network.model`.
        config: The effective configuration.
        image_size: Height and width of the images, in pixels.
        n_classes: Length of its output.
        total_steps: Steps of the whole training, over which the learning rate decays.
        seed: Seed of the initial weights.
    """
    xla.settle_flags()
    with dtype_policy(config.precision):
        model = build_model(name, image_size=image_size, n_classes=n_classes, seed=seed)
        if config.internal == "pre_quantization":
            model = quantization.quantization_aware(model)
    model.compile(
        make_optimizer(config, total_steps),
        "categorical_crossentropy",
        weighted_metrics=["accuracy"],
        steps_per_execution=STEPS_PER_EXECUTION,
        jit_compile=config.internal == "jit_compilation",
    )
    _create_variables(model)
    trace_once(model)
    return model


def _create_variables(model: Any) -> None:
    """Create the variables of optimizer, loss and metrics, which Keras leaves to the first step.

    TensorFlow traces a step that creates variables twice, which takes ResNet-50 seconds.
    """
    outputs = tf.zeros([1, model.output.shape[-1]], model.output.dtype)
    model.compiled_loss.build(outputs)
    model.compiled_metrics.build(outputs, outputs)
    model.optimizer._create_all_weights(model.trainable_variables)


@contextmanager
def _traced(measurement: RunMeasurement, folder: Path, run: RunLogger) -> Iterator[None]:
    """Write the trace into a folder when the block has ended, whatever it ended by."""
    try:
        yield
    finally:
        try:
            write_trace(measurement.trace, folder / names.TRACE_PARQUET)
        except OSError as error:  # no reason to lose the run
            run.tags({names.MISSING_TRACE: error})


@contextmanager
def _artifact_folder(run: RunLogger) -> Iterator[Path]:
    """Give a folder whose files become artifacts of the run, however the block ends."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        try:
            yield folder
        finally:
            for file in sorted(folder.iterdir()):
                run.artifact(file)
