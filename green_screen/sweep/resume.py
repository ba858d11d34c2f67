"""What of a campaign is there already, from the store alone."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import socket
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil
from mlflow.entities import LifecycleStage, Run

from green_screen import locks, names, tracking
from green_screen.executors.outcome import short_patience_s
from green_screen.options import OptionError, SweepOptions, TrainOptions, parse_value, require

logger = logging.getLogger(__name__)

# Longer than a child takes to end itself once its campaign's process is gone (child.py).
_ORPHAN_LIMIT_S = 40.0

# Options that belong to an attempt and not to the campaign: a resume may change them.
OF_ATTEMPT = (
    "resume",
    "max_failures",
    "until",
    "time_limit_s",
    "checkpoint_every",
    "executor",
    "ray_address",
    "cooldown_band_c",
    "cooldown_band_w",
    "cooldown_timeout_s",
)


@dataclass(frozen=True, kw_only=True)
class Done:
    """The children of a campaign that have ended.

    Attributes:
        finished: Position -> its finished run, which is not repeated.
        failed: The other runs; their positions are done again, in new runs.
    """

    finished: dict[int, Run] = field(default_factory=dict)
    failed: tuple[Run, ...] = ()

    def all(self) -> list[Run]:
        """Return all runs, the earliest first."""
        runs = [*self.finished.values(), *self.failed]
        return sorted(runs, key=lambda run: int(run.info.start_time))


def children_of(parent: Run) -> list[Run]:
    """Return the child runs of a campaign, the latest first, by one query; no warm-up is one."""
    return [run for run in _all_children_of(parent) if not _is_warm_up(run)]


def _all_children_of(parent: Run) -> list[Run]:
    return tracking.search_runs(
        parent.info.experiment_id, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )


def _is_warm_up(run: Run) -> bool:
    return run.data.tags.get(names.TAG_KIND) == names.KIND_WARM_UP


def take_over(parent: Run) -> Done:
    """Return what earlier attempts did; runs that they left under way end as KILLED."""
    finished: dict[int, Run] = {}
    failed = []
    for run in _all_children_of(parent):
        if run.info.status in tracking.UNDER_WAY:
            # A child whose campaign was killed a moment ago may still be on its GPU, or finish.
            tracking.deliver(run.info.run_id, wait_s=_ORPHAN_LIMIT_S)
            run = tracking.end_cut_off(run.info.run_id, "KILLED", "cut off with its campaign")
        if _is_warm_up(run):
            continue
        if run.info.status == "FINISHED":
            finished[int(run.data.tags[names.TAG_POSITION])] = run
        else:
            failed.append(run)
    return Done(finished=finished, failed=tuple(failed))


def end_left(parent_id: str, experiment_id: str) -> None:
    """End as KILLED what a campaign that is being ended has left under way.

    Its jobs have been ended; this finds a run that was created and not yet known to be.
    """
    patience = short_patience_s()
    condition = f"tags.`mlflow.parentRunId` = '{parent_id}' and attributes.status = 'RUNNING'"
    try:
        for run in tracking.search_runs(experiment_id, condition, patience=patience):
            reason = "the campaign was ended before it began"
            tracking.end_cut_off(run.info.run_id, "KILLED", reason, patience)
    except tracking.StoreUnavailableError as error:
        logger.warning("runs may be left RUNNING, and resume ends them: %s", error)


def find_unfinished(experiment_id: str, digest: str) -> Run | None:
    """Return the latest campaign with the same digest, unless all of its runs have finished."""
    found = tracking.search_runs(
        experiment_id,
        f"tags.`{names.TAG_KIND}` = '{names.KIND_SWEEP}' "
        f"and tags.`{names.TAG_DESIGN_HASH}` = '{digest}'",
        limit=1,
    )
    if not found:
        return None
    planned = int(found[0].data.tags[names.TAG_RUNS_PLANNED])
    if found[0].data.metrics.get(names.RUNS_FINISHED) != planned:
        return found[0]
    # Its own count does not know of runs that have been deleted since.
    there = {
        run.data.tags.get(names.TAG_POSITION)
        for run in children_of(found[0])
        if run.info.status == "FINISHED"
    }
    return None if len(there) == planned else found[0]


def read_parent(run_id: str) -> Run:
    """Return the parent run of a campaign.

    Raises:
        OptionError: There is no such run, or it is none of a campaign.
    """
    try:
        run = tracking.read_run(run_id)
    except tracking.StoreUnavailableError:
        raise
    except Exception as error:
        raise OptionError(
            f"resume must be a campaign's run id, but got {run_id!r}: {error}"
        ) from error
    deleted = run.info.lifecycle_stage != LifecycleStage.ACTIVE
    require(not deleted, "resume", run_id, "a campaign that has not been deleted (restore it)")
    kind = run.data.tags.get(names.TAG_KIND)
    require(kind == names.KIND_SWEEP, "resume", run_id, f"a campaign's run id (its kind is {kind})")
    return run


def options_of(parent: Run, given: SweepOptions) -> SweepOptions:
    """Return the options of a campaign, with those of the attempt as given now.

    Raises:
        OptionError: An option of the campaign is given now and differs.
    """
    hints = typing.get_type_hints(SweepOptions)
    values: dict[str, Any] = {}
    for option in dataclasses.fields(SweepOptions):
        name, value = option.name, getattr(given, option.name)
        if name in OF_ATTEMPT or name not in parent.data.params:
            values[name] = value
            continue
        before = parse_value(name, hints[name], parent.data.params[name])
        require(
            value in (option.default, before),
            name,
            value,
            f"{before!r}, as in the campaign that is resumed, or left out",
        )
        values[name] = before
    return SweepOptions(**values)


def train_options(options: SweepOptions) -> TrainOptions:
    """Return what each training of the campaign takes."""
    fields = dataclasses.fields(TrainOptions)
    values = {field.name: getattr(options, field.name) for field in fields}
    if options.protocol == "halving":
        values["protocol"] = "full"  # each run is one, as far as it comes
    return TrainOptions(**values)


def is_done(run: Run, campaign: Run) -> bool:
    """Whether a run has finished, and does not wait for the next rung of a search."""
    if run.info.status != "FINISHED" or campaign.data.params.get("protocol") != "halving":
        return bool(run.info.status == "FINISHED")
    tags = run.data.tags
    whole = tags.get(names.TAG_EPOCHS_TRAINED) == campaign.data.params["epochs"]
    return whole or names.TAG_PRUNED in tags


def owner() -> str:
    """Return who runs a campaign: host, process id and the time it started."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


