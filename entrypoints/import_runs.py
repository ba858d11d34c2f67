"""``python -m entrypoints.import_runs``: what ``green-screen import`` does, for MLproject."""

import sys
from functools import partial

from green_screen.command.experiment import run

main = partial(run, "import")

if __name__ == "__main__":
    sys.exit(main())
