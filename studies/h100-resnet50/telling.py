"""How the study is told: a page, figures, and machine-readable metadata (an RO-Crate)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from answers import BEST, answers
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator
from reading import PLANNED, Block

from green_screen import names
from green_screen.report import style
from green_screen.report.document import count, number
from green_screen.report.figures_law import energy_law
from green_screen.results.frame import EFFECTIVE
from green_screen.statistics.law import hardware_of

_HEAD = """\
# Results

Written by `publish.py` from this folder's stores. Energies are of the GPU alone, by the board's
counter, gross. Intervals are 95 %, one each, not adjusted for their number. Levels that are not
named are the baseline's.
"""
_BUDGET = """
## The uncertainty of one run's joules

After JCGM 100:2008, standard uncertainties in percent. What is the board's cancels in the ratio of
two runs on it. Twice the uncertainty is a 95 % interval only where many replicates tell it.
"""


def page(blocks: Mapping[str, Block | None], tables: Mapping[str, pd.DataFrame]) -> str:
    """Return the results as Markdown; ``None`` is a block without a run."""
    parts = [_HEAD, *(_claim(name, block) for name, block in blocks.items())]
    parts.append("![Joules of 1,000 images by batch size](figures/joules-per-1000-images.png)\n")
    for name, block in blocks.items():
        if block:
            found = answers(name, block).items()
            parts += [f"## {PLANNED[name]} pixels\n", *(f"- **{q}** {a}" for q, a in found)]
    parts += ["\n## Goals\n", *_table(tables["goals"]), _BUDGET]
    parts += _table(tables["uncertainty"].drop(columns=["type", "distribution", "divisor"]))
    return "\n".join(parts) + "\n"


def _claim(name: str, block: Block | None) -> str:
    if block is None:
        return f"**{PLANNED[name]} pixels**: no run yet.\n"
    machines, violated = block.law.runs["machine"].unique(), block.law.violated["term"]
    hardware = ", ".join(sorted({hardware_of(machine) for machine in machines}))
    so_far = "" if block.complete else " Provisional: nothing is claimed before all have finished."
    doubt = f" **Not to be trusted: {', '.join(violated)} cannot act on energy and seems to.**"
    return (
        f"**{PLANNED[name]} pixels**, {block.progress}, {count(len(machines), 'board')} "
        f"({hardware}). {answers(name, block)[BEST]}{so_far}{doubt if len(violated) else ''}\n"
    )


def _table(table: pd.DataFrame) -> Iterator[str]:
    yield "| " + " | ".join(column.replace("_", " ") for column in table.columns) + " |"
    yield "|" + "---|" * len(table.columns)
    for row in table.itertuples(index=False, name=None):
        yield "| " + " | ".join(map(_cell, row)) + " |"


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if pd.isna(value) else f"{value:.0f}" if value.is_integer() else number(value)


# Precision by shape and by place; internal by colour, and by whether the mark is filled.
_SHAPES = {
    "float32": ("o", "float32"),
    "global_policy_float16": ("s", "mixed float16"),
    "float16": ("D", "float16"),
    "float64": ("^", "float64"),
}
_COLOURS = {
    "None": (style.INK, "none", "as it is"),
    "post_quantization": (style.THIRD, "none", "quantized afterwards"),
    "pre_quantization": (style.BASELINE, style.BASELINE, "quantization-aware"),
    "jit_compilation": (style.SELECTED, style.SELECTED, "XLA"),
}


def figures(blocks: Mapping[str, Block]) -> Iterator[style.Rendered]:
    """Yield the figure of all runs, and that of the law of each block that has one."""
    title, caption = "What 1,000 images cost", "One mark a run"
    used = {f"{PLANNED[name]} pixels": block.law.runs for name, block in blocks.items()}
    runs = {title: of for title, of in used.items() if len(of)}
    yield style.render("joules-per-1000-images", title, caption, lambda w: _marks(runs, w))
    for name, block in blocks.items():
        draw = energy_law(block.law, "J per image")
        found = style.render(f"law-{name}", f"The energy law, {name}", "With 95 % bands", draw)
        if not found.reason:
            yield found


def _marks(panels: Mapping[str, pd.DataFrame], width_in: float) -> Figure:
    figure = style.new_figure(width_in, 4.4)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, runs) in zip(all_axes, panels.items(), strict=True):
        batches = runs[EFFECTIVE + "batch_size"].astype("float64")
        for place, (precision, (shape, _)) in enumerate(_SHAPES.items()):
            for internal, (colour, fill, _) in _COLOURS.items():
                own = runs[EFFECTIVE + "precision"].eq(precision)
                own &= runs[EFFECTIVE + "internal"].eq(internal)
                beside = batches[own] * 1.07 ** (place - 1.5)
                cost = runs.loc[own, names.ENERGY_PER_1K_IMAGES_J]
                axes.plot(beside, cost, shape, color=colour, markerfacecolor=fill, markersize=4.5)
        style.log_axis(axes, "x", batches)
        sizes = sorted(set(batches.astype(int)))
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.set_xlabel("batch size")
        axes.set_title(f"{title}, {count(len(runs), 'run')}")
    joules = pd.concat(panels.values())[names.ENERGY_PER_1K_IMAGES_J].astype("float64")
    style.log_axis(all_axes[0], "y", joules)
    all_axes[0].yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    all_axes[0].set_ylabel("J per 1,000 images")
    marks = [(style.MUTED, "none", shape, label) for shape, label in _SHAPES.values()]
    marks += [(colour, fill, "o", label) for colour, fill, label in _COLOURS.values()]
    handles = [
        Line2D([], [], linestyle="", color=colour, markerfacecolor=fill, marker=mark, label=label)
        for colour, fill, mark, label in marks
    ]
    columns = 2 if style.is_narrow(width_in) else 4
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    return figure


CRATE = "ro-crate-metadata.json"
_CRATE_VERSION = "https://w3id.org/ro/crate/1.1"
_LICENCE = "https://spdx.org/licenses/MIT"
_FORMATS = {
    ".cff": "application/yaml",
    ".csv": "text/csv",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".svg": "image/svg+xml",
    ".xz": "application/x-xz",
}


def crate(folder: Path, files: Iterable[str], blocks: Iterable[Block]) -> str:
    """Return the metadata of the folder as JSON-LD.

    Args:
        folder: It holds ``CITATION.cff``, whose title, abstract, authors and date are used.
        files: All its files, relative to it.
        blocks: Those that were measured.
    """
    cited = yaml.safe_load((folder / "CITATION.cff").read_text("utf-8"))
    people = [
        _entity(f"#{author['name']}", "Organization", **author) for author in cited["authors"]
    ]
    data = [
        _entity(name, "File", name=Path(name).name, encodingFormat=_format(name))
        for name in sorted(set(files) - {CRATE})
    ]
    boards: dict[str, dict[str, Any]] = {}
    measuring = []
    for block in blocks:
        tags = [run.data.tags for run in block.stored.values()]
        product = {
            t[names.TAG_BOARD]: t[names.TAG_GPU_NAME] for t in tags if names.TAG_GPU_NAME in t
        }
        own = [
            _entity(f"#{uuid}", "IndividualProduct", name=gpu, serialNumber=uuid)
            for uuid, gpu in sorted(product.items())
        ]
        boards |= {board["@id"]: board for board in own}
        measuring.append(
            _entity(
                f"#measuring-{block.name}",
                "CreateAction",
                name=f"Measuring of {block.name}, {block.progress}",
                instrument=_ids(own),
                result={"@id": f"{block.name}.tar.xz"},
            )
        )
    root = _entity(
        "./",
        "Dataset",
        name=cited["title"],
        description=cited["abstract"].strip(),
        datePublished=str(cited["date-released"]),
        license={"@id": _LICENCE},
        author=_ids(people),
        publisher=_ids(people),
        hasPart=_ids(data),
        mentions=_ids(measuring),
    )
    about = {"conformsTo": {"@id": _CRATE_VERSION}, "about": {"@id": "./"}}
    licence = _entity(_LICENCE, "CreativeWork", name="MIT License")
    graph = [_entity(CRATE, "CreativeWork", **about), root, *data, *people, licence]
    content = {
        "@context": f"{_CRATE_VERSION}/context",
        "@graph": [*graph, *boards.values(), *measuring],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _entity(identifier: str, kind: str, **properties: Any) -> dict[str, Any]:
    return {"@id": identifier.replace(" ", "-"), "@type": kind, **properties}


def _format(name: str) -> str:
    return _FORMATS.get(Path(name).suffix, "application/octet-stream")


def _ids(entities: Iterable[Mapping[str, Any]]) -> Any:
    """Return references; a single one is no list, as the specification recommends."""
    found = [{"@id": entity["@id"]} for entity in entities]
    return found[0] if len(found) == 1 else found
