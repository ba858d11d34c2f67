"""Stand-ins for a training, named by their import path; a child of a worker runs them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import waiting

from benchmarks import simulated_training
from green_screen.options import TrainOptions
from green_screen.space import TrainingConfig
from green_screen.tracking import RunLogger


def tell(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log what the process is given."""
    run.tags(
        {
            "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "pid": os.getpid(),
            "forkserver": os.getppid(),
        }
    )


def refuse(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    raise ValueError("no such training")


def crash(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def wait(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log where it runs, then wait to be ended."""
    run.tags({"pid": os.getpid()})
    waiting.for_ever()


# The path of a file, in the environment; while it is missing, `train_when_released` waits.
RELEASE = "CLUSTER_TEST_RELEASE"


def train_when_released(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log that it waits, then log like a training once the test allows it."""
    run.tags({"waiting": "true"})
    waiting.until(Path(os.environ[RELEASE]).exists)
    simulated_training.train(config, options, run)


def train_together(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log like a training once eight of these are under way."""
    release = Path(os.environ[RELEASE])
    here = release.with_name(f"here-{os.getpid()}")
    here.touch()
    waiting.until(lambda: len(list(release.parent.glob("here-*"))) == 8)
    simulated_training.train(config, options, run)
