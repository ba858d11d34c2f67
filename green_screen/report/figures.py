"""Figures of a whole campaign: levels, effects, trade-off and configurations.

Each function returns a drawing, made from a table of :mod:`green_screen.results.runs`, which
raises :class:`~green_screen.report.style.NothingToShowError` where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from green_screen import names
from green_screen.report import style
from green_screen.report.document import number
from green_screen.results.frame import EFFECTIVE
from green_screen.space import FACTOR_NAMES, IMPLEMENTED
from green_screen.statistics.coding import NO_MOMENTUM, sort_levels

# Heights of a line of shades and of a line of its legend.
_STRIP_IN = 0.2
_LINE_IN = 0.165

# How an energy's source is called, wherever energies are shown.
SOURCE_TEXT = {
    names.SOURCE_COUNTER: "measured, NVML energy counter",
    names.SOURCE_POWER: "measured, integral of NVML power",
    names.SOURCE_ESTIMATE: "estimate by CodeCarbon",
    names.SOURCE_SAMPLED: "sampled, one power reading an epoch",
}


def axis_label(label: str, unit: str, source: str) -> str:
    """Return an axis label with unit, and for an energy with how it was obtained."""
    known = SOURCE_TEXT.get(source, "source unknown")
    return f"{label} ({unit})" + (f", {known}" if unit == "J" else "")


def energy_unit(unit: str, source: str) -> str:
    """Return a unit for a table's head; that of an energy that is an estimate says so."""
    is_energy = unit in ("J", "kJ", "kWh")
    return f"{unit}, estimate" if is_energy and source == names.SOURCE_ESTIMATE else unit


def amount(value: float, unit: str, source: str) -> str:
    """Return an energy with its unit, for a text."""
    return f"{number(value)} {unit}" + (" (estimate)" if source == names.SOURCE_ESTIMATE else "")


def energy_by_level(runs: pd.DataFrame, column: str, label: str) -> style.Drawing:
    """Return the drawing of every run's value by the level of each factor, with the medians."""

    def draw(width_in: float) -> Figure:
        # The repeated baseline would pull its own levels towards one configuration.
        used = _positive(runs[runs["kind"] != names.KIND_BASELINE], column)
        factors = _varying(used)
        columns = 1 if style.is_narrow(width_in) else 2
        rows = math.ceil(len(factors) / columns)
        # Room for the levels' names, for titles, and for the last axis with its label.
        name_in, title_in, axis_in = 1.05, 0.3, 0.65 if columns == 1 else 0.55
        most = max(used[EFFECTIVE + factor].nunique() for factor in factors)
        panel_in = max(0.88, 0.16 * most)
        height_in = rows * (panel_in + title_in) + axis_in
        figure = style.new_figure(width_in, height_in, layout=None)
        grid = figure.subplots(
            rows,
            columns,
            sharex=True,
            squeeze=False,
            gridspec_kw={
                "left": name_in / width_in,
                "right": 1 - 0.2 / width_in,
                "bottom": axis_in / height_in,
                "top": 1 - title_in / height_in,
                "wspace": (name_in + 0.2) * columns / (width_in - (name_in + 0.2) * columns),
                "hspace": title_in / panel_in,
            },
        )
        rng = np.random.default_rng(0)  # of the jitter alone
        for factor, axes in zip(factors, grid.flat, strict=False):
            _strip(axes, used, factor, column, rng)
        for axes in grid[-1]:
            style.log_axis(axes, "x", used[column])
        for axes in grid.flat[len(factors) :]:
            axes.set_axis_off()
        for axes in grid.flat[max(len(factors) - columns, 0) : len(factors)]:
            axes.tick_params(labelbottom=True)  # the lowest panel of its column
        figure.supxlabel(_wrap(label, width_in), fontsize=8.5, y=0.08 / height_in, va="bottom")
        return figure

    return draw


def _varying(runs: pd.DataFrame) -> list[str]:
    """Return the factors of which the runs have more than one level.

    Raises:
        NothingToShowError: There is none.
    """
    found = [factor for factor in FACTOR_NAMES if runs[EFFECTIVE + factor].nunique() > 1]
    if not found:
        raise style.NothingToShowError("the runs agree in all factors")
    return found


