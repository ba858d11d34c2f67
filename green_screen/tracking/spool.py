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
import time
from collections.abc import Iterator
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from green_screen import names
from green_screen.options import OptionError
from green_screen.tracking.records import Record, send
from green_screen.tracking.store import (
    StoreUnavailableError,
    is_absent,
    patiently,
    read_run,
    store_uri,
)

logger = logging.getLogger(__name__)

_RECORDS = "records.jsonl"
_REFUSED = "refused-"
_LOCKED_PAUSE_S = 0.2


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
    """Return the records of a spool; a last line that a crash cut off is left out.

    A line that is no record, as a failing disk leaves it, becomes one that no server takes.
    """
    path = folder / _RECORDS
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.endswith("\n"):
                continue
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            yield record if isinstance(record, dict) and "op" in record else {"op": "unreadable"}


def deliver(run_id: str, patience: float | None = None, *, wait_s: float = 0.0) -> bool:
    """Send what a run that is no longer alive has left in this host's spool.

    Records that the server refuses stay, in a folder whose name begins with ``refused-``: nobody
    but a person can tell what to do with them. Those of a run that the server does not have stay as
    they are.

    Args:
        run_id: The run.
        patience: Seconds to wait for a server that is away; ``None`` is ``patience_s()``.
        wait_s: Seconds to wait for another process of this host that has the records: one that
            sends them too, or the run's own on its way to its end.

    Returns:
        Whether there was anything to send.

    Raises:
        StoreUnavailableError: The server stayed away; the records stay.
    """
    folder = spool_root() / run_id
    until = time.monotonic() + wait_s
    while True:
        if not (folder / _RECORDS).exists():
            return False
        try:
            descriptor = open_spool(folder)
            break
        except BlockingIOError:
            if not wait_s:
                return False  # a live process is sending it
            if time.monotonic() > until:
                raise StoreUnavailableError(
                    f"another process has had the records in {folder} for {wait_s:g} s"
                ) from None
        time.sleep(_LOCKED_PAUSE_S)
    client, refused = MlflowClient(), 0
    try:
        if not _is_there(run_id, patience):
            logger.info("%s has no run %s: its records stay in %s", store_uri(), run_id, folder)
            return False
        for record in read_spool(folder):
            if record["op"] == "store":
                continue
            try:
                if refused and record["op"] == "end" and record["status"] == "FINISHED":
                    # As in a live run: what lacks a part of its result has not finished.
                    record = {**record, "status": "FAILED"}
                    why = {names.TAG_FAILURE: f"the server refused {refused} of its records"}
                    tags: Record = {"op": "tags", "tags": why}
                    patiently(functools.partial(send, client, run_id, tags, folder), patience)
                patiently(functools.partial(send, client, run_id, record, folder), patience)
                if record["op"] == "end" and record["status"] == "FINISHED":
                    patiently(functools.partial(_forget_failure, client, run_id), patience)
            except StoreUnavailableError:
                raise
            except Exception as error:  # whatever it is, it must not keep back the rest
                logger.error("run %s: %s was refused: %s", run_id, record["op"], error)
                refused += 1
        if refused:
            _put_aside(folder)
        else:
            shutil.rmtree(folder)
    finally:
        os.close(descriptor)
    return True


def _forget_failure(client: MlflowClient, run_id: str) -> None:
    """Take away why a run had not finished, now that it has."""
    if names.TAG_FAILURE in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, names.TAG_FAILURE)


def _put_aside(folder: Path) -> None:
    """Rename a folder so that nobody sends it again."""
    aside = folder.with_name(f"{_REFUSED}{folder.name}")
    if aside.exists():
        aside = aside.with_name(f"{aside.name}-{time.time_ns()}")
    folder.rename(aside)


def _is_there(run_id: str, patience: float | None) -> bool:
    """Whether the present store has a run, be it deleted."""
    try:
        read_run(run_id, patience)
    except MlflowException as error:
        if not is_absent(error):
            raise
        return False
    return True


def deliver_all() -> int:
    """Send what earlier processes on this host left for the present store; return how many runs.

    Raises:
        OptionError: The store cannot be used.
        StoreUnavailableError: The server stayed away. Whatever else is wrong with the files of one
            run keeps nothing else back.
    """
    root = spool_root()
    delivered = 0
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            first = next(read_spool(folder), None)
            if folder.name.startswith(_REFUSED) or first is None or first.get("uri") != store_uri():
                continue
            delivered += deliver(folder.name)
        except (OptionError, StoreUnavailableError):
            raise
        except Exception as error:
            logger.error("the records in %s could not be sent: %s", folder, error)
    return delivered
