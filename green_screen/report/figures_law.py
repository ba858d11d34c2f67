"""The figure of the energy law: joules of an image against the batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from green_screen.report import style
from green_screen.results.frame import EFFECTIVE
from green_screen.statistics.law_analysis import LawAnalysis
from green_screen.statistics.law_effects import law_lines

# Precision by colour, internal by line and marker: neither rests on colour alone.
_COLOURS = {
    "float32": style.INK,
    "global_policy_float16": style.SELECTED,
    "float16": style.THIRD,
    "float64": style.BASELINE,
}
_INTERNALS: dict[str, tuple[Any, str, str]] = {
    "None": ("-", "o", "as it is"),
    "jit_compilation": ("--", "s", "XLA"),
    "pre_quantization": (":", "^", "quantization-aware"),
}
_PRECISIONS = {"global_policy_float16": "mixed float16"}


def energy_law(law: LawAnalysis, label: str) -> style.Drawing:
    """Return the drawing of the law's lines with their bands, the runs, and the crossovers."""

    def draw(width_in: float) -> Figure:
        if law.fit is None:
            raise style.NothingToShowError("; ".join(law.statements))
        lines, crossings = law_lines(law.fit, law.runs, law.reference, law.alpha)
        narrow = style.is_narrow(width_in)
        figure = style.new_figure(width_in, 5.8 if narrow else 4.6)
        axes = figure.subplots()
        for (precision, internal), line in lines.groupby(["precision", "internal"], sort=False):
            _line(axes, str(precision), str(internal), line)
        points = _points(law)
        for (precision, internal), group in points.groupby(["precision", "internal"], sort=False):
            axes.plot(
                group["batch_size"],
                group["value"],
                _INTERNALS[str(internal)][1],
                color=_COLOURS[str(precision)],
                markersize=3.5,
                markerfacecolor="none",
                markeredgewidth=0.8,
                alpha=0.8,
                rasterized=len(points) > style.MAX_VECTOR_POINTS,
            )
        ends = lines["batch_size"].min(), lines["batch_size"].max()
        shown = crossings[crossings["batch_size"].between(*ends)]
        for _, row in shown.iterrows():
            axes.plot(
                row["batch_size"],
                row["value"],
                "D",
                color=_COLOURS[row["precision"]],
                markersize=8,
                markeredgecolor="white",
                zorder=5,
            )
        style.log_axis(axes, "x", lines["batch_size"])
        style.log_axis(axes, "y", pd.concat([lines["low"], points["value"], lines["high"]]))
        sizes = sorted({int(level) for level in law.runs[EFFECTIVE + "batch_size"]})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xlabel("batch size")
        axes.set_ylabel(label)
        _legend(figure, lines, narrow, any_crossing=not shown.empty)
        return figure

    return draw


def _line(axes: Axes, precision: str, internal: str, line: pd.DataFrame) -> None:
    colour = _COLOURS[precision]
    axes.fill_between(
        line["batch_size"], line["low"], line["high"], color=colour, alpha=0.12, linewidth=0
    )
    axes.plot(line["batch_size"], line["value"], _INTERNALS[internal][0], color=colour)


def _points(law: LawAnalysis) -> pd.DataFrame:
    """Return the runs as they would be at the reference's other levels, on the average board."""
    assert law.fit is not None
    runs = law.runs
    internal = runs[EFFECTIVE + "internal"].replace("post_quantization", "None")
    lines, _ = law_lines(law.fit, runs, law.reference, law.alpha)
    found = []
    batches = runs[EFFECTIVE + "batch_size"].astype(float).to_numpy()
    for (precision, kind), line in lines.groupby(["precision", "internal"], sort=False):
        inside = ((runs[EFFECTIVE + "precision"] == precision) & (internal == kind)).to_numpy()
        at = np.interp(np.log(batches[inside]), np.log(line["batch_size"]), np.log(line["value"]))
        found.append(
            pd.DataFrame(
                {
                    "precision": precision,
                    "internal": kind,
                    "batch_size": batches[inside],
                    "value": np.exp(at + law.residual[inside]),
                }
            )
        )
    return pd.concat(found, ignore_index=True)


def _legend(figure: Figure, lines: pd.DataFrame, narrow: bool, *, any_crossing: bool) -> None:
    handles = [
        Line2D([], [], color=colour, linewidth=3, label=_PRECISIONS.get(precision, precision))
        for precision, colour in _COLOURS.items()
        if precision in set(lines["precision"])
    ]
    handles += [
        Line2D(
            [],
            [],
            color=style.MUTED,
            linestyle=dash,
            marker=marker,
            markersize=4,
            markerfacecolor="none",
            label=label,
        )
        for internal, (dash, marker, label) in _INTERNALS.items()
        if internal in set(lines["internal"])
    ]
    if any_crossing:
        handles.append(
            Line2D(
                [],
                [],
                linestyle="",
                marker="D",
                color=style.MUTED,
                markersize=7,
                label="launching = computing",
            )
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=2 if narrow else 4)
