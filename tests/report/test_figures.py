"""Figures: what they show, that they survive print without colour, and what they say when empty."""

from __future__ import annotations

import itertools
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from simulated_campaign import SimulatedCampaign
from simulated_findings import epochs
from traces import BOARD, TRAINING_W, run_trace

from green_screen import names
from green_screen.decision.final import ROLES
from green_screen.decision.selection import select
from green_screen.measurement.trace_file import read_trace, write_trace
from green_screen.report import figure_plane, figures, figures_runs, gallery, style
from green_screen.report.figure_trace import RunPower, epoch_power
from green_screen.space import Space
from green_screen.statistics.effects import EFFECT_COLUMNS
from green_screen.statistics.law import LAW_FACTORS
from green_screen.statistics.plane import PLANE_COLUMNS

METRIC = names.ENERGY_PER_EPOCH_J


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return SimulatedCampaign(n_runs=30).frame()


def texts(figure: object) -> str:
    found = [artist.get_text() for artist in figure.findobj(lambda a: hasattr(a, "get_text"))]
    return "\n".join(found)


def effects(**columns: object) -> pd.DataFrame:
    row = dict.fromkeys(EFFECT_COLUMNS, np.nan)
    row |= {"factor": "batch_size", "within": "", "level": "32", "reference": "4"}
    row |= {"ratio": 0.3, "ci_low": 0.25, "ci_high": 0.36, "is_reference": False}
    return pd.DataFrame([row | columns])


def test_the_energy_axis_names_unit_and_source() -> None:
    label = figures.axis_label("energy per epoch", "J", names.SOURCE_ESTIMATE)
    assert label == "energy per epoch (J), estimate by CodeCarbon"
    assert figures.axis_label("duration", "s", names.SOURCE_ESTIMATE) == "duration (s)"


@pytest.mark.parametrize("width_in", [style.WIDE_IN, style.NARROW_IN])
def test_levels_show_every_level_and_the_median(runs: pd.DataFrame, width_in: float) -> None:
    figure = figures.energy_by_level(runs, METRIC, "energy (J)")(width_in)
    panels = {axes.get_title(loc="left") or axes.get_title(): axes for axes in figure.axes}
    batch = panels["batch_size"]
    assert [tick.get_text() for tick in batch.get_yticklabels()] == ["4", "32", "64", "128"]
    bars = [line for line in batch.get_lines() if line.get_marker() == "|"]
    swept = runs[runs["kind"] == names.KIND_RUN]
    expected = swept.loc[swept["effective_batch_size"] == "4", METRIC].median()
    assert bars[0].get_xdata()[0] == pytest.approx(expected)


def test_the_forest_tells_effects_from_none_without_colour() -> None:
    table = pd.concat(
        [effects(), effects(level="64", ratio=1.0, ci_low=0.9, ci_high=1.1), effects(ratio=np.nan)]
    )
    figure = figures.forest(table, "energy per epoch")(style.WIDE_IN)
    squares = [line for line in figure.axes[0].get_lines() if line.get_marker() == "s"]
    assert [line.get_markerfacecolor() for line in squares] == [style.SELECTED, "white"]


def test_the_configurations_are_sorted_and_each_level_has_its_shade(runs: pd.DataFrame) -> None:
    figure = figures.configurations(runs, METRIC, "energy (J)")(style.WIDE_IN)
    (bars,) = figure.axes[0].collections
    outline = bars.get_paths()[0].vertices
    assert set(runs[METRIC]) <= set(outline[:, 1])
    top = outline[: 2 * len(runs), 1]  # from the left to the right; then back along the floor
    assert (np.diff(top[1:]) >= 0).all()
    image = figure.axes[1 + 3].get_images()[0].get_array()
    assert len({tuple(pixel) for pixel in np.round(np.asarray(image)[0], 3)}) == 4


