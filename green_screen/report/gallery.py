"""The figures of a report: which runs each one shows, its title, and how to read it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from green_screen import names
from green_screen.decision.final import QUANTITIES, FinalComparison
from green_screen.decision.selection import Selection
from green_screen.report import figure_plane, figures, figures_law, figures_runs
from green_screen.report.figure_trace import RunPower, epoch_power
from green_screen.report.figures_runs import Trace
from green_screen.report.style import Rendered, render
from green_screen.statistics.law_analysis import LawAnalysis
from green_screen.statistics.regression import EnergyAnalysis


def draw_all(
    analysis: EnergyAnalysis,
    law: LawAnalysis,
    plane: pd.DataFrame,
    *,
    epochs: pd.DataFrame,
    candidates: pd.DataFrame,
    front: pd.DataFrame,
    selection: Selection | None,
    final: FinalComparison | None,
    source: str,
    powers: Sequence[RunPower] = (),
) -> dict[str, Rendered]:
    """Return every figure of the report by its name.

    Args:
        analysis: The log-linear model and the runs it rests on.
        law: The energy law.
        plane: What each level costs and does to the accuracy, rows of
            :func:`green_screen.statistics.plane.level_plane`.
        epochs: Histories of the :func:`shown_runs`, rows of
            :func:`green_screen.results.runs.read_epochs`.
        candidates: The runs that could be on the Pareto front.
        front: Those that are.
        selection: The selected configuration, if there is one.
        final: The final comparison, if there was one.
        source: How the energies were obtained, a value of ``names.TAG_ENERGY_SOURCE``.
        powers: The sampled power of the :func:`traced_runs`, as far as it was kept.
    """
    runs, response = analysis.runs, analysis.response
    label = figures.axis_label(response.label, response.unit, source)
    total = figures.axis_label("energy of the whole training", "J", source)
    traces = shown_runs(runs, response.metric)
    boards = _baselines(runs)["machine"].nunique()
    metric = final.energy_metric if final else names.ENERGY_TOTAL_J
    final_label = figures.axis_label(*QUANTITIES[metric], final.source if final else source)
    drawn = (
        render(
            "final",
            "Final runs",
            "Runs made after the selection, each a symbol; the bar is their mean.",
            figures_runs.final_comparison(
                {role: final.of(role) for role in final.roles} if final else {},
                metric,
                final_label,
            ),
        ),
        render(
            "law",
            f"{law.response.label[0].upper()}{law.response.label[1:]} against batch size",
            "Lines: the law at the baseline's other levels, with the 95 % band of the mean. "
            "Points: the runs, set to those levels by the law. Diamonds: launching a step and "
            "computing its images cost the same. Both axes are logarithmic.",
            figures_law.energy_law(
                law, figures.axis_label(f"energy of a{_n(law.response.per)}", "J", source)
            ),
        ),
        render(
            "forest",
            f"Effect of each level on the {response.label}",
            "Left of 1 a level takes less than its factor's reference, right of 1 more, all other "
            "factors held constant. The axis is logarithmic.",
            figures.forest(analysis.effects, response.label),
        ),
        render(
            "plane",
            "What each level costs and what it does to the accuracy",
            "Against the baseline's level of its factor, the others averaged, with 95 % intervals. "
            "A level is named where one of its intervals leaves out no effect; others are grey. "
            "The axis of energies is logarithmic.",
            figure_plane.level_plane(plane),
        ),
        render(
            "levels",
            f"{response.label.capitalize()} by level",
            "A circle is a run, the bar the median. Unlike the effects above, the other factors "
            "differ between the runs. Repeats of the baseline are left out.",
            figures.energy_by_level(runs, response.metric, label),
        ),
        render(
            "pareto",
            "Test accuracy against energy",
            "No run beats those on the front in both. Each point is one run, so its place has "
            "noise in both directions.",
            figures.pareto(
                candidates,
                front["run_id"].tolist(),
                selection.run_id if selection else None,
                names.ENERGY_TOTAL_J,
                total,
            ),
        ),
        render(
            "configurations",
            f"Configurations, sorted by {response.label}",
            f"A column is a run. A factor that decides the {response.label} shows one shade on the "
            "left and another on the right; one that does not is mixed.",
            figures.configurations(runs, response.metric, label),
        ),
        render(
            "power",
            f"Power of the runs with the least and the most {response.label}",
            "Mean of the readings at both ends of each epoch."
            if source == names.SOURCE_SAMPLED
            else "Mean over each epoch, training and validation.",
            figures_runs.power(epochs, traces),
        ),
        render(
            "trace",
            "Power over one epoch",
            "Sampled ten times a second, in the epoch of median length, the first apart. On both "
            "sides: the board as it waits before the training and after the run. Newer boards tell "
            "the mean of the last second: right after the run the work is still in it.",
            epoch_power(powers),
        ),
        render(
            "curves",
            "Accuracy and loss by epoch",
            "Lines with markers: validation; dotted: training, in the same colour.",
            figures_runs.curves(epochs, traces),
        ),
        render(
            "drift",
            "The repeated baseline through the campaign",
            "The same work again and again: its spread is the noise of one run, a trend is drift."
            + (f" It ran on {boards} boards, which differ too." if boards > 1 else ""),
            figures_runs.drift(runs[runs["kind"] == names.KIND_BASELINE], response.metric, label),
        ),
        render(
            "fit",
            "The model's fit",
            "Left: a run on the line is fitted exactly. Right: a pattern over time would mean that "
            "neighbouring runs are alike.",
            figures_runs.fit(analysis.residuals, f"{response.label} ({response.unit})"),
        ),
    )
    return {figure.name: figure for figure in drawn}


def _n(thing: str) -> str:
    return f"n {thing}" if thing == "image" else f" {thing}"


def shown_runs(runs: pd.DataFrame, metric: str) -> dict[str, tuple[str, Trace]]:
    """Return the runs with the least and the most of it, and a baseline: id -> label, style."""
    if runs.empty:
        return {}
    ordered = runs.sort_values(metric, kind="stable")
    shown = {
        ordered["run_id"].iloc[0]: (f"least: {ordered['run_name'].iloc[0]}", figures_runs.BEST)
    }
    if len(ordered) > 1:
        shown[ordered["run_id"].iloc[-1]] = (
            f"most: {ordered['run_name'].iloc[-1]}",
            figures_runs.WORST,
        )
    for run_id in _baselines(runs)["run_id"].head(1):
        label = "baseline" if run_id not in shown else f"{shown[run_id][0]} (the baseline)"
        trace = figures_runs.REFERENCE if run_id not in shown else shown[run_id][1]
        shown[run_id] = (label, trace)
    return shown


def traced_runs(runs: pd.DataFrame, selection: Selection | None) -> dict[str, str]:
    """Return the runs whose power is drawn over an epoch: id -> label."""
    shown = {run_id: "baseline" for run_id in _baselines(runs)["run_id"].head(1)}
    if selection is not None:
        shown[selection.run_id] = f"selected: {selection.run_name}"
    return dict(reversed(shown.items()))


def _baselines(runs: pd.DataFrame) -> pd.DataFrame:
    return runs[runs["kind"] == names.KIND_BASELINE].sort_values("position")
