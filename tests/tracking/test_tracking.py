from __future__ import annotations

import functools
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from waiting import for_ever, until

from green_screen import names, tracking
from green_screen.options import OptionError
from green_screen.tracking import Interrupted, RefusedError, RunLogger, StoreUnavailableError
from green_screen.tracking.store import is_transient

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Path:
    return shutil.copy(migrated_database, tmp_path_factory.mktemp("tracking") / "mlflow.db")


@pytest.fixture(autouse=True)
def store(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path / "spool"))
    # The store is there: how long a slow machine takes to write to it is no matter.
    monkeypatch.setattr(tracking.life, "INTERRUPTED_PATIENCE_S", 1e6)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture
def locked(database: Path) -> Iterator[threading.Event]:
    """The store's database, locked by another process's transaction until the event is set."""
    tracking.ensure_experiment()
    release, is_locked = threading.Event(), threading.Event()

    def hold() -> None:
        other = sqlite3.connect(database)
        other.execute("PRAGMA busy_timeout = 1000000000")
        other.execute("BEGIN EXCLUSIVE")
        is_locked.set()
        release.wait()
        other.rollback()
        other.close()

    thread = threading.Thread(target=hold)

    def lock() -> None:
        thread.start()
        is_locked.wait()

    release.lock = lock  # type: ignore[attr-defined]
    yield release
    release.set()
    if thread.ident is not None:
        thread.join()


def spool() -> Path:
    return Path(os.environ["GREEN_SCREEN_SPOOL"])


def read(run_id: str) -> Run:
    return MlflowClient().get_run(run_id)


def test_everything_that_a_block_logs_has_arrived_at_its_end(tmp_path: Path) -> None:
    file = tmp_path / "logs.csv"
    file.write_text("epoch\n0\n")
    with tracking.open_run(run_name="a run", tags={names.TAG_KIND: "train"}) as run:
        run.params({"lr": "0.01"})
        for epoch in range(3):
            run.metrics({"loss": 3.0 - epoch, "power_w": 100.0}, step=epoch)
        run.artifact(file)
        file.write_text("changed afterwards")
        run.text("key: 1\n", "deep/down/parameters.yaml")
        run.dataset(mlflow.data.from_numpy(np.zeros((2, 3)), name="zeros"), "training")

    found = read(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "a run"
    assert found.data.tags[names.TAG_KIND] == "train"
    assert found.data.params == {"lr": "0.01"}
    client = MlflowClient()
    history = client.get_metric_history(run.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    uri = found.info.artifact_uri
    assert mlflow.artifacts.load_text(f"{uri}/logs.csv") == "epoch\n0\n"
    assert mlflow.artifacts.load_text(f"{uri}/deep/down/parameters.yaml") == "key: 1\n"
    (dataset,) = found.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.tags[0].value) == ("zeros", "training")
    assert not list(spool().iterdir())
    assert mlflow.active_run() is None


def test_more_than_one_call_takes() -> None:
    with tracking.open_run() as run:
        run.metrics({f"m{index}": index for index in range(1001)})
        run.params({f"p{index}": "x" for index in range(101)})
        run.tags({f"t{index}": "x" for index in range(101)} | {"long": "x" * 6000})
    data = read(run.run_id).data
    assert len(data.metrics) == 1001
    assert len(data.params) == 101
    assert len([tag for tag in data.tags if not tag.startswith("mlflow.")]) == 102
    assert len(data.tags["long"]) == 5000


def test_a_gap_is_visible() -> None:
    metrics = {"energy_j": math.nan, "loss": 1.0}
    with tracking.open_run() as run:
        run.metrics(metrics)
        run.missing(metrics, "no counter")
    data = read(run.run_id).data
    assert math.isnan(data.metrics["energy_j"])
    assert data.tags["missing_energy_j"] == "no counter"
    assert "missing_loss" not in data.tags


def test_the_experiment_is_that_of_the_store_in_use(tmp_path: Path) -> None:
    MlflowClient().create_experiment("another")
    first = tracking.ensure_experiment("moved")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'second.db'}")
    with tracking.open_run(experiment="moved") as run:
        run.params({"p": "x"})
    experiment_id = read(run.run_id).info.experiment_id
    assert experiment_id != first
    assert MlflowClient().get_experiment(experiment_id).name == "moved"


