"""The life of a run: start or go on, and end with the right status, whatever happens."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import mlflow
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from green_screen import names
from green_screen.options import OptionError, require
from green_screen.tracking import usable
from green_screen.tracking.interrupts import Interrupted, interruptible
from green_screen.tracking.outbox import Outbox, RefusedError
from green_screen.tracking.records import Record
from green_screen.tracking.run_logger import RunLogger
from green_screen.tracking.store import (
    MAX_TAG_LENGTH,
    UNDER_WAY,
    StoreUnavailableError,
    ensure_experiment,
    is_absent,
    is_transient,
    patience_s,
    patiently,
    read_run,
    store_uri,
)

logger = logging.getLogger(__name__)

# A process that was told to end waits no longer than this for a server that is down; what could not
# be sent stays in the outbox's file.
INTERRUPTED_PATIENCE_S = 8.0


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that memory ran out."""
    cause: BaseException | None = error
    while cause is not None:
        # TensorFlow's ResourceExhaustedError, told by name: a parent of runs must not import it.
        # XLA and the CUDA libraries put the same status into the text of other errors.
        if isinstance(cause, MemoryError) or type(cause).__name__ == "ResourceExhaustedError":
            return True
        if "RESOURCE_EXHAUSTED" in str(cause) or "CUDA_ERROR_OUT_OF_MEMORY" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def given_run(params: Mapping[str, str]) -> str | None:
    """Return the run that ``mlflow run`` has made for this process; it is given once.

    ``MLFLOW_RUN_ID`` names it. In a shell it may be left over from another run.

    Args:
        params: What this process does: those of them that the run has must be the same.

    Raises:
        OptionError: The run is not there, has ended, or holds other parameters.
    """
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    if run_id is None:
        return None
    try:
        run = read_run(run_id)
    except MlflowException as error:
        if not is_absent(error):
            raise
        raise OptionError(
            f"MLFLOW_RUN_ID must be a run in {store_uri()}, but got {run_id!r}: unset it, or give "
            "MLFLOW_TRACKING_URI as it was given to `mlflow run`, with the whole path of a file"
        ) from error
    status = run.info.status if run.info.lifecycle_stage == LifecycleStage.ACTIVE else "deleted"
    require(
        status in UNDER_WAY,
        "MLFLOW_RUN_ID",
        run_id,
        f"a run that is under way (this one is {status}: unset it)",
    )
    for name, value in run.data.params.items():
        require(
            _same(value, params.get(name, value)),
            "MLFLOW_RUN_ID",
            run_id,
            f"a run of what is asked for (this one has {name}={value}, and {params.get(name)} is "
            "asked for: unset it)",
        )
    return run_id


def _same(one: str, other: str) -> bool:
    """Whether two spellings mean the same, as those of ``mlflow run`` and of this project do."""
    empty = ("", "None")
    with contextlib.suppress(ValueError):
        return float(one) == float(other)
    return one.lower() == other.lower() or (one in empty and other in empty)


@contextmanager
def open_run(
    run_id: str | None = None,
    run_name: str | None = None,
    tags: Mapping[str, object] | None = None,
    experiment: str = names.EXPERIMENT,
    params: Mapping[str, str] | None = None,
) -> Iterator[RunLogger]:
    """Start a run, or go on with `run_id` or with the run that ``mlflow run`` made.

    Args:
        run_id: The run to go on with; else that of :func:`given_run`, or a new one.
        run_name: The name of a new one.
        tags: Set at once.
        experiment: Where a new one is.
        params: Logged at once; see :func:`given_run`.

    What the block logs is sent in the background and has arrived when the block has ended, unless
    the server stayed away; then it waits in a local file and the campaign's resume sends it.

    The run ends FINISHED, also on ``sys.exit(0)``; KILLED on SIGINT, SIGTERM or SIGHUP (which
    ``nohup`` keeps away); FAILED on any other exception, whose text becomes the tag ``failure``,
    beside the tag ``out_of_memory`` where that is what it says. The exception goes on.

    Raises:
        OptionError: As :func:`given_run`, and nothing has been started; or the store or its place
            for artifacts cannot be used.
    """
    run_id = run_id or given_run(params or {})
    experiment_id = None if run_id else ensure_experiment(experiment)
    with interruptible() as signals:

        def start() -> tuple[RunLogger, Outbox, str]:
            # A run that exists and is not known here yet could not be ended.
            signals.hold()
            try:
                run = mlflow.start_run(
                    run_id=run_id, experiment_id=experiment_id, run_name=run_name
                )
            except Exception:
                signals.release()
                raise
            outbox = Outbox(run.info.run_id, MlflowClient())
            logger = RunLogger(outbox.run_id, outbox=outbox, opened_with=dict(run.data.tags))
            return logger, outbox, str(run.info.artifact_uri)

        run_logger, outbox, artifacts = patiently(start)
        status, patience = "FINISHED", patience_s()
        why: dict[str, str] = {}
        try:
            signals.release()
            usable.check_artifacts(artifacts)
            if tags:
                run_logger.tags(tags)
            if params:
                run_logger.params(params)
            with signals.kept():
                yield run_logger
        except (Interrupted, KeyboardInterrupt) as error:
            status, patience = "KILLED", INTERRUPTED_PATIENCE_S
            why = _failure(f"interrupted by {str(error) or 'SIGINT'}")
            raise
        except SystemExit as error:
            if error.code not in (None, 0):
                status, why = "FAILED", _failure(f"exit with status {error.code}")
            raise
        except BaseException as error:
            status, why = "FAILED", _failure(f"{type(error).__name__}: {error}")
            if _out_of_memory(error):
                why[names.TAG_OUT_OF_MEMORY] = "true"
            if isinstance(error, StoreUnavailableError):
                patience = INTERRUPTED_PATIENCE_S  # it has been waited for
            raise
        finally:
            _finish(outbox, status, why, patience)
        run_logger.finished()


def _failure(text: str) -> dict[str, str]:
    return {names.TAG_FAILURE: text[:MAX_TAG_LENGTH]}


def _finish(outbox: Outbox, status: str, why: dict[str, str], patience: float) -> None:
    """Send the rest, the tags that say why the run ended so, and the run's end.

    Raises:
        RefusedError: The server refused a record of a run that was fine otherwise.
    """
    refused = None
    try:
        if not outbox.flush(patience):
            patience = 0.0
    except Interrupted:
        patience = INTERRUPTED_PATIENCE_S  # the work is done: only its delivery is cut short
    except RefusedError as error:
        if status == "FINISHED":  # otherwise another exception is on its way
            refused = error
            status, why = "FAILED", _failure(f"{type(error).__name__}: {error}")
    last: list[Record] = [{"op": "tags", "tags": why}] if why else []
    last.append({"op": "end", "status": status, "time_ms": int(time.time() * 1000)})
    with contextlib.suppress(RefusedError):  # the outbox has logged it, and the run is over
        for record in last:
            outbox.put(record)
        outbox.flush(patience)
    with _impatient(active=not outbox.close()):
        try:
            # Sets the status a second time: there is no other public way to leave the active run.
            mlflow.end_run(status)
        except (MlflowException, OSError) as error:
            if not is_transient(error):
                raise
            logger.debug("the end of the run waits in its file: %s", error)
    if refused is not None:
        raise refused


@contextmanager
def _impatient(*, active: bool) -> Iterator[None]:
    """Let MLflow give up at once on a server that is known to be away."""
    if not active:
        yield
        return
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}
    before = {key: os.environ[key] for key in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.update(before)
