"""A campaign: one parent run, its design, and a child run for each place of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.entities import Run

from green_screen import names, tracking
from green_screen.executors.cooldown import found_state
from green_screen.executors.executor import (
    TRAINER,
    CampaignError,
    Cooldown,
    Executor,
    Job,
    RestingState,
)
from green_screen.executors.local import LocalExecutor
from green_screen.options import SweepOptions, option_params
from green_screen.results.runs import to_frame
from green_screen.sweep import resume
from green_screen.sweep.clocks import BaselineClocks
from green_screen.sweep.preparation import Design, check_trainings, find_design, log_design
from green_screen.sweep.progress import CampaignProgress
from green_screen.sweep.runner import Ended, run_jobs
from green_screen.sweep.summary import Summary
from green_screen.sweep.warm_up import warm_up
from green_screen.tracking import RunLogger

if TYPE_CHECKING:
    from green_screen.sweep.sequential import Sequencer


def run_sweep(
    options: SweepOptions, *, trainer: str = TRAINER, executor: Executor | None = None
) -> str:
    """Run a campaign, or what is missing of one, and return its parent run's id.

    Args:
        options: What to run.
        trainer: What each job calls, as ``module:function``; see :class:`~.executor.Job`.
        executor: Where jobs run; the default is what the options say, closed afterwards.

    Raises:
        OptionError: The options cannot be used; nothing has been started.
        CampaignError: No run finished, or too many failed.
        StoreUnavailableError: The tracking server stayed away.
    """
    # A result that waits in this host's files is not missing. (A caller may have sent it already.)
    tracking.deliver_all()
    design = find_design(options, trainer)
    with ExitStack() as stack:
        if design.parent is not None:
            stack.enter_context(resume.alone(design.parent.info.run_id))
        elif options.resume is None:
            stack.enter_context(resume.alone(f"{design.experiment_id}-{design.digest}"))
        left_out = check_trainings(design) if trainer == TRAINER else ""
        if executor is None:
            executor = make_executor(design.options)
            stack.callback(executor.close)
        return _run(design, executor, trainer, left_out)


def make_executor(options: SweepOptions) -> Executor:
    """Return the executor that the options name."""
    if options.executor == "ray":
        from green_screen.executors.ray import RayExecutor

        return RayExecutor(address=options.ray_address or "auto")
    return LocalExecutor()


def _run(design: Design, executor: Executor, trainer: str, left_out: str) -> str:
    """Open the parent run, do what is missing, and say how it came out."""
    params = option_params(design.options)
    parent_id = design.parent.info.run_id if design.parent else None
    if parent_id and (started_by_mlflow := tracking.given_run(params)):
        tracking.RunLogger(started_by_mlflow).tags(
            {names.TAG_KIND: names.KIND_RESUME, names.TAG_RESUMED: parent_id}
        )
    tags = {
        names.TAG_KIND: names.KIND_SWEEP,
        names.TAG_DESIGN_HASH: design.digest,
        names.TAG_RUNS_PLANNED: len(design.plan.runs),
        names.TAG_OWNER: resume.owner(),
    }
    name = None if parent_id else _name(design)
    with tracking.open_run(parent_id, run_name=name, tags=tags, params=params) as parent:
        done = resume.take_over(design.parent) if design.parent else resume.Done()
        apart = log_design(design, parent)
        planned = [run.config for run in design.plan.runs]
        with CampaignProgress(
            planned, done.finished, executor.slots, executor.boards, failed=done.failed
        ) as progress:
            progress.say(f"campaign {parent.run_id}: {_name(design)}\n{apart}")
            if left_out:
                progress.say(left_out)
            campaign = _kind_of(design.options)(
                design=design, parent=parent, done=done, trainer=trainer, progress=progress
            )
            try:
                if trainer == TRAINER:
                    warm_up(
                        executor,
                        [planned[n] for n in range(len(planned)) if n not in done.finished],
                        resume.train_options(design.options),
                        parent_id=parent.run_id,
                        experiment_id=design.experiment_id,
                        progress=progress,
                    )
                campaign.carry_out(executor)
            except BaseException:
                resume.end_left(parent.run_id, design.experiment_id)
                raise
    return parent.run_id


def _kind_of(options: SweepOptions) -> type[Campaign]:
    if options.protocol == "halving":
        from green_screen.sweep.halving import HalvingCampaign

        return HalvingCampaign
    return Campaign


def _name(design: Design) -> str:
    options = design.options
    name = f"{options.design} {len(design.plan.runs)} x {options.model} on {options.dataset}"
    return name if options.protocol == "full" else f"{options.protocol} {name}"


@dataclass
class Campaign:
    """A campaign under way."""

    design: Design
    parent: RunLogger
    done: resume.Done
    trainer: str
    progress: CampaignProgress
    failures: int = 0

    def __post_init__(self) -> None:
        """Take over what earlier attempts left."""
        self._plan = {planned.position: planned for planned in self.design.plan.runs}
        self._train_options = resume.train_options(self.design.options)
        self._finished = len(self.done.finished)
        self._unfinished = len(self.done.failed)
        self._summary = Summary(self.parent, self.done.all())
        self._resting: dict[str, RestingState] = {}
        self._clocks = BaselineClocks(self.done.all())
        self._known: list[Run] = []
        self._sequencer: Sequencer | None = None
        if self.design.options.design == "sequential":
            from green_screen.sweep.sequential import Sequencer

            self._sequencer = Sequencer(self.design.plan)
            self._learn(*self.done.finished.values())
        for run in self.done.all():
            self._remember_board(run)

    def carry_out(self, executor: Executor) -> None:
        """Do the runs that are missing.

        Raises:
            CampaignError: No run finished, or too many failed.
        """
        # An attempt that was killed may have taken no note of its last run.
        self._count()
        missing = [position for position in self._plan if position not in self.done.finished]
        self.do(executor, missing)
        if self._enough() and self._finished < len(self._plan):
            self.progress.say(f"enough is known of the energy law after {self._finished} runs")
            self.parent.tags({names.TAG_RUNS_PLANNED: self._finished})
        self.conclude()

    def do(self, executor: Executor, positions: Sequence[int]) -> None:
        """Do runs, unless there were too many failures."""
        try:
            run_jobs(
                executor,
                positions,
                self.make_job,
                on_end=self.note,
                on_lost=self.note_lost,
                on_poll=self.poll,
                stop=lambda: self._enough() or self.failed,
                choose=self._sequencer.next if self._sequencer else lambda waiting: waiting[0],
            )
        finally:
            self._summary.write()

    @property
    def failed(self) -> bool:
        """Whether so many runs failed that no further one is started."""
        limit = self.design.options.max_failures
        return limit is not None and self.failures >= limit

    def conclude(self) -> None:
        """Say how it came out.

        Raises:
            CampaignError: No run finished, or too many failed.
        """
        text = f"{self._finished} of {len(self._plan)} runs finished, {self.failures} failed"
        self.progress.say(text)
        if self.failed:
            limit = self.design.options.max_failures
            raise CampaignError(f"{text}: stopped at max_failures={limit}")
        if not self._finished:
            raise CampaignError(f"{text}: there is nothing to analyze")

    def _enough(self) -> bool:
        until = self.design.options.until
        return bool(self._sequencer and until and self._sequencer.half_width <= until)

    def make_job(self, position: int) -> Job:
        """Create the child run of a position and return its job."""
        planned = self._plan[position]
        options = self.design.options
        name = planned.name(self.design.plan.space.baseline)
        tags: dict[str, object] = {names.TAG_KIND: planned.kind, names.TAG_POSITION: position}
        if planned.replicate_of is not None:
            tags[names.TAG_REPLICATE_OF] = planned.replicate_of
        job = Job(
            position=position,
            kind=planned.kind,
            config=planned.config,
            options=self._train_options,
            run_id=self.run_for(position, name, tags),
            tracking_uri=tracking.store_uri(),
            time_limit_s=options.time_limit_s,
            trainer=self.trainer,
            cooldown=self._cooldown(),
        )
        self.progress.started(job, name)
        return job

    def run_for(self, position: int, name: str, tags: Mapping[str, object]) -> str:
        """Return the run that a job logs to: a new one."""
        return tracking.create_child(self.parent.run_id, name, tags, self.design.experiment_id)

    def _cooldown(self) -> Cooldown | None:
        options = self.design.options
        if options.cooldown_timeout_s == 0:
            return None
        return Cooldown(
            band_c=options.cooldown_band_c,
            band_w=options.cooldown_band_w,
            timeout_s=options.cooldown_timeout_s,
            resting=tuple(self._resting.values()),
        )

    def note(self, ended: Ended) -> None:
        """Take note of a run that ended."""
        ended = self._judged(ended)
        if ended.finished:
            self._finished += 1
            self._learn(ended.run)
        else:
            self.failures += 1
            self._unfinished += 1
        self._remember_board(ended.run)
        self._summary.add(ended.run)
        self._count()
        self.progress.ended(ended)

    def _judged(self, ended: Ended) -> Ended:
        """Say on a run that ended what only the campaign can know of it: the baseline's clock."""
        doubts = self._clocks.doubts(ended.run)
        if not doubts:
            return ended
        run_id = ended.run.info.run_id
        tracking.patiently(lambda: RunLogger(run_id).tags(doubts))
        return dataclasses.replace(ended, run=tracking.read_run(run_id))

    def _learn(self, *runs: Run) -> None:
        """Let the next run be chosen by what these finished ones say, too."""
        self._known += runs
        if self._sequencer is not None and self._known:
            self._sequencer.learn(to_frame(self._known))
            if math.isfinite(width := self._sequencer.half_width):
                self.parent.metrics({names.LAW_HALF_WIDTH_PERCENT: 100 * width})

    def note_lost(self, ended: Ended) -> None:
        """Take note of a run that was lost by no fault of its own and is done again."""
        self._unfinished += 1
        self._summary.add(ended.run)
        self._count()
        self.progress.lost(ended)

    def poll(self) -> None:
        """Keep up to date what is shown and written."""
        self.progress.poll()
        self._summary.write_if_due()

    def _count(self) -> None:
        self.parent.metrics(
            {names.RUNS_FINISHED: self._finished, names.RUNS_FAILED: self._unfinished}
        )

    def _remember_board(self, run: Run) -> None:
        """Keep how the first run on a board found it.

        A board that did not get back there in time is taken as it was then: the room has become
        warmer, and waiting in vain before every run would not cool it.
        """
        state = found_state(run)
        if state is None:
            return
        waited_s = run.data.metrics.get(names.COOLDOWN_S, 0.0)
        timed_out = waited_s >= self.design.options.cooldown_timeout_s
        if state.board not in self._resting or timed_out:
            self._resting[state.board] = state
