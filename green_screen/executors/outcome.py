"""What became of a job whose process is gone."""

from __future__ import annotations

import logging
import re
import signal
import socket
from pathlib import Path

from green_screen import names, tracking
from green_screen.executors.executor import Job, Outcome
from green_screen.space import TrainingConfig, resolve

logger = logging.getLogger(__name__)

_OUTPUT_TAIL_BYTES = 200_000

# The factors that decide which programs TensorFlow and its libraries compile and run.
_OF_THE_PROGRAM = ("precision", "batch_size", "optimizer", "internal")

# What of an output says why a library gave up: absl's and glog's fatal messages, Python's own.
_LAST_WORDS = re.compile(r"Check failed|^F\d{4} |: F |^Fatal |terminate called")
_LAST_WORDS_LENGTH = 400

_CRASHES = {
    signal.SIGSEGV,
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
}


def exit_outcome(
    status: int, printed: str, config: TrainingConfig, output: Path
) -> tuple[Outcome, str]:
    """Return outcome and reason of a process that said nothing, from its exit status.

    Args:
        status: As :attr:`multiprocessing.Process.exitcode`: negative for a signal.
        printed: What it printed before it had a file for that.
        config: What it was asked to train: a crash's reason names its effective levels.
        output: That file, whose last words are the reason of a crash.
    """
    if status >= 0:
        had_printed = f"; before its training it had printed:\n{printed}" if printed else ""
        said = f"the process ended with status {status} and said nothing{had_printed}"
        return Outcome.FAILED, said
    if -status in _CRASHES:
        effective = resolve(config).effective.as_params()
        levels = ", ".join(f"{factor}={effective[factor]}" for factor in _OF_THE_PROGRAM)
        crash = f"{names.NATIVE_CRASH}: {signal.Signals(-status).name} with {levels}"
        words = last_words(_tail(output))
        return Outcome.FAILED, f"{crash}; last printed: {words}" if words else crash
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


def last_words(printed: str) -> str:
    """Return the line that says why a library gave up, or else the last line that says anything."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    said = [line for line in lines if _LAST_WORDS.search(line)] or lines
    return said[-1][:_LAST_WORDS_LENGTH] if said else ""


def _tail(output: Path) -> str:
    """Return the end of what a process printed to its file; empty where there is no file."""
    if not output.exists():
        return ""
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - _OUTPUT_TAIL_BYTES))
        return file.read().decode(errors="replace")


def keep_output(job: Job, output: Path) -> None:
    """Put the end of what a process printed beside its run: libraries that abort explain there."""
    if not output.exists():
        return
    try:
        tracking.use_store(job.tracking_uri)
        tracking.RunLogger(job.run_id).text(_tail(output), names.OUTPUT_TXT)
    except Exception as error:
        logger.warning("the output of run %s could not be kept: %s", job.run_id, error)
