"""Carries out runs on an executor: submit, wait, and see that every run's status is true."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mlflow.entities import Run

from green_screen import names, tracking
from green_screen.executors.executor import Executor, Job, JobResult, Outcome
from green_screen.executors.outcome import short_patience_s

logger = logging.getLogger(__name__)

# How long to wait for an end before progress is shown again.
_POLL_S = 1.0

# A child that outlived what started it ends by itself within about this time (child.py); one that
# is gone never will.
_ORPHAN_LIMIT_S = 20.0

# How often a run is tried whose node goes away under it.
_MAX_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that came to its end.

    Attributes:
        result: What the executor says.
        run: What the store says, its status settled.
    """

    result: JobResult
    run: Run

    @property
    def finished(self) -> bool:
        """Whether the run is complete in the store."""
        return str(self.run.info.status) == Outcome.FINISHED.value


def run_jobs(
    executor: Executor,
    positions: Iterable[int],
    make_job: Callable[[int], Job],
    *,
    on_end: Callable[[Ended], None],
    on_lost: Callable[[Ended], None],
    on_poll: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
    choose: Callable[[Sequence[int]], int] = lambda waiting: waiting[0],
) -> None:
    """Run jobs until all have ended; whatever happens, no run is left under way.

    Args:
        executor: Where they run. It is closed if this function is interrupted or fails.
        positions: The jobs, in their order.
        make_job: Creates a position's MLflow run and returns its job; called just before the job
            starts, and again if the job is lost with its node.
        on_end: Called after each job, with the run as it is in the store.
        on_lost: Called instead for a run that was lost with its node and is done again.
        on_poll: Called every second or so.
        stop: Whether to start no further job.
        choose: Returns which of the positions that wait is next.

    Raises:
        StoreUnavailableError: The tracking server stayed away.
    """
    waiting = deque(positions)
    attempts: Counter[int] = Counter()
    under_way: dict[str, Job] = {}
    try:
        while waiting or under_way:
            while waiting and len(under_way) < executor.slots and not stop():
                position = choose(waiting)
                waiting.remove(position)
                job = make_job(position)
                under_way[job.run_id] = job
                executor.submit(job)
            if stop():
                waiting.clear()
            for result in executor.wait(_POLL_S):
                ended = settle(result)
                del under_way[result.job.run_id]
                position = result.job.position
                attempts[position] += 1
                if result.lost and not ended.finished and attempts[position] < _MAX_ATTEMPTS:
                    logger.warning("run %d is done again: %s", position, result.reason)
                    waiting.appendleft(position)
                    on_lost(ended)
                else:
                    on_end(ended)
            on_poll()
    except BaseException as error:
        executor.close()
        reason = f"the campaign was ended: {str(error) or type(error).__name__}"
        _end_quickly(under_way, reason)
        raise


# What a run is for, in parts: the rest is overhead.
_PARTS = (
    *(names.EPOCH_TIME_S, names.FURTHER_EPOCH_TIME_S),
    *(names.BLOCK_S, names.VALIDATION_BLOCK_S),
)


def settle(result: JobResult) -> Ended:
    """Make the store say how a job ended, where its process could not, and how long it waited."""
    run_id, run_logger = result.job.run_id, tracking.RunLogger(result.job.run_id)
    if result.outcome is Outcome.FINISHED:
        run = tracking.end_cut_off(run_id, "KILLED", "the process ended, its run did not")
        overhead = {names.RUN_OVERHEAD_S: result.wall_s - _known_s(run)}
        tracking.patiently(lambda: run_logger.metrics(overhead))
        return Ended(result=result, run=tracking.read_run(run_id))
    # It has been waited for the server already, if that is what the job failed for.
    patience = short_patience_s() if result.store_away else None
    run = _let_orphan_end(run_id) if result.lost else tracking.read_run(run_id, patience)
    if run.info.status != Outcome.FINISHED.value:
        # The child may have ended its run itself, but only the executor knows why it had to.
        why = {names.TAG_FAILURE: result.reason}
        tracking.patiently(lambda: run_logger.tags(why), patience)
        tracking.end_cut_off(run_id, result.outcome.value, result.reason, patience)
        run = tracking.read_run(run_id, patience)
    return Ended(result=result, run=run)


def _let_orphan_end(run_id: str) -> Run:
    """Return a lost run once it has ended itself, or when it must be taken for dead.

    A child may live on for a while and even finish: to do its run again at once could give a
    position two finished runs, and put two of them on one board.
    """
    until = time.monotonic() + _ORPHAN_LIMIT_S
    while True:
        run = tracking.read_run(run_id)
        if run.info.status not in tracking.UNDER_WAY or time.monotonic() > until:
            return run
        time.sleep(_POLL_S)


def _known_s(run: Run) -> float:
    """Return the seconds of a run's epochs or blocks, of the making of kernels, and of its wait.

    As far as they were its last process's: the epochs before are logged to its run too.
    """
    metrics = run.data.metrics
    first = int(metrics.get(names.CONTINUED_FROM_EPOCH, 0))
    once_s = sum(metrics.get(name, 0.0) for name in (names.COOLDOWN_S, names.KERNELS_S))
    parts_s = sum(
        sum(
            tracking.metric_values(run.info.run_id, name)[
                first if name == names.EPOCH_TIME_S else 0 :
            ]
        )
        for name in _PARTS
        if name in metrics
    )
    return float(once_s + parts_s)


def _end_quickly(run_ids: Iterable[str], reason: str) -> None:
    try:
        for run_id in run_ids:
            tracking.end_cut_off(run_id, "KILLED", reason, short_patience_s())
    except tracking.StoreUnavailableError as error:
        logger.warning("runs are left RUNNING, and resume ends them: %s", error)
