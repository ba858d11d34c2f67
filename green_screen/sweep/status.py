"""The state of a campaign, from the store alone: nothing of it need be alive, or on this host."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from mlflow.entities import Run

from green_screen import names, tracking
from green_screen.options import OptionError
from green_screen.output import command_line
from green_screen.sweep.energies import EnergyTally
from green_screen.sweep.progress import duration, run_seconds
from green_screen.sweep.resume import children_of, is_done


@dataclass(frozen=True, kw_only=True)
class CampaignStatus:
    """How far a campaign is.

    Attributes:
        parent: Its parent run.
        planned: Its runs, baselines and replicates included.
        finished: The finished runs, one for each position that is done.
        under_way: The runs that the store has as running.
        failed: The latest run of each position that has none finished and none under way.
        energy: Of all runs that have ended, also of those that were done again.
        left_s: Time left if the rest takes as long, on average, as those finished; NaN if none has.
    """

    parent: Run
    planned: int
    finished: tuple[Run, ...]
    under_way: tuple[Run, ...]
    failed: tuple[Run, ...]
    energy: EnergyTally
    left_s: float

    @property
    def complete(self) -> bool:
        """Whether every planned run has finished."""
        return len(self.finished) == self.planned

    def text(self) -> str:
        """Return the state in lines for a person."""
        info, tags = self.parent.info, self.parent.data.tags
        missing = self.planned - len(self.finished) - len(self.under_way)
        since = duration(time.time() - info.start_time / 1000.0)
        lines = [
            f"campaign {info.run_id} ({info.run_name}): {info.status}, begun {since} ago, "
            f"owner {tags.get(names.TAG_OWNER, 'unknown')}",
            f"  {len(self.finished)} of {self.planned} runs finished, {len(self.under_way)} under "
            f"way, {missing} missing ({len(self.failed)} of them failed so far)",
            f"  energy so far: {self.energy.text()}; time left {duration(self.left_s)}",
        ]
        lines += [f"  under way: {run.info.run_name}" for run in self.under_way]
        lines += [
            f"  {run.info.status.lower()}: {run.info.run_name}: "
            f"{run.data.tags.get(names.TAG_FAILURE, 'no reason known')}"
            for run in self.failed
        ]
        if not self.complete and info.status not in tracking.UNDER_WAY:
            again = command_line("sweep")
            lines.append(f"  to complete it: {again} --resume {info.run_id}")
        return "\n".join(lines)


def find_campaign(sweep: str | None) -> Run:
    """Return the parent run that an id or a name means: the latest of that name, or of all.

    Nothing is created, not even a store.

    Raises:
        OptionError: There is none.
    """
    condition = f"tags.`{names.TAG_KIND}` = '{names.KIND_SWEEP}'"
    campaigns = tracking.search_runs(None, condition)
    for run in campaigns:
        if sweep in (None, run.info.run_id, run.info.run_name):
            return run
    known = ", ".join(run.info.run_name for run in campaigns[:5]) or "none"
    raise OptionError(
        f"sweep must be the id or name of a campaign in {tracking.store_uri()}, but got {sweep!r}; "
        f"the latest are: {known}"
    )


def read_status(sweep: str | None) -> CampaignStatus:
    """Return the state of the campaign that :func:`find_campaign` finds.

    Raises:
        OptionError: There is none.
    """
    parent = find_campaign(sweep)
    finished: dict[str, Run] = {}
    under_way: dict[str, Run] = {}
    failed: dict[str, Run] = {}
    energy = EnergyTally()
    for run in children_of(parent):
        if run.info.status == "FINISHED" and not is_done(run, parent):
            energy.add(run)
            continue
        group = finished if run.info.status == "FINISHED" else failed
        if run.info.status in tracking.UNDER_WAY:
            group = under_way
        else:
            energy.add(run)
        group.setdefault(run.data.tags[names.TAG_POSITION], run)
    seconds = [s for s in map(run_seconds, finished.values()) if math.isfinite(s)]
    # Runs made elsewhere and imported were planned there.
    found = len({*finished, *under_way, *failed})
    planned = int(parent.data.tags.get(names.TAG_RUNS_PLANNED, found))
    left_s = sum(seconds) / len(seconds) * (planned - len(finished)) if seconds else math.nan
    return CampaignStatus(
        parent=parent,
        planned=planned,
        finished=tuple(finished.values()),
        under_way=tuple(under_way.values()),
        failed=tuple(
            run
            for position, run in failed.items()
            if position not in finished and position not in under_way
        ),
        energy=energy,
        left_s=left_s / max(len(under_way), 1),
    )
