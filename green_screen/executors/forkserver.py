"""Starts the process that forks the children of a campaign, and keeps what it prints."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from multiprocessing import forkserver

# Enough for a traceback and what leads to it.
_TAIL_BYTES = 1500


@functools.cache
def _output() -> int:
    """Return the descriptor of an unnamed file that takes what the forkserver prints."""
    with tempfile.TemporaryFile(prefix="green-screen-") as file:
        return os.dup(file.fileno())


def start_forkserver() -> None:
    """Start the forkserver, so that it imports while the campaign is being prepared.

    What the libraries say when they are imported goes to a file: it would break into the progress.
    So does what a child says before it has a file of its own.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    # Python 3.11 does not give the forkserver this process's import path.
    variable = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        os.dup2(_output(), 2)
        forkserver.ensure_running()
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        if variable is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = variable


def printed_bytes() -> int:
    """Return how much the forkserver and its children at their start have printed so far."""
    return os.fstat(_output()).st_size


def printed_since(start: int) -> str:
    """Return the end of what they have printed since :func:`printed_bytes` was `start`."""
    end = printed_bytes()
    start = max(start, end - _TAIL_BYTES)
    return os.pread(_output(), end - start, start).decode(errors="replace").strip()
