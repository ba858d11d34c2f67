"""A real tracking server that can be away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from waiting import until

# The processes that the server starts for jobs would take seconds of a test.
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class Server:
    """``mlflow server`` on a port of its own, which it keeps when it is stopped and started."""

    def __init__(self, store: str, folder: Path) -> None:
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._command = [sys.executable, "-m", "mlflow", "server", "--port", str(self._port)]
        self._command += ["--backend-store-uri", store, "--workers", "1"]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=os.environ | _ENVIRONMENT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._answers)

    def stop(self) -> None:
        """Let it be gone at once, its workers too."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    @contextlib.contextmanager
    def away(self) -> Iterator[Callable[[], int]]:
        """Let it be gone for the block; yield how many requests came meanwhile, all broken off."""
        self.stop()
        asked = 0

        def break_off() -> None:
            nonlocal asked
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()
                    asked += 1

        listeners: list[socket.socket] = []

        def bind() -> bool:
            with contextlib.suppress(OSError):  # a worker that was killed is not yet gone
                listeners.append(socket.create_server(("127.0.0.1", self._port)))
            return bool(listeners)

        until(bind)
        with listeners[0] as listener:
            thread = threading.Thread(target=break_off, daemon=True)
            thread.start()
            yield lambda: asked
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        self.start()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "output.txt").read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"{self.url}/health") as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()
