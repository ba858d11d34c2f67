"""The analysis of a campaign, from its runs to a report, a decision and a registered model."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import cast

import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from green_screen import __version__, names, tracking
from green_screen.decision import tradeoff
from green_screen.decision.final import FinalComparison, compare
from green_screen.decision.final_runs import (
    FinalPlan,
    FinalRuns,
    campaign_options,
    options_of,
    run_finals,
)
from green_screen.decision.recommendation import Recommendation, recommend
from green_screen.decision.selection import Selection, SelectionError, select
from green_screen.executors.executor import TRAINER, Executor
from green_screen.executors.local import LocalExecutor, local_devices
from green_screen.options import AnalyzeOptions, OptionError, option_params
from green_screen.registry import registration
from green_screen.registry.energy_service import EnergyModels, energy_models, log_energy_model
from green_screen.report import gallery
from green_screen.report.figure_trace import RunPower
from green_screen.report.findings import Findings
from green_screen.report.publishing import publish
from green_screen.results.runs import read_epochs
from green_screen.results.subject import Subject, read_subject
from green_screen.results.traces import read_run_trace
from green_screen.statistics.accuracy import analyze_accuracy
from green_screen.statistics.coding import CodingKind
from green_screen.statistics.law_analysis import LawAnalysis, analyze_law
from green_screen.statistics.regression import EnergyAnalysis, fit_energy_model
from green_screen.tracking import RunLogger
from green_screen.training import request

# The responses that energies are predicted from.
PREDICTORS = ("epoch", "per_1k_images")


# Most runs whose histories are read for the energy to reach an accuracy: more rows nobody reads.
_MAX_HISTORIES = 200


@dataclass(frozen=True, kw_only=True)
class Analyzed:
    """What an analysis came to.

    Attributes:
        run_id: The analysis run.
        findings: What the report was written from.
        report: Where the report lies, as a path or URI.
        model: The registered version of the model that is kept; ``None`` if there is none.
        predicts: Whether a version of the energy model was registered.
    """

    run_id: str
    findings: Findings
    report: str
    model: ModelVersion | None
    predicts: bool


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
        StoreUnavailableError: The tracking server stayed away.
    """
    if options.country is not None:
        request.check_country(options.country)
    subject = read_subject(options)
    runs, title = subject.runs, f"analysis of {subject.name}"
    with (
        tracking.open_run(
            run_name=title,
            tags={names.TAG_KIND: names.KIND_ANALYSIS, names.TAG_CAMPAIGN: subject.run_id},
            experiment=subject.experiment(),
            params=option_params(options),
        ) as run,
        ExitStack() as stack,
    ):
        # A run that `mlflow run` made has a name that says nothing.
        tracking.patiently(lambda: MlflowClient().update_run(run.run_id, name=title))
        dataset = from_pandas(runs.drop(columns="start_time"), name=_file_name(subject.name))
        run.dataset(dataset, "analysis")
        if executor is None and options.final_repeats > 0:
            # Now, because it gets ready for the final runs while the campaign is fitted.
            executor = LocalExecutor(devices=local_devices()[:1])
            stack.callback(executor.close)
        cost = _cost(subject, options)
        law = analyze_law(runs)
        coding = cast(CodingKind, options.coding)
        analysis = fit_energy_model(runs, response=options.response, coding=coding)
        selection, problems = chosen(runs, options)
        recommendation, unrecommended = recommended(runs, law, selection, options)
        final: FinalComparison | None = None
        made: FinalRuns | None = None
        if selection is not None and executor is not None and options.final_repeats > 0:
            try:
                plan = final_plan(subject, selection, options, recommendation, trainer)
                made = run_finals(
                    plan,
                    parent_run_id=run.run_id,
                    experiment_id=tracking.read_run(selection.run_id).info.experiment_id,
                    executor=executor,
                )
                final = compare(made.runs, energy_metric=selection.energy_metric)
            except OptionError as error:
                problems += (f"There was no final comparison: {error}",)
        target_accuracy, to_accuracy = energy_to_target(runs, options.target_accuracy)
        findings = _with_figures(
            Findings(
                campaign=subject.name,
                campaign_run_id=subject.run_id,
                runs=runs,
                hardware=subject.hardware(),
                analysis=analysis,
                law=law,
                accuracy=analyze_accuracy(runs, names.TEST_ACCURACY),
                baseline=subject.baseline,
                selection=selection,
                recommendation=recommendation,
                unrecommended=unrecommended,
                final=final,
                problems=problems,
                front=tradeoff.pareto_front(runs),
                target_accuracy=target_accuracy,
                to_accuracy=to_accuracy,
                cost=cost,
                finals_reused=made.reused if made else 0,
                how=_how(subject, run, options),
                # A filter's part of the runs has no plan.
                unfinished="" if options.filter else subject.unfinished,
            )
        )
        publish(findings, run)
        model = None
        if made is not None and final is not None and final.kept in made.models:
            model = registration.register(findings, final.kept, made.models[final.kept])
        predictors = _predictors(law, runs, analysis, coding)
        if predictors is not None:
            tracking.patiently(lambda: log_energy_model(predictors))
    return Analyzed(
        run_id=run.run_id,
        findings=findings,
        report=_where(tracking.read_run(run.run_id), names.REPORT_HTML),
        model=model,
        predicts=predictors is not None,
    )