def forest(effects: pd.DataFrame, label: str) -> style.Drawing:
    """Return the drawing of each level's effect as a ratio with its 95 % interval.

    Args:
        effects: Columns of :data:`green_screen.statistics.effects.EFFECT_COLUMNS`; ratios without
            an interval could not be estimated and are left out.
        label: What the ratio is of.
    """

    def draw(width_in: float) -> Figure:
        table = effects.dropna(subset=["ratio", "ci_low", "ci_high"])
        if table.empty:
            raise style.NothingToShowError("no effect could be estimated from these runs")
        figure = style.new_figure(width_in, 0.185 * (len(table) + table["factor"].nunique()) + 1.2)
        axes = figure.subplots()
        axes.axvline(1.0, color=style.INK, linewidth=1)
        lines: list[str] = []
        for (factor, within), part in table.groupby(["factor", "within"], sort=False):
            place = f" in {str(within).removeprefix('optimizer=')}" if within else ""
            heading = f"{factor}{place}, against {_short(part['reference'].iloc[0])}"
            _heading(axes, len(lines), heading)
            lines.append("")
            for level, ratio, low, high in zip(
                part["level"], part["ratio"], part["ci_low"], part["ci_high"], strict=True
            ):
                _interval(axes, len(lines), ratio, low, high)
                lines.append(_short(level))
        axes.set_ylim(len(lines) - 0.3, -0.8)
        axes.set_yticks(range(len(lines)), lines)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        style.log_axis(axes, "x", pd.concat([table["ci_low"], table["ci_high"]]))
        axes.set_xlabel(f"{label},\nratio to the reference level, 95 % interval")
        style.only_grid(axes, "x")
        _legend_below(
            figure,
            [
                _marker("s", style.SELECTED, style.SELECTED, "interval without 1"),
                _marker("s", style.MUTED, "white", "interval with 1"),
            ],
            width_in,
        )
        return figure

    return draw


def pareto(
    runs: pd.DataFrame,
    front: Sequence[str],
    selected: str | None,
    column: str,
    label: str,
    accuracy: str = names.TEST_ACCURACY,
) -> style.Drawing:
    """Return the drawing of accuracy against energy with the Pareto front.

    Args:
        runs: One row a run.
        front: Run ids on the front.
        selected: Run id of the selected configuration; ``None`` if none was selected.
        column: Of the energy.
        label: Of the energy's axis.
        accuracy: Column of the accuracy, as a fraction.
    """

    def draw(width_in: float) -> Figure:
        used = _positive(runs, column).dropna(subset=[accuracy])
        if used.empty:
            raise style.NothingToShowError(f"no run has both {column} and {accuracy}")
        figure = style.new_figure(width_in, 3.9)
        axes = figure.subplots()
        percent = 100 * used[accuracy]
        axes.plot(
            used[column],
            percent,
            "o",
            color="#8b9690",
            markerfacecolor="none",
            rasterized=len(used) > style.MAX_VECTOR_POINTS,
        )
        on_front = used[used["run_id"].isin(front)].sort_values(column)
        axes.plot(
            on_front[column],
            100 * on_front[accuracy],
            "s-",
            color=style.INK,
            drawstyle="steps-post",
        )
        baseline = used["kind"] == names.KIND_BASELINE
        axes.plot(
            used.loc[baseline, column],
            percent[baseline],
            "D",
            color=style.BASELINE,
            markeredgecolor="white",
            markersize=7,
        )
        chosen = used["run_id"] == selected
        axes.plot(
            used.loc[chosen, column],
            percent[chosen],
            "*",
            color=style.SELECTED,
            markeredgecolor="white",
            markersize=15,
        )
        style.log_axis(axes, "x", used[column])
        axes.set_xlabel(_wrap(label, width_in))
        axes.set_ylabel(f"{accuracy.replace('_', ' ')} (%)")
        _legend_below(
            figure,
            [
                _marker("o", "#8b9690", "none", "run"),
                Line2D([], [], color=style.INK, marker="s", label="Pareto front"),
                _marker("D", style.BASELINE, style.BASELINE, "baseline"),
                _marker("*", style.SELECTED, style.SELECTED, "selected", 10),
            ],
            width_in,
        )
        return figure

    return draw


