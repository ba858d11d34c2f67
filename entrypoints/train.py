"""Train once, measured: ``python -m entrypoints.train --batch_size 64``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from entrypoints.ending import ended
from green_screen import names
from green_screen.options import TrainOptions, option_params, parse_options, read_config
from green_screen.power.visible import pin_first_board
from green_screen.space import resolve
from green_screen.training.request import check_trainings


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if the run has finished; a request that cannot be met starts none."""
    options, factors = parse_options(TrainOptions, argv, __doc__ or "", factors=True)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("green_screen").setLevel(logging.INFO)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return ended("train", lambda: _train(options, factors))


def _train(options: TrainOptions, factors: dict[str, str]) -> int:
    config = read_config(options, factors)
    if left_out := check_trainings(options, [resolve(config).effective]):
        print(left_out)
    pin_first_board()  # before TensorFlow asks CUDA for its devices
    # These take seconds to import, and what they start is a run.
    from green_screen.tracking import open_run
    from green_screen.training.run import train

    params = {**config.as_params(), **option_params(options)}
    with open_run(tags={names.TAG_KIND: names.KIND_TRAIN}, params=params) as run:
        train(config, options, run)
        print(f"run {run.run_id}: see it with `mlflow ui`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
