"""The tracking server: which one, how long to wait for it, and the runs on it."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

# A call gives up on a server that cannot be reached in about 7 s, and in two minutes on one that
# takes the request and is silent; the loops here try again for as long as patience_s() says. With
# MLflow's own defaults, 120 s an answer and pauses that double, a call sleeps through a recovery.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

import mlflow
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    REQUEST_LIMIT_EXCEEDED,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
    ErrorCode,
)
from mlflow.tracking import MlflowClient
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import DBAPIError

from green_screen import names
from green_screen.locks import alone
from green_screen.tracking import usable
from green_screen.tracking.interrupts import held

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_TAG_LENGTH = 5000
UNDER_WAY = ("RUNNING", "SCHEDULED")
# Most runs that MLflow returns at once.
_PAGE = 50_000
RETRY_PAUSE_S = 1.0

# Internal errors count: a connection that fails and a server that is starting up end as these.
_TRANSIENT = {
    ErrorCode.Name(code)
    for code in (
        DEADLINE_EXCEEDED,
        INTERNAL_ERROR,
        REQUEST_LIMIT_EXCEEDED,
        TEMPORARILY_UNAVAILABLE,
    )
}
_SQLITE = "sqlite:///"
_LATER = (408, 429)  # request timeout, too many requests
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


class StoreUnavailableError(RuntimeError):
    """The tracking server did not answer for as long as we were willing to wait."""


def patience_s() -> float:
    """Return how long to wait for a tracking server that is down: 300 s, or what is set.

    ``GREEN_SCREEN_PATIENCE_S`` sets it.
    """
    return float(os.environ.get("GREEN_SCREEN_PATIENCE_S", "300"))


def is_transient(error: Exception) -> bool:
    """Whether a call that failed may succeed later: the server was away, or its database locked."""
    database = error.__cause__ if isinstance(error, MlflowException) else error
    if isinstance(database, DBAPIError):
        return usable.may_pass(database)
    if isinstance(error, MlflowException):
        return error.error_code in _TRANSIENT
    # The answer to the transfer of an artifact, an OSError too: only some say "later".
    answer = getattr(error, "response", None)
    if answer is not None:
        return answer.status_code >= 500 or answer.status_code in _LATER
    # Those of a connection are OSErrors, and so is a full disk of a local store.
    return isinstance(error, OSError) and not isinstance(error, _PERMANENT)


def is_absent(error: MlflowException) -> bool:
    """Whether a call failed because what it asks for is not there."""
    return bool(error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST))


def patiently(call: Callable[[], T], patience: float | None = None) -> T:
    """Return what `call` returns, calling again while the tracking server is away.

    Args:
        call: A call to the server that may be made twice.
        patience: Seconds to go on for; ``None`` is :func:`patience_s`.

    Raises:
        StoreUnavailableError: It stayed away for so long.
        Exception: What `call` raises for any other reason.
    """
    patience = patience_s() if patience is None else patience
    until = time.monotonic() + patience
    while True:
        try:
            # A query that a signal breaks off would keep a file of SQLite's locked for as long as
            # the exception is on its way: nothing could be written of how the run ended.
            with held() if store_uri().startswith(_SQLITE) else contextlib.nullcontext():
                return call()
        except Exception as error:
            if not is_transient(error):
                raise
            if time.monotonic() >= until:
                raise StoreUnavailableError(
                    f"the tracking server {usable.shown(store_uri())!r} has not answered for "
                    f"{patience:g} s: {error}"
                ) from error
        time.sleep(RETRY_PAUSE_S)


def in_spite_of_others(call: Callable[[], T]) -> T:
    """Return what `call` returns, made again if the database has refused it.

    MLflow looks whether a row is there and adds it in two steps. If another process came between,
    the database refuses the second one; now it is found.
    """
    try:
        return call()
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(BAD_REQUEST):
            raise
        return call()


def use_store(tracking_uri: str) -> None:
    """Let this process log to the store at `tracking_uri`."""
    mlflow.set_tracking_uri(tracking_uri)


def store_uri() -> str:
    """Return where this process logs to, in a form that means the same in every folder."""
    return usable.absolute(str(mlflow.get_tracking_uri()))


def check_store(*, to_write: bool = False) -> None:
    """Refuse a store that cannot be used; have the tables of a new one made if it is written to.

    Where it is only read, it stays as it is. The tables of a SQLite store are made by one process
    at a time: MLflow makes and migrates them without a lock, and of two processes that are the
    first to use a file at least one fails, and both together can leave a file that no process can
    use any more.

    Raises:
        OptionError: See :func:`green_screen.tracking.usable.check`.
    """
    _check_store(store_uri(), to_write)


@functools.cache
def _check_store(uri: str, to_write: bool) -> None:
    file = usable.database_file(uri)
    if file is None or not file.parent.is_dir():
        usable.check(uri, to_write=to_write)
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)  # as MLflow does
    # That it makes the tables of a new file is no news to a person, and breaks into the progress.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    # Not the file itself: to close a descriptor of it would end SQLite's own locks. What is looked
    # at while another process makes its tables would be taken for an older version's.
    with alone(file.parent):
        usable.check(uri, to_write=to_write)
        if to_write:
            patiently(lambda: MlflowClient(uri))  # which a signal must not break off half made


def ensure_experiment(name: str = names.EXPERIMENT) -> str:
    """Return the id of the experiment `name`, made if it is missing.

    One that the caller chose wins: ``MLFLOW_EXPERIMENT_ID``, which is set inside ``mlflow run`` and
    by ``mlflow.set_experiment``, or ``MLFLOW_EXPERIMENT_NAME``.

    Raises:
        MlflowException: The experiment has been deleted.
    """
    check_store(to_write=True)
    chosen_id = os.environ.get("MLFLOW_EXPERIMENT_ID")
    chosen_name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
    return chosen_id or patiently(lambda: _experiment_id(chosen_name))


def _experiment_id(name: str) -> str:
    # Not by mlflow.set_experiment: it leaves the id in the environment, where it would pass for the
    # choice of `mlflow run` and name an experiment of another store once the store is changed.
    client = MlflowClient()
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            # Another process was faster.
            experiment = client.get_experiment_by_name(name)
            assert experiment is not None
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise MlflowException(
            f"experiment {name!r} of {mlflow.get_tracking_uri()!r} has been deleted: restore it "
            f"(mlflow experiments restore --experiment-id {experiment.experiment_id}) or choose "
            "another by MLFLOW_EXPERIMENT_NAME",
            error_code=INVALID_PARAMETER_VALUE,
        )
    return str(experiment.experiment_id)


@functools.cache
def _context_tags() -> dict[str, str]:
    """Return what MLflow tags a run with by itself: user, source, commit."""
    return dict(resolve_tags())


def create_child(
    parent_run_id: str | None, run_name: str, tags: Mapping[str, object], experiment_id: str
) -> str:
    """Create a run without making it active and return its id."""
    all_tags = _context_tags() | {k: str(value)[:MAX_TAG_LENGTH] for k, value in tags.items()}
    if parent_run_id:
        all_tags[MLFLOW_PARENT_RUN_ID] = parent_run_id
    client = MlflowClient()
    run = patiently(lambda: client.create_run(experiment_id, tags=all_tags, run_name=run_name))
    return str(run.info.run_id)


def reopen(run_id: str, tags: Mapping[str, object]) -> None:
    """Set a run that has finished to be under way again, with tags for what is to come."""
    client = MlflowClient()
    for key, value in tags.items():
        patiently(functools.partial(client.set_tag, run_id, key, str(value)[:MAX_TAG_LENGTH]))
    patiently(lambda: client.update_run(run_id, status="RUNNING"))


def read_run(run_id: str, patience: float | None = None) -> Run:
    """Return a run with its latest metrics, parameters and tags."""
    check_store()
    return patiently(lambda: MlflowClient().get_run(run_id), patience)


def metric_values(run_id: str, metric: str, patience: float | None = None) -> list[float]:
    """Return a metric's values by step, the last one logged of each; none if it never was.

    Args:
        run_id: The run.
        metric: Its metric.
        patience: Seconds to wait for a server that is away; ``None`` is :func:`patience_s`.
    """
    history = patiently(lambda: MlflowClient().get_metric_history(run_id, metric), patience)
    latest = {point.step: float(point.value) for point in history}
    return [latest[step] for step in sorted(latest)]


def search_runs(
    experiment_id: str | None,
    condition: str,
    limit: int | None = None,
    patience: float | None = None,
) -> list[Run]:
    """Return the runs that meet a condition, the latest first.

    Args:
        experiment_id: The experiment to look in; ``None`` is every one that is not deleted.
        condition: MLflow's filter.
        limit: Most runs to return; ``None`` is all.
        patience: Seconds to wait for a server that is away; ``None`` is :func:`patience_s`.
    """
    check_store()
    client = MlflowClient()
    experiment_ids = _all_experiments(patience) if experiment_id is None else [experiment_id]
    found: list[Run] = []
    token: str | None = None
    while True:
        page = patiently(
            functools.partial(
                client.search_runs,
                experiment_ids,
                condition,
                max_results=min(limit or _PAGE, _PAGE),
                order_by=["attributes.start_time DESC"],
                page_token=token,
            ),
            patience,
        )
        found.extend(page)
        token = page.token
        if not token or (limit and len(found) >= limit):
            return found


def _all_experiments(patience: float | None) -> list[str]:
    """Return the ids of all experiments that are not deleted."""
    experiments = patiently(mlflow.search_experiments, patience)
    return [str(experiment.experiment_id) for experiment in experiments]


def end_left_behind(run_id: str, reason: str, patience: float) -> None:
    """End as KILLED a run whose process is gone, if this store has it and answers."""
    try:
        end_cut_off(run_id, "KILLED", reason, patience)
    except StoreUnavailableError as error:
        logger.warning("run %s may be left RUNNING: %s", run_id, error)
    except MlflowException as error:
        if not is_absent(error):
            raise


def end_cut_off(run_id: str, status: str, reason: str, patience: float | None = None) -> Run:
    """End a run that could not end itself, and say why; one that has ended stays as it is.

    Args:
        run_id: The run.
        status: ``FAILED`` or ``KILLED``.
        reason: What becomes the tag ``failure``.
        patience: Seconds to wait for a server that is away; ``None`` is :func:`patience_s`.

    Returns:
        The run as it is afterwards.
    """
    client = MlflowClient()
    run = read_run(run_id, patience)
    if run.info.status in UNDER_WAY:
        text = reason[:MAX_TAG_LENGTH]
        patiently(lambda: client.set_tag(run_id, names.TAG_FAILURE, text), patience)
        patiently(lambda: client.set_terminated(run_id, status), patience)
        run = read_run(run_id, patience)
    return run
