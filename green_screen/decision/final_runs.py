"""Makes the final runs: each configuration in turn, round after round, on one board."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from green_screen import names, tracking
from green_screen.decision.final import BASELINE, RECOMMENDED, SELECTED
from green_screen.executors.cooldown import found_state
from green_screen.executors.executor import TRAINER, Cooldown, Executor, Job, RestingState
from green_screen.options import (
    OptionError,
    SweepOptions,
    TrainOptions,
    option_params,
    parse_value,
)
from green_screen.results.runs import to_frame
from green_screen.space import TrainingConfig
from green_screen.sweep.progress import CampaignProgress
from green_screen.sweep.runner import Ended, run_jobs

# Options that are not those of the campaign: the configuration is given, and which run keeps the
# model is decided here.
_OWN = ("config", "log_model")
# Options that say nothing of what is trained.
_NOT_THE_WORK = (*_OWN, "trace", "checkpoint_every")


@dataclass(frozen=True, kw_only=True)
class FinalPlan:
    """What the final runs train.

    Attributes:
        campaign: Run id of the campaign that was analysed; of several, joined by commas.
        baseline: The requested configuration of the baseline.
        selected: The requested configuration that was selected.
        options: What each training takes beside its factors; the round's number is added to the
            seed.
        repeats: How many rounds.
        recommended: The requested configuration that is recommended, if there is one.
        trainer: What each job calls (:class:`~green_screen.executors.executor.Job`).
    """

    campaign: str
    baseline: TrainingConfig
    selected: TrainingConfig
    options: TrainOptions
    repeats: int
    recommended: TrainingConfig | None = None
    trainer: str = TRAINER

    @property
    def configs(self) -> dict[str, TrainingConfig]:
        """Role -> its configuration; a selection that is the baseline itself is run as that."""
        found = {BASELINE: self.baseline}
        if self.selected != self.baseline:
            found[SELECTED] = self.selected
        if self.recommended is not None:
            found[RECOMMENDED] = self.recommended
        return found

    @property
    def kept(self) -> tuple[str, ...]:
        """The roles whose model may be kept: all but a baseline that something was better than."""
        return tuple(
            role for role in self.configs if role != BASELINE or SELECTED not in self.configs
        )

    @property
    def runs(self) -> int:
        """How many runs it takes."""
        return self.repeats * len(self.configs)

    def turns(self) -> Iterator[tuple[int, str, TrainingConfig]]:
        """Yield round, role and configuration in the order of the runs.

        Every other round is run backwards: a drift that is steady in time then weighs on all alike.
        """
        there = list(self.configs.items())
        for pair in range(self.repeats):
            for role, config in there if pair % 2 == 0 else reversed(there):
                yield pair, role, config

    def params(self, pair: int, config: TrainingConfig) -> dict[str, str]:
        """Return the parameters by which a run is one of this plan."""
        options = option_params(dataclasses.replace(self.options, seed=self.options.seed + pair))
        return config.as_params() | {k: v for k, v in options.items() if k not in _NOT_THE_WORK}


@dataclass(frozen=True, kw_only=True)
class FinalRuns:
    """What came of the final runs.

    Attributes:
        runs: Rows of :func:`green_screen.results.runs.to_frame` with ``role`` and ``pair``.
        models: Role -> the run that logged its model; without those of which none did.
        reused: How many of the runs an earlier analysis had made.
    """

    runs: pd.DataFrame
    models: Mapping[str, str]
    reused: int


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
    values = options_of(TrainOptions, params)
    given = {name: value for name, value in values.items() if name not in _OWN}
    return TrainOptions(**{**given, **({} if epochs is None else {"epochs": epochs})})


def options_of(cls: type[Any], params: Mapping[str, str]) -> dict[str, Any]:
    """Return the options among logged parameters, each as the type that `cls` gives it."""
    hints = typing.get_type_hints(cls)
    return {
        option.name: parse_value(option.name, hints[option.name], params[option.name])
        for option in dataclasses.fields(cls)
        if option.name in params
    }


def read_finals(plan: FinalPlan) -> pd.DataFrame:
    """Return the complete rounds of final runs that were made by a plan, in whichever analysis.

    Returns:
        Rows of :func:`green_screen.results.runs.to_frame` with the columns ``role`` and ``pair``.
    """
    return _with_roles(_made(plan).values())


def _made(plan: FinalPlan) -> dict[int, Run]:
    """Return position in the plan -> a finished run with a valid measurement, the latest there is.

    A part of a round does not count: the rest would not be next to it in time.
    """
    found = tracking.search_runs(
        None,
        f"tags.`{names.TAG_CAMPAIGN}` = '{plan.campaign}' and "
        f"tags.`{names.TAG_KIND}` = '{names.KIND_FINAL}' and attributes.status = 'FINISHED'",
    )
    rounds: dict[int, list[tuple[int, str, TrainingConfig]]] = {}
    for position, (pair, role, config) in enumerate(plan.turns()):
        rounds.setdefault(pair, []).append((position, role, config))
    made: dict[int, Run] = {}
    for pair, turns in rounds.items():
        # An analysis makes each round once, so the runs of one parent belong together.
        for parent in dict.fromkeys(run.data.tags.get(MLFLOW_PARENT_RUN_ID) for run in found):
            runs = {
                position: run
                for position, role, config in turns
                for run in found
                if run.data.tags.get(MLFLOW_PARENT_RUN_ID) == parent
                and _is_turn(run, pair, role, plan.params(pair, config))
            }
            if len(runs) == len(turns):
                made |= runs
                break
    return made


def _is_turn(run: Run, pair: int, role: str, params: Mapping[str, str]) -> bool:
    tags = run.data.tags
    return (
        tags.get(names.TAG_FINAL_ROLE) == role
        and tags.get(names.TAG_FINAL_PAIR) == str(pair)
        and tags.get(names.TAG_MEASUREMENT_VALID) != "false"
        and params.items() <= run.data.params.items()
    )


def _with_roles(runs: Iterable[Run]) -> pd.DataFrame:
    """Return a table of final runs in the order of their rounds, and in each as they ran."""

    def place(run: Run) -> tuple[int, int]:
        tags = run.data.tags
        return int(tags[names.TAG_FINAL_PAIR]), int(tags[names.TAG_POSITION])

    ordered = sorted(runs, key=place)
    frame = to_frame(ordered)
    frame["role"] = [run.data.tags[names.TAG_FINAL_ROLE] for run in ordered]
    frame["pair"] = [int(run.data.tags[names.TAG_FINAL_PAIR]) for run in ordered]
    return frame


def run_finals(
    plan: FinalPlan, *, parent_run_id: str, experiment_id: str, executor: Executor
) -> FinalRuns:
    """Train the final runs one after another, as children of `parent_run_id`.

    Rounds that an earlier analysis made by the same plan are used again. Of each configuration that
    may be kept, the first run that finishes logs its model.
    """
    made = _made(plan)
    configs = [config for *_, config in plan.turns()]
    with CampaignProgress(configs, made, executor.slots, executor.boards) as progress:
        if made:
            progress.say(f"{len(made)} of {plan.runs} final runs were made before: used again")
        maker = _Maker(plan, parent_run_id, experiment_id, progress, made)
        run_jobs(
            executor,
            maker.missing,
            maker.make_job,
            on_end=maker.note,
            on_lost=progress.lost,
            on_poll=progress.poll,
        )
    return FinalRuns(
        runs=_with_roles([*made.values(), *maker.ended]), models=maker.models, reused=len(made)
    )


def _has_model(run: Run) -> bool:
    # A search does not return what a run put out.
    outputs = tracking.read_run(run.info.run_id).outputs
    return bool(outputs and outputs.model_outputs)


class _Maker:
    """Makes the jobs in turn and takes note of their ends."""

    def __init__(
        self,
        plan: FinalPlan,
        parent_run_id: str,
        experiment_id: str,
        progress: CampaignProgress,
        made: Mapping[int, Run],
    ) -> None:
        self._plan = plan
        self._turns = list(plan.turns())
        self._parent_run_id = parent_run_id
        self._experiment_id = experiment_id
        self._progress = progress
        self._resting: dict[str, RestingState] = {}
        self.missing = [position for position in range(plan.runs) if position not in made]
        self.ended: list[Run] = []
        self.models: dict[str, str] = {}
        for run in made.values():
            role = run.data.tags[names.TAG_FINAL_ROLE]
            if role in plan.kept and role not in self.models and _has_model(run):
                self.models[role] = str(run.info.run_id)

    def make_job(self, position: int) -> Job:
        """Create the child run of a turn and return its job."""
        pair, role, config = self._turns[position]
        name = f"final {pair + 1} {role}"
        tags = {
            names.TAG_KIND: names.KIND_FINAL,
            names.TAG_POSITION: position,
            names.TAG_FINAL_ROLE: role,
            names.TAG_FINAL_PAIR: pair,
            names.TAG_CAMPAIGN: self._plan.campaign,
        }
        options = dataclasses.replace(
            self._plan.options,
            seed=self._plan.options.seed + pair,
            log_model=role in self._plan.kept and role not in self.models,
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
        if ended.finished and ended.result.job.options.log_model:
            role = ended.run.data.tags[names.TAG_FINAL_ROLE]
            self.models.setdefault(role, str(ended.run.info.run_id))
        state = found_state(ended.run)
        if state is not None:
            self._resting.setdefault(state.board, state)
        self._progress.ended(ended)
