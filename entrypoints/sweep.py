"""Run a campaign, or complete one that was cut short: ``python -m entrypoints.sweep``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from entrypoints import ending
from green_screen.options import SweepOptions, parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if the campaign came to its end with a run finished, else as :func:`ended`."""
    options, _ = parse_options(SweepOptions, argv, __doc__ or "")

    from green_screen.sweep.campaign import run_sweep

    return ended(lambda: run_sweep(options))


def ended(run: Callable[[], str]) -> int:
    """Run a campaign and return the exit status that its end means: 1 if it failed."""
    from green_screen.executors.executor import CampaignError

    def run_it() -> int:
        run()
        return 0

    advice = "; the same command resumes it"
    return ending.ended("sweep", run_it, CampaignError, deliver=False, advice=advice)


if __name__ == "__main__":
    sys.exit(main())
