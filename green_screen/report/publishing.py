"""Logs what an analysis found to its MLflow run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from green_screen import names
from green_screen.decision.final import RECOMMENDED
from green_screen.report.findings import Findings, difference_text, headline
from green_screen.report.html import to_html
from green_screen.report.pdf import to_pdf
from green_screen.report.report import write_report
from green_screen.tracking import RunLogger


def publish(findings: Findings, run: RunLogger) -> None:
    """Log the reports, figures, tables and key figures to the analysis run."""
    document = write_report(findings)
    run.tags({names.TAG_HEADLINE: document.headline, MLFLOW_RUN_NOTE: _note(findings)})
    run.metrics(_metrics(findings))
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        (where / names.REPORT_HTML).write_text(to_html(document), encoding="utf-8")
        (where / names.REPORT_PDF).write_bytes(to_pdf(document))
        run.artifact(where / names.REPORT_HTML)
        run.artifact(where / names.REPORT_PDF)
        for figure in findings.figures.values():
            if not figure.reason:
                (where / f"{figure.name}.png").write_bytes(figure.png)
                (where / f"{figure.name}.svg").write_bytes(figure.wide_svg)
                run.artifact(where / f"{figure.name}.png", "figures")
                run.artifact(where / f"{figure.name}.svg", "figures")
        for name, table in _tables(findings):
            table.to_csv(where / f"{name}.csv", index=False)
            run.artifact(where / f"{name}.csv", "tables")


def _tables(findings: Findings) -> Iterator[tuple[str, pd.DataFrame]]:
    analysis = findings.analysis
    yield "runs", findings.runs
    yield "excluded_runs", analysis.excluded
    yield "law_ratios", findings.law.ratios
    yield "law_tests", findings.law.tests
    yield "negative_controls", findings.law.controls
    yield "anova", analysis.anova
    yield "effects", analysis.effects
    yield "simple_effects", analysis.simple_effects
    yield "covariates", analysis.covariates
    yield "residuals", analysis.residuals
    yield "importance", analysis.importance
    yield "level_plane", findings.plane
    yield "level_accuracies", findings.accuracy.differences
    yield "level_divergences", findings.accuracy.diverged
    yield "pareto_front", findings.front
    yield "energy_to_accuracy", findings.to_accuracy
    if findings.selection is not None:
        yield "candidates", findings.selection.candidates
        yield "not_candidates", findings.selection.excluded
    if findings.recommendation is not None:
        yield "predicted_configurations", findings.recommendation.candidates
    if findings.final is not None:
        yield "final_runs", findings.final.runs


def _metrics(findings: Findings) -> dict[str, float]:
    metrics: dict[str, float] = {names.RUNS_ANALYSED: len(findings.analysis.runs)}
    choice = findings.law.choice
    described = choice.law if choice.model == "law" else findings.analysis.cross_validation
    if described is not None:
        metrics[names.R2_HELD_OUT] = described.r2
    if (found := findings.recommendation) is not None:
        metrics |= {
            names.PREDICTED_ENERGY_J: found.predicted["energy_j"],
            names.PREDICTED_ENERGY_LOW_J: found.predicted["energy_low_j"],
            names.PREDICTED_ENERGY_HIGH_J: found.predicted["energy_high_j"],
        }
    final = findings.final
    if final is not None and (saving := final.saving) is not None:
        ratio, accuracy = saving.energy_ratio, saving.accuracy_difference
        metrics |= {
            names.FINAL_ENERGY_RATIO: ratio.value,
            names.FINAL_ENERGY_RATIO_LOW: ratio.low,
            names.FINAL_ENERGY_RATIO_HIGH: ratio.high,
            names.FINAL_ACCURACY_DIFFERENCE: accuracy.value,
            names.FINAL_ACCURACY_DIFFERENCE_LOW: accuracy.low,
            names.FINAL_ACCURACY_DIFFERENCE_HIGH: accuracy.high,
        }
    if final is not None and (recommended := final.recommended) is not None:
        metrics |= {
            names.RECOMMENDED_ENERGY_RATIO: recommended.energy_ratio.value,
            names.RECOMMENDED_ENERGY_RATIO_LOW: recommended.energy_ratio.low,
            names.RECOMMENDED_ENERGY_RATIO_HIGH: recommended.energy_ratio.high,
        }
    return metrics


def _note(findings: Findings) -> str:
    """Return the description that MLflow shows above a run, in Markdown."""
    recommended = ""
    if findings.recommendation is not None:
        recommended = f"Recommended: {difference_text(findings, RECOMMENDED)}.\n\n"
    return (
        f"**{headline(findings)}**\n\n"
        f"Selected: {difference_text(findings)}.\n\n"
        f"{recommended}"
        f"The whole report is the artifact `{names.REPORT_HTML}`."
    )
