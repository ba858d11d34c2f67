"""The figure of each level in a plane: what it costs across, what it does to the accuracy up."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from green_screen.report import style
from green_screen.statistics.coding import Matrix

# A factor by colour and marker: neither alone.
_COLOURS = (style.SELECTED, style.BASELINE, style.THIRD, style.INK)
_MARKERS = "osD^vP*X<>"
_SHORT = {
    "global_policy_float16": "mixed float16",
    "pre_quantization": "quantization-aware",
    "post_quantization": "post-quantization",
    "jit_compilation": "XLA",
    "standardization": "standardized",
}
_CORNERS = (
    (0.01, 0.99, "left", "top", "free, or a gain twice"),
    (0.99, 0.99, "right", "top", "bought"),
    (0.01, 0.01, "left", "bottom", "paid for"),
    (0.99, 0.01, "right", "bottom", "a loss twice"),
)


def level_plane(plane: pd.DataFrame) -> style.Drawing:
    """Return the drawing of the levels with both intervals and the names of those that act.

    Args:
        plane: Rows of :func:`green_screen.statistics.plane.level_plane`.
    """

    def draw(width_in: float) -> Figure:
        if plane.empty:
            raise style.NothingToShowError(
                "no level has both a ratio of energy and a difference of accuracy"
            )
        narrow = style.is_narrow(width_in)
        figure = style.new_figure(width_in, 6.4 if narrow else 5.4)
        axes = figure.subplots()
        axes.axvline(1.0, color=style.INK, linewidth=1)
        axes.axhline(0.0, color=style.INK, linewidth=1)
        factors = list(dict.fromkeys(plane["factor"]))
        acts = plane["verdict"] != "nothing is shown"
        for row in plane[~acts].to_dict("records"):
            _point(axes, row, style.MUTED, ".", alpha=0.5)
        handles = []
        for factor in factors:
            colour, marker = _look(factors.index(factor))
            part = plane[acts & (plane["factor"] == factor)]
            for row in part.to_dict("records"):
                _point(axes, row, colour, marker)
            if len(part):
                handles.append(_handle(colour, marker, factor))
        if (~acts).any():
            handles.append(_handle(style.MUTED, ".", f"nothing shown ({int((~acts).sum())})"))
        style.log_axis(axes, "x", _span(plane))
        axes.set_xlabel("energy, ratio to the baseline's level")
        axes.set_ylabel("test accuracy, points above the baseline's level")
        axes.margins(0.08)
        for x, y, across, up, text in _CORNERS:
            axes.text(
                x,
                y,
                text,
                ha=across,
                va=up,
                transform=axes.transAxes,
                color=style.MUTED,
                fontsize=8,
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=2 if narrow else 4)
        _name(figure, axes, plane, acts, factors)
        return figure

    return draw


def _look(place: int) -> tuple[str, str]:
    return _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]


def _handle(colour: str, marker: str, label: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, color=colour, label=label)


def _point(
    axes: Axes, row: dict[Hashable, Any], colour: str, marker: str, alpha: float = 1.0
) -> None:
    axes.errorbar(
        row["ratio"],
        row["points"],
        xerr=[[row["ratio"] - row["ratio_low"]], [row["ratio_high"] - row["ratio"]]],
        yerr=[[row["points"] - row["points_low"]], [row["points_high"] - row["points"]]],
        fmt=marker,
        color=colour,
        markersize=5,
        elinewidth=0.7,
        alpha=alpha,
    )


def _span(plane: pd.DataFrame) -> pd.Series[float]:
    """Return what the axis of energies must hold."""
    ends: pd.Series[float] = pd.concat([plane["ratio_low"], plane["ratio_high"]])
    return pd.concat([ends, pd.Series([0.9, 1.1])])


def _name(
    figure: Figure, axes: Axes, plane: pd.DataFrame, acts: pd.Series[bool], factors: Sequence[str]
) -> None:
    """Write the levels' names beside their points, none over another or over a point.

    Each takes the nearest free place; a line leads to it if it is not beside its point.
    """
    figure.draw_without_rendering()  # the places of the points in pixels are known from here on
    pixels = axes.transData.transform(plane[["ratio", "points"]].to_numpy())
    unit = figure.dpi / 72.0  # of a point of text
    taken = [Bbox.from_bounds(x - 4 * unit, y - 4 * unit, 8 * unit, 8 * unit) for x, y in pixels]
    inside = axes.get_window_extent()
    axes.set_autoscale_on(False)
    taken += [t.get_window_extent() for t in axes.texts]
    middle = axes.transData.transform((1.0, 0.0))
    taken.append(Bbox.from_bounds(middle[0] - unit, inside.y0, 2 * unit, inside.height))
    taken.append(Bbox.from_bounds(inside.x0, middle[1] - unit, inside.width, 2 * unit))
    # The crowded ones first: those far out find a place anyway.
    taken += [
        Bbox(axes.transData.transform([low, high])).padded(unit) for low, high in _bars(plane[acts])
    ]
    order = np.argsort(np.hypot(*(pixels - middle).T), kind="stable")
    for i in order:
        if not acts.iloc[i]:
            continue
        row = plane.iloc[i]
        level = _SHORT.get(str(row["level"]), str(row["level"]))
        within = str(row["within"]).removeprefix("optimizer=")
        text = axes.annotate(
            f"{level} ({within})" if within else level,
            (row["ratio"], row["points"]),
            fontsize=8,
            color=_look(factors.index(str(row["factor"])))[0],
            xytext=(0, 0),
            textcoords="offset points",
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
            zorder=6,
        )
        box = text.get_window_extent()
        offsets = list(_places(box.width / unit, box.height / unit))
        places = [
            Bbox.from_bounds(
                pixels[i][0] + unit * across, pixels[i][1] + unit * up, box.width, box.height
            )
            for across, up in offsets
        ]
        best = min(range(len(places)), key=lambda k: _cost(places[k], taken, inside))
        text.set_position(offsets[best])
        taken.append(places[best])
        _lead(axes, pixels[i], places[best], 12 * unit)


def _bars(plane: pd.DataFrame) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Yield the ends of each interval."""
    for row in plane.to_dict("records"):
        yield (row["ratio_low"], row["points"]), (row["ratio_high"], row["points"])
        yield (row["ratio"], row["points_low"]), (row["ratio"], row["points_high"])


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Yield offsets of a text's lower left corner from its point, the nearest first, in points."""
    for far in (6.0, 16.0, 28.0, 42.0, 58.0, 76.0, 96.0):
        yield from (
            (far, -height / 2),
            (-far - width, -height / 2),
            (-width / 2, far),
            (-width / 2, -far - height),
            (far, far / 2),
            (-far - width, far / 2),
            (far, -far / 2 - height),
            (-far - width, -far / 2 - height),
        )


def _cost(place: Bbox, taken: Sequence[Bbox], inside: Bbox) -> int:
    """Return how much is in the way of a text, more than anything if it is cut off."""
    cut = place.x0 < inside.x0 or place.x1 > inside.x1 or place.y0 < inside.y0
    cut |= place.y1 > inside.y1
    return int(place.count_overlaps(taken)) + 1000 * int(cut)


def _lead(axes: Axes, point: Matrix, box: Bbox, beside: float) -> None:
    """Draw a line from a point to its name, if that is not beside it."""
    near = np.clip(point, [box.x0, box.y0], [box.x1, box.y1])
    if np.hypot(*(near - point)) <= beside:
        return
    ends = axes.transData.inverted().transform(np.array([point, near]))
    axes.plot(ends[:, 0], ends[:, 1], "-", color=style.MUTED, linewidth=0.6)
