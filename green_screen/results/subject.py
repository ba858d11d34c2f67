"""What is analysed: the runs, and the campaigns that they are from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from green_screen import names, tracking
from green_screen.options import AnalyzeOptions, TrainOptions
from green_screen.results.frame import REQUESTED, config_of, in_run_order
from green_screen.results.runs import CampaignError, read_runs
from green_screen.space import FACTOR_NAMES, Space, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Runs to analyse and their campaigns.

    Attributes:
        runs: Rows of :func:`~green_screen.results.runs.read_runs`, in the order of
            :func:`~green_screen.results.frame.in_run_order`.
        campaigns: The parent runs, the one that began first before the others.
    """

    runs: pd.DataFrame
    campaigns: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The campaign's name; of several, all names."""
        return ", ".join(campaign.info.run_name for campaign in self.campaigns)

    @property
    def run_id(self) -> str:
        """The campaign's run id; of several, all ids, joined by commas.

        They are sorted: final runs and options of earlier analyses are found by this text.
        """
        return ",".join(sorted(campaign.info.run_id for campaign in self.campaigns))

    @property
    def country(self) -> str:
        """Where the first campaign that says so ran, or the default."""
        known = (campaign.data.params.get("country") for campaign in self.campaigns)
        return next(filter(None, known), TrainOptions.country)

    @property
    def baseline(self) -> TrainingConfig:
        """The requested configuration of the baseline, or the published one."""
        return baseline_config(self.runs)

    @property
    def unfinished(self) -> str:
        """How much of their plan the campaigns have done, in words, while one has not ended.

        A campaign that has ended has finished what it could: the runs say what failed. One that
        was imported does not say what was planned.
        """
        planned = {
            campaign.info.run_id: int(campaign.data.tags[names.TAG_RUNS_PLANNED])
            for campaign in self.campaigns
            if names.TAG_RUNS_PLANNED in campaign.data.tags and campaign.info.status != "FINISHED"
        }
        finished = self.runs[
            self.runs["campaign"].isin(planned) & self.runs["status"].eq("FINISHED")
        ]
        n_finished = len(finished[["campaign", "place"]].drop_duplicates())
        n_planned = sum(planned.values())
        if n_finished >= n_planned:
            return ""
        return f"{n_finished:,} of {n_planned:,} planned runs have finished"

    def experiment(self) -> str:
        """Return the name of the experiment that the first campaign is in."""
        experiment_id = self.campaigns[0].info.experiment_id
        found = tracking.patiently(lambda: MlflowClient().get_experiment(experiment_id))
        return str(found.name)

    def hardware(self) -> dict[str, Mapping[str, str]]:
        """Return for each machine that finished a run the tags of the first one, or of any run."""
        finished = self.runs[self.runs["status"] == "FINISHED"]
        firsts = (self.runs if finished.empty else finished).drop_duplicates("machine")
        return {
            machine: tracking.read_run(run_id).data.tags
            for machine, run_id in zip(firsts["machine"], firsts["run_id"], strict=True)
        }


def read_subject(options: AnalyzeOptions) -> Subject:
    """Read the runs that the options name.

    Raises:
        CampaignError: There is no such campaign, or it has no runs.
        StoreUnavailableError: The tracking server stayed away.
    """
    found = tracking.patiently(
        lambda: read_runs(
            sweep=options.sweep, experiment=options.experiment, filter_string=options.filter
        )
    )
    runs = in_run_order(found).reset_index(drop=True)
    campaigns = tuple(tracking.read_run(run_id) for run_id in runs["campaign"].unique() if run_id)
    if not campaigns:
        raise CampaignError(f"none of the {len(runs)} runs found belongs to a campaign")
    return Subject(runs=runs, campaigns=campaigns)


def baseline_config(runs: pd.DataFrame) -> TrainingConfig:
    """Return the requested configuration of the campaign's baseline, or the published one.

    Of campaigns with different baselines it is the one that was run most often, of equally many the
    earliest.
    """
    baselines = in_run_order(runs[runs["kind"] == names.KIND_BASELINE])
    levels = (baselines[REQUESTED + factor] for factor in FACTOR_NAMES)
    counts = Counter(zip(*levels, strict=True))
    if not counts:
        return Space.load().baseline
    most = max(counts, key=lambda config: counts[config])  # the first of several
    return config_of(dict(zip(FACTOR_NAMES, most, strict=True)))
