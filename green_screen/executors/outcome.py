"""What became of a job whose process is gone."""

from __future__ import annotations

import logging
import signal
import socket
from pathlib import Path

from green_screen import names, tracking
from green_screen.executors.executor import Job, Outcome

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


def exit_outcome(status: int, printed: str) -> tuple[Outcome, str]:
    """Return outcome and reason of a process that said nothing, from its exit status.

    Args:
        status: As :attr:`multiprocessing.Process.exitcode`: negative for a signal.
        printed: What it printed before it had a file for that.
    """
    if status >= 0:
        had_printed = f"; before its training it had printed:\n{printed}" if printed else ""
        said = f"the process ended with status {status} and said nothing{had_printed}"
        return Outcome.FAILED, said
    if -status in _CRASHES:
        return Outcome.FAILED, f"native crash: {signal.Signals(-status).name}"
    hint = " (the kernel does that when memory runs out)" if -status == signal.SIGKILL else ""
    return Outcome.KILLED, f"killed by {_signal_name(-status)}{hint}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def short_patience_s() -> float:
    """Return how long to wait for a server that has been waited for, in seconds."""
    return min(tracking.INTERRUPTED_PATIENCE_S, tracking.patience_s())


def deliver_left(job: Job, patience: float | None) -> str:
    """Send what a process that is gone could not; return why it could not be sent, if so.

    Args:
        job: What was run.
        patience: Seconds to wait for a server that is away; ``None`` is the usual patience.
    """
    try:
        tracking.use_store(job.tracking_uri)
        wait_s = tracking.patience_s() if patience is None else patience
        tracking.deliver(job.run_id, patience, wait_s=wait_s)
    except Exception as error:
        # The server is away, or the files of this run are not in order: nobody else's concern.
        folder = tracking.spool_root() / job.run_id
        where = f"its records wait in {folder} on {socket.gethostname()}, and resume sends them"
        return f"{error}; {where}"
    return ""


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
