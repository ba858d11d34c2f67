"""The local files of what runs have logged and the server may not have: one folder a run.

They make a run's records outlive its process. A file's lock tells whether its process is alive.
"""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient

from green_screen.tracking.records import Record, send
from green_screen.tracking.store import patiently, read_run, store_uri

logger = logging.getLogger(__name__)

_RECORDS = "records.jsonl"
_REFUSED = "refused-"


def spool_root() -> Path:
    """Return the folder of records under way: ``$GREEN_SCREEN_SPOOL``, or in the user's state."""
    chosen = os.environ.get("GREEN_SCREEN_SPOOL")
    if chosen:
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "green-screen" / "spool"


def open_spool(folder: Path) -> int:
    """Return the descriptor of a spool's record file, locked for as long as it is open.

    Raises:
        BlockingIOError: Another process has it open.
        OSError: There is no place for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _RECORDS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_spool(folder: Path) -> Iterator[Record]:
    """Return the records of a spool; a last line that a crash cut off is left out."""
    path = folder / _RECORDS
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def deliver(run_id: str, patience: float | None = None) -> bool:
    """Send what a run that is no longer alive has left in this host's spool.

    Records that the server refuses stay, in a folder whose name begins with ``refused-``: nobody
    but a person can tell what to do with them. Those of a run that the server does not have stay as
    they are.

    Args:
        run_id: The run.
        patience: Seconds to wait for a server that is away; ``None`` is ``patience_s()``.

    Returns:
        Whether there was anything to send.

    Raises:
        StoreUnavailableError: The server stayed away; the records stay.
    """
    folder = spool_root() / run_id
    if not (folder / _RECORDS).exists():
        return False
    try:
        descriptor = open_spool(folder)
    except BlockingIOError:
        return False  # a live process is sending it
    client, refused = MlflowClient(), 0
    try:
        if not _is_there(run_id, patience):
            logger.info("%s has no run %s: its records stay in %s", store_uri(), run_id, folder)
            return False
        for record in read_spool(folder):
            if record["op"] == "store":
                continue
            try:
                patiently(functools.partial(send, client, run_id, record, folder), patience)
            except MlflowException as error:
                logger.error("run %s: %s was refused: %s", run_id, record["op"], error)
                refused += 1
        if refused:
            folder.rename(folder.with_name(f"{_REFUSED}{run_id}"))
        else:
            shutil.rmtree(folder)
    finally:
        os.close(descriptor)
    return True


def _is_there(run_id: str, patience: float | None) -> bool:
    """Whether the present store has a run, be it deleted."""
    try:
        read_run(run_id, patience)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return False
    return True


def deliver_all() -> int:
    """Send what earlier processes on this host left for the present store; return how many runs."""
    root = spool_root()
    delivered = 0
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        first = next(read_spool(folder), None)
        if folder.name.startswith(_REFUSED) or first is None or first.get("uri") != store_uri():
            continue
        delivered += deliver(folder.name)
    return delivered
