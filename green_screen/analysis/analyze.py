"""The analysis of a campaign, from its runs to a report, a decision and a registered model."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from green_screen import names, tracking
from green_screen.analysis import gallery, registration, tradeoff
from green_screen.analysis.energy_service import log_energy_model
from green_screen.analysis.final import FinalComparison, compare
from green_screen.analysis.final_runs import FinalPlan, campaign_options, run_finals
from green_screen.analysis.findings import Findings
from green_screen.analysis.publishing import publish
from green_screen.analysis.regression import EnergyAnalysis, fit_energy_model
from green_screen.analysis.runs import REQUESTED, config_of, read_epochs, read_runs
from green_screen.analysis.selection import Selection, SelectionError, select
from green_screen.options import AnalyzeOptions, OptionError, TrainOptions, option_params
from green_screen.space import FACTOR_NAMES, Space, TrainingConfig
from green_screen.sweep.executor import TRAINER, Executor
from green_screen.sweep.local import LocalExecutor, local_devices
from green_screen.tracking import RunLogger

# The responses that energies are predicted from.
PREDICTORS = ("epoch", "per_1k_images")


@dataclass(frozen=True, kw_only=True)
class Analyzed:
    """What an analysis came to.

    Attributes:
        run_id: The analysis run.
        findings: What the report was written from.
        report: Where the report lies, as a path or URI.
        model_version: The registered version of the selected model; ``None`` if there is none.
    """

    run_id: str
    findings: Findings
    report: str
    model_version: int | None


def analyze(
    options: AnalyzeOptions, *, trainer: str = TRAINER, executor: Executor | None = None
) -> Analyzed:
    """Analyse a campaign: fit, select, compare in final runs, report, register.

    Args:
        options: What to analyse and how.
        trainer: What each final run calls, as ``module:function``.
        executor: Where the final runs run; the default is one process after another on the first
            GPU, because ratios of energies hold on one board.

    Raises:
        CampaignError: There is no such campaign, or it has no runs.
        OptionError: CodeCarbon does not know the country.
    """
    runs = read_runs(sweep=options.sweep)
    campaign = MlflowClient().get_run(runs["campaign"].iloc[0])
    name = campaign.info.run_name
    with (
        tracking.open_run(
            run_name=f"analysis of {name}",
            tags={
                names.TAG_KIND: names.KIND_ANALYSIS,
                names.TAG_CAMPAIGN: campaign.info.run_id,
            },
        ) as run,
        ExitStack() as stack,
    ):
        # A run that `mlflow run` made has a name that says nothing.
        MlflowClient().update_run(run.run_id, name=f"analysis of {name}")
        run.params(option_params(options))
        dataset = from_pandas(runs.drop(columns="start_time"), name=_file_name(name))
        run.dataset(dataset, "analysis")
        if executor is None:
            executor = LocalExecutor(devices=local_devices()[:1])
            stack.callback(executor.close)
        cost = _cost(runs, campaign, options)
        fits = _fits(runs, options.response)
        selection, problems = _selection(runs, options)
        final, model_run_id = None, None
        if selection is not None and options.final_repeats > 0:
            try:
                final, model_run_id = _final(
                    options, campaign, selection, baseline_config(runs), run, trainer, executor
                )
            except OptionError as error:
                problems += (f"There was no final comparison: {error}",)
        findings = _with_figures(
            Findings(
                campaign=name,
                campaign_run_id=campaign.info.run_id,
                runs=runs,
                hardware=MlflowClient().get_run(runs["run_id"].iloc[0]).data.tags,
                analysis=fits[options.response],
                baseline=baseline_config(runs),
                selection=selection,
                final=final,
                problems=problems,
                front=tradeoff.pareto_front(runs),
                break_even=tradeoff.break_even(fits["epoch"]),
                cost=cost,
                how=_how(campaign, run),
            )
        )
        publish(findings, run)
        model_version = None
        if model_run_id is not None:
            model_version = registration.register_selected(findings, model_run_id)
        predictors = [fits[response] for response in PREDICTORS]
        if any(fit.model is not None for fit in predictors):
            log_energy_model(predictors)
    client = MlflowClient()
    return Analyzed(
        run_id=run.run_id,
        findings=findings,
        report=_where(client.get_run(run.run_id), names.REPORT_HTML),
        model_version=model_version,
    )


def _fits(runs: pd.DataFrame, response: str) -> dict[str, EnergyAnalysis]:
    """Return the fit of the response, and those that predictions and break-even are made from."""
    fits = {
        other: fit_energy_model(runs, response=other, permutations=1, cv_repeats=1)
        for other in PREDICTORS
        if other != response
    }
    return {response: fit_energy_model(runs, response=response), **fits}


def _selection(
    runs: pd.DataFrame, options: AnalyzeOptions
) -> tuple[Selection | None, tuple[str, ...]]:
    """Return the selected configuration, or ``None`` and why there is none."""
    try:
        selected = select(
            runs,
            options.objective,
            energy_budget_j=options.energy_budget_j,
            min_accuracy=options.min_accuracy,
        )
    except SelectionError as error:
        return None, (str(error),)
    return selected, ()


def _with_figures(findings: Findings) -> Findings:
    analysis = findings.analysis
    shown = gallery.shown_runs(analysis.runs, analysis.response.metric)
    figures = gallery.draw_all(
        analysis,
        epochs=read_epochs(list(shown)),
        front=findings.front,
        selection=findings.selection,
        final=findings.final,
        source=findings.source,
    )
    return dataclasses.replace(findings, figures=figures)


def baseline_config(runs: pd.DataFrame) -> TrainingConfig:
    """Return the requested configuration of the campaign's baseline, or the published one."""
    baselines = runs[runs["kind"] == names.KIND_BASELINE]
    if baselines.empty:
        return Space.load().baseline
    first = baselines.iloc[0]
    return config_of({factor: str(first[REQUESTED + factor]) for factor in FACTOR_NAMES})


