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
from legacy_runs import write_study

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


class Environment:
    """A virtual environment with the wheel in it and no more than the wheel asks for."""

    def __init__(self, minor: int, wheel: Path, folder: Path, extra: str = "") -> None:
        base = interpreter(minor)
        if base is None:
            pytest.skip(f"there is no Python 3.{minor} on this machine")
        self.folder = folder
        assert ran(base, "-m", "venv", "--without-pip", str(folder / "environment")).returncode == 0
        self.python = str(folder / "environment" / "bin" / "python")
        installed = self.install(f"{wheel}[{extra}]" if extra else str(wheel))
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


@pytest.mark.parametrize("minor", MINORS)
def test_the_meter_in_an_empty_environment(minor: int, wheel: Path, tmp_path: Path) -> None:
    empty = Environment(minor, wheel, tmp_path)
    freeze = (sys.executable, "-m", "uv", "pip", "freeze", "--python", empty.python)
    listed = ran(*freeze).stdout.split("\n")
    assert len(list(filter(None, listed))) < 10, listed

    version = empty.green_screen("--version").stdout
    assert re.fullmatch(r"green-screen, version \d+\.\d+\.\d+\n", version)
    doctor = empty.green_screen("doctor")
    assert doctor.returncode in (0, 1) and "measured here" in doctor.stdout, doctor.stderr
    measured = empty.green_screen("measure", "--", empty.python, "-c", "print('ran')")
    assert (measured.returncode, measured.stdout) == (0, "ran\n"), measured.stderr
    assert "CPU" in measured.stderr
    assert "--batch_size" in empty.green_screen("train", "--help").stdout
    for command, extra in (("train", "experiment"), ("analyze", "analysis")):
        lacking = empty.green_screen(command)
        assert lacking.returncode == 1 and lacking.stdout == ""
        assert re.fullmatch(
            rf'{command} needs \w+, which is not installed: .*"green-screen\[{extra}\]".*\n',
            lacking.stderr,
        )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = next(
        b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "EnergyMeter" in b
    )
    shown = empty.run(empty.python, "-c", example)
    assert shown.returncode == 0 and " J in " in shown.stdout, shown.stderr
    lacking = empty.run(empty.python, "-c", "from green_screen import SMICallback")
    assert lacking.returncode != 0
    assert "Keras" in lacking.stderr.splitlines()[-1], lacking.stderr

    assert empty.install("pytest", "hypothesis", "wrapt").returncode == 0
    tests = [str(ROOT / "tests" / "power" / name) for name in CORE_TESTS]
    pytest_run = ("-m", "pytest", "-q", "-c", os.devnull, "--noconftest", "-p", "no:cacheprovider")
    own = empty.run(empty.python, *pytest_run, *tests, PYTHONPATH=str(ROOT / "tests" / "support"))
    assert own.returncode == 0, own.stdout[-3000:]


def test_a_campaign_is_analysed_without_tensorflow(wheel: Path, tmp_path: Path) -> None:
    there = Environment(12, wheel, tmp_path, "analysis")
    study = write_study(tmp_path / "study")
    imported = there.green_screen("import", "--folder", str(study))
    assert imported.returncode == 0 and "64 runs imported" in imported.stdout, imported.stderr
    assert "64 of 64 runs finished" in there.green_screen("status").stdout
    refused = there.green_screen("analyze")
    assert refused.returncode == 2 and "final_repeats must be 0" in refused.stderr
    analyzed = there.green_screen("analyze", "--final_repeats", "0")
    assert analyzed.returncode == 0, analyzed.stderr
    assert "  mlflow ui " in analyzed.stdout and "make" not in analyzed.stdout
    (report,) = re.findall(r"^report: +(\S+)$", analyzed.stdout, re.M)
    assert "image/svg+xml" in (tmp_path / report).read_text(encoding="utf-8")
    predicted = there.green_screen("predict", "--batch_size", "64")
    assert predicted.returncode == 0 and " J, 95 % interval " in predicted.stdout
