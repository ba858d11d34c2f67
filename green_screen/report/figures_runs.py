"""Figures of single runs: power and learning curves, drift, and the final comparison."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from green_screen import names
from green_screen.decision.final import BASELINE, RECOMMENDED, SELECTED
from green_screen.report import style
from green_screen.results.frame import in_run_order

# Of a legend: what is beside its text, and a line of it.
_HANDLE_IN = 0.6
_LINE_IN = 0.15


@dataclass(frozen=True)
class Trace:
    """How a run is drawn in every figure of single runs."""

    colour: str
    marker: str
    line: str


BEST = Trace(style.SELECTED, "o", "-")
WORST = Trace(style.BASELINE, "s", "--")
REFERENCE = Trace(style.THIRD, "D", "-.")


def power(epochs: pd.DataFrame, runs: Mapping[str, tuple[str, Trace]]) -> style.Drawing:
    """Return the drawing of mean GPU power by epoch.

    Args:
        epochs: Rows of :func:`green_screen.results.runs.read_epochs`.
        runs: Run id -> its label and how it is drawn.
    """

    def draw(width_in: float) -> Figure:
        table = epochs[epochs["run_id"].isin(runs)].dropna(subset=[names.GPU_POWER_MEAN_W])
        if table.empty:
            raise style.NothingToShowError(
                "these runs have no GPU power by epoch: a screening has no epochs, and an estimate "
                "of energy no power that could be read"
            )
        figure = style.new_figure(width_in, 3.2)
        axes = figure.subplots()
        _lines(axes, table, names.GPU_POWER_MEAN_W, runs)
        axes.set_ylim(0, 1.1 * table[names.GPU_POWER_MEAN_W].max())
        axes.set_xlabel("epoch")
        axes.set_ylabel("mean GPU power (W)")
        _legend(figure, axes)
        return figure

    return draw


def curves(epochs: pd.DataFrame, runs: Mapping[str, tuple[str, Trace]]) -> style.Drawing:
    """Return the drawing of validation accuracy and of both losses by epoch."""

    def draw(width_in: float) -> Figure:
        table = epochs[epochs["run_id"].isin(runs)]
        if table.dropna(subset=[names.LOSS, names.VAL_ACCURACY], how="all").empty:
            raise style.NothingToShowError("these runs logged neither loss nor accuracy by epoch")
        narrow = style.is_narrow(width_in)
        figure = style.new_figure(width_in, 5.6 if narrow else 3.2)
        left, right = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        percent = table.assign(**{c: 100 * table[c] for c in (names.ACCURACY, names.VAL_ACCURACY)})
        for axes, train, validation in (
            (left, names.ACCURACY, names.VAL_ACCURACY),
            (right, names.LOSS, names.VAL_LOSS),
        ):
            _lines(axes, percent, validation, runs)
            _lines(axes, percent, train, runs, faint=True)
            axes.set_xlabel("epoch")
            # The number of ticks must not follow from the layout that it decides.
            axes.yaxis.set_major_locator(MaxNLocator(6))
        left.set_ylabel("accuracy (%)")
        right.set_ylabel("loss")
        finite = table[[names.LOSS, names.VAL_LOSS]].to_numpy()
        finite = finite[np.isfinite(finite) & (finite > 0)]
        if finite.size and finite.max() > 30 * finite.min():
            right.set_yscale("log")
        _legend(figure, left)
        return figure

    return draw


def drift(replicates: pd.DataFrame, column: str, label: str) -> style.Drawing:
    """Return the drawing of the replicated baseline through the campaign.

    Several campaigns are drawn relative to the mean of each, because their machines and baselines
    may differ; of one with a single run of the baseline there is nothing to draw.

    Args:
        replicates: The baseline's runs, with their campaign and their position in it.
        column: Of the energy.
        label: Of its axis.
    """

    def draw(width_in: float) -> Figure:
        used = in_run_order(replicates[np.isfinite(replicates[column])])
        found = dict(iter(used.groupby("campaign", sort=False)))
        campaigns = {name: runs for name, runs in found.items() if len(runs) > 1}
        if not campaigns:
            raise style.NothingToShowError(
                "no campaign has 2 usable runs of the baseline, which noise and drift need at "
                "least (a campaign with baseline_every repeats it)"
            )
        several = len(found) > 1
        scales = [runs[column].mean() if several else 1.0 for runs in campaigns.values()]
        values = [
            runs[column] / scale for runs, scale in zip(campaigns.values(), scales, strict=True)
        ]
        figure = style.new_figure(width_in, 2.8)
        axes = figure.subplots()
        mean = pd.concat(values).mean()
        axes.axhline(mean, color=style.INK, linewidth=1, label="mean")
        freedom = sum(len(of_one) - 1 for of_one in values)
        if freedom > 1:
            spread = np.sqrt(sum(((one - one.mean()) ** 2).sum() for one in values) / freedom)
            axes.axhspan(
                mean - spread,
                mean + spread,
                facecolor="#eef2f0",
                edgecolor=style.GRID,
                zorder=0,
                label="mean ± standard deviation",
            )
        for (name, runs), of_one, marker in zip(
            campaigns.items(), values, itertools.cycle("Dosv^"), strict=False
        ):
            axes.plot(
                runs["position"],
                of_one,
                f"{marker}:",
                color=style.BASELINE,
                label=f"campaign {name[:8]}" if several else "one run of the baseline",
            )
        axes.set_xlabel("position in the campaign")
        quantity = label.partition(" (")[0]
        title = f"{quantity}, relative to the campaign's mean" if several else label
        axes.set_title(title.replace(", ", ",\n", 1), fontsize=8.5, fontweight="normal")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(style.plain_numbers))
        axes.margins(y=0.25)
        _legend(figure, axes)
        return figure

    return draw


def fit(residuals: pd.DataFrame, label: str) -> style.Drawing:
    """Return the drawing of the model's fit: observed against fitted, residuals against order.

    Args:
        residuals: Rows of :func:`green_screen.statistics.diagnostics.diagnose`, in run order.
        label: What is fitted, with its unit.
    """

    def draw(width_in: float) -> Figure:
        if residuals.empty:
            raise style.NothingToShowError("no model could be fitted to these runs")
        narrow = style.is_narrow(width_in)
        figure = style.new_figure(width_in, 5.6 if narrow else 3.0)
        left, right = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        many = len(residuals) > style.MAX_VECTOR_POINTS
        points = {"color": style.SELECTED, "markerfacecolor": "none", "rasterized": many}
        ends = [residuals["fitted"].min(), residuals["fitted"].max()]
        left.plot(ends, ends, "-", color=style.INK, linewidth=1)
        left.plot(residuals["fitted"], residuals["observed"], "o", markersize=4, **points)
        for which in ("x", "y"):
            style.log_axis(left, which, residuals["fitted"])
        left.set_xlabel(f"fitted {label}")
        left.set_ylabel("observed")
        right.axhline(0, color=style.INK, linewidth=1)
        percent = 100 * np.expm1(residuals["residual"])
        right.plot(np.arange(1, len(residuals) + 1), percent, "o", markersize=4, **points)
        right.set_xlabel("run, in the order they were made")
        right.set_ylabel("observed over fitted (%)")
        return figure

    return draw


def final_comparison(runs: Mapping[str, pd.DataFrame], column: str, label: str) -> style.Drawing:
    """Return the drawing of each final run: energy and test accuracy of each configuration.

    Args:
        runs: Role -> its final runs.
        column: Of the energy.
        label: Of its axis.
    """

    def draw(width_in: float) -> Figure:
        if len(runs) < 2 or any(part.empty for part in runs.values()):
            raise style.NothingToShowError("no final runs of two configurations")
        narrow = style.is_narrow(width_in)
        more_in = 0.3 * (len(runs) - 2)
        figure = style.new_figure(width_in, 2.6 + 2 * more_in if narrow else 1.9 + more_in)
        # Room between the last number of one axis and the first of the next.
        figure.set_layout_engine("constrained", wspace=0.1)
        grid = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
        _rows(grid[0], {role: part[column] for role, part in runs.items()})
        grid[0].set_xlabel(label.replace(", ", ",\n", 1))
        grid[0].set_xlim(left=0)
        grid[0].xaxis.set_major_locator(MaxNLocator(4))
        grid[0].xaxis.set_major_formatter(FuncFormatter(style.plain_numbers))
        _rows(grid[1], {role: 100 * part[names.TEST_ACCURACY] for role, part in runs.items()})
        grid[1].set_xlabel("test accuracy (%)")
        grid[1].xaxis.set_major_locator(MaxNLocator(4))
        if not narrow:
            grid[1].tick_params(axis="y", labelleft=False)
        return figure

    return draw


_OF_ROLE = {BASELINE: REFERENCE, SELECTED: BEST, RECOMMENDED: Trace(style.INK, "^", ":")}


def _rows(axes: Axes, values: Mapping[str, pd.Series[float]]) -> None:
    for place, (role, part) in enumerate(values.items()):
        axes.plot(
            part,
            np.full(len(part), place),
            _OF_ROLE[role].marker,
            color=_OF_ROLE[role].colour,
            markerfacecolor="none",
            markersize=6,
        )
        axes.plot(part.mean(), place, "|", color=style.INK, markersize=18, markeredgewidth=2.2)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.margins(x=0.1)
    style.only_grid(axes, "x")


def _lines(
    axes: Axes,
    epochs: pd.DataFrame,
    column: str,
    runs: Mapping[str, tuple[str, Trace]],
    faint: bool = False,
) -> None:
    """Draw a metric of each run; `faint` lines are the training part's, without a label."""
    for run_id, (label, trace) in runs.items():
        part = epochs[epochs["run_id"] == run_id].sort_values("epoch")
        axes.plot(
            part["epoch"],
            part[column],
            color=trace.colour,
            linestyle=":" if faint else trace.line,
            linewidth=1.0 if faint else 1.6,
            marker="" if faint else trace.marker,
            markersize=4,
            markevery=max(1, len(part) // 12),
            label=None if faint else label,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    # The name of a run that differs from the baseline in ten factors is wider than the figure.
    letters = int((figure.get_figwidth() - _HANDLE_IN) / style.LETTER_IN)
    folded = [textwrap.fill(label, letters, break_on_hyphens=False) for label in labels]
    more_lines = sum(label.count("\n") for label in folded)
    figure.set_figheight(figure.get_figheight() + more_lines * _LINE_IN)
    figure.legend(handles, folded, loc="outside lower center", ncols=1)