def test_runs_of_all_experiments_are_found_unless_they_are_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []
    for name in ("chosen", "another", "deleted"):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
        with tracking.open_run(tags={"searched": "for"}) as run:
            pass
        made.append(run.run_id)
    assert MlflowClient().get_experiment(read(made[0]).info.experiment_id).name == "chosen"
    MlflowClient().delete_experiment(tracking.ensure_experiment())
    found = tracking.search_runs(None, "tags.searched = 'for'")
    assert [run.info.run_id for run in found] == [made[1], made[0]]


def test_a_deleted_experiment_is_refused_with_what_to_do() -> None:
    MlflowClient().delete_experiment(tracking.ensure_experiment("gone"))
    with pytest.raises(MlflowException, match="'gone'.*restore it"):
        tracking.ensure_experiment("gone")


def test_a_parameter_of_mlflow_run_is_left_in_its_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient()
    made = client.create_run(tracking.ensure_experiment()).info.run_id
    given = {"lr": "1e-2", "log_model": "True", "samples": ""}
    for name, value in given.items():
        client.log_param(made, name, value)
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    params = {"lr": "0.01", "log_model": "true", "samples": "None", "epochs": "2"}
    with tracking.open_run(params=params) as run:
        pass
    assert run.run_id == made
    assert read(made).data.params == {**given, "epochs": "2"}


@pytest.mark.parametrize(
    ("left_over", "why"),
    [
        ("FINISHED", "under way .this one is FINISHED"),
        ("FAILED", "under way .this one is FAILED"),
        ("deleted", "under way .this one is deleted"),
        ("other parameters", "this one has lr=1e-3, and 0.01 is asked for"),
        ("of another store", "a run in sqlite:///.*with the whole path"),
    ],
)
def test_a_run_that_is_left_over_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, left_over: str, why: str
) -> None:
    client = MlflowClient()
    made = client.create_run(tracking.ensure_experiment()).info.run_id
    client.log_param(made, "lr", "1e-3" if left_over == "other parameters" else "1e-2")
    if left_over in ("FINISHED", "FAILED"):
        client.set_terminated(made, left_over)
    elif left_over == "deleted":
        client.delete_run(made)
    before = client.get_run(made).to_dictionary()
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32 if left_over == "of another store" else made)
    params = {"lr": "0.01", "samples": "None"}
    refused = pytest.raises(OptionError, match=f"MLFLOW_RUN_ID must be .*{why}")
    with refused, tracking.open_run(params=params):
        raise AssertionError("it was started")
    assert client.get_run(made).to_dictionary() == before
    assert mlflow.active_run() is None


@pytest.mark.parametrize(
    ("error", "status", "failure"),
    [
        (SystemExit(0), "FINISHED", None),
        (SystemExit(None), "FINISHED", None),
        (SystemExit(3), "FAILED", "exit with status 3"),
        (ValueError("no such level"), "FAILED", "ValueError: no such level"),
        (KeyboardInterrupt(), "KILLED", "interrupted by SIGINT"),
    ],
)
def test_the_end_of_a_run(error: BaseException, status: str, failure: str | None) -> None:
    with pytest.raises(type(error)), tracking.open_run() as run:
        run.metrics({"loss": 1.0})
        raise error
    found = read(run.run_id)
    assert found.info.status == status
    assert found.data.tags.get(names.TAG_FAILURE) == failure
    assert found.data.metrics["loss"] == 1.0


