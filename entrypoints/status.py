"""``python -m entrypoints.status``: what ``green-screen status`` does, for MLproject."""

import sys
from functools import partial

from green_screen.command.experiment import run

main = partial(run, "status")

if __name__ == "__main__":
    sys.exit(main())
