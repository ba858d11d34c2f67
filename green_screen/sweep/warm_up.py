"""Warms the boards up before the first measured run: short jobs, shown and not counted.

The first training on a machine waits for its driver to make kernels, more than a minute for each
precision, and the driver keeps them. Each run sees to its own kernels (``training/kernels.py``) as
well, for hosts that join a cluster later.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable

from green_screen import names, tracking
from green_screen.executors.executor import Executor, Job
from green_screen.options import TrainOptions
from green_screen.space import TrainingConfig
from green_screen.sweep.progress import CampaignProgress, duration
from green_screen.sweep.runner import Ended, run_jobs
from green_screen.training.kernels import one_of_each_kind

WARM_UP = "green_screen.training.warm_up:warm_up"


def warm_up(
    executor: Executor,
    configs: Iterable[TrainingConfig],
    options: TrainOptions,
    *,
    parent_id: str,
    experiment_id: str,
    progress: CampaignProgress,
) -> None:
    """Have the kernels made that runs will need; nothing where there is no GPU.

    There is a job for each slot, which makes the kernels of all kinds: each host of a cluster makes
    them, and the jobs of a host's other boards find them made. One that fails is told and ends
    nothing: the runs do what it did not.

    Args:
        executor: Where the runs are done.
        configs: The requested configurations of the runs to come.
        options: What each training of the campaign takes.
        parent_id: The campaign's run; the jobs' runs are its children, of a kind of their own.
        experiment_id: Of that run.
        progress: Where it is shown.
    """
    if not executor.on_gpus:
        return
    kinds = one_of_each_kind(configs)
    if not kinds:
        return
    of = json.dumps([dataclasses.asdict(config) for config in kinds])

    def make_job(number: int) -> Job:
        tags = {names.TAG_KIND: names.KIND_WARM_UP, names.TAG_KERNELS_OF: of}
        return Job(
            position=number,
            kind=names.KIND_WARM_UP,
            config=kinds[0],
            options=options,
            run_id=tracking.create_child(parent_id, f"warm-up {number}", tags, experiment_id),
            tracking_uri=tracking.store_uri(),
            trainer=WARM_UP,
        )

    def tell(ended: Ended) -> None:
        made_s = ended.run.data.metrics.get(names.KERNELS_S, math.nan)
        if not ended.finished:
            progress.say(f"a board was not warmed up: {ended.result.reason}")
        elif math.isfinite(made_s):
            progress.say(
                f"warm-up: the driver took {duration(made_s)} for its kernels, which counts for no "
                "run"
            )

    run_jobs(executor, range(executor.slots), make_job, on_end=tell, on_lost=tell)
