"""Analyse a campaign, compare, report and register: ``python -m entrypoints.analyze``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from entrypoints.ending import ended
from green_screen.options import AnalyzeOptions, parse_options

if TYPE_CHECKING:
    from green_screen.analysis.analyze import Analyzed


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if a report was written, also if it says that the runs say nothing."""
    options, _ = parse_options(AnalyzeOptions, argv, __doc__ or "")

    from green_screen.analysis.analyze import analyze
    from green_screen.results.runs import CampaignError

    def run() -> int:
        _print(analyze(options))
        return 0

    return ended("analyze", run, CampaignError)


def _print(result: Analyzed) -> None:
    from rich.console import Console

    from green_screen.analysis import summary

    console = Console(soft_wrap=True, highlight=False)
    console.print()
    for line in summary.lines(result):
        console.print(line, markup=False)


if __name__ == "__main__":
    sys.exit(main())