@contextlib.contextmanager
def alone(campaign: str) -> Iterator[None]:
    """Keep other processes of this host from running the same campaign in the block.

    The store alone cannot: between a look at a campaign's owner and becoming it others may look.

    Args:
        campaign: A campaign's run id, or what tells one that is not there yet from others of the
            present store.

    Raises:
        OptionError: Another process runs it.
    """
    folder = tracking.spool_root() / "campaigns"
    # Another store may have an experiment of the same number with the same design.
    key = hashlib.sha256(f"{tracking.store_uri()} {campaign}".encode()).hexdigest()[:32]
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.alone(folder / f"{key}.lock", wait=False))
        except BlockingIOError:
            raise OptionError(
                "this campaign is being run by another process: wait for its end, or give "
                "resume=new for another campaign of the same design"
            ) from None
        yield


def check_not_running(parent: Run, *, explicit: bool) -> None:
    """Refuse to run a campaign that another process is running.

    Args:
        parent: The campaign.
        explicit: Whether the user named it: then a campaign of another host, of which this one
            cannot know whether it is alive, is taken over.

    Raises:
        OptionError: It is being run.
    """
    text = parent.data.tags.get(names.TAG_OWNER, "")
    if parent.info.status not in tracking.UNDER_WAY or text.count(":") != 2:
        return
    host, pid, started = text.split(":")
    campaign = f"campaign {parent.info.run_id} ({parent.info.run_name})"
    if host != socket.gethostname():
        require(
            explicit,
            "resume",
            None,
            f"{parent.info.run_id}, if host {host} no longer runs {campaign}, or new for another",
        )
    elif _alive(int(pid), float(started)):
        raise OptionError(
            f"{campaign} is being run by process {pid}: wait for its end, or give resume=new for "
            "another campaign of the same design"
        )


def _alive(pid: int, started: float) -> bool:
    """Whether a process is there and is not another one with the same number."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # dead, and nobody has asked how it ended
            return False
        return pid != os.getpid() and abs(process.create_time() - started) < 2.0
    except psutil.Error:
        return False
