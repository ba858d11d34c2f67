"""The whole analysis on simulated campaigns in a real store, final runs in real processes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from simulated_campaign import SimulatedCampaign
from simulated_findings import epochs
from traces import run_trace

from entrypoints import analyze as analyze_entry
from green_screen import names, tracking
from green_screen.analysis import analyze as analyze_module
from green_screen.analysis import summary
from green_screen.analysis.analyze import (
    Analyzed,
    analyze,
    chosen,
    final_plan,
    latest_options,
    recommended,
)
from green_screen.decision.final_runs import read_finals, run_finals
from green_screen.executors.local import LocalExecutor
from green_screen.measurement.trace_file import write_trace
from green_screen.options import AnalyzeOptions, OptionError
from green_screen.registry.registry import ModelCard
from green_screen.report.document import Column, Table
from green_screen.report.findings import headline
from green_screen.results.subject import read_subject
from green_screen.statistics.law_analysis import analyze_law

TRAINER = "final_trainer:train"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        tracking.ensure_experiment()
        yield folder
        mlflow.set_tracking_uri(before)


def written(campaign: SimulatedCampaign, name: str, experiment: str = names.EXPERIMENT) -> str:
    return campaign.write(MlflowClient(), tracking.ensure_experiment(experiment), name)


@pytest.fixture(scope="module")
def executor() -> Iterator[LocalExecutor]:
    with LocalExecutor(devices=[None], preload=("mlflow", "green_screen.executors.child")) as local:
        yield local


@pytest.fixture(scope="module")
def campaign_id(store: Path) -> str:
    campaign = written(SimulatedCampaign(n_runs=60, seed=1, failed=(2,)), "a large campaign")
    baseline, *_ = tracking.search_runs(
        None, f"tags.`{names.TAG_KIND}` = 'baseline' and tags.`{names.TAG_POSITION}` = '0'"
    )
    write_trace(run_trace(), store / names.TRACE_PARQUET)
    MlflowClient().log_artifact(baseline.info.run_id, str(store / names.TRACE_PARQUET))
    return campaign


@pytest.fixture(scope="module")
def result(campaign_id: str, executor: LocalExecutor) -> Analyzed:
    options = AnalyzeOptions(sweep=campaign_id, final_repeats=2)
    return analyze(options, trainer=TRAINER, executor=executor)


@pytest.fixture(scope="module")
def finals(result: Analyzed) -> pd.DataFrame:
    """Return the final runs as a notebook finds them."""
    options = latest_options(result.findings.campaign_run_id)
    subject = read_subject(options)
    law = analyze_law(subject.runs)
    recommendation, _ = recommended(subject.runs, law, result.findings.selection, options)
    return read_finals(final_plan(subject, result.findings.selection, options, recommendation))


def test_the_analysis_run_carries_report_figures_tables_and_headline(
    result: Analyzed, campaign_id: str
) -> None:
    client = MlflowClient()
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "analysis of a large campaign"
    assert run.data.tags[names.TAG_KIND] == names.KIND_ANALYSIS
    assert run.data.tags[names.TAG_CAMPAIGN] == campaign_id
    assert "less energy than the baseline" in run.data.tags[names.TAG_HEADLINE]
    assert run.data.tags["mlflow.note.content"].startswith("**")
    assert run.data.params["objective"] == "efficiency"

    def listed(folder: str) -> set[str]:
        return {Path(f.path).name for f in client.list_artifacts(result.run_id, folder)}

    assert {names.REPORT_HTML, names.REPORT_PDF} <= listed("")
    assert {"forest.png", "pareto.svg", "final.png"} <= listed("figures")
    tables = {"runs.csv", "anova.csv", "effects.csv", "final_runs.csv", "energy_to_accuracy.csv"}
    tables |= {"predicted_configurations.csv", "level_plane.csv", "level_divergences.csv"}
    assert tables <= listed("tables")
    report = Path(result.report).read_text(encoding="utf-8")
    assert report.startswith("<!DOCTYPE html>")
    assert 'id="figure-trace"' in report  # the baseline has kept its power


def test_the_final_ratio_is_the_true_one(result: Analyzed) -> None:
    final = result.findings.final
    selection = result.findings.selection
    ratio = SimulatedCampaign().ratio
    truth = ratio(selection.config)
    estimate = final.saving.ratios[names.ENERGY_PER_EPOCH_J]
    assert estimate.pairs == 2 and estimate.value == pytest.approx(truth, rel=0.15)
    # What is recommended was never run, and is better in truth.
    recommendation = result.findings.recommendation
    truth = ratio(recommendation.config) / truth
    estimate = final.recommended.ratios[names.ENERGY_PER_EPOCH_J]
    assert estimate.pairs == 2 and estimate.value == pytest.approx(truth, rel=0.15) and truth < 0.9
    metrics = MlflowClient().get_run(result.run_id).data.metrics
    assert metrics[names.FINAL_ENERGY_RATIO] == pytest.approx(final.saving.energy_ratio.value)
    found = final.recommended.energy_ratio
    assert metrics[names.RECOMMENDED_ENERGY_RATIO] == pytest.approx(found.value)
    assert metrics[names.PREDICTED_ENERGY_J] == pytest.approx(recommendation.predicted["energy_j"])


def test_the_final_runs_are_children_in_turns_and_what_may_be_kept_logs_its_model(
    result: Analyzed, finals: pd.DataFrame
) -> None:
    assert finals["run_name"].tolist() == [
        "final 1 baseline",
        "final 1 selected",
        "final 1 recommended",
        "final 2 recommended",
        "final 2 selected",
        "final 2 baseline",
    ]
    assert set(finals["campaign"]) == {result.run_id} and set(finals["kind"]) == {"final"}
    assert finals["seed"].tolist() == [22] * 3 + [23] * 3
    client = MlflowClient()
    models = [client.get_run(run_id).outputs.model_outputs for run_id in finals["run_id"]]
    assert [len(logged) for logged in models] == [0, 1, 1, 0, 0, 0]


def test_the_challenger_carries_its_figures_and_a_description(
    result: Analyzed, campaign_id: str, finals: pd.DataFrame
) -> None:
    version = MlflowClient().get_model_version_by_alias(names.MODEL_NAME, names.CHALLENGER)
    assert version.version == result.model.version
    card = ModelCard.from_tags(version.tags)
    kept = result.findings.final.kept
    selected = finals[finals["role"] == kept]
    assert card.energy_per_epoch_j == pytest.approx(selected[names.ENERGY_PER_EPOCH_J].mean())
    assert card.energy_per_1k_images_j == pytest.approx(
        selected[names.ENERGY_PER_1K_IMAGES_J].mean()
    )
    chosen = result.findings.selection.effective
    assert (card.model, card.epochs) == ("resnet50", 5)
    assert card.partitioning == chosen["partitioning"]
    assert card.test_accuracy == pytest.approx(selected[names.TEST_ACCURACY].mean())
    assert card.campaign_run_id == campaign_id and card.final_runs == 2
    assert card.measurement_valid and card.hardware == "Simulated GPU"
    assert version.run_id == card.source_run_id == selected["run_id"].iloc[0]
    assert "resnet50, trained for 5 epochs on synthetic" in version.description
    found = result.findings
    levels = (found.recommendation if kept == "recommended" else found.selection).effective
    assert f"The {kept} configuration: " in version.description
    assert "".join(f"- {factor}: {levels[factor]}\n" for factor in levels) in version.description


def test_data_set_and_models_are_linked(result: Analyzed, campaign_id: str) -> None:
    run = MlflowClient().get_run(result.run_id)
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "a-large-campaign"
    assert json.loads(dataset.dataset.profile)["num_rows"] == len(result.findings.runs)
    assert len(run.outputs.model_outputs) == 1  # the energy model
    assert MlflowClient().get_registered_model(names.ENERGY_MODEL_NAME)


def test_the_summary_names_configuration_table_report_and_ui(result: Analyzed) -> None:
    lines = list(summary.lines(result))
    text = "\n".join(lines)
    # No negative control is a finding, so nothing stands before the result.
    assert lines[0].startswith("The selected configuration trains with")
    assert "best configuration (efficiency): " in text and "batch_size=" in text
    assert any(line.startswith("energy of the whole training") for line in lines)
    (report,) = [line for line in lines if line.startswith("report: ")]
    assert result.report.endswith(report.split()[1])
    assert any(line.startswith("shown to move the ") for line in lines)
    assert any(line.startswith("  make ui ") for line in lines[lines.index("next:") :])
    assert result.model is not None
    assert f"-m green_screen promote --name {result.model.name}" in text
    assert f"registered: {names.ENERGY_MODEL_NAME}" in text and "-m green_screen predict" in text
    paths = ("report: ", "  ")
    assert max(len(line) for line in lines if not line.startswith(paths)) <= 100


def test_a_report_below_the_working_directory_is_named_from_there(
    result: Analyzed, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(result.report).parent.parent
    monkeypatch.chdir(folder)
    near = Path(result.report).relative_to(folder)
    assert f"report:     {near}" in list(summary.lines(result))


def test_a_table_is_folded_to_the_width_of_a_terminal() -> None:
    table = Table(
        caption="Energies",
        columns=(
            Column("Quantity"),
            Column("Ratio, or difference", numeric=True),
            Column("Unit"),
        ),
        rows=(("training energy per 1,000 images", "0.36", "J"), ("duration", "11.25", "s")),
    )
    assert list(summary.plain(table, columns=32)) == [
        "Energies",
        "Quantity         Ratio, or  Unit",
        "                difference",
        "--------------  ----------  ----",
        "training              0.36  J",
        "energy per",
        "1,000 images",
        "duration             11.25  s",
    ]
    assert max(map(len, summary.plain(table))) <= 100


def test_final_runs_of_the_same_plan_are_used_again(
    result: Analyzed, finals: pd.DataFrame, executor: LocalExecutor
) -> None:
    client = MlflowClient()
    subject = read_subject(AnalyzeOptions(sweep=result.findings.campaign_run_id))
    selection = result.findings.selection
    options = AnalyzeOptions(final_repeats=3)
    recommendation = result.findings.recommendation
    plan = final_plan(subject, selection, options, recommendation, TRAINER)
    experiment = client.get_run(result.run_id).info.experiment_id
    parent = client.create_run(experiment, run_name="a second analysis").info.run_id
    client.set_tag(finals["run_id"].iloc[0], names.TAG_MEASUREMENT_VALID, "false")
    made = run_finals(plan, parent_run_id=parent, experiment_id=experiment, executor=executor)
    # Of the first pair one is invalid, so both are made again; the second is there, the third new.
    assert made.reused == 3
    by = [*[parent] * 3, *[result.run_id] * 3, *[parent] * 3]
    assert made.runs["campaign"].tolist() == by
    assert made.runs["pair"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert set(made.models) == {"selected", "recommended"}
    again = run_finals(plan, parent_run_id=parent, experiment_id=experiment, executor=executor)
    assert again.reused == 9 and again.models == made.models
    assert again.runs["run_id"].tolist() == made.runs["run_id"].tolist()
    # Where nothing is recommended any more, the others' runs of the same rounds are used.
    two = dataclasses.replace(plan, recommended=None)
    without = run_finals(two, parent_run_id=parent, experiment_id=experiment, executor=executor)
    assert without.reused == 6
    kept = again.runs[again.runs["role"] != "recommended"]
    assert without.runs["run_id"].tolist() == kept["run_id"].tolist()
    assert without.models == {"selected": made.models["selected"]}
    # Longer ones are other work.
    longer = dataclasses.replace(plan, options=dataclasses.replace(plan.options, epochs=6))
    assert read_finals(longer).empty


def test_failed_final_runs_leave_a_report_and_register_nothing(
    store: Path, executor: LocalExecutor
) -> None:
    campaign = written(SimulatedCampaign(n_runs=6, baseline_every=100), "finals fail", "a study")
    options = AnalyzeOptions(sweep=campaign, final_repeats=1)
    found = analyze(options, trainer="final_trainer:fail", executor=executor)
    assert found.model is None
    assert "No pair of the final runs has energies" in "\n".join(summary.lines(found))
    assert "2 of 2 final runs did not finish" in Path(found.report).read_text(encoding="utf-8")
    run = MlflowClient().get_run(found.run_id)
    assert run.info.status == "FINISHED"
    # Nobody chose an experiment, so it is the campaign's.
    assert run.info.experiment_id == MlflowClient().get_run(campaign).info.experiment_id


@pytest.mark.slow
def test_several_poor_campaigns_in_a_run_that_mlflow_made(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(SimulatedCampaign(n_runs=3, baseline_every=100, failed=(0,)), "poor")
    second = written(
        SimulatedCampaign(n_runs=3, baseline_every=100, machine="Another GPU"), "poorer"
    )
    client = MlflowClient()
    elsewhere = client.create_experiment("elsewhere")
    made = client.create_run(elsewhere, run_name="bold-crow-1")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    options = AnalyzeOptions(
        sweep="poor,poorer",
        filter="attributes.run_name != 'x'",
        coding="treatment",
        final_repeats=0,
    )
    found = analyze(options, executor=None)
    assert found.run_id == made.info.run_id
    name = client.get_run(found.run_id).info.run_name
    assert name in ("analysis of poor, poorer", "analysis of poorer, poor")
    assert set(found.findings.campaign_run_id.split(",")) == {first, second}
    assert latest_options(found.findings.campaign_run_id) == options
    assert found.findings.final is None and found.findings.analysis.coding == "treatment"
    assert "The first ten candidates by the rule" in "\n".join(summary.lines(found))
    report = Path(found.report).read_text(encoding="utf-8")
    assert first in report and second in report and "coding=treatment" in report
    assert "Simulated GPU" in report and "Another GPU" in report


def test_imported_runs_are_not_trained_again(store: Path) -> None:
    campaign = written(SimulatedCampaign(n_runs=3, baseline_every=100), "imported")
    options = AnalyzeOptions(sweep=campaign)
    subject = read_subject(options)
    selection, problems = chosen(subject.runs, options)
    MlflowClient().set_tag(selection.run_id, names.TAG_IMPORTED, "a folder")
    with pytest.raises(OptionError, match="made elsewhere and imported"):
        final_plan(subject, selection, options)
    assert problems == ()


def test_an_unknown_country_is_refused_before_any_final_run(store: Path, campaign_id: str) -> None:
    with pytest.raises(OptionError, match="XXX"):
        analyze(AnalyzeOptions(sweep=campaign_id, country="XXX"), trainer="nothing:here")


def test_the_entry_point_refuses_what_it_cannot_use(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert analyze_entry.main(["--sweep", "nowhere"]) == 1
    assert "there is no campaign with the run_name 'nowhere'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        analyze_entry.main(["--objective", "speed"])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "budget"}, "energy_budget_j must be given with objective=budget"),
        ({"energy_budget_j": 5.0}, "given with objective=budget"),
        ({"final_repeats": -1}, "final_repeats must be at least 0"),
        ({"final_epochs": 0}, "final_epochs must be at least 1"),
        ({"min_accuracy": 1.5}, "min_accuracy must be in"),
        ({"country": "usa"}, "country must be"),
    ],
)
def test_options_are_checked(options: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        AnalyzeOptions(**options)


def test_of_many_that_reach_an_accuracy_the_cheapest_are_read_and_the_baseline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    campaign = SimulatedCampaign(n_runs=40)
    monkeypatch.setattr(analyze_module, "_MAX_HISTORIES", 5)
    monkeypatch.setattr(analyze_module, "read_epochs", lambda ids, metrics: epochs(campaign, ids))
    runs = campaign.frame()
    runs.loc[runs["kind"] == names.KIND_BASELINE, names.ENERGY_TOTAL_J] *= 100
    _, table = analyze_module.energy_to_target(runs, 0.0)
    read = runs.set_index("run_id").loc[table["run_id"]]
    assert sorted(read["kind"]) == [names.KIND_BASELINE, *[names.KIND_RUN] * 5]
    swept = runs.loc[runs["kind"] == names.KIND_RUN, names.ENERGY_TOTAL_J]
    assert read.loc[read["kind"] == names.KIND_RUN, names.ENERGY_TOTAL_J].max() == (
        swept.nsmallest(5).max()
    )
    # It is not added where it is one of them.
    _, few = analyze_module.energy_to_target(campaign.frame().iloc[:3], 0.0)
    assert len(few) == 3


@pytest.mark.slow
def test_a_screened_campaign_tells_what_energy_costs_and_selects_nothing(store: Path) -> None:
    campaign = SimulatedCampaign(n_runs=60, seed=3, protocol="screening")
    sweep = written(campaign, "a screened campaign")
    found = analyze(AnalyzeOptions(sweep=sweep)).findings
    assert found.analysis.model is not None
    assert found.selection is None and found.final is None
    (problem,) = found.problems
    assert "screenings, which have no accuracy" in problem
    assert headline(found).startswith("Shown to move the training energy")
    assert headline(found).endswith(f"No configuration could be selected: {problem}.")
    assert found.front.empty
    # What it cost itself is known.
    assert found.cost.n_missing == 0
    assert found.cost.energy_kwh == pytest.approx(len(found.runs) * 3_000 / 3.6e6)


@pytest.mark.slow
def test_both_protocols_count_together_where_they_measure_the_same(store: Path) -> None:
    screened = SimulatedCampaign(n_runs=40, seed=4, protocol="screening")
    trained = SimulatedCampaign(n_runs=40, seed=5, start_ms=1_710_000_000_000)
    names_of = ",".join((written(screened, "screened"), written(trained, "trained")))
    result = analyze(AnalyzeOptions(sweep=names_of, final_repeats=0))
    found = result.findings
    assert len(found.analysis.runs) == len(found.runs)
    assert found.selection is not None
    chosen_run = found.runs.set_index("run_id").loc[found.selection.run_id]
    assert not pd.isna(chosen_run[names.VAL_ACCURACY])
    assert len(found.selection.candidates) <= len(trained.design())