@pytest.mark.parametrize(("n", "least"), [(2, 0.15), (4, 0.15), (9, 0.05)])
def test_the_shades_of_levels_differ_in_lightness(n: int, least: float) -> None:
    # Relative luminance of WCAG 2.2, so that a print without colour keeps them apart.
    def luminance(colour: str) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    lightness = [np.cbrt(luminance(colour)) for colour in style.shades(n)]
    assert len(lightness) == n and min(np.diff(lightness)) > least


def test_no_text_is_small_and_none_is_cut_off(runs: pd.DataFrame) -> None:
    history = epochs(SimulatedCampaign(n_runs=30), list(gallery.shown_runs(runs, METRIC)))
    named = runs.assign(run_name="017 " + "augmentation=cutmix partitioning=70-15-15 " * 4)
    traces = gallery.shown_runs(named, METRIC)
    label = figures.axis_label("energy per epoch", "J", names.SOURCE_POWER)
    # Levels that no space lists, as imported runs have them: a strip with many shades.
    many = runs.assign(effective_batch_size=[str(8 + i % 9) for i in range(len(runs))])
    thirds = [runs.iloc[i : i + 3] for i in (0, 3, 6)]
    residuals = pd.DataFrame({"fitted": [1.0, 9.0], "observed": [2.0, 8.0], "residual": [0.7, 0.1]})
    drawings = (
        figures.energy_by_level(many, METRIC, label),
        figures.configurations(many, METRIC, label),
        figures.forest(effects(within="optimizer=RMSProp"), "energy per epoch"),
        figures.pareto(runs, [], None, METRIC, label),
        figures_runs.power(history, traces),
        figures_runs.curves(history, traces),
        figures_runs.drift(runs[runs["kind"] == names.KIND_BASELINE], METRIC, label),
        figures_runs.fit(residuals.assign(position=[0, 1]), "energy per epoch (J)"),
        figures_runs.final_comparison(dict(zip(ROLES, thirds, strict=True)), METRIC, label),
        figure_plane.level_plane(crowded_plane()),
    )
    for draw in drawings:
        for width_in in (style.WIDE_IN, style.NARROW_IN):
            with mpl.rc_context(style._RC):
                figure = draw(width_in)
                figure.draw_without_rendering()
            for text in figure.findobj(Text):
                if text.get_text() and text.get_visible():
                    assert text.get_fontsize() >= style.SMALL_PT, text
            # Drawn to the edge or beyond it, a text is cut off.
            box = figure.get_tightbbox()
            assert box.x0 >= 0 and box.y0 >= 0, (draw, width_in)
            assert box.x1 <= figure.get_figwidth() and box.y1 <= figure.get_figheight(), draw


def crowded_plane() -> pd.DataFrame:
    """Return a plane of all levels, each of which acts."""
    rng = np.random.default_rng(1)
    rows = []
    for factor, levels in Space.load().levels.items():
        nests = ("optimizer=SGD", "optimizer=RMSProp") if factor == "optimizer_momentum" else ("",)
        for level, within in itertools.product(levels[1:], nests):
            spread = 0.15 if factor in ("batch_size", *LAW_FACTORS) else 0.0
            ratio, points = float(np.exp(rng.normal(0.0, spread))), rng.normal(0.0, 2.0)
            ends = (ratio * 0.95 ** bool(spread), ratio * 1.05 ** bool(spread))
            rows.append((factor, within, str(level), "x", ratio, *ends, points))
    table = pd.DataFrame(rows, columns=PLANE_COLUMNS[:8])
    return table.assign(
        points_low=table["points"] - 0.6, points_high=table["points"] + 0.6, verdict="paid for"
    )


def names_in(figure: Figure) -> list[Annotation]:
    return [text for text in figure.axes[0].texts if isinstance(text, Annotation)]


