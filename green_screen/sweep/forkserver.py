"""Starts the process that forks the children of a campaign."""

from __future__ import annotations

import os
import sys
from multiprocessing import forkserver
from pathlib import Path


def start_forkserver(output: Path) -> None:
    """Start the forkserver, so that it imports while the campaign is being prepared.

    What the libraries say when they are imported goes to a file: it would break into the progress.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    # Python 3.11 does not give the forkserver this process's import path.
    variable = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        with output.open("wb") as file:
            os.dup2(file.fileno(), 2)
            forkserver.ensure_running()
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        if variable is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = variable
