"""Every fault is done for real; afterwards a resume gives the campaign as if nothing had been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import psutil
import pytest
from campaigns import (
    Driven,
    assert_complete,
    by_status,
    children,
    small,
    sweep_parents,
    until,
)
from mlflow.tracking import MlflowClient
from outage import Server

from green_screen import names, tracking
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.local import PRELOAD_TRACKING, LocalExecutor

pytestmark = pytest.mark.faults

STRIKE = "faulty_trainers:strike"
SLOW = "faulty_trainers:slow"
UNTIL_TOLD = "faulty_trainers:until_told"


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("kill_myself", "KILLED", "killed by SIGKILL"),
        ("segfault", "FAILED", "native crash: SIGSEGV"),
        ("abort", "FAILED", "native crash: SIGABRT"),
        ("exit_with_status", "FAILED", "exit with status 7"),
        ("exit_silently", "FAILED", "the process ended with status 3 and said nothing"),
    ],
)
def test_a_child_that_dies(
    store: str,
    executor: LocalExecutor,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    status: str,
    reason: str,
) -> None:
    monkeypatch.setenv("FAULT", fault)
    options = small(n_runs=2)
    parent_id = run_sweep(options, trainer=STRIKE, executor=executor)

    assert by_status(parent_id, "FINISHED") == [0, 2]
    (run,) = [run for run in children(parent_id) if run.info.status != "FINISHED"]
    assert run.info.status == status
    assert reason in run.data.tags[names.TAG_FAILURE]
    # What it had logged is there, though it never came to sending the rest itself.
    assert run.data.metrics[names.LOSS] == 1.0
    if fault == "abort":
        output = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{names.OUTPUT_TXT}")
        assert "a native library gives up" in output

    run_sweep(options, trainer=STRIKE, executor=executor)
    assert_complete(parent_id, options)


@pytest.mark.parametrize("fault", ["hang", "hang_in_native_code"])
def test_a_child_that_hangs(store: str, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setenv("FAULT", fault)
    options = small(n_runs=2, time_limit_s=15.0)
    executor = LocalExecutor(preload=PRELOAD_TRACKING, grace_s=4.0)
    parent_id = run_sweep(options, trainer=STRIKE, executor=executor)

    assert by_status(parent_id, "FINISHED") == [0, 2]
    (run,) = [run for run in children(parent_id) if run.info.status != "FINISHED"]
    assert run.info.status == "KILLED"
    assert run.data.tags[names.TAG_FAILURE] == "time limit of 15 s"
    assert run.data.metrics[names.LOSS] == 1.0

    run_sweep(options, trainer=STRIKE, executor=executor)
    executor.close()
    assert_complete(parent_id, options)


def test_a_child_out_of_memory(
    store: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "exhaust_memory")
    options = small(n_runs=2)
    parent_id = run_sweep(options, trainer=STRIKE, executor=executor)

    (run,) = [run for run in children(parent_id) if run.info.status != "FINISHED"]
    assert run.info.status == "FAILED"
    assert run.data.tags[names.TAG_OUT_OF_MEMORY] == "true"
    assert "ResourceExhaustedError" in run.data.tags[names.TAG_FAILURE]

    run_sweep(options, trainer=STRIKE, executor=executor)
    assert_complete(parent_id, options)


def descendants(driven: Driven) -> list[psutil.Process]:
    return psutil.Process(driven.process.pid).children(recursive=True)


def waiting_campaign(
    drive: Callable[..., Driven], fault: str = "wait_to_be_ended"
) -> tuple[Driven, list[psutil.Process]]:
    """Start a campaign whose second run waits to be ended; return its processes too."""
    driven = drive(small(n_runs=2), STRIKE, FAULT=fault)
    until((Path(os.environ["FAULT_FOLDER"]) / "waiting").exists)
    processes = descendants(driven)
    assert processes
    return driven, processes


def assert_ended_as_killed(processes: list[psutil.Process]) -> str:
    """Nothing is left of the campaign but what the store says; return the parent run's id."""
    _, alive = psutil.wait_procs(processes, timeout=40)
    assert not alive
    (parent,) = sweep_parents()
    assert by_status(parent.info.run_id, "KILLED") == [1]
    assert by_status(parent.info.run_id, "RUNNING") == []
    (run,) = [r for r in children(parent.info.run_id) if r.info.status == "KILLED"]
    assert run.data.metrics[names.LOSS] == 1.0
    return str(parent.info.run_id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    driven, processes = waiting_campaign(drive, "wait_in_native_code")
    driven.process.terminate()
    status, _ = driven.end()
    assert status == 128 + signal.SIGTERM
    assert_ended_as_killed(processes)


@pytest.mark.parametrize("fault", ["wait_to_be_ended", "wait_in_native_code"])
def test_the_parent_is_killed(
    drive: Callable[..., Driven], executor: LocalExecutor, fault: str
) -> None:
    driven, processes = waiting_campaign(drive, fault)
    driven.process.kill()
    driven.end()
    parent_id = assert_ended_as_killed(processes)
    assert MlflowClient().get_run(parent_id).info.status == "RUNNING"
    run_sweep(small(n_runs=2), trainer=STRIKE, executor=executor)
    assert_complete(parent_id, small(n_runs=2))


def test_the_process_that_forks_is_killed(
    drive: Callable[..., Driven],
) -> None:
    driven, processes = waiting_campaign(drive)
    (forker,) = [p for p in processes if p.children()]
    forker.kill()
    status, output = driven.end()
    # The run was lost by no fault of its own: it is done again at once.
    assert status == 0, output
    (parent,) = sweep_parents()
    assert_complete(parent.info.run_id, small(n_runs=2))
    assert by_status(parent.info.run_id, "KILLED") == [1]


def test_a_campaign_that_is_being_run_is_not_resumed(drive: Callable[..., Driven]) -> None:
    first, _ = waiting_campaign(drive)
    status, output = drive(small(n_runs=2), STRIKE, FAULT="hang").end()
    assert status == 2
    assert f"is being run by process {first.process.pid}" in output


@pytest.fixture
def server(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A real tracking server over the store, which is the current one."""
    with Server(store, tmp_path / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        mlflow.set_tracking_uri(server.url)
        yield server


def test_the_server_is_away_in_the_middle_of_a_run(
    server: Server, drive: Callable[..., Driven], tmp_path: Path
) -> None:
    options = small(n_runs=1, epochs=6)
    driven = drive(options, SLOW)
    until((tmp_path / "begun").exists)
    server.stop()
    # The run goes on and ends meanwhile, and so would the campaign, did it not wait.
    with pytest.raises(subprocess.TimeoutExpired):
        driven.process.wait(timeout=8)
    server.start()
    status, output = driven.end()
    assert status == 0, output
    (parent,) = sweep_parents()
    assert_complete(parent.info.run_id, options)
    assert by_status(parent.info.run_id, "FINISHED") == [0, 1]
    assert not list((tmp_path / "spool").iterdir())


def test_the_server_stays_away_at_the_end_of_a_run(
    server: Server, drive: Callable[..., Driven], tmp_path: Path
) -> None:
    options = small(n_runs=1)
    impatient = {"GREEN_SCREEN_PATIENCE_S": "2", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    driven = drive(options, UNTIL_TOLD, **impatient)
    until((tmp_path / "begun").exists)
    server.stop()
    (tmp_path / "go").touch()
    status, output = driven.end()
    assert (tmp_path / "logged").exists()
    assert status == 1
    assert "has not answered" in output
    spooled = {folder.name for folder in (tmp_path / "spool").iterdir()}

    server.start()
    (parent,) = sweep_parents()
    (run,) = children(parent.info.run_id)
    assert run.info.run_id in spooled
    assert run.info.status == "RUNNING"
    assert drive(options, UNTIL_TOLD).end()[0] == 0
    # The first run's result was sent; it was not done again.
    assert_complete(parent.info.run_id, options)
    assert len(children(parent.info.run_id)) == 2


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no command mount")
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("what", ["spool", "store"])
def test_a_full_disk(
    store: str,
    drive: Callable[..., Driven],
    tiny_disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    if what == "spool":
        monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tiny_disk / "spool"))
    else:
        shutil.move(tmp_path / "mlflow.db", tiny_disk)
        uri = f"sqlite:///{tiny_disk / 'mlflow.db'}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
    monkeypatch.setenv("FULL_FOLDER", str(tiny_disk))
    options = small(n_runs=2)
    trainer = "faulty_trainers:fill_disk"
    status, output = drive(options, trainer, GREEN_SCREEN_PATIENCE_S="3").end()
    print(output)
    if what == "spool":
        # The records went to the store from memory: nothing was lost.
        assert status == 0, output
    else:
        assert status == 1
        assert "has not answered" in output

    (tiny_disk / "filler").unlink()
    if what == "store":
        assert drive(options, trainer).end()[0] == 0
    (parent,) = sweep_parents()
    assert_complete(parent.info.run_id, options)


def test_children_that_log_to_sqlite_at_once(store: str) -> None:
    options = small(n_runs=7, epochs=20)
    with LocalExecutor(devices=[None] * 4, preload=PRELOAD_TRACKING) as executor:
        parent_id = run_sweep(options, trainer="faulty_trainers:quick", executor=executor)
    assert_complete(parent_id, options)
    assert {run.data.tags[names.TAG_SHARED_HOST] for run in children(parent_id)} == {"true"}


def test_what_another_store_left_is_not_sent_to_this_one(store: str, tmp_path: Path) -> None:
    folder = tracking.spool_root() / "0123"
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text('{"op": "store", "uri": "sqlite:///other.db"}\n')
    assert tracking.deliver_all() == 0
    assert folder.exists()
