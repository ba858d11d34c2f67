"""Import runs made elsewhere as a campaign."""

from __future__ import annotations

import sys

from green_screen.options import ImportOptions
from green_screen.output import command_line
from green_screen.results.importing import import_runs
from green_screen.results.legacy_log import LegacyError

FAILURES = (LegacyError,)


def work(options: ImportOptions, factors: dict[str, str]) -> int:
    """Return 0 if at least one run was imported, 1 if none was."""
    imported = import_runs(options)
    for folder, reason in imported.skipped.items():
        print(f"skipped {folder}: {reason}", file=sys.stderr)
    print(f"{imported.n_runs} runs imported, {len(imported.skipped)} skipped")
    print(
        f"campaign {imported.run_id}; analyse it with: "
        f"{command_line('analyze')} --sweep {imported.run_id} --final_repeats 0"
    )
    return 0
