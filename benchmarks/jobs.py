"""One job of a campaign at a time, in a process of its own and in the store, without a campaign."""

from __future__ import annotations

from green_screen import names, tracking
from green_screen.executors.executor import TRAINER, Job, JobResult, Outcome
from green_screen.executors.local import LocalExecutor
from green_screen.options import TrainOptions
from green_screen.space import TrainingConfig


def run_job(
    executor: LocalExecutor,
    config: TrainingConfig,
    options: TrainOptions,
    *,
    experiment: str,
    trainer: str = TRAINER,
) -> JobResult:
    """Run one job to its end and return what came of it.

    Raises:
        RuntimeError: It did not finish.
    """
    executor.submit(
        Job(
            position=0,
            kind=names.KIND_RUN,
            config=config,
            options=options,
            run_id=tracking.create_child(None, trainer, {}, tracking.ensure_experiment(experiment)),
            tracking_uri=tracking.store_uri(),
            trainer=trainer,
        )
    )
    while not (results := executor.wait(1.0)):
        pass
    if results[0].outcome is not Outcome.FINISHED:
        raise RuntimeError(f"the run {results[0].job.run_id} did not finish: {results[0].reason}")
    return results[0]
