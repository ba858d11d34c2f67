"""What is printed never ends what is measured: output that cannot be written is left out.

A pipe whose reader has gone (``sweep | head -1``), a full disk under a redirect, a terminal that is
gone, an encoding without the character, a descriptor that was closed from the start: each would
raise an error out of ``print``, in the middle of a campaign of days.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STANDARD = {"stdout": 1, "stderr": 2}
_MIN_COLUMNS = 20  # of a terminal that can hold a live line; 0 is a size that nobody knows


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Have standard output and error of this process take whatever is written, within the block.

    What cannot be written is left out; that of it which cannot be encoded is written as escapes.
    The first time that standard output fails, standard error says so. Streams that are not the
    process's own, such as those of a notebook, are left alone.
    """
    _open_closed_descriptors()
    replaced: dict[str, tuple[TextIO, TextIO]] = {}
    for name, descriptor in _STANDARD.items():
        own = getattr(sys, name)
        if own is getattr(sys, f"__{name}__"):
            replaced[name] = own, _lasting(own, descriptor)
            setattr(sys, name, replaced[name][1])
    try:
        yield
    finally:
        for name, (own, lasting) in replaced.items():
            lasting.flush()
            if getattr(sys, name) is lasting:
                setattr(sys, name, own)


def can_be_live(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal on which a line can be drawn again and again."""
    if stream is None or os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return False
    try:
        return stream.isatty() and os.get_terminal_size(stream.fileno()).columns >= _MIN_COLUMNS
    except (OSError, ValueError):
        return False


def near(where: str) -> str:
    """Return a path as it is called from the working directory, if it lies below that."""
    path = Path(where)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else where


def command_line(name: str) -> str:
    """Return how a command of this package is called from here, installed or in its sources."""
    return f"{near(sys.executable)} -m green_screen {name}"


class _LastingFile(io.FileIO):
    """A descriptor that takes whatever is written to it."""

    _failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write it or leave it out; return its length."""
        size = memoryview(data).nbytes
        try:
            written = super().write(data)
        except OSError as error:
            self._tell(error)
            return size
        return size if written is None else written  # None: a full pipe that does not wait

    def _tell(self, error: OSError) -> None:
        if not self._failed and self.fileno() == _STANDARD["stdout"]:
            self._failed = True
            print(f"output cannot be written, the work goes on: {error}", file=sys.stderr)


def _lasting(own: TextIO | None, descriptor: int) -> TextIO:
    with contextlib.suppress(OSError, AttributeError):
        own.flush()  # type: ignore[union-attr]
    file = _LastingFile(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(file),
        encoding=getattr(own, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=getattr(own, "line_buffering", True) or descriptor == 2,
        write_through=getattr(own, "write_through", False),
    )


def _open_closed_descriptors() -> None:
    """Open what was closed of 0, 1 and 2, here and for children, so that no data file gets them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= max(_STANDARD.values()):
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
