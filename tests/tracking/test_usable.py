"""Stores that cannot be used, made by MLflow itself where they are MLflow's."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
import sqlalchemy
from alembic import command
from click.testing import CliRunner
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base as FirstTables
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import path_to_local_sqlite_uri

from entrypoints import analyze, predict, promote, status, sweep
from green_screen import names, tracking
from green_screen.command.export import export
from green_screen.options import OptionError
from green_screen.tracking.store import is_transient
from green_screen.tracking.usable import shown

ROOT = Path(__file__).resolve().parents[2]
OLDER = "0584bdc529eb"  # the schema of MLflow 2.15


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path / "spool"))
    before = mlflow.get_tracking_uri()
    yield tmp_path
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def older_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("older") / "mlflow.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    FirstTables.metadata.create_all(engine)
    config = _get_alembic_config(str(engine.url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, OLDER)
    engine.dispose()
    return file


def use(file: Path | str) -> str:
    uri = str(file) if "://" in str(file) else f"sqlite:///{file}"
    tracking.use_store(uri)
    return uri


def of_another_kind(file: Path, *_: Path) -> None:
    file.write_text("run,energy_j\n1,2.0\n" * 20)


def of_another_program(file: Path, *_: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


def of_an_older_mlflow(file: Path, _: Path, older: Path) -> None:
    shutil.copy(older, file)


def of_a_newer_mlflow(file: Path, current: Path, _: Path) -> None:
    shutil.copy(current, file)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'f00d'")
        connection.commit()


UNUSABLE = [
    (of_another_kind, "must be a database, but got .* is a file of another kind"),
    (of_another_program, "must be a database of MLflow, but got .* it has recipes"),
    (of_an_older_mlflow, "an older MLflow made its tables.*`mlflow db upgrade sqlite:///"),
    (of_a_newer_mlflow, "a newer MLflow made its tables .schema f00d.: install that one"),
]


@pytest.mark.parametrize(("made", "why"), UNUSABLE, ids=lambda v: getattr(v, "__name__", ""))
def test_a_file_that_cannot_be_used_is_refused_and_stays_as_it_is(
    folder: Path,
    migrated_database: Path,
    older_database: Path,
    made: Callable[..., None],
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made(folder / "mlflow.db", migrated_database, older_database)
    use(folder / "mlflow.db")
    before = (folder / "mlflow.db").read_bytes()
    with pytest.raises(OptionError, match=why), tracking.open_run():
        raise AssertionError("it was started")
    for main in (status.main, analyze.main, predict.main, promote.main, sweep.main):
        assert main([]) == 2
        assert "MLFLOW_TRACKING_URI must be" in capsys.readouterr().err
    assert (folder / "mlflow.db").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("empty", [True, False])
def test_looking_makes_no_store(
    folder: Path, empty: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if empty:
        (folder / "mlflow.db").touch()
    use(folder / "mlflow.db")
    for main in (status.main, analyze.main, predict.main, promote.main):
        assert main([]) == 2
        assert "must be a store that exists" in capsys.readouterr().err
    for what in ("0" * 32, "models:/green-screen-resnet50/1"):
        exported = CliRunner().invoke(export, [what, "--format", "boamps"])
        assert exported.exit_code == 2
        assert "must be a store that exists" in exported.output
    assert [path.stat().st_size for path in folder.iterdir()] == ([0] if empty else [])


def test_looking_changes_nothing(folder: Path, migrated_database: Path) -> None:
    shutil.copy(migrated_database, folder / "mlflow.db")
    use(folder / "mlflow.db")
    with tracking.open_run(tags={names.TAG_KIND: names.KIND_SWEEP, names.TAG_RUNS_PLANNED: 1}):
        pass
    before = (folder / "mlflow.db").read_bytes()
    assert status.main([]) == 0
    assert analyze.main([]) == 1  # it has no runs
    assert (folder / "mlflow.db").read_bytes() == before


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("sqlite:///{folder}/in?side/mlflow.db", "sqlite:///{folder}/in%3Fside/mlflow.db if that"),
        ("sqlite:///{folder}/in%20side/mlflow.db", "in%2520side/mlflow.db if that is"),
        ("sqlite:///{folder}/ml?flow.db", "sqlite:///{folder}/ml%3Fflow.db if that is the path"),
        ("sqlite:///{folder}/plain", "must be a file, but got .* that is a folder"),
        ("sqlite:///{folder}/file/mlflow.db", "a file in a folder, but got .*/file is none"),
        ("sqlite:///{folder}/mlflow.db?colour=red", "what it means is the file"),
        ("mysql+nodriver://user:secret@127.0.0.1/x", "must be|needs the driver|plugin"),
    ],
)
def test_an_address_that_means_no_store_is_refused_and_nothing_is_made(
    folder: Path, uri: str, why: str
) -> None:
    for name in ("in?side", "in%20side", "plain"):
        (folder / name).mkdir()
    (folder / "file").touch()
    before = sorted(folder.rglob("*"))
    use(uri.format(folder=folder))
    with pytest.raises(OptionError, match=why.format(folder=folder)) as refused:
        tracking.ensure_experiment()
    assert "secret" not in str(refused.value)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("form", ["relative", "MLflow's default"])
def test_a_folder_with_odd_characters_has_its_store_in_it(
    folder: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    odd = folder / "a b%20c?d#e"
    odd.mkdir()
    shutil.copy(migrated_database, odd / "mlflow.db")
    monkeypatch.chdir(odd)
    default = path_to_local_sqlite_uri(str(odd / "mlflow.db"))
    use("sqlite:///mlflow.db" if form == "relative" else default)
    tracking.ensure_experiment("here")
    there = tracking.store_uri()
    assert list(folder.rglob("mlflow.db")) == [odd / "mlflow.db"]
    monkeypatch.chdir(folder)
    use(there)  # as a child of a campaign is told it
    assert MlflowClient().get_experiment_by_name("here") is not None


_ACT = """
import sys
import mlflow
from green_screen import tracking
from green_screen.options import OptionError
tracking.use_store(sys.argv[1])
print(len(tracking.search_runs(None, "")))
try:
    with tracking.open_run() as run:
        print("started")