def nested() -> Exception:
    error = RuntimeError("the step failed")
    error.__cause__ = MemoryError()
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), True),
        (RuntimeError("INTERNAL: RESOURCE_EXHAUSTED: Out of memory"), True),
        # TensorFlow's, known by its name.
        (type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"), True),
        (nested(), True),
        (ValueError("memory"), False),
    ],
)
def test_a_run_that_memory_ran_out_for_says_so(error: Exception, told: bool) -> None:
    with pytest.raises(type(error)), tracking.open_run() as run:
        raise error
    assert (read(run.run_id).data.tags.get(names.TAG_OUT_OF_MEMORY) == "true") == told


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_while_a_run_is_being_started_ends_it_as_killed(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_run = mlflow.start_run

    def signalled(**arguments: object) -> mlflow.ActiveRun:
        if when == "before":
            os.kill(os.getpid(), signal.SIGTERM)
        run = start_run(**arguments)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        return run

    monkeypatch.setattr(mlflow, "start_run", signalled)
    name = f"signalled {when}"
    with pytest.raises(Interrupted, match="SIGTERM"), tracking.open_run(run_name=name):
        pytest.fail("the block must not begin")
    assert mlflow.active_run() is None
    (found,) = tracking.search_runs(None, f"attributes.run_name = '{name}'")
    assert found.info.status == "KILLED"
    assert found.data.tags[names.TAG_FAILURE] == "interrupted by SIGTERM"


def test_an_exception_in_the_place_of_a_signal_is_no_failure() -> None:
    with pytest.raises(Interrupted, match="SIGTERM"), tracking.open_run() as run:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted:
            raise RuntimeError("REPLACED BY Interrupted: SIGTERM") from None
    found = read(run.run_id)
    assert found.info.status == "KILLED"
    assert found.data.tags[names.TAG_FAILURE] == "interrupted by SIGTERM"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_as_killed_and_only_the_first_counts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=number.name), tracking.open_run() as run:
        try:
            os.kill(os.getpid(), number)
            for_ever()
        finally:
            os.kill(os.getpid(), number)
            run.metrics({"loss": 1.0})
    found = read(run.run_id)
    assert found.info.status == "KILLED"
    assert found.data.tags[names.TAG_FAILURE] == f"interrupted by {number.name}"
    assert found.data.metrics["loss"] == 1.0
    assert signal.getsignal(number) is before


def test_logging_does_not_wait_for_the_store(locked: threading.Event) -> None:
    with tracking.open_run() as run:
        locked.lock()  # type: ignore[attr-defined]
        # Without a queue the first call would wait for ever.
        for epoch in range(20):
            run.metrics({f"m{index}": 1.0 for index in range(20)}, step=epoch)
        assert not run.flush(patience_s=0.1)
        locked.set()
    assert len(MlflowClient().get_metric_history(run.run_id, "m0")) == 20


def test_a_signal_that_breaks_into_a_callback_is_not_lost() -> None:
    # From the callback of a weak reference nothing can be raised: Python says so and goes on.
    class Referent:
        pass

    referent = Referent()
    reference = weakref.ref(referent, lambda gone: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="SIGTERM"), tracking.open_run() as run:
        del referent
        assert reference() is None
        for_ever()
    assert read(run.run_id).info.status == "KILLED"


def test_a_signal_waits_for_the_end_of_a_call_to_a_sqlite_store() -> None:
    ended = []

    def call() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass  # a handler runs between two steps of the interpreter
        ended.append(True)

    with pytest.raises(Interrupted, match="SIGTERM"), tracking.open_run() as run:
        tracking.patiently(call)
    assert ended
    assert read(run.run_id).info.status == "KILLED"


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True], ids=["at once", "once one has begun"])
def test_processes_that_use_a_new_store_at_once_make_it_together(
    tmp_path: Path, begun: bool
) -> None:
    program = "from green_screen import tracking; print(tracking.ensure_experiment('together'))"
    database = tmp_path / "new" / "mlflow.db"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{database}",
    }
    processes = []
    for _ in range(3):
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program], env=environment, text=True, stdout=subprocess.PIPE
            )
        )
        if begun:
            until(lambda: database.exists() or processes[0].poll() is not None)
    ids = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(ids) == 1


def test_what_another_process_is_sending_is_waited_for(tmp_path: Path) -> None:
    run_id = tracking.create_child(None, "left", {}, tracking.ensure_experiment())
    descriptor = tracking.spool.open_spool(spool() / run_id)
    os.write(descriptor, json.dumps({"op": "tags", "tags": {"sent": "late"}}).encode() + b"\n")
    assert not tracking.deliver(run_id)
    with pytest.raises(StoreUnavailableError, match="another process has had the records"):
        tracking.deliver(run_id, wait_s=0.3)
    threading.Timer(1.0, os.close, (descriptor,)).start()
    assert tracking.deliver(run_id, wait_s=1e6)
    assert read(run_id).data.tags["sent"] == "late"


