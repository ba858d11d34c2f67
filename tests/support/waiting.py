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


def keep_busy(cpu_s: float) -> None:
    """Use so much of a processor, however long that takes."""
    until_s = time.process_time() + cpu_s
    while time.process_time() < until_s:
        pass
