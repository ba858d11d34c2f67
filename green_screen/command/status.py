"""Tell the state of a campaign from the store alone."""

from __future__ import annotations

from green_screen.options import StatusOptions
from green_screen.sweep.status import read_status

FAILURES = ()


def work(options: StatusOptions, factors: dict[str, str]) -> int:
    """Return 0; there being no such campaign is an error of the options."""
    print(read_status(options.sweep).text())
    return 0
