"""The connection to NVML, the library of the NVIDIA driver.

The only module that imports ``pynvml``, and that on first use.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any


class NvmlError(RuntimeError):
    """NVML could not be started or a reading failed; the text says which and why."""


class NoBoardsError(NvmlError):
    """NVML cannot be asked, and nothing on the machine shows that there is a board."""


# More often than any process starts the library; only there to end the loop.
_MAX_STARTS = 10_000

_lock = threading.Lock()
_handles: dict[str, Any] = {}


def _after_fork() -> None:
    """Forget the parent's handles, and its lock, which a thread of it may have held."""
    global _lock
    _lock = threading.Lock()
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def library() -> Any:
    """Return ``pynvml``.

    Raises:
        NvmlError: The package is missing.
    """
    try:
        import pynvml
    except ImportError as error:
        raise unlisted("the package nvidia-ml-py is missing (pip install nvidia-ml-py)") from error
    return pynvml


def device_files() -> list[str]:
    """Return the files under which the driver shows its boards to this process."""
    return sorted(str(path) for path in Path("/dev").glob("nvidia[0-9]*"))


def unlisted(reason: object) -> NvmlError:
    """Return the error for a library that does not start: are there boards all the same?"""
    files = device_files()
    if files:
        return NvmlError(f"{', '.join(files)} are there, but NVML cannot list the GPUs: {reason}")
    return NoBoardsError(f"NVML cannot list the GPUs: {reason}")


def handle(nvml: Any, uuid: str) -> Any:
    """Return NVML's handle of a board, kept until a reading fails."""
    with _lock:
        if uuid not in _handles:
            nvml.nvmlInit()
            _handles[uuid] = nvml.nvmlDeviceGetHandleByUUID(uuid)
        return _handles[uuid]


def forget(uuid: str) -> None:
    """Have the next reading of a board ask for a new handle."""
    with _lock:
        _handles.pop(uuid, None)


def disconnect(nvml: Any) -> None:
    """End the connection to a driver that is gone: the next reading connects to the new one.

    NVML counts its starts and ignores all but the first, so it has to be ended as often, those
    that other code in this process has made included: their handles are dead all the same.
    """
    with _lock:
        _handles.clear()
        for _ in range(_MAX_STARTS):
            try:
                nvml.nvmlShutdown()
            except nvml.NVMLError:
                return
