"""A private PostgreSQL and a real MLflow server for tests, ended with their block."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from waiting import until

POSTGRES_USER = "postgres"
# The processes that the server starts for jobs would take seconds of a test.
_ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def postgres_binaries() -> Path | None:
    """Return the folder with ``initdb`` and ``pg_ctl``; ``None`` where PostgreSQL is absent."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: p.parts[-3])
    return versions[-1].parent if versions else None


def free_port() -> int:
    """Return a loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class PostgreSQL:
    """A running server of one's own: socket folder and loopback port."""

    folder: Path
    port: int

    @property
    def uri(self) -> str:
        """SQLAlchemy URI of the database ``tracking``, as superuser over the socket."""
        return (
            f"postgresql+psycopg2://{POSTGRES_USER}@/tracking?host={self.folder}&port={self.port}"
        )


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Run PostgreSQL in a folder of its own.

    The server refuses to run as root, so under root it runs as Debian's user ``postgres``. As in
    Debian's default, the superuser needs no password on the socket, whose folder is closed to
    other users, and others need theirs on loopback.
    """
    binaries = postgres_binaries()
    assert binaries is not None, "PostgreSQL is not installed"
    # Not below pytest's folder: a socket's path may have 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="gs-pg-"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, POSTGRES_USER)
        as_user = ["runuser", "-u", POSTGRES_USER, "--"]

    def call(*command: str) -> None:
        done = subprocess.run(
            [*as_user, *command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    running = PostgreSQL(folder, free_port())
    data = folder / "data"
    control = [str(binaries / "pg_ctl"), "-D", str(data), "-w", "-t", "1500"]
    settings = f"-k {folder} -p {running.port} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        call(str(binaries / "initdb"), "-D", str(data), "-U", POSTGRES_USER, "-A", "trust", "-N")
        (data / "pg_hba.conf").write_text(
            f"local all {POSTGRES_USER} trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        # pg_ctl leaves its output open to the server: give it a file, not our pipe.
        call(*control, "-l", str(folder / "server.txt"), "-o", settings, "start")
        try:
            createdb = [str(binaries / "createdb"), "-h", str(folder), "-p", str(running.port)]
            call(*createdb, "-U", POSTGRES_USER, "tracking")
            yield running
        finally:
            call(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def mlflow_server(
    store: str,
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run ``mlflow server`` on loopback over `store` and a local artifact store; yield its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    log = folder / "server.txt"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "2", *arguments]
    with log.open("wb") as output:
        # A session of its own, so that the workers can be ended together with it.
        server = subprocess.Popen(
            command,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT, **(environment or {})},
            start_new_session=True,
        )
        try:
            until(lambda: _is_healthy(f"http://127.0.0.1:{port}", server, log))
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _is_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> bool:
    assert server.poll() is None, f"mlflow server ended:\n{log.read_text()[-4000:]}"
    with contextlib.suppress(OSError, urllib.error.URLError):
        return bool(urllib.request.urlopen(f"{url}/health").status == 200)
    return False


class Gate:
    """A proxy on loopback before a server; while it is shut, requests wait in it.

    Attributes:
        url: Where to connect instead of to the server.
        opened: Set while requests pass.
        holding: Set once a request has come to the shut gate.
    """

    def __init__(self, url: str) -> None:
        """Listen before the server at `url`, open."""
        host, _, port = url.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.opened = threading.Event()
        self.opened.set()
        self.holding = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for ends, gated in (((client, server), True), ((server, client), False)):
                    threading.Thread(target=self._pump, args=(*ends, gated), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, gated: bool) -> None:
        with contextlib.suppress(OSError), source, sink:
            while data := source.recv(65536):
                if gated and not self.opened.is_set():
                    self.holding.set()
                    self.opened.wait()
                sink.sendall(data)

    def __enter__(self) -> Gate:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let what waits pass and listen no more."""
        self.opened.set()
        self._listener.close()