def _final(
    options: AnalyzeOptions,
    campaign: Run,
    selection: Selection,
    baseline: TrainingConfig,
    run: RunLogger,
    trainer: str,
    executor: Executor,
) -> tuple[FinalComparison, str | None]:
    """Make the final runs and compare them; also return the one that logged the model."""
    if names.TAG_IMPORTED in campaign.data.tags:
        raise OptionError("the campaign was made elsewhere and imported")
    source = MlflowClient().get_run(selection.run_id)
    plan = FinalPlan(
        baseline=baseline,
        selected=selection.config,
        options=campaign_options(source.data.params, epochs=options.final_epochs),
        repeats=options.final_repeats,
        trainer=trainer,
    )
    made = run_finals(
        plan,
        parent_run_id=run.run_id,
        experiment_id=source.info.experiment_id,
        executor=executor,
    )
    return compare(made.runs, energy_metric=selection.energy_metric), made.model_run_id


def _cost(runs: pd.DataFrame, campaign: Run, options: AnalyzeOptions) -> tradeoff.Cost:
    country = options.country or campaign.data.params.get("country") or TrainOptions.country
    try:
        return tradeoff.campaign_cost(
            runs, country=country, price_per_kwh=options.price_per_kwh, currency=options.currency
        )
    except ValueError as error:
        raise OptionError(str(error)) from error


def _how(campaign: Run, run: RunLogger) -> str:
    return (
        f"Green Screen {version('green-screen')}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC. "
        f"Campaign {campaign.info.run_id}, analysis {run.run_id}."
    )


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)[:60]


def _where(run: Run, artifact: str) -> str:
    """Return where an artifact lies: a path if it is on this machine, else its URI."""
    uri = f"{run.info.artifact_uri}/{artifact}"
    return uri.removeprefix("file://")
