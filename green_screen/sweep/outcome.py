"""What became of a job whose process is gone."""

from __future__ import annotations

import logging
import signal
import socket
from pathlib import Path

from green_screen import names, tracking
from green_screen.sweep.executor import Job, Outcome

logger = logging.getLogger(__name__)

_OUTPUT_TAIL_BYTES = 200_000

_CRASHES = {
    signal.SIGSEGV,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
}


def exit_outcome(status: int) -> tuple[Outcome, str]:
    """Return outcome and reason of a process that said nothing, from its exit status.

    Args:
        status: As :attr:`multiprocessing.Process.exitcode`: negative for a signal.
    """
    if status >= 0:
        return Outcome.FAILED, f"the process ended with status {status} and said nothing"
    number = signal.Signals(-status)
    if number in _CRASHES:
        return Outcome.FAILED, f"native crash: {number.name}"
    hint = " (the kernel does that when memory runs out)" if number is signal.SIGKILL else ""
    return Outcome.KILLED, f"killed by {number.name}{hint}"


def delivered(
    job: Job, outcome: Outcome, reason: str, patience: float | None
) -> tuple[Outcome, str]:
    """Send what the process could not, and return what has become of the job by that.

    A run whose result is not on the server has no result yet.

    Args:
        job: What was run.
        outcome: How its process ended.
        reason: Why, if it did not finish.
        patience: Seconds to wait for a server that is away; ``None`` is the usual patience.
    """
    try:
        tracking.use_store(job.tracking_uri)
        tracking.deliver(job.run_id, patience)
    except tracking.StoreUnavailableError as error:
        folder = tracking.spool_root() / job.run_id
        where = f"its records wait in {folder} on {socket.gethostname()}, and resume sends them"
        return Outcome.KILLED, f"{error}; {where}"
    return outcome, reason


def keep_output(job: Job, output: Path) -> None:
    """Put the end of what a process printed beside its run: libraries that abort explain there."""
    if not output.exists():
        return
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - _OUTPUT_TAIL_BYTES))
        tail = file.read().decode(errors="replace")
    try:
        tracking.use_store(job.tracking_uri)
        tracking.RunLogger(job.run_id).text(tail, names.OUTPUT_TXT)
    except Exception as error:
        logger.warning("the output of run %s could not be kept: %s", job.run_id, error)
