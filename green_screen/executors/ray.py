"""Runs the jobs of a campaign on a Ray cluster: one task a job, one GPU a task.

A task is a Ray worker that supervises one child process with the code that runs jobs on a single
host, :class:`~green_screen.executors.local.LocalExecutor`. So a job is as isolated on a cluster as
it is here, a crash or a time limit means the same, and the worker, which Ray keeps for the next
job, has its forkserver ready and does not import TensorFlow again.

Ray's own retries are off: a second attempt under the same run would leave two values for every
metric and step. A job whose node or worker is gone comes back as lost, and the campaign does its
position again in a new run.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeAlias, TypeVar

import psutil

from green_screen.executors.executor import (
    LOST,
    CampaignError,
    Executor,
    Job,
    JobResult,
    Outcome,
)
from green_screen.executors.local import GRACE_S, PRELOAD, LocalExecutor
from green_screen.options import OptionError
from green_screen.power.nvml import Board

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Ray cancels a task by an exception in its main thread, which only sees it between waits.
_POLL_S = 0.5
_CONNECT_LIMIT_S = 10.0
# How long the tasks under way may take to end their children before their workers are killed.
_CLOSE_LIMIT_S = GRACE_S + 10.0
# How long a cluster may be without any node that a job fits, before the campaign is given up.
NO_NODE_LIMIT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class _Needs:
    """What a job takes of a node."""

    gpus: float
    cpus: float

    def slots(self, resources: Mapping[str, float]) -> int:
        """Return how many jobs fit a node with these resources at once."""
        fits = [
            resources.get(name, 0.0) / needed
            for name, needed in (("GPU", self.gpus), ("CPU", self.cpus))
            if needed > 0
        ]
        return math.floor(min(fits))


# Outcome, reason and whether the store was away, in types that need no module of ours.
_Report: TypeAlias = tuple[str, str, bool]


def _supervise(job: Job, needs: _Needs, preload: tuple[str, ...]) -> _Report:
    """Do a job in a child of this Ray worker; return what became of it."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    slots = sum(needs.slots(node["Resources"]) for node in ray.nodes() if node["NodeID"] == here)
    job = dataclasses.replace(job, shared_host=slots > 1)
    # Ray has put this task's GPUs into CUDA_VISIBLE_DEVICES, which the child inherits. To a task
    # without any it shows all of them, so they are hidden here.
    device = None if needs.gpus > 0 else ""
    if "OMP_NUM_THREADS" not in psutil.Process().environ():
        # Not given to the worker but set by Ray: a child has the threads that it has without Ray.
        os.environ.pop("OMP_NUM_THREADS", None)
    # A child imports the main module of its parent, which is Ray's: 0.9 s unless Ray is preloaded.
    with LocalExecutor(devices=[device], preload=("ray", *preload)) as executor:
        executor.submit(job)
        while not (results := executor.wait(_POLL_S)):
            pass
    return results[0].outcome.value, results[0].reason, results[0].store_away


