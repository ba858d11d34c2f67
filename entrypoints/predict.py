"""``python -m entrypoints.predict``: what ``green-screen predict`` does, for MLproject."""

import sys
from functools import partial

from green_screen.command.experiment import run

main = partial(run, "predict")

if __name__ == "__main__":
    sys.exit(main())
