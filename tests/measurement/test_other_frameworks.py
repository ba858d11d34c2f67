"""The meter in other people's frameworks, each in an environment made from the wheel."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from environments import ROOT, Environment, ran, wheel
from simulated_nvml import Constant, SimulatedBoard, Simulation, child_environment

__all__ = ["wheel"]

SUPPORT = ROOT / "tests" / "support"
# The Python 3 and what is installed in it.
PACKAGES = {
    "tensorflow": (10, ("tensorflow>=2.21,<2.22", "tf-keras")),
    "jax": (13, ("keras>=3", "jax")),
    "torch": (12, ("keras>=3", "torch", "lightning", "transformers[torch]")),
}
KERASES = {
    "tensorflow": ("tensorflow", {"KERAS_BACKEND": "tensorflow"}),
    "tf-keras": ("tensorflow", {"KERAS": "tf_keras"}),
    "jax": ("jax", {"KERAS_BACKEND": "jax"}),
    "torch": ("torch", {"KERAS_BACKEND": "torch"}),
}


@pytest.fixture(scope="module")
def environment(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Environment]:
    """Return what makes an environment with one of `PACKAGES`, once."""

    @functools.cache
    def make(name: str) -> Environment:
        minor, packages = PACKAGES[name]
        folder = tmp_path_factory.mktemp(name)
        return Environment(minor, wheel, folder, others=(*packages, "wrapt"))

    return make


def boards(folder: Path) -> dict[str, str]:
    """Return variables by which a process has one board of 60 W."""
    simulation = Simulation(boards=[SimulatedBoard(curve=Constant(60.0))])
    return dict(child_environment(simulation, folder / "simulation"))


def trained(python: str, script: str, folder: Path, **variables: str) -> dict[str, Any]:
    """Return what a script found, told as JSON in the last line."""
    environment = {**os.environ, **boards(folder), **variables}
    if python == sys.executable:
        environment["PYTHONPATH"] += os.pathsep + str(ROOT)
    done = ran(python, str(SUPPORT / script), str(folder / "smi"), cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def of_keras_2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("keras-2")
    return trained(sys.executable, "any_keras_training.py", folder)


def without_codecarbon(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out what only CodeCarbon says, which is not in an environment of the meter alone."""
    text = re.sub(r'"[^"]*(codecarbon|emissions|system_energy)[^"]*",? ?', "", json.dumps(found))
    return json.loads(text.replace(", ]", "]"))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", KERASES)
def test_every_keras_is_measured_as_keras_2_is(
    name: str,
    environment: Callable[[str], Environment],
    tmp_path: Path,
    of_keras_2: dict[str, Any],
) -> None:
    packages, variables = KERASES[name]
    there = environment(packages)
    found = trained(there.python, "any_keras_training.py", tmp_path, **variables)
    rates = {situation: told.pop("rates") for situation, told in found.items()}
    assert found.keys() == of_keras_2.keys()
    for situation, told in of_keras_2.items():
        expected = {key: value for key, value in told.items() if key != "rates"}
        assert without_codecarbon(found[situation]) == without_codecarbon(expected), situation
        assert len(rates[situation]) == len(told["rates"])
    first, second = rates["a schedule"]
    assert first > second > 0

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.S)
    (example,) = (block for block in blocks if "SMICallback" in block)
    if "KERAS" in variables:
        example = example.replace("import keras", f"import {variables['KERAS']} as keras")
    shown = there.run(there.python, "-c", example, **variables)
    assert shown.returncode == 0, shown.stderr[-3000:]
    assert (there.folder / "smi" / "logs.csv").read_text(encoding="utf-8").count("\n") == 5


def test_lightning_and_transformers_log_each_epoch(
    environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    found = trained(environment("torch").python, "torch_trainings.py", tmp_path)
    for framework in ("lightning", "transformers"):
        epochs = found[framework]["epochs"]
        assert len(epochs) == 2
        for epoch in epochs:
            # Of a board of 60 W, and short enough for the counter's steps to show.
            assert epoch["epoch_time_s"] > 0.5
            assert epoch["epoch_energy_j"] == pytest.approx(60 * epoch["epoch_time_s"], abs=12.1)
            assert epoch["gpu_power_mean_w"] == pytest.approx(60, rel=0.3)
        assert found[framework]["validations"] == 2
        assert found[framework]["after_a_failure"] == 1