class RayExecutor(Executor):
    """Runs jobs as tasks of a Ray cluster."""

    def __init__(
        self,
        *,
        address: str = "auto",
        num_gpus_per_job: float | None = None,
        num_cpus_per_job: float = 1.0,
        preload: Sequence[str] = PRELOAD,
        no_node_limit_s: float = NO_NODE_LIMIT_S,
    ) -> None:
        """Connect to a running cluster.

        Args:
            address: ``auto`` for the cluster that this host is part of, or ``host:port`` of its
                head.
            num_gpus_per_job: GPUs a job; ``None`` is 1 where the cluster has any, else 0.
            num_cpus_per_job: CPU cores that Ray sets aside for a job.
            preload: Modules that the forkserver of each worker imports.
            no_node_limit_s: How long to wait for a node when all are gone.

        Raises:
            OptionError: Ray is not installed, the cluster does not answer, or no node of it has
                what a job needs.
        """
        # Ray's core is called from a thread of its own: in the main thread it runs the handlers of
        # signals from compiled code and loses what they raise, and with it the end of a campaign.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray")
        self._closed = False
        self._preload = tuple(preload)
        self._no_node_limit_s = no_node_limit_s
        self._without_nodes_since: float | None = None
        # Task -> its job and when it was submitted.
        self._active: dict[Any, tuple[Job, float]] = {}
        self._ray: Any = None
        try:
            self._call(self._connect, address, num_gpus_per_job, num_cpus_per_job)
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """How many jobs the cluster's living nodes run at once; it follows them."""
        return self._call(self._count_slots)

    @property
    def on_gpus(self) -> bool:
        """Whether each job has a GPU of its node."""
        return self._needs.gpus > 0

    @property
    def boards(self) -> tuple[Board, ...]:
        """None: which GPUs of this host take part, if any, is the cluster's to say."""
        return ()

    def submit(self, job: Job) -> None:
        """Start a job on a node with a free slot."""
        self._call(self._start, job)

    def wait(self, timeout_s: float) -> list[JobResult]:
        """Return the jobs that ended, waiting up to `timeout_s` seconds for the first.

        Raises:
            CampaignError: The cluster has had no node for a job for too long.
        """
        return self._call(self._collect, timeout_s)

    def close(self) -> None:
        """End the jobs under way and leave the cluster, which goes on.

        A job's process ends its run as KILLED if Ray, which kills what a worker leaves behind,
        gives it the time. The others stay RUNNING until ``run_jobs``, which knows them, has ended
        them.
        """
        if not self._closed:
            self._closed = True
            self._call(self._leave)
            self._thread.shutdown()

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._thread.submit(function, *args, **kwargs).result()

    # What follows runs in the thread.

    def _connect(self, address: str, gpus: float | None, cpus: float) -> None:
        ray = _import_ray()
        try:
            _check_listening(address)
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise OptionError(
                f"ray_address must name a running Ray cluster, but got {address!r}: "
                f"{_line(error)}; a cluster that asks for a token needs RAY_AUTH_MODE=token here "
                "and on its nodes"
            ) from error
        self._ray = ray
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        self._needs = _Needs(gpus=gpus, cpus=cpus)
        # Ray ends a worker after each task that had a GPU, to have its memory back; here a child
        # holds it, and the worker's forkserver is wanted again.
        task = ray.remote(num_gpus=gpus, num_cpus=cpus, max_retries=0, max_calls=0)
        self._task = task(_supervise)
        if self._count_slots() == 0:
            raise OptionError(
                f"ray_address must name a cluster with a node of at least {gpus:g} GPUs and "
                f"{cpus:g} CPU cores, but {address!r} has none"
            )

    def _count_slots(self) -> int:
        nodes = self._ray.nodes()
        return sum(self._needs.slots(node["Resources"]) for node in nodes if node["Alive"])

    def _start(self, job: Job) -> None:
        task = self._task.remote(job, self._needs, self._preload)
        self._active[task] = (job, time.monotonic())

    def _collect(self, timeout_s: float) -> list[JobResult]:
        if not self._active:
            self._check_nodes()
            time.sleep(timeout_s)
            return []
        self._without_nodes_since = None
        tasks = list(self._active)
        ended, _ = self._ray.wait(tasks, num_returns=1, timeout=timeout_s)
        if ended:
            ended, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        return [self._result(task) for task in ended]

    def _check_nodes(self) -> None:
        """Give a cluster whose nodes are gone the time to come back, but not for ever."""
        now = time.monotonic()
        if self._count_slots() > 0:
            self._without_nodes_since = None
        elif self._without_nodes_since is None:
            self._without_nodes_since = now
            logger.warning(
                "the cluster has no node with %g GPUs and %g CPU cores: waiting up to %g s for one",
                self._needs.gpus,
                self._needs.cpus,
                self._no_node_limit_s,
            )
        elif now - self._without_nodes_since > self._no_node_limit_s:
            raise CampaignError(
                f"the cluster has had no node for a job for {self._no_node_limit_s:g} s: the same "
                "command resumes the campaign once it has"
            )

    def _result(self, task: Any) -> JobResult:
        job, submitted = self._active.pop(task)
        outcome, reason, store_away = self._outcome(task)
        return JobResult(
            job=job,
            outcome=outcome,
            reason=reason,
            wall_s=time.monotonic() - submitted,
            store_away=store_away,
        )

    def _outcome(self, task: Any) -> tuple[Outcome, str, bool]:
        """Return how a task that has ended came out; Ray's errors become reasons."""
        errors = self._ray.exceptions
        try:
            outcome, *rest = self._ray.get(task)
            return Outcome(outcome), *rest
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            # Raised around the child, by a node without this package, say: again is no use.
            why = f"the node could not run the job: {_line(error, last=True)}"
            return Outcome.FAILED, why, False
        except errors.RayError as error:
            return Outcome.KILLED, f"{LOST}{type(error).__name__}: {_line(error)}", False

    def _leave(self) -> None:
        tasks = list(self._active)
        for task in tasks:
            self._ray.cancel(task)
        if tasks:
            _, left = self._ray.wait(tasks, num_returns=len(tasks), timeout=_CLOSE_LIMIT_S)
            for task in left:
                self._ray.cancel(task, force=True)
        self._active.clear()
        if self._ray is not None:
            self._ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise OptionError(
            "executor must be local where Ray is not installed, but got 'ray'; the extra "
            "green-screen[ray] installs it, here and on every node"
        ) from None
    return ray


def _check_listening(address: str) -> None:
    """Raise OSError if nothing listens at ``host:port``: Ray itself would try for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_CONNECT_LIMIT_S).close()


def _line(error: Exception, *, last: bool = False) -> str:
    """Return one line of an error's text, which in Ray's case can be a page."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1 if last else 0]
