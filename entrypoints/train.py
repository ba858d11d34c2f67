"""``train``: one training run from the command line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from green_screen import names
from green_screen.options import OptionError, TrainOptions, parse_options, read_config
from green_screen.space import SpaceError, resolve
from green_screen.training.data import check_dataset
from green_screen.training.model import check_model


def main(argv: Sequence[str] | None = None) -> int:
    """Train once and return the process's exit status: 2 for a request that cannot be met."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("green_screen").setLevel(logging.INFO)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options, factor_texts = parse_options(TrainOptions, argv, "Train once.", factors=True)
    try:
        config = read_config(options, factor_texts)
        internal = resolve(config).effective.internal
        check_model(options.model, internal, image_size=options.image_size)
        check_dataset(options.dataset)
        # These take seconds to import, and what they start is a run.
        from green_screen.tracking import open_run
        from green_screen.training.run import train

        with open_run(tags={names.TAG_KIND: names.KIND_TRAIN}) as run:
            train(config, options, run)
            print(f"run {run.run_id}: see it with `mlflow ui`")
    except (OptionError, SpaceError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
