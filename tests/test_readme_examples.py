"""The examples of the documentation: Python runs as it stands, commands pass their own checks."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from green_screen.command.experiment import COMMANDS
from green_screen.options import SweepOptions, TrainOptions, parse_options, read_config
from green_screen.space import Space, resolve
from green_screen.sweep.design import make_plan
from green_screen.training.request import check_trainings

ROOT = Path(__file__).parents[1]
PAGES = [page for page in (ROOT / "README.md", ROOT / "docs" / "measuring.md") if page.exists()]


def examples() -> list[pytest.param]:
    """Return each different example once: pages may show the same one."""
    found: dict[str, str] = {}
    for page in PAGES:
        blocks = re.findall(
            r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S
        )
        for number, block in enumerate(blocks, start=1):
            found.setdefault(block, f"{page.stem}-{number}")
    return [pytest.param(block, id=name) for block, name in found.items()]


@pytest.mark.parametrize("code", examples())
def test_example(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if "SMICallback" in code:
        assert (tmp_path / "smi" / "logs.csv").read_text(encoding="utf-8").count("\n") >= 4
    if "EnergyMeter" in code:
        assert re.search(r"\d J in \d+\.\d\d s, \w+", done.stdout)


COMMAND = re.compile(
    r"(?<!`)(?:(?:mlflow run \. -e|green-screen|python3? -m green_screen) "
    rf"(?P<entry>{'|'.join(COMMANDS)})|python3? -m entrypoints\.(?P<module>\w+))(?P<words>.*)"
)


def commands() -> list[pytest.param]:
    """Every command that is not part of a sentence: its entry point and what it is given."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for line in page.read_text("utf-8").replace("\\\n", " ").splitlines():
            if match := COMMAND.search(line.split("#")[0]):
                name = match["entry"] or match["module"].removesuffix("_runs")
                words = shlex.split(match["words"].rstrip(" &"))
                found.append(pytest.param(name, words, id=f"{page.stem}: {match[0].strip()}"))
    return found


def as_arguments(name: str, words: list[str]) -> list[str]:
    """Turn ``-P key=value`` into ``--key value``; the options must be those of MLproject."""
    known = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"][name]["parameters"]
    arguments = []
    words = [word for word in words if word != "--help"]  # which has no value, and starts nothing
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option == "-P":
            key, _, value = value.partition("=")
            option = f"--{key}"
        if option != "--env-manager":
            assert option.removeprefix("--") in known
            arguments += [option, value]
    return arguments


@pytest.mark.parametrize(("name", "words"), commands())
def test_command(name, words, tmp_path):
    """Each passes what it checks before it starts anything."""
    command = COMMANDS[name]
    arguments = [str(tmp_path) if word == "PATH" else word for word in as_arguments(name, words)]
    asked, given = parse_options(command.options, arguments, "", factors=command.factors)
    if not isinstance(asked, TrainOptions):
        return
    if isinstance(asked, SweepOptions):
        configs = [run.config for run in make_plan(Space.load(asked.config), asked).runs]
    else:
        configs = [read_config(asked, given)]
    if asked.dataset.startswith("cifar"):  # needs a network, and has images enough
        asked = dataclasses.replace(asked, dataset="synthetic")
    check_trainings(asked, [resolve(config).effective for config in configs])
