"""The wheel in empty environments: the command, the public names, and the meter's own tests."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What the wheel is built from.
SOURCES = ("green_screen", "pyproject.toml", "README.md", "LICENSE")
MINORS = range(10, 15)
# Tests of the meter that need nothing but the meter, the simulated boards and pytest.
CORE_TESTS = ("test_trace.py", "test_nvml.py", "test_visible.py", "test_rapl.py")


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


@pytest.fixture(scope="module")
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


@pytest.mark.parametrize("minor", MINORS)
def test_the_meter_in_an_empty_environment(minor: int, wheel: Path, tmp_path: Path) -> None:
    base = interpreter(minor)
    if base is None:
        pytest.skip(f"there is no Python 3.{minor} on this machine")
    folder = tmp_path / "environment"
    assert ran(base, "-m", "venv", "--without-pip", str(folder)).returncode == 0
    python = str(folder / "bin" / "python")
    install = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python)
    installed = ran(*install, str(wheel))
    if "error sending request" in installed.stderr or "dns error" in installed.stderr:
        pytest.skip("no package registry can be reached")
    assert installed.returncode == 0, installed.stderr
    listed = ran(sys.executable, "-m", "uv", "pip", "freeze", "--python", python).stdout.split("\n")
    assert len(list(filter(None, listed))) < 10, listed

    # Neither the sources nor this environment's packages may stand in.
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = str(folder / "bin" / "green-screen")
    inside = {"cwd": tmp_path, "env": clean}
    assert re.fullmatch(
        r"green-screen, version \d+\.\d+\.\d+\n", ran(command, "--version", **inside).stdout
    )
    doctor = ran(command, "doctor", **inside)
    assert doctor.returncode in (0, 1) and "measured here" in doctor.stdout, doctor.stderr
    measured = ran(command, "measure", "--", python, "-c", "print('ran')", **inside)
    assert (measured.returncode, measured.stdout) == (0, "ran\n"), measured.stderr
    assert "CPU" in measured.stderr
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = next(
        b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "EnergyMeter" in b
    )
    shown = ran(python, "-c", example, **inside)
    assert shown.returncode == 0 and " J in " in shown.stdout, shown.stderr
    lacking = ran(python, "-c", "from green_screen import SMICallback", **inside)
    assert lacking.returncode != 0
    assert "Keras" in lacking.stderr.splitlines()[-1], lacking.stderr

    assert ran(*install, "pytest", "hypothesis", "wrapt").returncode == 0
    paths = os.pathsep.join([str(ROOT / "tests" / "support")])
    tests = [str(ROOT / "tests" / "power" / name) for name in CORE_TESTS]
    pytest_run = ("-m", "pytest", "-q", "-c", os.devnull, "--noconftest", "-p", "no:cacheprovider")
    own = ran(python, *pytest_run, *tests, cwd=tmp_path, env={**clean, "PYTHONPATH": paths})
    assert own.returncode == 0, own.stdout[-3000:]
