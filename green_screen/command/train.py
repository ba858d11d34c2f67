"""Train once, measured."""

from __future__ import annotations

import logging
import os

from green_screen import names, tracking
from green_screen.options import TrainOptions, option_params, read_config
from green_screen.power.visible import pin_first_board
from green_screen.space import resolve
from green_screen.training.request import check_trainings

FAILURES = ()


def work(options: TrainOptions, factors: dict[str, str]) -> int:
    """Return 0 if the run has finished; a request that cannot be met starts none."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("green_screen").setLevel(logging.INFO)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tracking.deliver_all()
    config = read_config(options, factors)
    if left_out := check_trainings(options, [resolve(config).effective]):
        print(left_out)
    pin_first_board()  # before TensorFlow asks CUDA for its devices
    # This takes seconds to import.
    from green_screen.training.run import train

    params = {**config.as_params(), **option_params(options)}
    with tracking.open_run(tags={names.TAG_KIND: names.KIND_TRAIN}, params=params) as run:
        train(config, options, run)
        print(f"run {run.run_id}: see it with `mlflow ui`")
    return 0
