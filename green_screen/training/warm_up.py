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
    """Have the kernels of a training made, unless the driver has kept them from an earlier one.

    Args:
        config: The requested configuration.
        options: What its trainings take beside their factors.
        run: Gets ``kernels_s`` if they were made.
    """
    effective = resolve(config).effective
    boards = visible_boards() if tensorflow_gpus() else ()
    kernel_set = kernels.needed(boards, options.model, effective)
    if kernel_set is None or kernel_set.made:
        return
    began_s = time.perf_counter()
    make_kernels(effective, options.model, options.image_size)
    kernel_set.note()
    run.metrics({names.KERNELS_S: time.perf_counter() - began_s})


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
