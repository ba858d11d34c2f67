"""Run a campaign, or complete one that was cut short."""

from __future__ import annotations

from green_screen.executors.executor import CampaignError
from green_screen.options import SweepOptions
from green_screen.sweep.campaign import run_sweep

FAILURES = (CampaignError,)


def work(options: SweepOptions, factors: dict[str, str]) -> int:
    """Return 0 if the campaign came to its end with a run finished."""
    run_sweep(options)
    return 0
