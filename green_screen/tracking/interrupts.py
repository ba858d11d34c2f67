"""What SIGINT, SIGTERM and SIGHUP do to a run."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# How long until a signal is sent again whose exception Python has dropped.
_AGAIN_S = 0.1


class Interrupted(BaseException):  # noqa: N818 - like KeyboardInterrupt, it is not an error
    """The process was asked to end: the run ends as KILLED.

    Attributes:
        number: The signal: SIGINT, SIGTERM or SIGHUP.
    """

    def __init__(self, number: int) -> None:
        """Name the signal."""
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Signals:
    """What SIGINT, SIGTERM and SIGHUP do to a run: the first of them raises :class:`Interrupted`.

    A terminal sends SIGINT to all processes and the campaign SIGTERM to its child, and the second
    must not break into the ending of the run.
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._raised = False
        self._held = 0

    def hold(self) -> None:
        """Keep what comes until :meth:`release`; may be nested."""
        self._held += 1

    def release(self) -> None:
        """Let signals through, and what was kept at once."""
        self._held -= 1
        self._raise()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Do what a signal does; its handler."""
        self._received.append(number)
        self._raise()

    def _raise(self) -> None:
        if self._received and not self._held and not self._raised:
            self._raised = True
            raise Interrupted(self._received[0])

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Raise the signal's exception again where another took its place in the block.

        TensorFlow's compiled parts do that when a signal comes while they make an exception of
        their own: a RuntimeError about a "MISMATCH of original and normalized exception types".
        """
        try:
            yield
        except Exception as error:
            if self._raised:
                raise Interrupted(self._received[0]) from error
            raise

    def dropped(self, unraisable: Any) -> None:
        """Have a signal come again that broke into a callback, from which nothing can be raised."""
        if isinstance(unraisable.exc_value, Interrupted):
            self._received.clear()
            self._raised = False
            number = unraisable.exc_value.number
            threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number)).start()
        else:
            sys.__unraisablehook__(unraisable)


_current: _Signals | None = None


@contextmanager
def held() -> Iterator[None]:
    """Keep signals that come in the block until its end (main thread only)."""
    signals = _current
    if signals is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signals.hold()
    try:
        yield
    finally:
        signals.release()


@contextmanager
def interruptible() -> Iterator[_Signals]:
    """Turn SIGINT, SIGTERM and SIGHUP into :class:`Interrupted` in the block (main thread only)."""
    global _current
    signals = _Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers.remove(signal.SIGHUP)  # under nohup, which is there to outlive the terminal
    before = {number: signal.signal(number, signals.receive) for number in numbers}
    hook, sys.unraisablehook = sys.unraisablehook, signals.dropped
    outer, _current = _current, signals
    try:
        yield signals
    finally:
        _current, sys.unraisablehook = outer, hook
        for number, handler in before.items():
            signal.signal(number, handler)
