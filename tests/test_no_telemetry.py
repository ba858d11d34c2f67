"""Nothing is sent to anybody: the experiment needs no socket but those of its own machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from green_screen.space import DEFAULT_CONFIG

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--dataset", "digits", "--model", "resnet8", "--image_size", "8", "--samples", "60")
# By these MLflow knows that it is tested, or told, and is silent.
SILENCING = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "MLFLOW_DISABLE_TELEMETRY")


@pytest.fixture
def dialled(tmp_path: Path) -> Path:
    """The file that says what was tried, where anything was."""
    return tmp_path / "dialled"


@pytest.fixture
def alone(dialled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have processes that are started reach this machine alone."""
    offline = ROOT / "tests" / "support" / "offline"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(offline), str(ROOT)]))
    monkeypatch.setenv("DIALLED", str(dialled))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path / "spool"))
    monkeypatch.chdir(tmp_path)


def python(*words: str) -> str:
    environment = {name: text for name, text in os.environ.items() if name not in SILENCING}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_trainings_campaigns_and_analyses_reach_this_machine_alone(
    store: str, alone: None, dialled: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(DEFAULT_CONFIG.read_text())
    content["factors"] |= {"precision": ["float32"], "batch_size": [16], "lr": [0.01]}
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(content))
    small = (*SMALL, "--epochs", "1", "--config", str(config))
    assert "see it with" in python("-m", "green_screen", "train", *small, "--log_model", "true")
    assert "2 of 2 runs finished" in python("-m", "green_screen", "sweep", *small, "--n_runs", "1")
    said = python("-m", "green_screen", "analyze", "--final_repeats", "1")
    assert "registered: " in said
    assert not dialled.exists(), dialled.read_text()


def test_mlflow_is_told_before_it_is_imported(
    alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where it keeps a number for who is counted
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    asked = "from mlflow.telemetry.client import get_telemetry_client as client; print(client())"
    # A module that imports MLflow before anything of this package.
    assert python("-c", f"import green_screen.sweep.status; {asked}") == "None\n"
    assert python("-c", asked) != "None\n"


@pytest.mark.parametrize(
    "call",
    [
        "socket.create_connection(('192.0.2.1', 80))",
        "socket.socket(socket.AF_INET6).connect_ex(('2001:db8::1', 80))",
        "socket.getaddrinfo('example.org', 80)",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 53))",
        "subprocess.run([sys.executable, '-c', 'import socket; socket.gethostbyname(\"a.org\")'])",
    ],
)
def test_whoever_tries_is_refused_and_written_down(alone: None, dialled: Path, call: str) -> None:
    caught = (
        f"import contextlib, socket, subprocess, sys\nwith contextlib.suppress(OSError): {call}"
    )
    python("-c", caught)
    assert dialled.read_text().count("\n") == 1
    python(
        "-c",
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(s.getsockname())",
    )
    assert dialled.read_text().count("\n") == 1
