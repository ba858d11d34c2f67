"""``python -m entrypoints.promote``: what ``green-screen promote`` does, for MLproject."""

import sys
from functools import partial

from green_screen.command.experiment import run

main = partial(run, "promote")

if __name__ == "__main__":
    sys.exit(main())
