"""`make sweep`: what it runs on a machine with and without a GPU can be run, and is packaged."""

from __future__ import annotations

import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from green_screen.options import AnalyzeOptions, SweepOptions, parse_options
from green_screen.space import Space, resolve
from green_screen.sweep.design import Plan, make_plan
from green_screen.training.request import check_trainings

ROOT = Path(__file__).parents[1]


def commands(lock: str) -> list[list[str]]:
    """Return the words of what `make sweep` would run after it has set up."""
    command = ["make", "--dry-run", "sweep", f"LOCK={lock}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [shlex.split(line)[2:] for line in made.stdout.splitlines() if "entrypoints." in line]


@pytest.fixture(params=["requirements.lock", "requirements-gpu.lock"])
def on_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.chdir(ROOT)
    return "gpu" in request.param


def campaign(on_gpu: bool) -> tuple[SweepOptions, Plan, AnalyzeOptions]:
    sweep, analyze = commands("requirements-gpu.lock" if on_gpu else "requirements.lock")
    assert (sweep[0], analyze[0]) == ("entrypoints.sweep", "entrypoints.analyze")
    options, _ = parse_options(SweepOptions, sweep[1:], "")
    return (
        options,
        make_plan(Space.load(options.config), options),
        parse_options(AnalyzeOptions, analyze[1:], "")[0],
    )


def test_its_trainings_can_be_done(on_gpu: bool) -> None:
    options, plan, _ = campaign(on_gpu)
    configs = {resolve(run.config).effective for run in plan.runs}
    check_trainings(options, tuple(configs))
    assert options.model == ("resnet50" if on_gpu else "resnet8")
    # A CPU emulates half precision: 35 to 70 times slower.
    assert on_gpu or not {"float16", "global_policy_float16"} & {c.precision for c in configs}


def test_it_is_large_enough_for_a_finding_and_an_interval(on_gpu: bool) -> None:
    _, plan, analysis = campaign(on_gpu)
    # As many as the note that it begins with says.
    assert len(plan.runs) == (13 if on_gpu else 19)
    # Ten residual degrees of freedom beside the mean, the factors and their levels.
    levels = sum(len(levels) - 1 for levels in plan.space.levels.values())
    assert len(plan.runs) >= 1 + levels + 10
    assert analysis.final_repeats >= 3
    assert analysis.min_accuracy >= 0.9


def test_its_file_is_part_of_the_package(on_gpu: bool) -> None:
    options, _, _ = campaign(on_gpu)
    assert options.config is not None
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = content["tool"]["setuptools"]["package-data"]["green_screen"]
    path = Path(options.config).relative_to("green_screen")
    assert any(path.match(pattern) for pattern in packaged)
