"""What an analysis prints at its end: the result, the table, where the report lies, what next."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import green_screen
from green_screen import names
from green_screen.analysis.analyze import Analyzed
from green_screen.decision.final import RECOMMENDED
from green_screen.output import command_line, near
from green_screen.report.document import Table, interval, percent
from green_screen.report.figures import amount
from green_screen.report.findings import Findings, difference_text, headline
from green_screen.report.tables import candidates_table, final_tables
from green_screen.sweep.progress import COLUMNS

_GAP = "  "
# Whether the package lies beside its Makefile, and is not installed without it.
_IN_SOURCES = (Path(green_screen.__file__).parents[1] / "Makefile").is_file()


def lines(result: Analyzed) -> Iterator[str]:
    """Yield the headline, the selected configuration, the table, the findings, and what is next."""
    findings = result.findings
    yield from _folded(headline(findings))
    yield ""
    if findings.selection is not None:
        difference = difference_text(findings)
        yield from _folded(f"best configuration ({findings.selection.objective}): {difference}")
        yield from _recommendation(findings)
        yield ""
        if findings.final is not None:
            found = [table for table in final_tables(findings.final) if not table.folded]
        else:
            found = [candidates_table(findings.selection, findings.source)]
        for table in found:
            yield from plain(table)
            yield ""
    label, moving = findings.moving
    if moving and findings.selection is not None:  # else the headline says so
        yield from _folded(f"shown to move the {label} (Holm's correction): {', '.join(moving)}")
    if findings.finals_reused:
        yield f"{findings.finals_reused} final runs of an earlier analysis were used again"
    for problem in findings.problems if findings.selection is not None else ():
        yield from _folded(problem)
    if result.model is not None:
        model = result.model
        yield f"registered: {model.name} version {model.version}, alias {names.CHALLENGER}"
    if result.predicts:
        yield f"registered: {names.ENERGY_MODEL_NAME}, which predicts what a configuration takes"
    yield f"report:     {near(result.report)}"
    yield ""
    yield "next:"
    yield "  open the report in a browser"
    if _IN_SOURCES:
        yield "  make ui       every run in MLflow's pages"
    else:
        yield "  mlflow ui     every run in MLflow's pages"
    if result.model is not None:
        yield f"  {command_line('promote')} --name {result.model.name}"
    if result.predicts:
        yield f"  {command_line('predict')} --help"
    if _IN_SOURCES:
        full = "the full experiment: 100 configurations of ResNet-50 (needs a GPU)"
        yield f"  make study    {full}"


def _recommendation(findings: Findings) -> Iterator[str]:
    if (found := findings.recommendation) is not None:
        energy = amount(found.predicted["energy_j"], "J", findings.source)
        ends = interval(found.predicted["energy_low_j"], found.predicted["energy_high_j"])
        accuracy = found.predicted["accuracy"]
        known = f", validation accuracy {percent(accuracy)}" if np.isfinite(accuracy) else ""
        yield from _folded(
            f"recommended, never run before: {difference_text(findings, RECOMMENDED)}; predicted "
            f"{energy}, {ends}{known}"
        )
    elif findings.unrecommended:
        yield from _folded(f"there is no recommendation: {findings.unrecommended}")


def plain(table: Table, columns: int = COLUMNS) -> Iterator[str]:
    """Yield a table as lines of text, numbers flush right.

    Heads are folded to the width of what stands below them, and the widest column of texts as far
    as the lines must be to fit in so many columns.
    """
    heads = [f"{c.name} ({c.unit})" if c.unit else c.name for c in table.columns]
    widths = [
        max(len(part) for part in (*head.split(), *cells))
        for head, cells in zip(heads, zip(*table.rows, strict=True), strict=True)
    ]
    texts = [i for i, column in enumerate(table.columns) if not column.numeric]
    too_wide = sum(widths) + len(_GAP) * (len(widths) - 1) - columns
    if too_wide > 0 and texts:
        widest = max(texts, key=lambda i: widths[i])
        widths[widest] = max(widths[widest] - too_wide, 1)

    def row(cells: Sequence[str]) -> Iterator[str]:
        folded = [textwrap.wrap(c, w) or [""] for c, w in zip(cells, widths, strict=True)]
        for place in range(max(map(len, folded))):
            parts = [parts[place] if place < len(parts) else "" for parts in folded]
            aligned = (
                part.rjust(width) if column.numeric else part.ljust(width)
                for part, width, column in zip(parts, widths, table.columns, strict=True)
            )
            yield _GAP.join(aligned).rstrip()

    yield from _folded(table.caption)
    yield from row(heads)
    yield _GAP.join("-" * width for width in widths)
    for cells in table.rows:
        yield from row(cells)


def _folded(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, break_on_hyphens=False)
