"""Writes a report as one HTML page that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import base64

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from green_screen.report.document import Block, Document


def to_html(report: Document) -> str:
    """Return the page; every text in it is escaped, every figure embedded."""
    environment = Environment(
        loader=PackageLoader("green_screen.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["kind"] = _kind
    return environment.get_template("report.html").render(report=report)


def _kind(block: Block) -> str:
    """Return the name of the template's branch for a block."""
    return type(block).__name__.lower()


def _data_uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