except OptionError as error:
    print(error)
"""


def without_privileges(uri: str) -> list[str]:
    """Return what a process says that file permissions hold for, as they do not for root."""
    confined = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    done = subprocess.run(
        [*(confined if os.geteuid() == 0 else []), sys.executable, "-c", _ACT, uri],
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may write anywhere"
)
def test_a_store_that_may_only_be_read_is_read_and_not_written_to(
    folder: Path, migrated_database: Path
) -> None:
    inside = folder / "read-only"
    inside.mkdir()
    shutil.copy(migrated_database, inside / "mlflow.db")
    (inside / "mlflow.db").chmod(0o444)
    inside.chmod(0o555)
    try:
        found, said = without_privileges(f"sqlite:///{inside}/mlflow.db")
    finally:
        inside.chmod(0o755)
    assert found == "0"
    assert "must be a store that can be written to, but got" in said


def test_artifacts_that_could_not_be_kept_are_refused_before_a_training(
    folder: Path, migrated_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(migrated_database, folder / "mlflow.db")
    use(folder / "mlflow.db")
    (folder / "file").touch()
    client = MlflowClient()
    client.create_experiment(names.EXPERIMENT, artifact_location=f"file://{folder}/file/artifacts")
    with (
        pytest.raises(OptionError, match="artifacts where they can be written"),
        tracking.open_run(),
    ):
        raise AssertionError("it was started")
    (run,) = tracking.search_runs(tracking.ensure_experiment(), "")
    assert run.info.status == "FAILED"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    client.create_experiment("another", artifact_location="mlflow-artifacts:/7")
    with tracking.open_run():
        pass


def database_error(uri: str, statement: str, settings: dict[str, int] | None = None) -> Exception:
    engine = sqlalchemy.create_engine(uri, connect_args=settings or {"timeout": 0})
    with pytest.raises(sqlalchemy.exc.DBAPIError) as raised, engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement))
    engine.dispose()
    error = mlflow.MlflowException(raised.value)  # as MLflow says it
    error.__cause__ = raised.value
    return error


def test_what_can_never_succeed_is_not_tried_again(folder: Path, migrated_database: Path) -> None:
    file = shutil.copy(migrated_database, folder / "mlflow.db")
    read_only = f"sqlite:///file:{file}?mode=ro&uri=true"
    assert not is_transient(database_error(read_only, "DELETE FROM runs"))
    assert not is_transient(database_error(f"sqlite:///{file}", "SELECT * FROM runes"))
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert is_transient(database_error(f"sqlite:///{file}", "DELETE FROM runs"))


def test_a_database_server_that_is_away_is_waited_for_and_its_password_kept() -> None:
    uri = "postgresql+psycopg2://user:secret@127.0.0.1:9/green"
    assert is_transient(database_error(uri, "SELECT 1", {"connect_timeout": 5}))
    assert "secret" not in shown(uri)
