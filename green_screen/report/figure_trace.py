"""The figure of sampled power: watts over one epoch, and of the wait before and after it."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from green_screen.report import style

# More samples than twice as many are drawn as so many means with their ranges.
_PARTS = 300
# Of the epoch's width: a wait takes half a second, whatever an epoch takes.
_WAIT_WIDTH = 0.16
_LINE_IN = 0.15  # of a title
_BEFORE, _AFTER = "idle in context", "idle after"
_TRAINING, _VALIDATION, _IDLE = "#e9f3f0", "#bcd7ea", "#ececea"


@dataclass(frozen=True)
class RunPower:
    """The sampled power of a run.

    Attributes:
        label: What the run is.
        samples: Rows of :func:`green_screen.measurement.trace_file.read_trace`, as are `phases`.
        phases: Where its phases lie.
    """

    label: str
    samples: pd.DataFrame
    phases: pd.DataFrame


def epoch_power(runs: Sequence[RunPower]) -> style.Drawing:
    """Return the drawing of the power over one epoch of each run, training and validation shaded.

    The epoch is the one of median length, the first apart; in a screening, a block of steps.
    """

    def draw(width_in: float) -> Figure:
        shown = [(run, name) for run in runs if (name := _representative(run.phases))]
        if not shown:
            raise style.NothingToShowError("no sampled power of these runs was kept")
        figure = style.new_figure(width_in, 1.0)
        top_w = max(_of(run, name)["watts"].max() for run, name in shown)
        letters = int(width_in / style.LETTER_IN)
        titles = [textwrap.fill(f"{run.label}: {name}", letters) for run, name in shown]
        heights_in = [2.0 + _LINE_IN * title.count("\n") for title in titles]
        figure.set_figheight(0.4 + sum(heights_in))
        parts = figure.subfigures(len(shown), 1, squeeze=False, height_ratios=heights_in)[:, 0]
        for part, title, (run, name) in zip(parts, titles, shown, strict=True):
            part.suptitle(title, x=0.01, ha="left", fontsize=8.5)
            _one_run(part, run, name, 1.1 * top_w)
        handles = [Patch(facecolor=_TRAINING, edgecolor=style.GRID, label="training")]
        if any(_validation(name) in set(run.phases["phase"]) for run, name in shown):
            handles.append(
                Patch(facecolor=_VALIDATION, edgecolor="white", hatch="///", label="validation")
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        return figure

    return draw


def _representative(phases: pd.DataFrame) -> str:
    """Return the epoch or block of median length, the first apart; empty if there is none."""
    for kind in ("epoch ", "block "):
        found = phases[phases["phase"].str.startswith(kind)].drop_duplicates("phase")
        if len(found):
            later = found.iloc[1:] if len(found) > 1 else found
            ordered = later.iloc[np.argsort(later["end_s"] - later["start_s"], kind="stable")]
            return str(ordered["phase"].iloc[(len(ordered) - 1) // 2])
    return ""


def _validation(name: str) -> str:
    """Return the validation inside an epoch; a block has none."""
    kind, _, number = name.partition(" ")
    return f"validation {number}" if kind == "epoch" else ""


def _of(run: RunPower, phase: str) -> pd.DataFrame:
    """Return a phase's samples, timed from its start; the CPU's if no board has any."""
    boards = [board for board in run.samples["board"].unique() if board != "cpu"] or ["cpu"]
    found = []
    for _, edge in run.phases[run.phases["phase"] == phase].iterrows():
        if edge["board"] in boards:
            rows = run.samples[run.samples["board"] == edge["board"]]
            first, last = np.searchsorted(rows["time_s"], [edge["start_s"], edge["end_s"]])
            rows = rows.iloc[first:last]
            found.append(rows.assign(time_s=rows["time_s"] - edge["start_s"]))
    return pd.concat(found) if found else run.samples.iloc[:0]


def _one_run(part: SubFigure, run: RunPower, name: str, top_w: float) -> None:
    phases = [phase for phase in (_BEFORE, name, _AFTER) if len(_of(run, phase))]
    widths = [1.0 if phase == name else _WAIT_WIDTH for phase in phases]
    row = part.subplots(1, len(phases), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, phase in zip(row, phases, strict=True):
        length_s = _length_s(run, phase)
        _lines(axes, _of(run, phase))
        axes.set_xlim(0, length_s)
        axes.set_ylim(0, top_w)
        if phase != name:
            axes.axvspan(0, length_s, facecolor=_IDLE, zorder=0)
            axes.set_xticks([])
            axes.set_xlabel("idle")
            continue
        axes.axvspan(0, length_s, facecolor=_TRAINING, zorder=0)
        start_s, end_s = (_edge_s(run, _validation(name), edge) for edge in ("start_s", "end_s"))
        origin_s = _edge_s(run, name, "start_s")
        if np.isfinite(start_s):
            axes.axvspan(
                start_s - origin_s,
                end_s - origin_s,
                facecolor=_VALIDATION,
                edgecolor="white",
                hatch="///",
                linewidth=0,
                zorder=0,
            )
        axes.set_xlabel("time (s)")
        axes.xaxis.set_major_locator(MaxNLocator(6))
    for axes in row[1:]:
        axes.tick_params(axis="y", length=0)
    row[0].set_ylabel("power (W)")


def _edge_s(run: RunPower, phase: str, edge: str) -> float:
    found = run.phases.loc[run.phases["phase"] == phase, edge]
    return float(found.iloc[0]) if len(found) else np.nan


def _length_s(run: RunPower, phase: str) -> float:
    return _edge_s(run, phase, "end_s") - _edge_s(run, phase, "start_s")


def _lines(axes: Axes, samples: pd.DataFrame) -> None:
    lines = itertools.cycle(("-", "--", "-.", ":"))
    for (_, rows), line in zip(samples.groupby("board", observed=True), lines, strict=False):
        times_s, watts = rows["time_s"].to_numpy(), rows["watts"].to_numpy()
        if len(rows) > 2 * _PARTS:
            starts = np.linspace(0, len(rows), _PARTS, endpoint=False).astype(int)
            counts = np.diff([*starts, len(rows)])
            low, high = np.minimum.reduceat(watts, starts), np.maximum.reduceat(watts, starts)
            times_s = np.add.reduceat(times_s, starts) / counts
            watts = np.add.reduceat(watts, starts) / counts
            axes.fill_between(times_s, low, high, color=style.THIRD, alpha=0.25, linewidth=0)
        axes.plot(times_s, watts, line, color=style.THIRD, linewidth=1.2)
