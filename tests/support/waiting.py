"""Waiting in tests is for an event, never for seconds.

No wait has a limit of its own: pytest's ``timeout`` (pyproject.toml) ends a test that hangs, and is
long enough for a slow machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds."""
    while not condition():
        time.sleep(0.05)


def for_ever() -> None:
    """Wait to be ended."""
    while True:
        time.sleep(60.0)
