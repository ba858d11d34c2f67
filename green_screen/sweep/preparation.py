"""What a campaign is to be, before anything of it has started."""

from __future__ import annotations

from dataclasses import dataclass

from mlflow.entities import Run

from green_screen import names, tracking
from green_screen.executors.executor import TRAINER
from green_screen.options import SweepOptions, option_params, require
from green_screen.space import Space, resolve
from green_screen.sweep import resume
from green_screen.sweep.design import Plan, make_plan
from green_screen.sweep.quality import quality
from green_screen.tracking import RunLogger
from green_screen.training import request


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a campaign is to be.

    Attributes:
        options: The options, those of the campaign that is resumed included.
        plan: Its runs.
        digest: What tells it from other campaigns.
        experiment_id: Where its runs are.
        parent: The campaign that is resumed; ``None`` for a new one.
    """

    options: SweepOptions
    plan: Plan
    digest: str
    experiment_id: str
    parent: Run | None


def find_design(options: SweepOptions, trainer: str = TRAINER) -> Design:
    """Return the campaign that the options mean: a new one, or one to be completed.

    Raises:
        OptionError: The campaign to resume is none, is another one, or is being run.
    """
    named = options.resume if options.resume != "new" else None
    parent = None
    if named is not None:
        parent = resume.read_parent(named)
        resume.check_not_running(parent, explicit=True)
        options = resume.options_of(parent, options)
    plan = make_plan(Space.load(options.config), options)
    # A run of a halving search is a full training that may be stopped: the campaign is another one.
    trained = option_params(resume.train_options(options))
    settings = {**trained, "protocol": options.protocol}
    # A configuration file counts by what is in it, and so in the plan; the others change no run.
    del settings["config"], settings["trace"], settings["checkpoint_every"]
    digest = plan.digest({**settings, "trainer": trainer})
    if parent is not None:
        before = parent.data.tags[names.TAG_DESIGN_HASH]
        require(
            digest == before,
            "resume",
            named,
            f"a campaign of the same design, but its runs differ (design {before}, now {digest}): "
            "the configuration file may have been edited",
        )
        return Design(
            options=options,
            plan=plan,
            digest=digest,
            experiment_id=parent.info.experiment_id,
            parent=parent,
        )
    experiment_id = tracking.ensure_experiment()
    if options.resume is None:
        parent = resume.find_unfinished(experiment_id, digest)
        if parent is not None:
            resume.check_not_running(parent, explicit=False)
    return Design(
        options=options, plan=plan, digest=digest, experiment_id=experiment_id, parent=parent
    )


def check_trainings(design: Design) -> str:
    """Refuse a campaign with a training that could not be done.

    Returns:
        What of its data set is left out, counted and named; empty if nothing.

    Raises:
        OptionError: One of them could not be done as it is asked for.
        SpaceError: The levels of one cannot be combined.
    """
    configs = {resolve(planned.config).effective for planned in design.plan.runs}
    return request.check_trainings(design.options, tuple(configs))


def log_design(design: Design, parent: RunLogger) -> str:
    """Log what is run and how well its factors can be told apart; return the latter in words."""
    parent.text(design.plan.as_csv(), names.DESIGN_CSV)
    plan = design.plan
    requested = quality(plan.space, plan.designed())
    executed = quality(plan.space, plan.designed(), effective=True)
    parent.metrics(
        {
            names.DESIGN_WORST_ASSOCIATION: requested.worst,
            names.DESIGN_CONDITION_NUMBER: requested.condition,
            names.DESIGN_EFFECTIVE_WORST_ASSOCIATION: executed.worst,
            names.DESIGN_EFFECTIVE_CONDITION_NUMBER: executed.condition,
        }
    )
    parent.tags(
        {
            names.TAG_WORST_PAIR: requested.pair,
            names.TAG_EFFECTIVE_WORST_PAIR: executed.pair,
            names.TAG_MISSING_LEVELS: ", ".join(executed.missing),
        }
    )
    if requested.text() == executed.text():
        return f"design: {executed.text()}"
    return f"design as requested: {requested.text()}\ndesign as executed: {executed.text()}"