def test_the_plane_names_the_levels_that_act_and_no_name_lies_on_another() -> None:
    plane = crowded_plane()
    acts = np.arange(len(plane)) % 3 > 0
    some = plane.assign(verdict=np.where(acts, "paid for", "nothing is shown"))
    with mpl.rc_context(style._RC):
        figure = figure_plane.level_plane(some)(style.WIDE_IN)
    shown = [text.get_text() for text in names_in(figure)]
    assert len(shown) == acts.sum()
    assert {"0.9 (RMSProp)", "mixed float16"} & set(shown)
    assert f"nothing shown ({(~acts).sum()})" in texts(figure)
    for corner in ("free, or a gain twice", "paid for", "a loss twice", "bought"):
        assert corner in texts(figure)
    with mpl.rc_context(style._RC):
        crowded = figure_plane.level_plane(plane)(style.WIDE_IN)
        crowded.draw_without_rendering()
        boxes = [text.get_window_extent().padded(-2) for text in names_in(crowded)]
    assert len(boxes) == len(plane) == 33
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[i + 1 :]), names_in(crowded)[i].get_text()
    nothing = style.render("plane", "Plane", "", figure_plane.level_plane(plane.iloc[:0]))
    assert "no level has both" in nothing.reason


def test_runs_differ_by_marker_and_line_style(runs: pd.DataFrame) -> None:
    traces = gallery.shown_runs(runs, METRIC)
    assert len(traces) == 3
    for attribute in ("colour", "marker", "line"):
        assert len({getattr(trace, attribute) for _, trace in traces.values()}) == 3


def test_power_and_curves_draw_each_run_and_name_it(runs: pd.DataFrame) -> None:
    traces = gallery.shown_runs(runs, METRIC)
    history = epochs(SimulatedCampaign(n_runs=30), list(traces))
    power = figures_runs.power(history, traces)(style.WIDE_IN)
    assert len(power.axes[0].get_lines()) == 3
    assert "mean GPU power (W)" in texts(power) and "baseline" in texts(power)
    curves = figures_runs.curves(history, traces)(style.NARROW_IN)
    assert len(curves.axes[0].get_lines()) == 6  # training and validation


def test_a_figure_without_data_gives_its_reason(runs: pd.DataFrame) -> None:
    history = epochs(SimulatedCampaign(n_runs=30), [runs["run_id"].iloc[0]])
    history[names.GPU_POWER_MEAN_W] = np.nan
    traces = {runs["run_id"].iloc[0]: ("a run", figures_runs.BEST)}
    nothing = style.render("power", "Power", "", figures_runs.power(history, traces))
    assert "no GPU power by epoch" in nothing.reason and not nothing.png
    drift = style.render("drift", "Drift", "", figures_runs.drift(runs.head(1), METRIC, "J"))
    assert "no campaign has 2 usable runs" in drift.reason
    none = style.render("x", "X", "", figures.energy_by_level(runs.iloc[:0], METRIC, "J"))
    assert "no run has" in none.reason


def test_drift_of_several_campaigns_is_relative_to_the_mean_of_each(runs: pd.DataFrame) -> None:
    baseline = runs[runs["kind"] == names.KIND_BASELINE]
    # The later one has the name that sorts first.
    later = {
        METRIC: 3 * baseline[METRIC] ** 2,
        "start_time": baseline["start_time"] + pd.Timedelta(days=1),
    }
    other = baseline.assign(campaign="a" * 32, **later)
    alone = baseline.head(1).assign(campaign="alone")
    both = pd.concat([other, baseline, alone])
    figure = figures_runs.drift(both, METRIC, "energy (J)")(style.WIDE_IN)
    mean, first, second = figure.axes[0].get_lines()
    assert mean.get_ydata()[0] == pytest.approx(1.0)
    for line, values in ((first, baseline[METRIC]), (second, other[METRIC])):
        np.testing.assert_allclose(line.get_ydata(), values / values.mean())
    assert second.get_label() == "campaign aaaaaaaa"
    assert figure.axes[0].get_title() == "energy,\nrelative to the campaign's mean"

    few = pd.concat([baseline.head(1), other.head(1)])
    drawing = style.render("drift", "Drift", "", figures_runs.drift(few, METRIC, "J"))
    assert "no campaign has 2 usable runs" in drawing.reason


