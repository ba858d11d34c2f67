"""A stand-in for a training whose energy an image follows an energy law, named by import path."""

from __future__ import annotations

import os
import sys

import numpy as np
from faulty_trainers import begin, count_run, go_on

from green_screen import names, tracking
from green_screen.options import TrainOptions
from green_screen.space import TrainingConfig
from green_screen.tracking import RunLogger


def train(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log the joules of an image with 5 % of noise; fail in the run that ``$FAULTY`` says."""
    if str(count_run()) == os.environ.get("FAULTY"):
        sys.exit(7)
    begin(config, run)
    step = 8.0 / config.batch_size
    image = {"float32": 1.0, "float64": 3.0}[config.precision]
    position = int(tracking.read_run(run.run_id).data.tags[names.TAG_POSITION])
    noise = np.random.default_rng(position).normal(0.0, 0.05)
    energy_j = (step**1.5 + image**1.5) ** (1 / 1.5) * np.exp(noise)
    run.metrics({names.ENERGY_PER_1K_IMAGES_J: 1e3 * energy_j})
    go_on(options, run)
