"""Makes the final runs: the selected configuration and the baseline, in turns, on one board."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from green_screen import names, tracking
from green_screen.analysis.final import BASELINE, SELECTED
from green_screen.analysis.runs import to_frame
from green_screen.options import OptionError, SweepOptions, TrainOptions, parse_value
from green_screen.space import TrainingConfig
from green_screen.sweep.cooldown import found_state
from green_screen.sweep.executor import TRAINER, Cooldown, Executor, Job, RestingState
from green_screen.sweep.progress import CampaignProgress
from green_screen.sweep.runner import Ended, run_jobs


@dataclass(frozen=True, kw_only=True)
class FinalPlan:
    """What the final runs train.

    Attributes:
        baseline: The requested configuration of the baseline.
        selected: The requested configuration that was selected.
        options: What each training takes beside its factors; the pair's number is added to the
            seed.
        repeats: How many pairs.
        trainer: What each job calls (:class:`~green_screen.sweep.executor.Job`).
    """

    baseline: TrainingConfig
    selected: TrainingConfig
    options: TrainOptions
    repeats: int
    trainer: str = TRAINER

    @property
    def runs(self) -> int:
        """How many runs it takes."""
        return len(list(self.turns()))

    def turns(self) -> Iterator[tuple[int, str, TrainingConfig]]:
        """Yield pair, role and configuration in the order of the runs.

        Every other pair begins with the selected one: a drift that is steady in time then weighs
        on both alike. A selection that is the baseline itself needs no runs to compare with.
        """
        if self.selected == self.baseline:
            for pair in range(self.repeats):
                yield pair, SELECTED, self.selected
            return
        for pair in range(self.repeats):
            both = [(pair, BASELINE, self.baseline), (pair, SELECTED, self.selected)]
            yield from both if pair % 2 == 0 else reversed(both)


@dataclass(frozen=True, kw_only=True)
class FinalRuns:
    """What came of the final runs.

    Attributes:
        runs: Rows of :func:`green_screen.analysis.runs.to_frame` with ``role`` and ``pair``.
        model_run_id: The run that logged the selected configuration's model; ``None`` if none did.
    """

    runs: pd.DataFrame
    model_run_id: str | None


def campaign_options(params: Mapping[str, str], *, epochs: int | None) -> TrainOptions:
    """Return the options that a run was trained with, from its parameters.

    Args:
        params: The logged parameters of a run of the campaign.
        epochs: Epochs of the final runs; ``None`` keeps the campaign's.

    Raises:
        OptionError: The parameters do not say what the run was trained on.
    """
    for name in ("dataset", "model", "epochs"):
        if not params.get(name):
            raise OptionError(
                f"the campaign's runs have no parameter {name}, so they cannot be trained again: "
                "use final_repeats=0"
            )
    hints = typing.get_type_hints(TrainOptions)
    values = {
        option.name: parse_value(option.name, hints[option.name], params[option.name])
        for option in dataclasses.fields(TrainOptions)
        if option.name in params and option.name != "log_model"
    }
    return TrainOptions(**{**values, **({} if epochs is None else {"epochs": epochs})})


def read_finals(campaign_run_id: str) -> pd.DataFrame:
    """Return the final runs of a campaign's latest analysis that made some.

    Returns:
        Rows of :func:`green_screen.analysis.runs.to_frame` with the columns ``role`` and ``pair``;
        none if no analysis of the campaign made final runs.
    """
    client = MlflowClient()
    experiment_id = client.get_run(campaign_run_id).info.experiment_id
    analyses = client.search_runs(
        [experiment_id],
        f"tags.`{names.TAG_CAMPAIGN}` = '{campaign_run_id}'",
        order_by=["attributes.start_time DESC"],
    )
    for analysis in analyses:
        finals = client.search_runs(
            [experiment_id],
            f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{analysis.info.run_id}' and "
            f"tags.`{names.TAG_KIND}` = '{names.KIND_FINAL}'",
        )
        if finals:
            return _with_roles(list(finals))
    return _with_roles([])


def _with_roles(runs: list[Run]) -> pd.DataFrame:
    """Return a table of final runs in the order in which they ran."""
    ordered = sorted(runs, key=lambda run: int(run.data.tags[names.TAG_POSITION]))
    frame = to_frame(ordered)
    frame["role"] = [run.data.tags[names.TAG_FINAL_ROLE] for run in ordered]
    frame["pair"] = [int(run.data.tags[names.TAG_FINAL_PAIR]) for run in ordered]
    return frame


def run_finals(
    plan: FinalPlan, *, parent_run_id: str, experiment_id: str, executor: Executor
) -> FinalRuns:
    """Train the final runs one after another, as children of `parent_run_id`.

    The first run of the selected configuration that finishes logs its model.
    """
    with CampaignProgress(plan.runs, [], executor.slots, executor.boards) as progress:
        maker = _Maker(plan, parent_run_id, experiment_id, progress)
        run_jobs(
            executor,
            range(plan.runs),
            maker.make_job,
            on_end=maker.note,
            on_lost=progress.lost,
            on_poll=progress.poll,
        )
    return FinalRuns(runs=_with_roles(maker.ended), model_run_id=maker.model_run_id)


class _Maker:
    """Makes the jobs in turn and takes note of their ends."""

    def __init__(
        self, plan: FinalPlan, parent_run_id: str, experiment_id: str, progress: CampaignProgress
    ) -> None:
        self._plan = plan
        self._turns = list(plan.turns())
        self._parent_run_id = parent_run_id
        self._experiment_id = experiment_id
        self._progress = progress
        self._resting: dict[str, RestingState] = {}
        self.ended: list[Run] = []
        self.model_run_id: str | None = None

    def make_job(self, position: int) -> Job:
        """Create the child run of a turn and return its job."""
        pair, role, config = self._turns[position]
        name = f"final {pair + 1} {role}"
        tags = {
            names.TAG_KIND: names.KIND_FINAL,
            names.TAG_POSITION: position,
            names.TAG_FINAL_ROLE: role,
            names.TAG_FINAL_PAIR: pair,
        }
        options = dataclasses.replace(
            self._plan.options,
            seed=self._plan.options.seed + pair,
            log_model=role == SELECTED and self.model_run_id is None,
        )
        job = Job(
            position=position,
            kind=names.KIND_FINAL,
            config=config,
            options=options,
            run_id=tracking.create_child(self._parent_run_id, name, tags, self._experiment_id),
            tracking_uri=tracking.store_uri(),
            trainer=self._plan.trainer,
            cooldown=Cooldown(
                band_c=SweepOptions.cooldown_band_c,
                band_w=SweepOptions.cooldown_band_w,
                timeout_s=SweepOptions.cooldown_timeout_s,
                resting=tuple(self._resting.values()),
            ),
        )
        self._progress.started(job, name)
        return job

    def note(self, ended: Ended) -> None:
        """Keep a run that ended, and how its board was before it."""
        self.ended.append(ended.run)
        if ended.finished and ended.result.job.options.log_model and self.model_run_id is None:
            self.model_run_id = str(ended.run.info.run_id)
        state = found_state(ended.run)
        if state is not None:
            self._resting.setdefault(state.board, state)
        self._progress.ended(ended)
