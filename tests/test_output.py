"""Output that cannot be written ends nothing: real pipes, descriptors, disks and terminals."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from green_screen.output import can_be_live

ROOT = Path(__file__).parents[1]
FULL = Path("/dev/full")

# Says in a file that it came to its end; its exit would be 120 if a stream failed at the last.
PROGRAM = r"""
import sys
from green_screen.output import lasting_output
with lasting_output():
    for _ in range(3):
        print("\N{GREEK SMALL LETTER MU} \udcff", "x" * 100_000, flush=True)
        print("\N{GREEK SMALL LETTER MU}", file=sys.stderr)
    open(sys.argv[1], "w").write("done")
"""


def run(tmp_path: Path, redirect: str = "", **environment: str) -> tuple[int, str, str]:
    """Run the program by a shell; return its status and what came of both streams."""
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} program.py done {redirect}; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert (tmp_path / "done").read_text() == "done"  # and no line of the program's in it
    return done.returncode, done.stdout, done.stderr


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    status, output, errors = run(tmp_path, "| head -c 1")
    assert status == 0 and len(output) <= 1
    assert errors.count("output cannot be written, the work goes on") == 1
    assert "Traceback" not in errors and "Exception ignored" not in errors


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(tmp_path: Path, redirect: str) -> None:
    assert run(tmp_path, redirect)[0] == 0


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("redirect", [f"> {FULL}", f"2> {FULL}", f"> {FULL} 2>&1"])
def test_a_full_disk(tmp_path: Path, redirect: str) -> None:
    assert run(tmp_path, redirect)[0] == 0


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "latin-1", "utf-8"])
def test_an_encoding_without_the_character(tmp_path: Path, encoding: str) -> None:
    status, output, _ = run(tmp_path, PYTHONIOENCODING=encoding)
    assert status == 0
    assert "\\udcff xxx" in output
    if encoding.startswith("ascii"):
        assert output.startswith("\\u03bc")


def terminal(columns: int) -> int:
    """Return the descriptor of a terminal so wide."""
    _, descriptor = pty.openpty()
    ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    return descriptor


@pytest.mark.parametrize(
    ("columns", "term", "live"),
    [
        (80, "xterm-256color", True),
        (80, "dumb", False),
        (80, "unknown", False),
        (80, "", False),
        (0, "xterm", False),
        (10, "xterm", False),
    ],
)
def test_where_a_line_can_be_live(
    monkeypatch: pytest.MonkeyPatch, columns: int, term: str, live: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a wish for colours is none for a moving line
    with open(terminal(columns), "w") as stream:
        assert can_be_live(stream) is live


def test_no_terminal_is_never_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with (tmp_path / "file").open("w") as stream:
        assert not can_be_live(stream)
    assert not can_be_live(stream)  # closed
    assert not can_be_live(None)
