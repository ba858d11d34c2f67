"""Whether a store can be used: looked at without changing it, before anything is done with it.

MLflow makes and migrates the tables of a database as soon as it opens it, and says of one that it
cannot use only that a call has failed, as of one that is away.
"""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory
from mlflow.store.db.db_types import DATABASE_ENGINES
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from green_screen.options import OptionError

_SQLITE = "sqlite:///"
_HEAD = b"SQLite format 3\0"
_IN_MEMORY = ("", ":memory:")
_SETTINGS = {"timeout", "isolation_level", "check_same_thread", "detect_types", "cached_statements"}
# What SQLite's own errors say of a file that is only busy, full or away for the moment.
_FOR_NOW = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")
_VERSION_TABLE = "alembic_version"
# A server of a database says FATAL of what it refuses; of these it may think better later.
_LATER = ("starting up", "shutting down", "recovery mode", "too many", "connection slots")


def absolute(uri: str) -> str:
    """Return the address of a store in a form that means the same in every folder."""
    if not uri.startswith(_SQLITE) or uri.startswith(f"{_SQLITE}/"):
        return uri
    file = database_file(uri)
    if file is None:
        return uri
    _, mark, query = uri.partition("?")
    # No more than must be: MLflow makes a folder of the name as it is written here.
    path = str(file).replace("%", "%25").replace("?", "%3F")
    return f"{_SQLITE}{path}{mark}{query}"


def database_file(uri: str) -> Path | None:
    """Return the file of a SQLite store; ``None`` of any other, and of one in memory."""
    if not uri.startswith(_SQLITE):
        return None
    database = make_url(uri).database or ""
    if database in _IN_MEMORY or database.startswith("file:"):
        return None
    return Path(database).absolute()


def shown(uri: str) -> str:
    """Return an address without its password."""
    return make_url(uri).render_as_string() if _of_a_server(uri) else uri


def check(uri: str, *, to_write: bool) -> None:
    """Refuse a store that cannot be used.

    Args:
        uri: Its address. A server's store is the server's to look after.
        to_write: Whether runs are to be written, and tables made where there are none yet; else the
            store must be there.

    Raises:
        OptionError: It cannot be used, with what to do.
    """
    if uri.partition(":")[0].partition("+")[0] not in DATABASE_ENGINES:
        return
    try:
        file = database_file(uri)
    except ArgumentError as error:
        raise OptionError(f"MLFLOW_TRACKING_URI must be the address of a store: {error}") from error
    if file is not None:
        _check_path(uri, file)
        _require(not file.is_dir(), uri, "a file", "that is a folder")
        if to_write:
            _check_writable(uri, file)
        if not os.path.exists(file) or file.stat().st_size == 0:
            _require(to_write, uri, "a store that exists", f"there is none in {file}")
            return
        _require(os.access(file, os.R_OK), uri, "a store that can be read", f"{file} cannot be")
    elif not _of_a_server(uri):
        return  # in memory, or with a way of its own to open a file
    try:
        tables, revision = _content(uri, file)
    except DBAPIError as error:
        if may_pass(error):
            return  # whoever asks it next waits for it
        why = str(error.orig).strip().splitlines()[0]
        text = f"MLFLOW_TRACKING_URI must be a database that can be used, but got {shown(uri)!r}"
        raise OptionError(f"{text}: {why}") from error
    _check_content(uri, tables, revision, to_write=to_write)


def check_artifacts(uri: str) -> None:
    """Refuse a run whose artifacts have a local folder that cannot be written to.

    Raises:
        OptionError: It cannot be written to.
    """
    if urlsplit(uri).scheme not in ("", "file"):
        return
    folder = Path(local_file_uri_to_path(uri))  # type: ignore[no-untyped-call]
    nearest = _nearest(folder)
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise OptionError(
            f"the experiment must have its artifacts where they can be written, but {nearest} is "
            f"no folder that can be written to (they go to {folder}): choose an experiment with "
            "another place by MLFLOW_EXPERIMENT_NAME"
        )


