from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from campaigns import Driven, children, small, summary, sweep_parents
from mlflow.entities import Metric, Run, RunData, RunInfo, RunTag

from green_screen import names
from green_screen.sweep.clocks import BaselineClocks


def run_at(
    clock_mhz: float, kind: str = "run", board: str = "one", capped_percent: float = 0, **tags: str
) -> Run:
    info = RunInfo("id", "0", "me", "FINISHED", 0, 1, "active")
    given = {names.TAG_KIND: kind, names.TAG_GPU_DEVICES: board} | tags
    return Run(
        info,
        RunData(
            metrics=[
                Metric(names.STEADY_SM_CLOCK_MHZ, clock_mhz, 0, 0),
                Metric(names.STEADY_POWER_CAPPED_PERCENT, capped_percent, 0, 0),
            ],
            tags=[RunTag(key, value) for key, value in given.items()],
        ),
    )


def test_a_run_is_compared_with_the_first_baseline_on_its_board() -> None:
    clocks = BaselineClocks([run_at(1000.0, names.KIND_BASELINE, "two")])
    assert clocks.doubts(run_at(500.0)) == {}  # no baseline yet
    assert clocks.doubts(run_at(1980.0, names.KIND_BASELINE)) == {}
    assert clocks.doubts(run_at(1950.0)) == {}
    assert clocks.doubts(run_at(1010.0, board="two")) == {}
    doubts = clocks.doubts(run_at(1500.0, **{names.TAG_INVALID_REASON: "hot start"}))
    assert doubts[names.TAG_MEASUREMENT_VALID] == "false"
    assert doubts[names.TAG_INVALID_REASON].startswith("hot start; clocks: 1500 MHz is -24%")
    # A later baseline does not move the mark, and is measured by it.
    assert clocks.doubts(run_at(1500.0, names.KIND_BASELINE)) != {}
    assert clocks.doubts(run_at(1500.0)) != {}


def test_a_run_at_the_power_limit_may_be_slower_while_the_limit_is_the_same() -> None:
    limit = {names.TAG_GPU_POWER_LIMIT_W: "700"}
    clocks = BaselineClocks([run_at(1980.0, names.KIND_BASELINE, **limit)])
    assert clocks.doubts(run_at(1500.0, capped_percent=90.0, **limit)) == {}
    assert clocks.doubts(run_at(1500.0, capped_percent=10.0, **limit)) != {}
    lowered = {names.TAG_GPU_POWER_LIMIT_W: "400"}
    doubts = clocks.doubts(run_at(1500.0, capped_percent=90.0, **lowered))
    assert "a power limit of 400 W instead of 700 W" in doubts[names.TAG_INVALID_REASON]


def test_a_baseline_in_doubt_is_no_measure_for_the_others() -> None:
    doubtful = {names.TAG_MEASUREMENT_VALID: "false", names.TAG_INVALID_REASON: "throttled"}
    clocks = BaselineClocks()
    assert clocks.doubts(run_at(1200.0, names.KIND_BASELINE, **doubtful)) == {}
    assert clocks.doubts(run_at(1980.0)) == {}
    assert clocks.doubts(run_at(1980.0, names.KIND_BASELINE)) == {}
    assert clocks.doubts(run_at(1200.0)) != {}


def test_a_campaign_says_so_on_the_run(drive: Callable[..., Driven], tmp_path: Path) -> None:
    status, output = drive(small(n_runs=2), "faulty_trainers:slow_clock_once").end()
    assert status == 0, output
    (parent,) = sweep_parents()
    valid = [run.data.tags[names.TAG_MEASUREMENT_VALID] for run in children(parent.info.run_id)]
    assert valid == ["true", "false", "true"]
    told = [row[names.TAG_MEASUREMENT_VALID] for row in summary(parent.info.run_id)]
    assert told == valid
