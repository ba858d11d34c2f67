"""Faults of the server and of disks, each done for real: nothing is lost."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from campaigns import Driven, assert_complete, by_status, children, small, sweep_parents
from outage import Server
from waiting import until

from green_screen import tracking

UNTIL_TOLD = "faulty_trainers:until_told"


@pytest.fixture
def server(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A real tracking server over the store, which is the current one."""
    with Server(store, tmp_path / "server") as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        mlflow.set_tracking_uri(server.url)
        yield server


def test_the_server_is_away_in_the_middle_of_a_run_and_at_the_end_of_another(
    server: Server, drive: Callable[..., Driven], tmp_path: Path
) -> None:
    options = small(n_runs=1, epochs=6, resume="new")
    middle, end = tmp_path / "middle", tmp_path / "end"
    driven = {}
    for folder in (middle, end):
        folder.mkdir()
        patient = {"FAULT_FOLDER": str(folder), "GREEN_SCREEN_PATIENCE_S": "1e6"}
        driven[folder] = drive(options, UNTIL_TOLD, **patient)
    for folder in driven:
        until((folder / "begun").exists)
    with server.away() as asked:
        for file in (middle / "on", end / "on", end / "go"):
            file.touch()
        until((end / "logged").exists)
        # Of at most four processes one has tried again for longer than MLflow itself does.
        until(lambda: asked() > 20 or any(c.process.poll() is not None for c in driven.values()))
        # Neither campaign ends meanwhile, though the run of one has.
        assert [campaign.process.poll() for campaign in driven.values()] == [None, None]
    (middle / "go").touch()
    for campaign in driven.values():
        status, output = campaign.end()
        assert status == 0, output
    parents = sweep_parents()
    assert len(parents) == 2
    for parent in parents:
        assert_complete(parent.info.run_id, options)
        assert by_status(parent.info.run_id, "FINISHED") == [0, 1]
    assert not list((tmp_path / "spool").iterdir())


def test_the_server_stays_away_at_the_end_of_a_run(
    server: Server, drive: Callable[..., Driven], tmp_path: Path
) -> None:
    options = small(n_runs=1)
    (tmp_path / "on").touch()
    impatient = {"GREEN_SCREEN_PATIENCE_S": "9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    driven = drive(options, UNTIL_TOLD, **impatient)
    until((tmp_path / "begun").exists)
    server.stop()
    (tmp_path / "go").touch()
    status, output = driven.end()
    assert (tmp_path / "logged").exists()
    assert status == 1
    # The child has waited as long as it should; those after it do not do so once more each.
    assert "has not answered for 8 s" in output
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
    impatient = {"GREEN_SCREEN_PATIENCE_S": "3"} if what == "store" else {}
    status, output = drive(options, trainer, **impatient).end()
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


def test_what_another_store_left_is_not_sent_to_this_one(store: str, tmp_path: Path) -> None:
    folder = tracking.spool_root() / "0123"
    folder.mkdir(parents=True)
    (folder / "records.jsonl").write_text('{"op": "store", "uri": "sqlite:///other.db"}\n')
    assert tracking.deliver_all() == 0
    assert folder.exists()
