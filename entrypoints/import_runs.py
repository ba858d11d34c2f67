"""Import runs made elsewhere as a campaign: ``python -m entrypoints.import_runs --folder PATH``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from entrypoints.ending import ended
from green_screen.options import ImportOptions, parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if at least one run was imported, 1 if none was."""
    options, _ = parse_options(ImportOptions, argv, __doc__ or "")

    from green_screen.results.importing import import_runs
    from green_screen.results.legacy_log import LegacyError

    def run() -> int:
        imported = import_runs(options)
        for folder, reason in imported.skipped.items():
            print(f"skipped {folder}: {reason}", file=sys.stderr)
        print(f"{imported.n_runs} runs imported, {len(imported.skipped)} skipped")
        print(
            f"campaign {imported.run_id}; analyse it with: python -m entrypoints.analyze "
            f"--sweep {imported.run_id} --final_repeats 0"
        )
        return 0

    return ended("import", run, LegacyError)


if __name__ == "__main__":
    sys.exit(main())
