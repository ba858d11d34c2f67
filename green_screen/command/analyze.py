"""Analyse a campaign, compare, report and register."""

from __future__ import annotations

from rich.console import Console

from green_screen.command.extras import missing
from green_screen.options import AnalyzeOptions, OptionError
from green_screen.results.runs import CampaignError

FAILURES = (CampaignError,)


def work(options: AnalyzeOptions, factors: dict[str, str]) -> int:
    """Return 0 if a report was written, also if it says that the runs say nothing."""
    if options.final_repeats > 0 and (lacking := missing("experiment")):
        raise OptionError(
            f"final_repeats must be 0 where nothing can be trained, but got "
            f"{options.final_repeats}: final runs need {lacking}"
        )
    # These take seconds to import.
    from green_screen.analysis import summary
    from green_screen.analysis.analyze import analyze

    result = analyze(options)
    console = Console(soft_wrap=True, highlight=False)
    console.print()
    for line in summary.lines(result):
        console.print(line, markup=False)
    return 0