def may_pass(error: BaseException) -> bool:
    """Whether a database that failed may answer later: it was busy, full or away."""
    if not isinstance(error, OperationalError | InterfaceError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorname", "").startswith(_FOR_NOW)
    said = str(error.orig)
    return "FATAL" not in said or any(words in said for words in _LATER)


def _of_a_server(uri: str) -> bool:
    kind = uri.partition(":")[0].partition("+")[0]
    return kind in DATABASE_ENGINES and kind != "sqlite"


def _require(condition: bool, uri: str, must: str, why: str) -> None:
    if not condition:
        raise OptionError(f"MLFLOW_TRACKING_URI must be {must}, but got {shown(uri)!r}: {why}")


def _check_path(uri: str, file: Path) -> None:
    """Refuse a path with a ``?`` or ``%`` of its own, by which another file would be meant."""
    written = uri.removeprefix(_SQLITE)
    path, mark, _ = written.partition("?")
    settings, parent = set(make_url(uri).query), Path(path).absolute().parent
    _require(
        (parent == file.parent or not parent.is_dir())
        and (not mark or (bool(settings) and settings <= _SETTINGS)),
        uri,
        f"{_SQLITE}{quote(written)} if that is the path (% and ? have a meaning in an address)",
        f"what it means is the file {file}",
    )


def _check_writable(uri: str, file: Path) -> None:
    nearest = _nearest(file.parent)
    _require(nearest.is_dir(), uri, "a file in a folder", f"{nearest} is none")
    for path in (nearest, *([file] if os.path.exists(file) else [])):
        can = os.access(path, os.W_OK)
        _require(can, uri, "a store that can be written to", f"{path} cannot be")


def _nearest(path: Path) -> Path:
    """Return a path, or that of the folders above it that is there."""
    return next(p for p in (path, *path.parents) if os.path.exists(p))


def _content(uri: str, file: Path | None) -> tuple[set[str], str]:
    """Return a database's tables and the revision of their schema, empty if it has none."""
    if file is not None:
        with file.open("rb") as opened:
            known = opened.read(len(_HEAD)) == _HEAD
        _require(known, uri, "a database", f"{file} is a file of another kind")
        engine = sqlalchemy.create_engine("sqlite://", creator=lambda: _read_only(file))
    else:
        try:
            engine = sqlalchemy.create_engine(uri)
        except (ImportError, ArgumentError) as error:  # the latter for a name it does not know
            text = f"MLFLOW_TRACKING_URI needs the driver of its database: {error}"
            raise OptionError(text) from error
    try:
        with engine.connect() as connection:
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            if _VERSION_TABLE not in tables:
                return tables, ""
            asked = sqlalchemy.text(f"SELECT version_num FROM {_VERSION_TABLE}")
            return tables - {_VERSION_TABLE}, str(connection.execute(asked).scalar() or "")
    finally:
        engine.dispose()


def _read_only(file: Path) -> sqlite3.Connection:
    # Not waited for: whoever has locked it may be this process.
    return sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=0.0)


def _check_content(uri: str, tables: set[str], revision: str, *, to_write: bool) -> None:
    """Refuse the tables of another program, and of another version of MLflow."""
    if not revision:
        # Tables that were not finished being made are finished by whoever may write.
        ours = not tables or "experiments" in tables
        _require(ours, uri, "a database of MLflow", f"it has {', '.join(sorted(tables)[:5])}")
        _require(to_write, uri, "a store that exists", "its tables have not been made")
        return
    newest, known = _revisions()
    if revision in known:
        older = f"back it up, then run `mlflow db upgrade {shown(uri)}`"
        advice = f"an older MLflow made its tables (schema {revision}): {older}"
    else:
        advice = f"a newer MLflow made its tables (schema {revision}): install that one"
    must = f"a database of the installed MLflow {mlflow.__version__}"
    _require(revision == newest, uri, must, f"{advice}, or choose another store")


@cache
def _revisions() -> tuple[str, frozenset[str]]:
    """Return the newest revision of the schema, and all that the installed MLflow knows."""
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return str(scripts.get_current_head()), known
