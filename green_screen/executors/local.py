"""Runs the jobs of a campaign on this host: one process a job, one GPU a process.

A forkserver that has imported TensorFlow, but run nothing, forks the processes: each begins with
all imports done and is otherwise as fresh as a new interpreter.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import (
    ForkServerContext,
    ForkServerProcess,
    SpawnContext,
    SpawnProcess,
)
from pathlib import Path
from typing import Literal

from green_screen.executors.child import COOLED, child_main
from green_screen.executors.executor import (
    LOST,
    CampaignError,
    Executor,
    Job,
    JobResult,
    Outcome,
)
from green_screen.executors.forkserver import printed_bytes, printed_since, start_forkserver
from green_screen.executors.outcome import (
    deliver_left,
    exit_outcome,
    keep_output,
    short_patience_s,
)
from green_screen.power.nvml import Board
from green_screen.power.visible import local_boards

# What every run needs of MLflow, also of what it imports late.
PRELOAD_TRACKING = (
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.store.tracking.rest_store",
    "mlflow.store.artifact.mlflow_artifacts_repo",
    "mlflow.tracing.processor.otel",
    "alembic.command",
    "sqlalchemy.dialects.sqlite",
    "green_screen.executors.child",
)
# What every training needs beside that. Importing starts no operation and touches no GPU.
PRELOAD = (
    "tensorflow",
    "tensorflow_addons",
    "tensorflow_model_optimization",
    "codecarbon.core.emissions",
    "sklearn.datasets",
    *PRELOAD_TRACKING,
    "green_screen.training.run",
    "green_screen.executors.found_once",
)

# How long a process that was asked to end may take before it is made to. Longer than a run takes
# to give up on a store that does not answer (tracking.INTERRUPTED_PATIENCE_S).
GRACE_S = 20.0

# multiprocessing's exit status of a process whose forkserver died.
_FORKSERVER_LOST = 255


def local_devices() -> tuple[str | None, ...]:
    """Return the UUIDs of the GPUs that this process may use; ``(None,)`` where there are none."""
    return tuple(board.mig_uuid or board.uuid for board in local_boards()) or (None,)


@dataclass
class _Active:
    """A job under way.

    Attributes:
        printed: What :func:`printed_bytes` was at its start.
        started: When it was submitted, by ``time.monotonic``, as the other times.
        deadline: When it is asked to end.
        asked_to_end: When it was; ``None`` before.
        reason: Why it was.
        said: Outcome and reason, once it has told them.
    """

    job: Job
    device: str | None
    process: ForkServerProcess | SpawnProcess
    connection: Connection
    output: Path
    printed: int
    started: float
    deadline: float
    asked_to_end: float | None = None
    reason: str = ""
    said: tuple[Outcome, str] | None = None

    def listen(self) -> None:
        """Take what the process has told; after its end the connection is closed."""
        try:
            while not self.connection.closed and self.connection.poll():
                message = self.connection.recv_bytes()
                if message == COOLED:
                    self.deadline = time.monotonic() + _limit_s(self.job)
                else:
                    value, reason = json.loads(message)
                    self.said = Outcome(value), reason
        except (EOFError, OSError, ValueError):
            # It is gone, perhaps in the middle of a message.
            self.connection.close()


class LocalExecutor(Executor):
    """Runs jobs on this host."""

    def __init__(
        self,
        *,
        devices: Sequence[str | None] | None = None,
        start: Literal["forkserver", "spawn"] = "forkserver",
        preload: Sequence[str] = PRELOAD,
        grace_s: float = GRACE_S,
    ) -> None:
        """Prepare to run jobs.

        Args:
            devices: One slot each: the UUID of the GPU that its jobs see, or ``None`` to leave
                the choice to CUDA. The default is one slot for each visible GPU, or one without.
            start: ``forkserver``, or ``spawn`` for a new interpreter that imports everything.
            preload: Modules that the forkserver imports. It serves the whole process, so that the
                first executor's choice holds.
            grace_s: Seconds between asking a process to end and making it.
        """
        self._devices = tuple(devices) if devices is not None else local_devices()
        self._context: ForkServerContext | SpawnContext
        if start == "forkserver":
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(list(preload))
        else:
            self._context = multiprocessing.get_context("spawn")
        self._grace_s = grace_s
        self._free = list(reversed(self._devices))
        self._active: list[_Active] = []
        self._closing = False
        self._folder = tempfile.TemporaryDirectory(prefix="green-screen-")
        if start == "forkserver":
            start_forkserver()

    @property
    def slots(self) -> int:
        """How many jobs run at once."""
        return len(self._devices)

    @property
    def on_gpus(self) -> bool:
        """Whether each job has a GPU of its own."""
        return all(self._devices)

    @property
    def boards(self) -> tuple[Board, ...]:
        """The GPUs of this host that jobs run on."""
        return local_boards()

    def submit(self, job: Job) -> None:
        """Start a job on a free slot.

        Raises:
            CampaignError: No process can be started: the imports of the runs fail.
        """
        device = self._free.pop()
        job = dataclasses.replace(job, shared_host=job.shared_host or self.slots > 1)
        output = Path(self._folder.name) / f"{job.run_id}.txt"
        reader, writer = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=child_main,
            args=(job, device, dict(os.environ), str(output), writer),
            name=f"job-{job.position}",
            # Python ends daemons at its exit, should close() not have been called.
            daemon=True,
        )
        if self._context.get_start_method() == "forkserver":
            start_forkserver()  # again, should it have died
        started, printed = time.monotonic(), printed_bytes()
        try:
            process.start()
        except (EOFError, ConnectionError) as error:
            last = [line.strip() for line in printed_since(0).splitlines()[-2:]]
            raise CampaignError(
                "the process that starts the runs ended as it imported what they need: "
                f"{': '.join(last) or 'it printed nothing'}"
            ) from error
        writer.close()
        # Until it says that its board is cool, a process may have waited as long as that takes.
        deadline = started + _limit_s(job) + (job.cooldown.timeout_s if job.cooldown else 0.0)
        self._active.append(
            _Active(job, device, process, reader, output, printed, started, deadline)
        )

    def wait(self, timeout_s: float) -> list[JobResult]:
        """Return the jobs that ended, waiting up to `timeout_s` seconds for the first."""
        until = time.monotonic() + timeout_s
        while True:
            self._enforce_limits()
            now = time.monotonic()
            pause = min([until, *(self._next_limit(active) for active in self._active)]) - now
            told = [a.connection for a in self._active if not a.connection.closed]
            ends = [active.process.sentinel for active in self._active]
            wait([*told, *ends], timeout=max(pause, 0.0))
            for active in self._active:
                active.listen()
            ended = [active for active in self._active if not active.process.is_alive()]
            if ended or time.monotonic() >= until:
                return [self._result(active) for active in ended]

    def close(self) -> None:
        """End the jobs under way as KILLED and leave no process behind."""
        self._closing = True
        for active in self._active:
            self._ask_to_end(active, "the campaign was ended")
        while self._active:
            self.wait(self._grace_s)
        self._folder.cleanup()

    def _next_limit(self, active: _Active) -> float:
        if active.asked_to_end is None:
            return active.deadline
        return active.asked_to_end + self._grace_s

    def _enforce_limits(self) -> None:
        for active in self._active:
            if time.monotonic() < self._next_limit(active):
                continue
            if active.asked_to_end is None:
                self._ask_to_end(active, f"time limit of {active.job.time_limit_s:g} s")
            else:
                active.process.kill()
                active.asked_to_end = time.monotonic()

    def _ask_to_end(self, active: _Active, reason: str) -> None:
        if active.asked_to_end is None:
            active.asked_to_end = time.monotonic()
            active.reason = reason
            active.process.terminate()

    def _result(self, active: _Active) -> JobResult:
        self._active.remove(active)
        active.process.join()
        active.listen()
        outcome, reason = _outcome(active)
        # A process that came to its own end has waited for the server already.
        waited = active.said is not None and active.asked_to_end is None
        patience = short_patience_s() if self._closing or waited else None
        undelivered = deliver_left(active.job, patience)
        if undelivered:
            # A run whose result is not on the server has no result yet.
            outcome, reason = Outcome.KILLED, undelivered
        active.connection.close()
        active.process.close()
        self._free.append(active.device)
        if outcome is not Outcome.FINISHED and not undelivered:
            keep_output(active.job, active.output)
        active.output.unlink(missing_ok=True)
        return JobResult(
            job=active.job,
            outcome=outcome,
            reason=reason,
            wall_s=time.monotonic() - active.started,
            store_away=bool(undelivered),
        )


def _limit_s(job: Job) -> float:
    return float("inf") if job.time_limit_s is None else job.time_limit_s


def _outcome(active: _Active) -> tuple[Outcome, str]:
    """Return how a process that is gone came out: what it said, or what its exit status says."""
    if active.said is not None and active.said[0] is Outcome.FINISHED:
        return active.said
    if active.reason:
        return Outcome.KILLED, active.reason
    if active.said is not None:
        return active.said
    status = active.process.exitcode
    assert status is not None
    if status == _FORKSERVER_LOST and _make_end(active.process.pid):
        return Outcome.KILLED, f"{LOST}the process that starts the runs died"
    printed = printed_since(active.printed)
    return exit_outcome(status, printed, active.job.config, active.output)


def _make_end(pid: int | None) -> bool:
    """Kill a process that multiprocessing has lost sight of; return whether there was one.

    A process that ended with the same status by itself is gone, and its forkserver is not.
    """
    assert pid is not None
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
