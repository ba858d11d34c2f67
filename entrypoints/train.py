"""``python -m entrypoints.train``: what ``green-screen train`` does, for MLproject."""

import sys
from functools import partial

from green_screen.command.experiment import run

main = partial(run, "train")

if __name__ == "__main__":
    sys.exit(main())
