from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("campaigns")

from campaigns import HERE, ROOT, Driven  # noqa: E402

from green_screen.executors.local import PRELOAD_TRACKING, LocalExecutor  # noqa: E402
from green_screen.options import SweepOptions  # noqa: E402


@pytest.fixture
def store(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh sqlite store, which is the current one here and in child processes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("FAULT_FOLDER", str(tmp_path))
    paths = [str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.syspath_prepend(str(ROOT))
    return store


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(preload=PRELOAD_TRACKING, grace_s=10.0) as executor:
        yield executor


@pytest.fixture
def drive(store: str) -> Iterator[Callable[..., Driven]]:
    """Start campaigns as processes of their own; none is left at the end."""
    started: list[Driven] = []

    def start(options: SweepOptions, trainer: str, *more: str, **environment: str) -> Driven:
        settings = {
            name: getattr(options, name)
            for name in ("n_runs", "epochs", "cooldown_timeout_s", "resume", "time_limit_s")
        }
        process = subprocess.Popen(
            [sys.executable, str(HERE / "drive.py"), json.dumps(settings), trainer, *more],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ignored where the tests run under nohup, and inherited.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        started.append(Driven(process))
        return started[-1]

    yield start
    for driven in started:
        driven.process.kill()
        driven.process.wait()
        driven.process.stdout.close()