def test_a_refused_record_fails_the_run() -> None:
    with pytest.raises(RefusedError, match="bad"), tracking.open_run() as run:
        try:
            run.metrics({"bad\tname?": 1.0})
        finally:
            run.metrics({"loss": 1.0})
    found = read(run.run_id)
    assert found.info.status == "FAILED"
    assert "RefusedError" in found.data.tags[names.TAG_FAILURE]
    assert found.data.metrics == {"loss": 1.0}


_DIES = """
import os, signal, sys
import mlflow
from green_screen import tracking
mlflow.set_tracking_uri(sys.argv[1])
with tracking.open_run() as run:
    run.flush(1e6)
    print(run.run_id, flush=True)
    sys.stdin.readline()
    for epoch in range(5):
        run.metrics({"loss": 1.0 + epoch}, step=epoch)
    run.text("kept", "logs.csv")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_logged_is_delivered(locked: threading.Event) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _DIES, mlflow.get_tracking_uri()],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    # While it lives, its records are its own.
    assert not tracking.deliver(run_id)
    locked.lock()  # type: ignore[attr-defined]
    process.communicate("\n")
    assert process.returncode == -signal.SIGKILL
    locked.set()
    assert read(run_id).data.metrics == {}
    # A line that the crash cut off is no record.
    with (spool() / run_id / "records.jsonl").open("a") as records:
        records.write('{"op": "metr')

    assert tracking.deliver_all() == 1
    history = MlflowClient().get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(step, 1.0 + step) for step in range(5)]
    found = read(run_id)
    assert mlflow.artifacts.load_text(f"{found.info.artifact_uri}/logs.csv") == "kept"
    assert not list(spool().iterdir())
    assert tracking.deliver_all() == 0
    assert tracking.end_cut_off(run_id, "KILLED", "died").info.status == "KILLED"
    assert tracking.end_cut_off(run_id, "FAILED", "again").info.status == "KILLED"
    assert read(run_id).data.tags[names.TAG_FAILURE] == "died"


def test_records_that_the_store_refuses_are_kept_aside(caplog: pytest.LogCaptureFixture) -> None:
    run_id = MlflowClient().create_run(tracking.ensure_experiment()).info.run_id
    MlflowClient().delete_run(run_id)
    folder = spool() / run_id
    folder.mkdir(parents=True)
    records = [
        {"op": "store", "uri": mlflow.get_tracking_uri()},
        {"op": "tags", "tags": {"kind": "of a run that has been deleted"}},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "records.jsonl").write_text(lines)
    assert tracking.deliver_all() == 1
    assert "was refused" in caplog.text
    aside = spool() / f"refused-{run_id}"
    assert (aside / "records.jsonl").read_text() == lines
    assert tracking.deliver_all() == 0


def test_a_run_whose_records_are_refused_late_has_not_finished() -> None:
    run_id = MlflowClient().create_run(tracking.ensure_experiment()).info.run_id
    folder = spool() / run_id
    folder.mkdir(parents=True)
    records = [
        {"op": "store", "uri": mlflow.get_tracking_uri()},
        {"op": "metrics", "metrics": {"bad\tname?": 1.0}, "time_ms": 1, "step": 0},
        {"op": "metrics", "metrics": {"loss": 1.0}, "time_ms": 1, "step": 0},
        {"op": "end", "status": "FINISHED", "time_ms": 2},
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    tracking.deliver_all()
    found = read(run_id)
    assert found.info.status == "FAILED" and found.data.metrics == {"loss": 1.0}
    assert found.data.tags[names.TAG_FAILURE] == "the server refused 1 of its records"


def test_what_is_wrong_with_the_files_of_one_run_keeps_nothing_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = json.dumps({"op": "store", "uri": tracking.store_uri()}) + "\n"
    damaged, fine, stray = (
        MlflowClient().create_run(tracking.ensure_experiment()).info.run_id,
        MlflowClient().create_run(tracking.ensure_experiment()).info.run_id,
        "not a run's id",
    )
    tag = json.dumps({"op": "tags", "tags": {"sent": "yes"}}) + "\n"
    end = json.dumps({"op": "end", "status": "FINISHED", "time_ms": 1}) + "\n"
    contents = {
        damaged: f'{store}{chr(0) * 100}\n{{"op": "of a later version"}}\n{{"op": "tags"}}\n{tag}',
        fine: store + tag + end,
        stray: store + tag,
    }
    for name, content in contents.items():
        (spool() / name).mkdir(parents=True)
        (spool() / name / "records.jsonl").write_text(content)
    (spool() / f"refused-{damaged}").mkdir()
    MlflowClient().set_tag(fine, names.TAG_FAILURE, "its records wait on another host")

    assert tracking.deliver_all() == 2
    for run_id in (damaged, fine):
        assert read(run_id).data.tags["sent"] == "yes"
    assert caplog.text.count("was refused") == 3
    assert not (spool() / damaged).exists()
    assert len(list(spool().glob(f"refused-{damaged}*"))) == 2
    # What it had not finished for is past.
    assert read(fine).info.status == "FINISHED"
    assert names.TAG_FAILURE not in read(fine).data.tags


@pytest.mark.parametrize(
    ("status", "transient"), [(401, False), (403, False), (413, False), (429, True), (503, True)]
)
def test_an_answer_about_an_artifact_is_taken_at_its_word(status: int, transient: bool) -> None:
    answer = requests.Response()
    answer.status_code = status
    assert is_transient(requests.HTTPError(response=answer)) is transient
    assert is_transient(requests.HTTPError())


def test_records_of_a_run_that_the_store_does_not_have_stay_as_they_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    records = spool() / ("0" * 32) / "records.jsonl"
    records.parent.mkdir(parents=True)
    records.write_text(json.dumps({"op": "store", "uri": tracking.store_uri()}) + "\n")
    assert tracking.deliver_all() == 0
    assert records.exists()
    assert "has no run 000" in caplog.text


def test_the_address_of_a_store_is_the_same_in_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default store's is relative, and the files of undelivered records serve all folders."""
    (tmp_path / "other").mkdir()
    seen = []
    for folder in (tmp_path, tmp_path / "other"):
        monkeypatch.chdir(folder)
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        seen.append(tracking.store_uri())
        mlflow.set_tracking_uri(seen[-1])
        assert tracking.store_uri() == seen[-1]
    assert seen == [f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/other/mlflow.db"]
    for uri in ("http://127.0.0.1:5000", "postgresql://user@host/green", "sqlite://"):
        mlflow.set_tracking_uri(uri)
        assert tracking.store_uri() == uri


def test_the_copy_of_a_file_is_deleted_once_it_is_sent() -> None:
    with tracking.open_run() as run:
        for number in range(3):
            run.text(f"{number}", "runs_summary.csv")
        assert run.flush(patience_s=1e6)
        run.tags({"all": "sent"})
        assert run.flush(patience_s=1e6)
        assert not list((spool() / run.run_id / "files").iterdir())
    uri = read(run.run_id).info.artifact_uri
    assert mlflow.artifacts.load_text(f"{uri}/runs_summary.csv") == "2"


def test_a_data_set_that_is_new_to_all_runs_at_once_is_linked_to_each() -> None:
    # MLflow looks for the data set and adds it in two steps: who comes second is refused.
    experiment, n_runs, n_data_sets = tracking.ensure_experiment(), 4, 25
    run_ids = [tracking.create_child(None, "runs at once", {}, experiment) for _ in range(n_runs)]
    data_sets = [
        mlflow.data.from_numpy(np.full((2, 2), i), name=f"images {i}") for i in range(n_data_sets)
    ]
    together, errors = threading.Barrier(n_runs), []

    def link_all(run_id: str) -> None:
        logger = RunLogger(run_id)
        for data_set in data_sets:
            together.wait(60)
            try:
                tracking.patiently(functools.partial(logger.dataset, data_set, "training"))
            except MlflowException as error:
                errors.append(str(error))

    threads = [threading.Thread(target=link_all, args=(run_id,)) for run_id in run_ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for run_id in run_ids:
        linked = {entry.dataset.name for entry in read(run_id).inputs.dataset_inputs}
        assert linked == {f"images {i}" for i in range(n_data_sets)}


def test_sending_twice_changes_nothing() -> None:
    with tracking.open_run() as run:
        run.metrics({"loss": 1.0}, step=3)
    record = {"op": "metrics", "metrics": {"loss": 1.0}, "time_ms": 1, "step": 3}
    for _ in range(2):
        tracking.records.send(MlflowClient(), run.run_id, record, None)
    assert len(MlflowClient().get_metric_history(run.run_id, "loss")) == 2


def test_a_model_gets_the_figures_that_there_are_and_each_once() -> None:
    with tracking.open_run() as run:
        logged = mlflow.initialize_logged_model(name="network", source_run_id=run.run_id)
        link = tracking.ModelLink(
            model_id=logged.model_id, dataset_name="images", dataset_digest="1a2b"
        )
        figures = {"energy_j": 7.0, "power_w": math.nan, "test_loss": math.inf}
        run.metrics(figures, model=link)
        run.tags({"source": "an estimate"}, model=link)
    record = {"op": "metrics", "metrics": {"energy_j": 7.0}, "time_ms": 1, "step": 0}
    again = {**record, "model": vars(link)}
    for _ in range(2):  # as after an answer that was lost on its way
        tracking.records.send(MlflowClient(), run.run_id, again, None)
    found = mlflow.get_logged_model(logged.model_id)
    # The second time with the record's own time, and once for the two times it was sent.
    assert [(m.key, m.value) for m in found.metrics] == [("energy_j", 7.0)] * 2
    assert sorted(m.timestamp == 1 for m in found.metrics) == [False, True]
    assert {(m.dataset_name, m.dataset_digest) for m in found.metrics} == {("images", "1a2b")}
    assert found.tags["source"] == "an estimate"
    data = read(run.run_id).data
    assert math.isnan(data.metrics["power_w"])
    assert data.tags["source"] == "an estimate"
    assert len(MlflowClient().get_metric_history(run.run_id, "energy_j")) == 2


def test_without_a_place_for_the_spool_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path / "file"))
    with tracking.open_run() as run:
        run.metrics({"loss": 1.0})
        run.text("x", "logs.csv")
    found = read(run.run_id)
    assert found.data.metrics == {"loss": 1.0}
    assert mlflow.artifacts.load_text(f"{found.info.artifact_uri}/logs.csv") == "x"
    assert "kept in memory" in caplog.text


