"""What the process of one job does: wait for a cool board, train, end the run with its status."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

from green_screen import names, tracking
from green_screen.executors.cooldown import cool_down
from green_screen.executors.executor import Job, Outcome
from green_screen.options import TrainOptions
from green_screen.output import lasting_output
from green_screen.space import TrainingConfig
from green_screen.tracking import MAX_TAG_LENGTH, RunLogger

Trainer = Callable[[TrainingConfig, TrainOptions, RunLogger], None]

# What a process sends when its board is cool and its time begins to count.
COOLED = b"cooled"

# A process whose parent is gone has so long to end its run itself before it is made to.
_ORPHAN_GRACE_S = 15.0
_ORPHAN_POLL_S = 1.0


def load_trainer(path: str) -> Trainer:
    """Return the function that ``module:function`` names."""
    module, _, function = path.partition(":")
    trainer: Trainer = getattr(importlib.import_module(module), function)
    return trainer


def run_job(job: Job, cooled: Callable[[], None] = lambda: None) -> None:
    """Do a job in this process and log to its run, which ends with the job.

    Args:
        job: What to do.
        cooled: Called when the wait for a cool board is over.

    Raises:
        Exception: What the training raised, after the run has ended as FAILED.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the run has ended as KILLED.
    """
    tracking.use_store(job.tracking_uri)
    with tracking.open_run(run_id=job.run_id) as run:
        if job.shared_host:
            run.tags({names.TAG_SHARED_HOST: "true"})
        if job.cooldown is not None:
            cool_down(job.cooldown, run)
            cooled()
        load_trainer(job.trainer)(job.config, job.options, run)


def child_main(
    job: Job,
    device: str | None,
    environment: dict[str, str],
    output: str,
    connection: Connection,
) -> None:
    """Do a job as the main function of a process and tell its parent how it goes.

    What is sent is :data:`COOLED` when the wait for a cool board is over, and at the end the
    outcome and its reason as JSON.

    Args:
        job: What to do.
        device: UUID of the GPU that this process may use; ``None`` leaves the choice to CUDA.
        environment: The parent's variables; a forkserver's are those of its own start.
        output: File that takes what the process and its libraries print.
        connection: Where it is sent.
    """
    # TensorFlow is imported already, but it asks CUDA for devices with its first operation.
    os.environ.clear()
    os.environ.update(environment)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    _redirect(Path(output))
    threading.Thread(target=_end_with_parent, args=(job,), daemon=True).start()
    outcome, reason = Outcome.FINISHED, ""

    def cooled() -> None:
        with contextlib.suppress(BrokenPipeError):  # a parent that is gone is the thread's concern
            connection.send_bytes(COOLED)

    try:
        with lasting_output():
            run_job(job, cooled)
    except (tracking.Interrupted, KeyboardInterrupt) as error:
        outcome, reason = Outcome.KILLED, f"interrupted by {str(error) or 'SIGINT'}"
    except SystemExit as error:
        if error.code not in (None, 0):
            outcome, reason = Outcome.FAILED, f"exit with status {error.code}"
    except BaseException as error:
        outcome, reason = Outcome.FAILED, f"{type(error).__name__}: {error}"
        sys.excepthook(type(error), error, error.__traceback__)
    # Cut as the tag will be: an error's text may hold a whole tensor.
    connection.send_bytes(json.dumps([outcome.value, reason[:MAX_TAG_LENGTH]]).encode())
    connection.close()


def _redirect(output: Path) -> None:
    """Send this process's standard output and error to a file, native libraries' included."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def _end_with_parent(job: Job) -> None:
    """End this process when the campaign's process, or the one that forks for it, is gone."""
    campaign, forker = parent_process(), os.getppid()
    assert campaign is not None
    while os.getppid() == forker:
        if wait([campaign.sentinel], timeout=_ORPHAN_POLL_S):
            break
    os.kill(os.getpid(), signal.SIGTERM)
    # The main thread ends the run and this thread with it, unless it is stuck in native code.
    time.sleep(_ORPHAN_GRACE_S)
    try:
        reason, patience = "the campaign's process was gone", tracking.INTERRUPTED_PATIENCE_S
        tracking.end_cut_off(job.run_id, "KILLED", reason, patience)
    finally:
        os._exit(128 + signal.SIGTERM)
