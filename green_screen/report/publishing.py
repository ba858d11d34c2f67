"""Logs what an analysis found to its MLflow run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from green_screen import names
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
    yield "pareto_front", findings.front
    yield "energy_to_accuracy", findings.to_accuracy
    if findings.selection is not None:
        yield "candidates", findings.selection.candidates
        yield "not_candidates", findings.selection.excluded
    if findings.final is not None:
        yield "final_runs", findings.final.runs


def _metrics(findings: Findings) -> dict[str, float]:
    metrics: dict[str, float] = {names.RUNS_ANALYSED: len(findings.analysis.runs)}
    choice = findings.law.choice
    described = choice.law if choice.model == "law" else findings.analysis.cross_validation
    if described is not None:
        metrics[names.R2_HELD_OUT] = described.r2
    if (final := findings.final) is not None:
        ratio, accuracy = final.energy_ratio, final.accuracy_difference
        metrics |= {
            names.FINAL_ENERGY_RATIO: ratio.value,
            names.FINAL_ENERGY_RATIO_LOW: ratio.low,
            names.FINAL_ENERGY_RATIO_HIGH: ratio.high,
            names.FINAL_ACCURACY_DIFFERENCE: accuracy.value,
            names.FINAL_ACCURACY_DIFFERENCE_LOW: accuracy.low,
            names.FINAL_ACCURACY_DIFFERENCE_HIGH: accuracy.high,
        }
    return metrics


def _note(findings: Findings) -> str:
    """Return the description that MLflow shows above a run, in Markdown."""
    return (
        f"**{headline(findings)}**\n\n"
        f"Selected: {difference_text(findings)}.\n\n"
        f"The whole report is the artifact `{names.REPORT_HTML}`."
    )
