from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

pytest.register_assert_rewrite("campaigns")

from campaigns import HERE, ROOT, Driven  # noqa: E402

from green_screen.options import SweepOptions  # noqa: E402
from green_screen.sweep.local import PRELOAD_TRACKING, LocalExecutor  # noqa: E402


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that has been migrated and holds the experiment."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    mlflow.search_experiments()
    mlflow.set_tracking_uri(before)
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh sqlite store, which is the current one here and in child processes."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("FAULT_FOLDER", str(tmp_path))
    paths = [str(ROOT), str(HERE), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.syspath_prepend(str(ROOT))
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)


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
        )
        started.append(Driven(process))
        return started[-1]

    yield start
    for driven in started:
        if driven.process.poll() is None:
            driven.process.kill()
        driven.process.communicate()