def configurations(runs: pd.DataFrame, column: str, label: str) -> style.Drawing:
    """Return the heat map of every run's effective levels, runs sorted by a column's value."""

    def draw(width_in: float) -> Figure:
        used = _positive(runs, column).sort_values(column)
        count, left_in = len(used), 0.75
        strips = [
            _Strip(factor, used[EFFECTIVE + factor], width_in - left_in - 0.15)
            for factor in _varying(used)
        ]
        top_in, bars_in, axis_in = 0.42 if style.is_narrow(width_in) else 0.28, 1.2, 0.35
        height_in = top_in + bars_in + sum(strip.height_in for strip in strips) + axis_in
        figure = style.new_figure(width_in, height_in, layout=None)
        left, width = left_in / width_in, 1 - (left_in + 0.15) / width_in
        y_in = height_in - top_in - bars_in
        bars = figure.add_axes((left, y_in / height_in, width, bars_in / height_in))
        edges = np.arange(count + 1) - 0.5
        tops = used[column].to_numpy()
        floor = tops[0] / 1.5
        # Not `stairs`, whose patch is measured edge by edge, a second for 10,000 runs.
        bars.fill_between(
            edges,
            np.append(tops, tops[-1]),
            floor,
            step="post",
            color=style.MUTED,
            linewidth=0,
            rasterized=count > style.MAX_VECTOR_POINTS,
        )
        style.log_axis(bars, "y", used[column])
        bars.set_ylim(bottom=floor)
        bars.set_title(_wrap(label, width_in), fontsize=8.5, fontweight="normal")
        style.only_grid(bars, "y")
        bars.tick_params(axis="x", length=0, labelbottom=False)
        for strip in strips:
            y_in -= strip.height_in
            place = (left, y_in / height_in, width, _STRIP_IN / height_in)
            strip.draw(figure.add_axes(place, sharex=bars))
        figure.supxlabel(
            f"{count} runs, from the least to the most",
            x=left + width / 2,
            y=0.08 / height_in,
            va="bottom",
            fontsize=8.5,
        )
        bars.set_xlim(-0.5, count - 0.5)
        return figure

    return draw


def _strip(
    axes: Axes, runs: pd.DataFrame, factor: str, column: str, rng: np.random.Generator
) -> None:
    levels = _levels(factor, runs[EFFECTIVE + factor])
    many = len(runs) > style.MAX_VECTOR_POINTS
    places = _places(runs[EFFECTIVE + factor], levels)
    # All levels at once: rasterized, each drawing is an image of its own.
    axes.plot(
        runs[column],
        places + rng.uniform(-0.22, 0.22, len(runs)),
        "o",
        color="#6f857b",
        markersize=3,
        markerfacecolor="none",
        markeredgewidth=0.7,
        alpha=0.15 if many else 1.0,
        rasterized=many,
    )
    for place in range(len(levels)):
        median = runs.loc[places == place, column].median()
        axes.plot(median, place, "|", color=style.INK, markersize=12, markeredgewidth=2.2)
    axes.set_yticks(range(len(levels)), [_short(level) for level in levels])
    axes.set_ylim(len(levels) - 0.4, -0.6)
    axes.set_title(factor)
    axes.set_xscale("log")
    style.only_grid(axes, "x")


