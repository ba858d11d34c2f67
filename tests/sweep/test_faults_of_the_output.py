"""A campaign whose output cannot be written comes to its end all the same, each done for real."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import HERE, by_status, sweep_parents

from green_screen import names

OPTIONS = json.dumps({"n_runs": 1, "epochs": 1, "cooldown_timeout_s": 0.0})
COMMAND = f"{sys.executable} {HERE / 'drive.py'} '{OPTIONS}' faulty_trainers:talk"


def assert_finished() -> None:
    (parent,) = sweep_parents()
    assert parent.info.status == "FINISHED"
    assert by_status(parent.info.run_id, "FINISHED") == [0, 1]
    assert parent.data.metrics[names.RUNS_FINISHED] == 2


@pytest.mark.parametrize("redirect", ["| head -n 1", "> /dev/full 2>&1", ">&- 2>&-"])
def test_output_that_cannot_be_written(store: str, redirect: str) -> None:
    if "/dev/full" in redirect and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = subprocess.run(
        ["bash", "-c", f"{COMMAND} {redirect}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert_finished()


def test_plain_ascii_lines_on_a_terminal_that_has_no_more(store: str) -> None:
    ours, theirs = pty.openpty()
    driven = subprocess.Popen(
        ["bash", "-c", COMMAND],
        env=os.environ | {"TERM": "dumb", "PYTHONIOENCODING": "ascii"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # how Linux says that the other side is closed
        pass
    assert driven.wait() == 0
    assert b"run 1 of 2: 000" in shown and b"run 2 of 2: 001" in shown
    assert b"\x1b" not in shown
    assert_finished()
