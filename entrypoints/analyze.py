"""``python -m entrypoints.analyze``: what ``green-screen analyze`` does, for MLproject."""

import sys
from functools import partial

from green_screen.command.experiment import run

main = partial(run, "analyze")

if __name__ == "__main__":
    sys.exit(main())
