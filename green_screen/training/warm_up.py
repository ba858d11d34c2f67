"""A short job without measurement: the driver makes a board's kernels before any run needs them.

As a program it makes those of the configuration and the options that are JSON on its input.
"""

from __future__ import annotations

import json
import sys
import time

from green_screen import names
from green_screen.data.data import load_dataset
from green_screen.measurement.used_gpus import tensorflow_gpus
from green_screen.options import TrainOptions
from green_screen.power.visible import visible_boards
from green_screen.space import TrainingConfig, resolve
from green_screen.tracking import RunLogger
from green_screen.training import kernels
from green_screen.training.setup import make_kernels


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
    make(effective, options)
    kernel_set.note()
    run.metrics({names.KERNELS_S: time.perf_counter() - began_s})


def make(config: TrainingConfig, options: TrainOptions) -> None:
    """Have the kernels made that a training of an effective configuration needs."""
    images = load_dataset(
        options.dataset,
        image_size=options.image_size,
        samples=options.samples,
        seed=options.seed,
    )
    make_kernels(options.model, config, images)


if __name__ == "__main__":
    given_config, given_options = json.load(sys.stdin)
    make(TrainingConfig(**given_config), TrainOptions(**given_options))
