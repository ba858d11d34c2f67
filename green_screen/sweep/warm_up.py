"""Warms every board up before the first measured run: a short job each, shown and not counted.

The first training on a machine waits a minute for the driver to make kernels, and a board that has
been idle is cold. Each run sees to its own kernels too (``training/kernels.py``), for levels that
need others than the baseline's, and for boards that join a cluster later.
"""

from __future__ import annotations

import math

from green_screen import names, tracking
from green_screen.executors.executor import Executor, Job
from green_screen.options import TrainOptions
from green_screen.space import TrainingConfig
from green_screen.sweep.progress import CampaignProgress, duration
from green_screen.sweep.runner import Ended, run_jobs

WARM_UP = "green_screen.training.warm_up:warm_up"


def warm_up(
    executor: Executor,
    baseline: TrainingConfig,
    options: TrainOptions,
    *,
    parent_id: str,
    experiment_id: str,
    progress: CampaignProgress,
) -> None:
    """Do a job on each slot at once, so that each board has one; none where there is no GPU.

    One that fails is told and ends nothing: what it did not do, the runs do.

    Args:
        executor: Where the runs are done.
        baseline: The configuration whose kernels are made.
        options: What each training of the campaign takes.
        parent_id: The campaign's run; the jobs' runs are its children, of a kind of their own.
        experiment_id: Of that run.
        progress: Where it is shown.
    """
    if not executor.on_gpus:
        return

    def make_job(number: int) -> Job:
        tags = {names.TAG_KIND: names.KIND_WARM_UP}
        return Job(
            position=number,
            kind=names.KIND_WARM_UP,
            config=baseline,
            options=options,
            run_id=tracking.create_child(parent_id, f"warm-up {number}", tags, experiment_id),
            tracking_uri=tracking.store_uri(),
            trainer=WARM_UP,
        )

    def tell(ended: Ended) -> None:
        took_s = ended.run.data.metrics.get(names.KERNELS_S, math.nan)
        if not ended.finished:
            progress.say(f"a board was not warmed up: {ended.result.reason}")
        elif math.isfinite(took_s):
            progress.say(f"a board was warmed up in {duration(took_s)}, which counts for no run")

    run_jobs(executor, range(executor.slots), make_job, on_end=tell, on_lost=tell)
