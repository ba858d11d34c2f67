"""Sends what a run logs from a thread, off the measured windows, and loses nothing.

Every record is in the run's spool (:mod:`green_screen.tracking.spool`) before it is on its way.
When all are sent the spool is deleted. A process that dies, or a server that stays away, leaves it
behind, to be delivered later.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
from collections import deque
from pathlib import Path

from mlflow.tracking import MlflowClient

from green_screen.tracking.records import Record, send
from green_screen.tracking.spool import open_spool, read_spool, spool_root
from green_screen.tracking.store import RETRY_PAUSE_S, is_transient, patiently, store_uri

logger = logging.getLogger(__name__)

_FILES = "files"


class RefusedError(RuntimeError):
    """The tracking server refused a record; sending it again would not help."""


class Outbox:
    """The records of one run on their way to the server."""

    def __init__(self, run_id: str, client: MlflowClient) -> None:
        """Begin to send for `run_id`; what an earlier process of the run left goes first."""
        self.run_id = run_id
        self._client = client
        self._folder: Path | None = spool_root() / run_id
        self._descriptor = -1
        self._n_files = 0
        self._waiting: deque[Record] = deque()
        try:
            self._descriptor = open_spool(self._folder)
            # An earlier process's end of the run is past: the run goes on.
            self._waiting.extend(r for r in read_spool(self._folder) if r["op"] != "end")
        except OSError as error:
            self._warn_of_memory(error)
            self._folder = None
        self._changed = threading.Condition()
        self._refused: Exception | None = None
        self._stopping = threading.Event()
        if self._descriptor >= 0 and not self._waiting:
            self._write({"op": "store", "uri": store_uri()})
        self._thread = threading.Thread(target=self._send_all, name="outbox", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """Take a record; it is in the local file when this returns.

        Raises:
            RefusedError: The server refused an earlier record; said once. This one is taken.
        """
        # In this order a signal that comes in between cannot lose the record of a live process.
        with self._changed:
            self._waiting.append(record)
            self._changed.notify_all()
        self._write(record)
        self._raise_refused()

    def put_file(self, path: Path, folder: str | None) -> None:
        """Take a copy of a file, to become an artifact in `folder`.

        Raises:
            RefusedError: As :meth:`put`.
        """
        if self._folder is not None:
            self._n_files += 1
            # The process id keeps a resumed run's files apart from those left before.
            copy = Path(_FILES) / f"{os.getpid()}-{self._n_files}" / path.name
            try:
                (self._folder / copy).parent.mkdir(parents=True)
                shutil.copyfile(path, self._folder / copy)
            except OSError as error:
                self._warn_of_memory(error)
            else:
                self.put({"op": "artifact", "path": str(copy), "folder": folder})
                return
        record = {"op": "artifact", "path": str(path.absolute()), "folder": folder}
        patiently(lambda: send(self._client, self.run_id, record, None))

    def flush(self, patience_s: float) -> bool:
        """Wait until all is sent and return whether it is.

        Raises:
            RefusedError: The server refused a record; said once.
        """
        until = time.monotonic() + patience_s
        with self._changed:
            while self._waiting and time.monotonic() < until:
                self._changed.wait(until - time.monotonic())
            sent = not self._waiting
        self._raise_refused()
        return sent

    def close(self) -> bool:
        """Stop sending and return whether all was sent; if not, the local file stays."""
        self._stopping.set()
        with self._changed:
            sent = not self._waiting
            self._changed.notify_all()
        if sent and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        elif not sent:
            logger.warning(
                "run %s: %d records could not be sent and wait in %s; resume sends them",
                self.run_id,
                len(self._waiting),
                self._folder or "no file: they are lost",
            )
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        return sent

    def _raise_refused(self) -> None:
        refused, self._refused = self._refused, None
        if refused is not None:
            raise RefusedError(f"the tracking server refused: {refused}") from refused

    def _warn_of_memory(self, error: OSError) -> None:
        logger.warning(
            "run %s: records are kept in memory alone until they are sent: %s",
            self.run_id,
            error,
        )

    def _write(self, record: Record) -> None:
        if self._descriptor < 0:
            return
        line = json.dumps(record).encode() + b"\n"
        end = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                # A full disk took a part; the rest of a line would spoil the next one.
                os.ftruncate(self._descriptor, end)
                raise OSError(f"{written} of {len(line)} bytes fitted into {self._folder}")
        except OSError as error:
            self._warn_of_memory(error)

    def _drop_copy(self, record: Record) -> None:
        """Delete the copy of a file that has been sent; its record counts as sent from then on."""
        if record["op"] == "artifact" and self._folder is not None:
            shutil.rmtree((self._folder / record["path"]).parent, ignore_errors=True)

    def _send_all(self) -> None:
        """Send until :meth:`close`; what the thread does."""
        while True:
            with self._changed:
                while not self._waiting and not self._stopping.is_set():
                    self._changed.wait()
                if self._stopping.is_set():
                    return
                record = self._waiting[0]
            try:
                if record["op"] != "store":
                    send(self._client, self.run_id, record, self._folder)
                self._drop_copy(record)
            except Exception as error:
                if is_transient(error):
                    if self._stopping.wait(RETRY_PAUSE_S):
                        return
                    continue
                logger.error("run %s: %s was refused: %s", self.run_id, record["op"], error)
                self._refused = error
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()