def test_rendering_gives_all_forms_and_the_same_bytes_again(runs: pd.DataFrame) -> None:
    draw = figures_runs.drift(runs[runs["kind"] == names.KIND_BASELINE], METRIC, "energy (J)")
    once, again = (style.render("drift", "Drift", "", draw) for _ in range(2))
    assert once == again
    assert once.png.startswith(b"\x89PNG") and once.wide_svg.startswith(b"<?xml")
    widths = [
        float(re.search(rb'width="([0-9.]+)pt"', svg)[1])
        for svg in (once.wide_svg, once.narrow_svg)
    ]
    assert widths == pytest.approx([72 * style.WIDE_IN, 72 * style.NARROW_IN])


def test_many_points_become_a_picture(runs: pd.DataFrame) -> None:
    many = pd.concat([runs] * (style.MAX_VECTOR_POINTS // len(runs) + 1), ignore_index=True)
    draw = figures.pareto(many, [], None, METRIC, "energy (J)")
    assert b"<image" in style.render("pareto", "Pareto", "", draw).wide_svg


def kept(tmp_path, label: str = "baseline", **options: object) -> RunPower:
    write_trace(run_trace(**options), tmp_path / "trace.parquet")
    return RunPower(label, *read_trace(tmp_path / "trace.parquet"))


@pytest.mark.parametrize("width_in", [style.WIDE_IN, style.NARROW_IN])
def test_power_is_drawn_over_the_epoch_of_median_length_with_its_validation(
    tmp_path, width_in: float
) -> None:
    long = f"selected: {'precision=global_policy_float16, ' * 5}"
    runs = [kept(tmp_path, long), kept(tmp_path, devices=(BOARD, "GPU-2", "cpu"))]
    figure = epoch_power(runs)(width_in)
    # Of 4, 6 and 5 s, the first epoch apart; each with the waits at its sides.
    before, epoch, after, _, second, _ = figure.axes
    assert epoch.get_xlim() == (0, pytest.approx(5.0))
    training, validation = epoch.patches
    assert training.get_width() == pytest.approx(5.0)
    assert (validation.get_x(), validation.get_width()) == pytest.approx((3.75, 1.25))
    assert validation.get_hatch()
    (line,) = epoch.get_lines()
    times_s, watts = line.get_data()
    assert len(times_s) == 50 and times_s.min() >= 0 and times_s.max() < 5.0
    assert watts[0] == watts.max() == TRAINING_W > watts[-1]
    assert [axes.get_xlabel() for axes in (before, after)] == ["idle", "idle"]
    assert len(second.get_lines()) == 2  # the boards, without the CPU
    assert "epoch 3" in texts(figure) and "validation" in texts(figure)
    # However long a name is, it fits.
    figure.canvas.draw()
    titles = [text for part in figure.subfigs for text in part.texts]
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in titles)


def test_power_of_a_long_epoch_is_drawn_by_means_and_ranges(tmp_path) -> None:
    figure = epoch_power([kept(tmp_path, epochs_s=(5.0, 3600.0))])(style.WIDE_IN)
    (line,) = figure.axes[1].get_lines()
    assert len(line.get_xdata()) <= 300
    assert line.get_ydata().max() == pytest.approx(TRAINING_W)
    assert len(figure.axes[1].collections) == 1


def test_power_of_a_screening_is_that_of_a_block(tmp_path) -> None:
    figure = epoch_power([kept(tmp_path, kind="block", validation_share=0.0)])(style.WIDE_IN)
    assert "block 3" in texts(figure) and "validation" not in texts(figure)


def test_without_kept_power_there_is_no_drawing_of_it() -> None:
    with pytest.raises(style.NothingToShowError):
        epoch_power([])(style.WIDE_IN)


def test_the_baseline_and_the_selected_run_are_those_whose_power_is_drawn(
    runs: pd.DataFrame,
) -> None:
    first = runs[runs["kind"] == names.KIND_BASELINE].sort_values("position").iloc[0]
    assert gallery.traced_runs(runs, None) == {first["run_id"]: "baseline"}
    selection = select(runs)
    shown = gallery.traced_runs(runs, selection)
    assert list(shown)[0] == selection.run_id and len(shown) == 2
