"""A short job without measurement: the driver makes a board's kernels before any run needs them.

As a program it makes those of the configuration, the model and the image size that are JSON on its
input.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import tensorflow as tf

from green_screen import names
from green_screen.measurement.used_gpus import tensorflow_gpus
from green_screen.options import TrainOptions
from green_screen.power.visible import visible_boards
from green_screen.space import TrainingConfig, resolve
from green_screen.tracking import RunLogger
from green_screen.training import kernels
from green_screen.training.setup import compiled_model


def warm_up(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Have the kernels of several kinds of training made, but those that the driver has kept.

    Each kind is made by a process of its own, all at the same time.

    Args:
        config: Not looked at: the configurations, one of each kind, are the run's tag
            ``green_screen.kernels_of``.
        options: What the trainings take beside their factors.
        run: Gets ``kernels_s`` if some were made.

    Raises:
        RuntimeError: Some could not be made.
    """
    kinds = json.loads(run.opened_with[names.TAG_KERNELS_OF])
    boards = visible_boards() if tensorflow_gpus() else ()
    with kernels.alone():  # the jobs of a host's other boards want the same ones
        began_s = time.perf_counter()
        missing = {}
        for config in (resolve(TrainingConfig(**levels)).effective for levels in kinds):
            found = kernels.needed(boards, options.model, config)
            if found is not None and not found.made:
                missing[config] = found
        if not missing:
            return
        made = kernels.make_apart(missing, options.model, options.image_size)
        for kernel_set, done in zip(missing.values(), made, strict=True):
            if done:
                kernel_set.note()
        run.metrics({names.KERNELS_S: time.perf_counter() - began_s})
    if not all(made):
        raise RuntimeError(f"the kernels of {made.count(False)} of {len(made)} kinds were not made")


def make_kernels(config: TrainingConfig, model_name: str, image_size: int) -> None:
    """Train and validate a network of the same kind for a step each, and forget it.

    By that the driver makes and keeps the kernels that the training needs; XLA's it does not keep.

    Args:
        config: The effective configuration.
        model_name: A name of :mod:`green_screen.network.model`.
        image_size: Height and width of the images, in pixels.
    """
    if config.internal == "jit_compilation":
        config = dataclasses.replace(config, internal="None")
    n_images, n_classes = 2, 10  # kernels are the same for any number
    model = compiled_model(
        model_name, config, image_size=image_size, n_classes=n_classes, total_steps=1, seed=0
    )
    images = tf.zeros([n_images, image_size, image_size, 3], model.input.dtype)
    labels = tf.one_hot([0] * n_images, n_classes)
    batch = tf.data.Dataset.from_tensors((images, labels, tf.ones([n_images])))
    model.fit(batch.repeat(), steps_per_epoch=1, validation_data=batch, verbose=0)


if __name__ == "__main__":
    levels, *network = json.load(sys.stdin)
    make_kernels(TrainingConfig(**levels), *network)
