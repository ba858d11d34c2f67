from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from green_screen.locks import alone

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import sys, pathlib
from green_screen.locks import alone
with alone(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["a folder", "a file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path if request.param == "a folder" else tmp_path / "file.lock"


def test_what_another_process_has_is_waited_for_or_refused(path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdin and other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), alone(path, wait=False):
            pass
        is_told = threading.Event()

        def tell_to_release() -> None:
            is_told.set()
            other.stdin.close()

        threading.Timer(0.5, tell_to_release).start()
        with alone(path):
            assert is_told.is_set()
    assert other.returncode == 0


def test_it_is_free_again_after_the_block(path: Path) -> None:
    with pytest.raises(ValueError, match="from the block"), alone(path, wait=False):
        raise ValueError("from the block")
    with alone(path, wait=False):
        pass


def test_where_nothing_can_be_locked_the_block_runs(tmp_path: Path) -> None:
    with alone(tmp_path / "no folder" / "file.lock"):
        ran = True
    assert ran
