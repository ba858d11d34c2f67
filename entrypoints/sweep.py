"""``python -m entrypoints.sweep``: what ``green-screen sweep`` does, for MLproject."""

import sys
from functools import partial

from green_screen.command.experiment import run

main = partial(run, "sweep")

if __name__ == "__main__":
    sys.exit(main())