def latest_options(campaign_run_id: str) -> AnalyzeOptions:
    """Return the options of the latest finished analysis of a campaign; the defaults without one.

    Args:
        campaign_run_id: As in :attr:`~green_screen.results.subject.Subject.run_id`.
    """
    found = tracking.search_runs(
        None,
        f"tags.`{names.TAG_CAMPAIGN}` = '{campaign_run_id}' and "
        f"tags.`{names.TAG_KIND}` = '{names.KIND_ANALYSIS}' and attributes.status = 'FINISHED'",
        limit=1,
    )
    return AnalyzeOptions(**options_of(AnalyzeOptions, found[0].data.params) if found else {})


def _predictors(
    law: LawAnalysis, runs: pd.DataFrame, fitted: EnergyAnalysis, coding: CodingKind
) -> EnergyModels | None:
    """Return what predicts the campaign's energies; log-linear models where the law does not."""
    if by_law := energy_models(law, ()):
        return by_law
    bare = {"permutations": 0, "cv_repeats": 0, "trees": 0}
    return energy_models(
        None,
        [
            fitted
            if response == fitted.response.name
            else fit_energy_model(runs, response=response, coding=coding, **bare)
            for response in PREDICTORS
        ],
    )


def chosen(runs: pd.DataFrame, options: AnalyzeOptions) -> tuple[Selection | None, tuple[str, ...]]:
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


def recommended(
    runs: pd.DataFrame, law: LawAnalysis, selection: Selection | None, options: AnalyzeOptions
) -> tuple[Recommendation | None, str]:
    """Return the configuration that is recommended, or ``None`` and why there is none."""
    if selection is None:
        return None, "no configuration was selected that it could be better than"
    return recommend(
        runs,
        law,
        analyze_accuracy(runs),
        selection,
        energy_budget_j=options.energy_budget_j,
        min_accuracy=options.min_accuracy,
    )


def _with_figures(findings: Findings) -> Findings:
    analysis = findings.analysis
    shown = gallery.shown_runs(analysis.runs, analysis.response.metric)
    traced = gallery.traced_runs(analysis.runs, findings.selection)
    traces = {label: read_run_trace(run_id) for run_id, label in traced.items()}
    figures = gallery.draw_all(
        analysis,
        findings.law,
        findings.plane,
        epochs=tracking.patiently(lambda: read_epochs(list(shown))),
        candidates=tradeoff.front_candidates(findings.runs).runs,
        front=findings.front,
        selection=findings.selection,
        final=findings.final,
        source=findings.source,
        powers=[RunPower(label, *trace) for label, trace in traces.items() if trace is not None],
    )
    return dataclasses.replace(findings, figures=figures)


