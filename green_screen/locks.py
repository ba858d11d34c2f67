"""Locks between the processes of a host."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def alone(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes of this host out of the blocks under the same lock.

    Where nothing can be locked (a folder that may not be written to, a file system without locks)
    the block runs all the same.

    Args:
        path: What is locked: a folder, or a file, which is made and stays.
        wait: Whether to wait for a process that has it.

    Raises:
        BlockingIOError: Another process has it, and `wait` is false.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    with ExitStack() as stack:
        try:
            descriptor = os.open(path, flags, 0o600)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError as error:
            logger.debug("%s cannot be locked: %s", path, error)
        yield
