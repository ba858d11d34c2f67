"""What a campaign needs of whatever runs its jobs, here or on a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from green_screen.options import TrainOptions
from green_screen.power.nvml import Board
from green_screen.space import TrainingConfig

if TYPE_CHECKING:
    from typing import Self  # of Python 3.11

# What a job calls, as ``module:function``: takes (TrainingConfig, TrainOptions, RunLogger).
TRAINER = "green_screen.training.run:train"

# A result whose reason begins so was cut off by no fault of its own (its node went away): the
# campaign does its position again.
LOST = "lost: "


class CampaignError(RuntimeError):
    """A campaign that came to no good end; the text says why."""


@dataclass(frozen=True, kw_only=True)
class RestingState:
    """How a board was before the first run of a campaign on it.

    Attributes:
        board: The board's UUID.
        temperature_c: Its temperature in degrees Celsius.
        power_w: Its idle power in watts.
    """

    board: str
    temperature_c: float
    power_w: float


@dataclass(frozen=True, kw_only=True)
class Cooldown:
    """How long a job waits for its board to be as it was before the first run on it.

    Attributes:
        band_c: Degrees Celsius above the resting temperature that are close enough.
        band_w: Watts above the resting power that are close enough.
        timeout_s: Seconds after which the job starts anyway.
        resting: The boards that have run a job of the campaign already.
    """

    band_c: float
    band_w: float
    timeout_s: float
    resting: tuple[RestingState, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training to be run in a process of its own.

    Attributes:
        position: Place in the campaign, from 0; it names the job across resumes.
        kind: ``names.KIND_BASELINE``, ``KIND_RUN``, ``KIND_REPLICATE``, ``KIND_FINAL`` or
            ``KIND_WARM_UP``.
        config: The requested configuration.
        options: What the training takes beside its factors.
        run_id: The MLflow run, made by the campaign, that the training logs to.
        tracking_uri: The store of that run.
        time_limit_s: Seconds after which the job is ended; ``None`` is no limit. Waiting for the
            board to cool down comes on top.
        trainer: What the job calls, as ``module:function``. The default trains; a simulation of
            campaigns names a function of the same signature that only logs.
        cooldown: How to wait before the training; ``None`` is not at all.
        shared_host: Whether other jobs run on the same host at the same time, so that its CPU and
            RAM energy is theirs too. Executors set it.
    """

    position: int
    kind: str
    config: TrainingConfig
    options: TrainOptions
    run_id: str
    tracking_uri: str
    time_limit_s: float | None = None
    trainer: str = TRAINER
    cooldown: Cooldown | None = None
    shared_host: bool = False


class Outcome(Enum):
    """How a job ended; the values are MLflow's run statuses."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """The end of a job.

    Attributes:
        job: What was run.
        outcome: How it ended.
        reason: Why it did not finish; empty if it did.
        wall_s: Seconds from submission to end, start-up included.
        store_away: Whether records wait on its host, because the tracking server did not answer.
    """

    job: Job
    outcome: Outcome
    reason: str
    wall_s: float
    store_away: bool = False

    @property
    def lost(self) -> bool:
        """Whether the job was cut off with its node and should be done again."""
        return self.outcome is not Outcome.FINISHED and self.reason.startswith(LOST)


class Executor(ABC):
    """Runs jobs, each in a process of its own, as many at once as it has slots.

    Use it as a context manager, or call :meth:`close`.
    """

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many jobs run at once."""

    @property
    @abstractmethod
    def on_gpus(self) -> bool:
        """Whether each job has a GPU."""

    @property
    @abstractmethod
    def boards(self) -> tuple[Board, ...]:
        """The GPUs of this host that jobs run on."""

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Start a job. At most :attr:`slots` jobs may be under way."""

    @abstractmethod
    def wait(self, timeout_s: float) -> list[JobResult]:
        """Return the jobs that ended, waiting up to `timeout_s` seconds for the first."""

    @abstractmethod
    def close(self) -> None:
        """End the jobs under way and leave no process behind; ``run_jobs`` settles their runs."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, whatever happened."""
        self.close()
