"""What a report is made of, whatever it is written as: sections of text, tables and figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from green_screen.report.style import Rendered

MISSING = "n/a"
NOT_RECORDED = "not recorded"

# More decimals than these are not read; what is nearer to 0 is given as a bound.
_MAX_DECIMALS = 9


@dataclass(frozen=True)
class Text:
    """A paragraph; a `warning` is set apart from the rest."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Items:
    """A list of statements."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """The head of a table's column; numbers are set flush right."""

    name: str
    unit: str = ""
    numeric: bool = False


def numeric(*names: str) -> tuple[Column, ...]:
    """Return columns of numbers without a unit."""
    return tuple(Column(name, numeric=True) for name in names)


@dataclass(frozen=True)
class Table:
    """A table of texts, one tuple a row; rows in `marked` are emphasised.

    A `folded` one is there for who looks for it, behind a click in HTML; a `long` one is left out
    of the PDF.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    folded: bool = False
    long: bool = False


@dataclass(frozen=True)
class KeyFigure:
    """A number worth large type, with what it is and how sure it is."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class KeyFigures:
    """A row of key figures."""

    figures: tuple[KeyFigure, ...]


Block = Text | Items | Table | KeyFigures | Rendered


@dataclass(frozen=True)
class Section:
    """A titled part of the report; `anchor` names it in links."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report.

    Attributes:
        title: Its name.
        subtitle: What was run, in a line.
        headline: The result, in a sentence or two.
        estimate: Where the energies are no measurement, what they are; else empty. Shown on top.
        lacking: What the campaign should have shown and could not, and why; else empty. Shown on
            top, in place of the parts that would be empty.
        sections: In the order of reading.
        footer: How it was made.
    """

    title: str
    subtitle: str
    headline: str
    estimate: str
    lacking: str
    sections: tuple[Section, ...]
    footer: str


def number(value: float, digits: int = 3) -> str:
    """Return a number with `digits` significant digits and no exponent, or :data:`MISSING`."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    least = 10.0**-_MAX_DECIMALS
    if abs(value) < least:
        return f"{'<' if value > 0 else '> -'} {least:.{_MAX_DECIMALS}f}".replace("- ", "-")
    return f"{value:,.{min(decimals, _MAX_DECIMALS)}f}"


def signed(value: float, decimals: int = 1) -> str:
    """Return a difference with its sign, and one that is none at so many decimals as ``+0.0``."""
    return f"{round(value, decimals) + 0.0:+.{decimals}f}"


def count(n: int, what: str) -> str:
    """Return a number of things, ``1 run`` or ``2 runs``."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def percent(fraction: float, digits: int = 1) -> str:
    """Return a fraction in percent."""
    return f"{100 * fraction:.{digits}f} %" if math.isfinite(fraction) else MISSING


def share(fraction: float) -> str:
    """Return a fraction in percent, with the decimals that tell it from 0 % and from 100 %."""
    if not math.isfinite(fraction):
        return MISSING
    rest = min(abs(fraction), abs(1 - fraction))
    if 0 < rest < 0.0001:
        return "less than 0.01 %" if abs(fraction) < 0.5 else "more than 99.99 %"
    return percent(fraction, 0 if rest == 0 or rest >= 0.1 else 1 if rest >= 0.01 else 2)


def interval(low: float, high: float, digits: int = 3) -> str:
    """Return an interval, or :data:`MISSING`."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return MISSING
    return f"{number(low, digits)} to {number(high, digits)}"


def p_value(p: float) -> str:
    """Return a p-value, no smaller than can be believed."""
    if not math.isfinite(p):
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
