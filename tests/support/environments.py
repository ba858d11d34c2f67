"""Throw-away environments with what the wheel brings, and more if asked."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the wheel is built from.
SOURCES = ("green_screen", "pyproject.toml", "README.md", "LICENSE")


def interpreter(minor: int) -> str | None:
    """Return an interpreter of Python 3.`minor` that starts, or ``None``."""
    candidates = [shutil.which(f"python3.{minor}")]
    if pyenv := shutil.which("pyenv"):
        asked = subprocess.run([pyenv, "root"], capture_output=True, text=True)
        candidates += glob.glob(f"{asked.stdout.strip()}/versions/3.{minor}.*/bin/python")
    for candidate in filter(None, candidates):
        # One of pyenv's stand-ins fails if its version is not the chosen one.
        if subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    return None


def ran(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / "source" / name, ignore=ignored)
        else:
            (folder / "source").mkdir(exist_ok=True)
            shutil.copy(source, folder / "source" / name)
    build = ("-m", "uv", "build", "--wheel", "--no-build-isolation", "--out-dir", str(folder))
    made = ran(sys.executable, *build, str(folder / "source"))
    assert made.returncode == 0, made.stderr
    (path,) = folder.glob("*.whl")
    return path


class Environment:
    """A virtual environment with the wheel in it, what the wheel asks for, and `others`."""

    def __init__(
        self, minor: int, wheel: Path, folder: Path, extra: str = "", others: tuple[str, ...] = ()
    ) -> None:
        base = interpreter(minor)
        if base is None:
            pytest.skip(f"there is no Python 3.{minor} on this machine")
        self.folder = folder
        assert ran(base, "-m", "venv", "--without-pip", str(folder / "environment")).returncode == 0
        self.python = str(folder / "environment" / "bin" / "python")
        installed = self.install(f"{wheel}[{extra}]" if extra else str(wheel), *others)
        if "error sending request" in installed.stderr or "dns error" in installed.stderr:
            pytest.skip("no package registry can be reached")
        assert installed.returncode == 0, installed.stderr
        # Neither the sources nor this environment's packages may stand in.
        left_out = ("PYTHONPATH", "VIRTUAL_ENV", "MLFLOW_TRACKING_URI")
        self.variables = {k: v for k, v in os.environ.items() if k not in left_out}

    def install(self, *requirements: str) -> subprocess.CompletedProcess[str]:
        uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", self.python)
        return ran(*uv, *requirements)

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return ran(*words, cwd=self.folder, env={**self.variables, **variables})

    def green_screen(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(self.folder / "environment" / "bin" / "green-screen"), *words)