def final_plan(
    subject: Subject,
    selection: Selection,
    options: AnalyzeOptions,
    recommendation: Recommendation | None = None,
    trainer: str = TRAINER,
) -> FinalPlan:
    """Return what the final runs of an analysis train.

    Raises:
        OptionError: The selected run cannot be trained again.
    """
    source = tracking.read_run(selection.run_id)
    if names.TAG_IMPORTED in source.data.tags:
        raise OptionError("the selected run was made elsewhere and imported")
    return FinalPlan(
        campaign=subject.run_id,
        baseline=subject.baseline,
        selected=selection.config,
        recommended=recommendation.config if recommendation else None,
        options=campaign_options(source.data.params, epochs=options.final_epochs),
        repeats=options.final_repeats,
        trainer=trainer,
    )


def energy_to_target(runs: pd.DataFrame, target: float | None) -> tuple[float, pd.DataFrame]:
    """Return the energy that runs took to reach a validation accuracy.

    Args:
        runs: Rows of :func:`~green_screen.results.runs.read_runs`; the epochs of those that end at
            the target or above it are read from the store.
        target: The accuracy as a fraction; ``None`` is the mean of the baseline's last epochs.

    Returns:
        The accuracy, NaN if the baseline has none, and rows of
        :func:`~green_screen.decision.tradeoff.energy_to_accuracy` for the runs that end at or
        above it; of many, those with the least energy and the baseline's first.
    """
    if target is None:
        candidates = tradeoff.accuracy_candidates(runs).runs
        target = candidates.loc[
            candidates["kind"] == names.KIND_BASELINE, names.VAL_ACCURACY
        ].mean()
    reach = tradeoff.reaching(runs, target)
    baseline = reach["kind"] == names.KIND_BASELINE
    # Without it there would be nothing to compare the others with.
    reach = reach[(reach.index < _MAX_HISTORIES) | (baseline & (baseline.cumsum() == 1))]
    metrics = (names.VAL_ACCURACY, names.EPOCH_ENERGY_J)
    epochs = tracking.patiently(lambda: read_epochs(reach["run_id"].tolist(), metrics=metrics))
    return float(target), tradeoff.energy_to_accuracy(reach, epochs, target)


def _cost(subject: Subject, options: AnalyzeOptions) -> tradeoff.Cost:
    country = options.country or subject.country
    try:
        cost = tradeoff.campaign_cost(
            subject.runs,
            country=country,
            price_per_kwh=options.price_per_kwh,
            currency=options.currency,
        )
    except ValueError as error:
        raise OptionError(str(error)) from error
    searches = [
        c.data.metrics for c in subject.campaigns if names.SEARCH_ENERGY_J in c.data.metrics
    ]
    if not searches:
        return cost
    search_j, full_j = (
        sum(metrics[name] for metrics in searches)
        for name in (names.SEARCH_ENERGY_J, names.SEARCH_FORECAST_FULL_J)
    )
    return dataclasses.replace(
        cost, search_kwh=search_j / tradeoff.J_PER_KWH, full_kwh=full_j / tradeoff.J_PER_KWH
    )


def _how(subject: Subject, run: RunLogger, options: AnalyzeOptions) -> str:
    values = ", ".join(f"{name}={value}" for name, value in option_params(options).items())
    return (
        f"Green Screen {__version__}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC. "
        f"Campaign {subject.run_id.replace(',', ', ')}, analysis {run.run_id}. Options: {values}."
    )


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text)[:60]


def _where(run: Run, artifact: str) -> str:
    """Return where an artifact lies: a path if it is on this machine, else its URI."""
    uri = f"{run.info.artifact_uri}/{artifact}"
    return uri.removeprefix("file://")
