"""The wheel in empty environments: the command, the public names, and the meter's own tests."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from environments import ROOT, Environment, ran, wheel
from legacy_runs import write_study

__all__ = ["wheel"]

MINORS = range(10, 15)
# Tests of the meter that need nothing but the meter, the simulated boards and pytest.
CORE_TESTS = ("test_trace.py", "test_nvml.py", "test_visible.py", "test_rapl.py")


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
    for name, package in (
        ("LightningEnergyCallback", "lightning"),
        ("TransformersEnergyCallback", "transformers"),
    ):
        lacking = empty.run(empty.python, "-c", f"from green_screen import {name}")
        assert lacking.stderr.splitlines()[-1] == (
            f"ModuleNotFoundError: {name} needs {package}, which is not installed: "
            f"pip install {package}"
        )

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
