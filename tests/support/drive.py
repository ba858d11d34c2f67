"""Runs a campaign in a process of its own: ``python drive.py OPTIONS_AS_JSON TRAINER [PRELOAD]``.

Ends as the entry point does.
"""

from __future__ import annotations

import json
import sys

from green_screen.command import sweep
from green_screen.command.experiment import finished
from green_screen.executors.local import PRELOAD_TRACKING, LocalExecutor
from green_screen.options import SweepOptions
from green_screen.sweep import campaign


def main() -> int:
    options = SweepOptions(**json.loads(sys.argv[1]))
    preload = sys.argv[3].split(",") if len(sys.argv) > 3 else PRELOAD_TRACKING

    def run() -> int:
        with LocalExecutor(preload=preload, grace_s=12.0) as executor:
            campaign.run_sweep(options, trainer=sys.argv[2], executor=executor)
        return 0

    return finished("sweep", run, sweep.FAILURES)


if __name__ == "__main__":
    sys.exit(main())
