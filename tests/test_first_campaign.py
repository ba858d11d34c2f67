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


def would_run(on_gpu: bool, what: str) -> list[list[str]]:
    """Return the words of those commands of `make sweep` that a text is in."""
    lock = "requirements-gpu.lock" if on_gpu else "requirements.lock"
    command = ["make", "--dry-run", "sweep", f"LOCK={lock}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in made.stdout.splitlines() if what in line]


@pytest.fixture(params=["requirements.lock", "requirements-gpu.lock"])
def on_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.chdir(ROOT)
    return "gpu" in request.param


def campaign(on_gpu: bool) -> tuple[SweepOptions, Plan, AnalyzeOptions]:
    sweep, analyze = (words[2:] for words in would_run(on_gpu, "entrypoints."))
    assert (sweep[0], analyze[0]) == ("entrypoints.sweep", "entrypoints.analyze")
    options, _ = parse_options(SweepOptions, sweep[1:], "")
    return (
        options,
        make_plan(Space.load(options.config), options),
        parse_options(AnalyzeOptions, analyze[1:], "")[0],
    )


def test_what_it_begins_with_fits_a_terminal_and_counts_right(on_gpu: bool) -> None:
    _, plan, analysis = campaign(on_gpu)
    ((_, text),) = would_run(on_gpu, "printf")
    said = text.replace("\\n", "\n")
    assert f"{len(plan.runs)} runs, then {2 * analysis.final_repeats} to compare" in said
    assert max(map(len, said.splitlines())) <= 100


def test_its_trainings_can_be_done(on_gpu: bool) -> None:
    options, plan, _ = campaign(on_gpu)
    configs = {resolve(run.config).effective for run in plan.runs}
    check_trainings(options, tuple(configs))
    assert options.model == ("resnet50" if on_gpu else "resnet8")
    # A CPU emulates half precision: 35 to 70 times slower.
    assert on_gpu or not {"float16", "global_policy_float16"} & {c.precision for c in configs}


def test_it_is_large_enough_for_a_finding_and_an_interval(on_gpu: bool) -> None:
    _, plan, analysis = campaign(on_gpu)
    # Ten residual degrees of freedom beside the mean, the factors and their levels.
    levels = sum(len(levels) - 1 for levels in plan.space.levels.values())
    assert len(plan.runs) >= 1 + levels + 10
    # An estimate follows the time, which varies more than a measured energy: more pairs.
    assert analysis.final_repeats >= (3 if on_gpu else 5)
    assert analysis.min_accuracy >= 0.9


def test_its_file_is_part_of_the_package(on_gpu: bool) -> None:
    options, _, _ = campaign(on_gpu)
    assert options.config is not None
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = content["tool"]["setuptools"]["package-data"]["green_screen"]
    path = Path(options.config).relative_to("green_screen")
    assert any(path.match(pattern) for pattern in packaged)
