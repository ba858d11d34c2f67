"""Runs a campaign in a process of its own: ``python drive.py OPTIONS_AS_JSON TRAINER [PRELOAD]``.

Ends as the entry point does.
"""

from __future__ import annotations

import json
import sys

from entrypoints import sweep
from green_screen.executors.local import PRELOAD_TRACKING, LocalExecutor
from green_screen.options import SweepOptions
from green_screen.sweep import campaign


def main() -> int:
    options = SweepOptions(**json.loads(sys.argv[1]))
    preload = sys.argv[3].split(",") if len(sys.argv) > 3 else PRELOAD_TRACKING

    def run() -> str:
        with LocalExecutor(preload=preload, grace_s=12.0) as executor:
            return campaign.run_sweep(options, trainer=sys.argv[2], executor=executor)

    return sweep.ended(run)


if __name__ == "__main__":
    sys.exit(main())