class _Strip:
    """A factor's level of each run as a line of shades, under its name and its legend."""

    def __init__(self, factor: str, levels: pd.Series[str], width_in: float) -> None:
        self._factor = factor
        self._order = _levels(factor, levels)
        self._places = _places(levels, self._order)
        self._labels = [_short(level) for level in self._order]
        beside_in = width_in - 0.09 * len(factor) - 0.2
        self._columns = _columns_within(self._labels, beside_in)
        self._beside = self._columns == len(self._labels)
        if not self._beside:
            self._columns = _columns_within(self._labels, width_in)
        lines = math.ceil(len(self._labels) / self._columns)
        self._legend_in = 0.0 if self._beside else _LINE_IN * lines
        self.height_in = _STRIP_IN + _LINE_IN + self._legend_in + 0.16

    def draw(self, axes: Axes) -> None:
        """Draw it into axes that are :data:`_STRIP_IN` high."""
        shades = style.shades(len(self._order))
        colours = np.array([to_rgb(shade) for shade in shades])[self._places]
        axes.imshow(
            colours[np.newaxis, :, :],
            aspect="auto",
            extent=(-0.5, len(self._places) - 0.5, 0, 1),
            interpolation="nearest",
        )
        axes.set_yticks([])
        axes.grid(False)
        axes.tick_params(axis="x", length=0, labelbottom=False)
        axes.set_title(self._factor, fontsize=8.5, pad=3 + 72 * self._legend_in)
        axes.legend(
            handles=[
                Patch(facecolor=shade, edgecolor=style.MUTED, linewidth=0.5, label=label)
                for shade, label in zip(shades, self._labels, strict=True)
            ],
            loc="lower right" if self._beside else "lower left",
            bbox_to_anchor=(1.0 if self._beside else 0.0, 1.0),
            borderpad=0,
            borderaxespad=0.2,
            ncols=self._columns,
            labelspacing=0.25,
            handlelength=0.9,
            handleheight=0.9,
            handletextpad=0.4,
            columnspacing=1.0,
        )


def _columns_within(labels: Sequence[str], room_in: float) -> int:
    """Return the columns of the legend with the fewest lines; it is filled column by column."""
    for lines in range(1, len(labels)):
        parts = [labels[start : start + lines] for start in range(0, len(labels), lines)]
        if sum(0.32 + style.LETTER_IN * max(map(len, part)) for part in parts) <= room_in:
            return len(parts)
    return 1


def _levels(factor: str, values: pd.Series[str]) -> tuple[str, ...]:
    """Return the levels that occur, in their natural order."""
    occurring = set(values.unique())
    if factor in IMPLEMENTED:
        return sort_levels(factor, occurring)
    apart = occurring & {NO_MOMENTUM, ""}
    return (*sort_levels(factor, occurring - apart), *sorted(apart))


def _places(values: pd.Series[str], levels: Sequence[str]) -> npt.NDArray[np.intp]:
    """Return for each value which of the levels it is."""
    return np.asarray(pd.Index(levels).get_indexer(pd.Index(values)))


def _heading(axes: Axes, y: float, text: str) -> None:
    """Write the name of a group over the left edge of its rows."""
    axes.text(
        0.0,
        y,
        text,
        transform=axes.get_yaxis_transform(),
        fontsize=style.SMALL_PT,
        fontweight="bold",
        va="center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
    )


def _interval(axes: Axes, y: float, ratio: float, low: float, high: float) -> None:
    clear = low > 1 or high < 1
    colour = style.SELECTED if clear else style.MUTED
    axes.plot([low, high], [y, y], "-", color=colour, linewidth=1.6)
    axes.plot(ratio, y, "s", color=colour, markerfacecolor=colour if clear else "white")


def _positive(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    used: pd.DataFrame = runs[np.isfinite(runs[column]) & (runs[column] > 0)]
    if used.empty:
        raise style.NothingToShowError(f"no run has a value of {column}")
    return used


def _legend_below(figure: Figure, handles: list[Line2D], width_in: float) -> None:
    columns = 2 if style.is_narrow(width_in) else len(handles)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def _marker(marker: str, edge: str, face: str, label: str, size: float = 6) -> Line2D:
    return Line2D(
        [],
        [],
        linestyle="",
        marker=marker,
        color=edge,
        markerfacecolor=face,
        markersize=size,
        label=label,
    )


def _wrap(text: str, width_in: float) -> str:
    """Break a label after its first clause where the figure is narrow."""
    return text.replace(", ", ",\n", 1) if style.is_narrow(width_in) else text


def _short(level: str) -> str:
    return {
        "global_policy_float16": "mixed_float16",
        "pre_quantization": "pre_quant.",
        "post_quantization": "post_quant.",
        "jit_compilation": "jit",
        "None": "none",
        "": "n/a",
    }.get(level, level)
