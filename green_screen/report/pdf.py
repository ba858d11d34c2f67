"""Writes a report as a PDF, for who prints it or hands it in."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import matplotlib
from fpdf import FPDF
from fpdf.enums import MethodReturnValue, XPos, YPos
from fpdf.fonts import FontFace

from green_screen.report.document import Document, Items, KeyFigures, Section, Table, Text
from green_screen.report.style import Rendered

_FONT = "DejaVu"
_INK = (27, 31, 29)
_MUTED = (91, 99, 95)
_GREEN = (0, 115, 92)
_WARN = (138, 61, 0)
_LINE = (223, 228, 225)
_MARKED = (233, 244, 240)


def to_pdf(report: Document, made: datetime | None = None) -> bytes:
    """Return the report as a PDF of A4 pages. Long tables are left to the HTML report.

    Args:
        report: What it says; what made it, its last lines, is the file's subject too.
        made: The file's date; ``None`` is now.
    """
    pdf = _Pages(report.title)
    pdf.set_subject(report.footer)
    if made is not None:
        pdf.set_creation_date(made)
    _title(pdf, report)
    for section in report.sections:
        _section(pdf, section)
    pdf.paragraph(report.footer, size=7, colour=_MUTED)
    return bytes(pdf.output())


class _Pages(FPDF):  # type: ignore[misc]
    """A4 pages with a running foot, in a font that has every character the report uses."""

    def __init__(self, title: str) -> None:
        super().__init__(format="A4")
        # matplotlib's own fonts: installed wherever the figures can be drawn.
        folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
        self.add_font(_FONT, "", folder / "DejaVuSans.ttf")
        self.add_font(_FONT, "B", folder / "DejaVuSans-Bold.ttf")
        self.set_title(title)
        self.set_lang("en")
        self.set_margins(18, 16, 18)
        self.set_auto_page_break(True, margin=18)
        self._foot = title
        self.add_page()

    def footer(self) -> None:
        """Write the title and the page number."""
        self.set_y(-12)
        self.set_font(_FONT, "", 7)
        self.set_text_color(*_MUTED)
        self.cell(0, 4, self._foot[:90])
        self.set_x(self.l_margin)
        self.cell(0, 4, str(self.page_no()), align="R")

    def paragraph(
        self,
        text: str,
        size: float = 9,
        style: str = "",
        colour: tuple[int, int, int] = _INK,
        space: float = 2,
    ) -> None:
        """Write a paragraph over the whole width."""
        self.set_font(_FONT, style, size)
        self.set_text_color(*colour)
        self.multi_cell(0, size * 0.5, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        self.ln(space)

    def keep_together(self, height_mm: float) -> None:
        """Begin a page if less than `height_mm` is left on this one."""
        if self.will_page_break(height_mm):
            self.add_page()


def _title(pdf: _Pages, report: Document) -> None:
    pdf.paragraph("ENERGY REPORT", size=7.5, colour=_GREEN, space=0)
    pdf.paragraph(report.title, size=10, style="B", space=4)
    pdf.paragraph(report.headline, size=15, style="B", space=3)
    pdf.paragraph(report.subtitle, size=8.5, colour=_MUTED, space=3)
    if report.estimate:
        pdf.paragraph(report.estimate, size=8.5, colour=_WARN, space=3)
    if report.lacking:
        pdf.paragraph(report.lacking, size=8.5, colour=_WARN, space=3)


def _section(pdf: _Pages, section: Section) -> None:
    first = section.blocks[0] if section.blocks else None
    # A title must not be left behind by the figure that follows it.
    pdf.keep_together(40 + (_height(pdf, first) if isinstance(first, Rendered) else 0))
    pdf.set_draw_color(*_LINE)
    pdf.line(pdf.l_margin, pdf.get_y(), pdf.w - pdf.r_margin, pdf.get_y())
    pdf.ln(4)
    pdf.start_section(section.title)
    pdf.paragraph(section.title, size=12.5, style="B")
    for block in section.blocks:
        match block:
            case Text():
                pdf.paragraph(block.text, colour=_WARN if block.warning else _INK)
            case Items():
                for item in block.items:
                    pdf.paragraph(f"•  {item}", size=8.5, space=1)
                pdf.ln(1)
            case KeyFigures():
                _key_figures(pdf, block)
            case Table():
                if not block.long:
                    _table(pdf, block)
            case Rendered():
                _figure(pdf, block)


def _key_figures(pdf: _Pages, block: KeyFigures) -> None:
    for figure in block.figures:
        pdf.keep_together(12)
        pdf.paragraph(f"{figure.label}: {figure.value}", size=10, style="B", space=0)
        pdf.paragraph(figure.detail, size=8, colour=_MUTED, space=2)


def _table(pdf: _Pages, block: Table) -> None:
    pdf.keep_together(30)
    pdf.paragraph(block.caption, size=8.5, style="B", space=1)
    pdf.set_font(_FONT, "", 7)
    pdf.set_text_color(*_INK)
    heads = [f"{c.name} ({c.unit})" if c.unit else c.name for c in block.columns]
    with pdf.table(
        col_widths=_column_widths(block),
        text_align=tuple("RIGHT" if column.numeric else "LEFT" for column in block.columns),
        borders_layout="HORIZONTAL_LINES",
        line_height=4,
        headings_style=FontFace(emphasis="BOLD"),
    ) as table:
        table.row(heads)
        for index, cells in enumerate(block.rows):
            mark = FontFace(fill_color=_MARKED) if index in block.marked else None
            table.row(cells, style=mark)
    pdf.ln(4)


def _column_widths(block: Table) -> tuple[float, ...]:
    """Return relative widths: the longest cell's length, bounded so that no column starves."""
    lengths = []
    for index, column in enumerate(block.columns):
        cells = [len(row[index]) for row in block.rows]
        lengths.append(min(46, max([6, len(column.name) * 0.8, *cells])))
    return tuple(lengths)


def _figure(pdf: _Pages, block: Rendered) -> None:
    caption = f"{block.title}. {block.caption}"
    height = _height(pdf, block)
    pdf.set_font(_FONT, "", 8)
    lines = pdf.multi_cell(0, 4, caption, dry_run=True, output=MethodReturnValue.LINES)
    pdf.keep_together(height + 4 * len(lines) + 4)
    pdf.image(block.png, h=height, alt_text=caption)
    pdf.ln(1)
    pdf.paragraph(caption, size=8, colour=_MUTED, space=4)


def _height(pdf: _Pages, block: Rendered) -> float:
    """Return the height in mm of a figure as wide as the text, at most that of a page."""
    return float(min(pdf.epw * _aspect(block.png), pdf.eph - 50))


def _aspect(png: bytes) -> float:
    """Return height over width, read from the PNG header (PNG specification, section 11.2.2)."""
    width = int.from_bytes(png[16:20], "big")
    height = int.from_bytes(png[20:24], "big")
    return height / width