def test_without_an_outbox_errors_are_raised_at_once() -> None:
    run_id = MlflowClient().create_run(tracking.ensure_experiment()).info.run_id
    run = RunLogger(run_id)
    run.metrics({"loss": 1.0})
    assert read(run_id).data.metrics == {"loss": 1.0}
    with pytest.raises(mlflow.MlflowException):
        run.metrics({"bad\tname?": 1.0})


def test_patience_with_a_server_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREEN_SCREEN_PATIENCE_S", "0.5")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracking.use_store("http://127.0.0.1:9")
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:9' has not answered for 0\.5 s"):
        tracking.read_run("0" * 32)


def test_an_error_that_lasts_is_not_tried_again() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        mlflow.get_run("0" * 32)

    with pytest.raises(mlflow.MlflowException):
        tracking.patiently(call)
    assert len(calls) == 1


def test_children_of_a_run() -> None:
    with tracking.open_run() as parent:
        tags = {names.TAG_POSITION: 4}
        child = tracking.create_child(parent.run_id, "a child", tags, tracking.ensure_experiment())
    found = read(child)
    assert found.data.tags["mlflow.parentRunId"] == parent.run_id
    assert found.data.tags[names.TAG_POSITION] == "4"
    assert found.data.tags["mlflow.user"]
    assert found.info.status == "RUNNING"
    condition = f"tags.`mlflow.parentRunId` = '{parent.run_id}'"
    runs = tracking.search_runs(tracking.ensure_experiment(), condition)
    assert [run.info.run_id for run in runs] == [child]
