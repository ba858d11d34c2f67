"""One look for all figures, and their rendering.

Colour never carries a meaning alone: runs differ by marker and line style too, and shades that are
compared differ in lightness, so that the figures survive black and white print. The hues are those
of Okabe and Ito's palette, made to be told apart with any kind of colour vision
(https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

INK = "#1b1f1d"
MUTED = "#68706c"
GRID = "#dfe4e1"
SELECTED = "#00735c"
BASELINE = "#d55e00"
THIRD = "#0072b2"

# Steps of lightness from dark to light, for the levels of a factor.
_SHADES = ("#0b2f4a", "#2f7086", "#7db38f", "#f5edb5")

# The smallest text, in points: about 11 pixels on a screen, wide or narrow.
SMALL_PT = 8

WIDE_IN = 7.6
NARROW_IN = 3.9

_DPI = 200

# Above so many points a vector image is larger than a picture of them.
MAX_VECTOR_POINTS = 1500

# Below this ratio of its ends a logarithmic axis may hold none of 1, 2 and 5, or one.
_NARROW_SPAN = 4.0

# Width of a digit of a tick's label, and of a letter of the smallest text on average.
_DIGIT_IN = 0.07
LETTER_IN = 0.068

_RC: dict[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    # Without a salt the ids in an SVG, and so the whole report, change with every drawing.
    "svg.hashsalt": "green-screen",
}


class NothingToShowError(ValueError):
    """The runs hold nothing for this figure; the text says why."""


# A figure is a function of the width in inches, so that it is drawn anew for a narrow screen.
Drawing = Callable[[float], Figure]


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A figure in the forms that the reports need.

    Attributes:
        name: File name without its ending.
        title: What it shows, in a few words.
        caption: How to read it.
        wide_svg: For screens and print; empty if there is nothing to show.
        narrow_svg: The same, drawn for the width of a telephone.
        png: For the PDF and for MLflow's preview.
        reason: Why there is nothing to show; empty if there is.
    """

    name: str
    title: str
    caption: str
    wide_svg: bytes = b""
    narrow_svg: bytes = b""
    png: bytes = b""
    reason: str = ""

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Show the figure, or why there is none, where a notebook's cell ends with it."""
        if self.reason:
            return {"text/plain": f"{self.title}: {self.reason}"}, {}
        png = base64.b64encode(self.png).decode("ascii")
        data = {"image/png": png, "text/plain": f"{self.title}. {self.caption}"}
        return data, {"image/png": {"width": round(100 * WIDE_IN)}}


def render(name: str, title: str, caption: str, draw: Drawing) -> Rendered:
    """Draw a figure in all its forms, or keep the reason why there is none."""
    with mpl.rc_context(_RC):  # type: ignore[arg-type]
        try:
            wide = draw(WIDE_IN)
            wide_svg = _svg(wide)
            wide.set_layout_engine("none")  # it is laid out by now, and that is what takes time
            return Rendered(
                name=name,
                title=title,
                caption=caption,
                wide_svg=wide_svg,
                narrow_svg=_svg(draw(NARROW_IN)),
                png=_png(wide),
            )
        except NothingToShowError as nothing:
            return Rendered(name=name, title=title, caption=caption, reason=str(nothing))


def new_figure(width_in: float, height_in: float, layout: str | None = "constrained") -> Figure:
    """Return an empty figure that draws without a display and without global state.

    Args:
        width_in: Width in inches.
        height_in: Height in inches.
        layout: ``None`` for a figure whose axes are placed by hand: with many of them that takes a
            fraction of the time.
    """
    return Figure(figsize=(width_in, height_in), dpi=_DPI, layout=layout)  # type: ignore[arg-type]


def shades(n: int) -> list[str]:
    """Return colours for so many levels, each lighter than the one before."""
    ramp = LinearSegmentedColormap.from_list("levels", _SHADES)
    return [to_hex(ramp(place)) for place in np.linspace(0, 1, max(n, len(_SHADES)))[:n]]


def is_narrow(width_in: float) -> bool:
    """Return whether a figure of this width is for a narrow screen."""
    return width_in < 5


def plain_numbers(value: float, position: int | None = None) -> str:
    """Return a tick's label without an exponent."""
    return f"{value:,.10g}"


def log_axis(axes: Axes, which: str, values: pd.Series[float]) -> None:
    """Make the ``x`` or ``y`` axis logarithmic, with as many labels as there is room for."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if which == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    figure = axes.get_figure(root=True)
    assert figure is not None
    # A label is about as wide as its digits; at 1, 2 and 5 there are three in a decade.
    digits = len(plain_numbers(float(f"{values.max():.1g}")))
    spec = axes.get_subplotspec()
    room_in = 0.75 * figure.get_figwidth() / (spec.get_gridspec().ncols if spec else 1)
    labels = 3 * math.log10(values.max() / values.min()) + 1
    crowded = labels * (digits + 2) * _DIGIT_IN > room_in
    if values.max() < _NARROW_SPAN * values.min():
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0,) if crowded else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(plain_numbers))
    axis.set_minor_locator(NullLocator())


def only_grid(axes: Axes, direction: str) -> None:
    """Keep the grid lines across one axis (``x`` or ``y``) alone."""
    axes.grid(False)
    axes.grid(True, axis=direction)  # type: ignore[arg-type]


# Not by Figure.savefig, which draws everything twice: first to lay it out, then to write it.
def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.set_dpi(_DPI)  # writing an SVG has set its own
    FigureCanvasAgg(figure).print_png(buffer)  # type: ignore[no-untyped-call]
    return buffer.getvalue()
