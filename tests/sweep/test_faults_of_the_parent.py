"""Faults of the parent, each done for real: resume gives the campaign as if nothing had been."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from campaigns import (
    STRIKE,
    Driven,
    assert_complete,
    by_status,
    children,
    small,
    summary,
    sweep_parents,
)
from mlflow.tracking import MlflowClient
from waiting import until

from green_screen import names, tracking
from green_screen.executors.local import LocalExecutor
from green_screen.sweep.campaign import run_sweep


def descendants(driven: Driven) -> list[psutil.Process]:
    return psutil.Process(driven.process.pid).children(recursive=True)


def waiting_campaign(
    drive: Callable[..., Driven], fault: str = "hang"
) -> tuple[Driven, list[psutil.Process]]:
    """Start a campaign whose second run waits to be ended; return its processes too."""
    driven = drive(small(n_runs=2), STRIKE, FAULT=fault)
    until((Path(os.environ["FAULT_FOLDER"]) / "waiting").exists)
    processes = descendants(driven)
    assert processes
    return driven, processes


def assert_ended_as_killed(processes: list[psutil.Process]) -> str:
    """Nothing is left of the campaign but what the store says; return the parent run's id."""
    psutil.wait_procs(processes)
    (parent,) = sweep_parents()
    assert by_status(parent.info.run_id, "KILLED") == [1]
    assert by_status(parent.info.run_id, "RUNNING") == []
    (run,) = [r for r in children(parent.info.run_id) if r.info.status == "KILLED"]
    assert run.data.metrics[names.LOSS] == 1.0
    return str(parent.info.run_id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_parent_is_told_to_end(
    drive: Callable[..., Driven], executor: LocalExecutor, number: signal.Signals
) -> None:
    driven, processes = waiting_campaign(drive)
    driven.process.send_signal(number)
    status, output = driven.end()

    assert status == 128 + number
    assert f"ended by {number.name}; the same command resumes it" in output
    parent_id = assert_ended_as_killed(processes)
    assert MlflowClient().get_run(parent_id).info.status == "KILLED"
    run_sweep(small(n_runs=2), trainer=STRIKE, executor=executor)
    assert_complete(parent_id, small(n_runs=2))


def test_ctrl_c_on_a_terminal_reaches_all_processes_at_once(drive: Callable[..., Driven]) -> None:
    driven, processes = waiting_campaign(drive)
    for process in [driven.process, *processes]:
        os.kill(process.pid, signal.SIGINT)
    status, _ = driven.end()
    assert status == 128 + signal.SIGINT
    assert_ended_as_killed(processes)


def test_the_parent_is_told_to_end_while_its_child_hangs_in_native_code(
    drive: Callable[..., Driven],
) -> None:
    driven, processes = waiting_campaign(drive, "hang_in_native_code")
    driven.process.terminate()
    status, _ = driven.end()
    assert status == 128 + signal.SIGTERM
    assert_ended_as_killed(processes)


def test_the_parent_is_killed(drive: Callable[..., Driven], executor: LocalExecutor) -> None:
    driven, processes = waiting_campaign(drive)
    driven.process.kill()
    driven.end()
    parent_id = assert_ended_as_killed(processes)
    assert MlflowClient().get_run(parent_id).info.status == "RUNNING"
    run_sweep(small(n_runs=2), trainer=STRIKE, executor=executor)
    assert_complete(parent_id, small(n_runs=2))


def test_a_resume_waits_for_a_child_that_has_outlived_its_parent(
    drive: Callable[..., Driven], executor: LocalExecutor
) -> None:
    driven, processes = waiting_campaign(drive, "hang_in_native_code")
    driven.process.kill()
    driven.end()
    run_sweep(small(n_runs=2), trainer=STRIKE, executor=executor)
    parent_id = assert_ended_as_killed(processes)
    assert_complete(parent_id, small(n_runs=2))
    position = f"tags.`{names.TAG_POSITION}` = '1'"
    again, outlived = tracking.search_runs(tracking.ensure_experiment(), position)
    assert (outlived.info.status, again.info.status) == ("KILLED", "FINISHED")
    assert outlived.data.tags[names.TAG_FAILURE] == "the campaign's process was gone"
    assert outlived.info.end_time <= again.info.start_time


def test_the_process_that_forks_is_killed(
    drive: Callable[..., Driven],
) -> None:
    driven, processes = waiting_campaign(drive)
    (forker,) = [p for p in processes if p.children()]
    forker.kill()
    status, output = driven.end()
    # The run was lost by no fault of its own: it is done again.
    assert status == 0, output
    (parent,) = sweep_parents()
    assert_complete(parent.info.run_id, small(n_runs=2))
    assert by_status(parent.info.run_id, "KILLED") == [1]
    # The lost run is in the table, and counts neither as under way nor as one of the campaign's.
    assert [row["status"] for row in summary(parent.info.run_id)].count("KILLED") == 1
    assert parent.data.metrics[names.RUNS_FAILED] == 1
    assert "done again: 001" in output
    assert "run 3 of 3: 002" in output


def test_a_campaign_that_is_being_run_is_not_resumed(drive: Callable[..., Driven]) -> None:
    first, _ = waiting_campaign(drive)
    status, output = drive(small(n_runs=2), STRIKE, FAULT="refuse").end()
    assert status == 2
    assert f"is being run by process {first.process.pid}" in output
