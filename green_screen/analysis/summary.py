"""What an analysis prints at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from green_screen import names
from green_screen.analysis.analyze import Analyzed
from green_screen.report.document import Table
from green_screen.report.findings import difference_text, headline
from green_screen.report.tables import candidates_table, final_table


def lines(result: Analyzed) -> Iterator[str]:
    """Yield the best configuration, the energy table, and where everything lies."""
    findings = result.findings
    yield headline(findings)
    yield ""
    if findings.selection is not None:
        yield f"best configuration ({findings.selection.objective}): {difference_text(findings)}"
        if findings.final is not None:
            yield from plain(final_table(findings.final))
        else:
            yield from plain(candidates_table(findings.selection, findings.source))
    if findings.finals_reused:
        yield f"{findings.finals_reused} final runs of an earlier analysis were used again"
    yield from findings.problems
    yield ""
    if result.model is not None:
        model = result.model
        yield f"registered: {model.name} version {model.version}, alias {names.CHALLENGER}"
    yield f"report:     {result.report}"
    yield "MLflow:     make ui"


def plain(table: Table) -> Iterator[str]:
    """Yield a table as lines of text, numbers flush right."""
    heads = [f"{c.name} ({c.unit})" if c.unit else c.name for c in table.columns]
    widths = [max(map(len, cells)) for cells in zip(heads, *table.rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if column.numeric else cell.ljust(width)
            for cell, width, column in zip(cells, widths, table.columns, strict=True)
        ]
        return "  ".join(aligned).rstrip()

    yield table.caption
    yield line(heads)
    yield line(["-" * width for width in widths])
    for row in table.rows:
        yield line(row)
