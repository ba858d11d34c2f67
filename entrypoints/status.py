"""Tell the state of a campaign from the store alone: ``python -m entrypoints.status``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from entrypoints.ending import ended
from green_screen.options import StatusOptions, parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 if there is no such campaign; else as :func:`entrypoints.ending.ended`."""
    options, _ = parse_options(StatusOptions, argv, __doc__ or "")

    from green_screen.sweep.status import read_status

    def run() -> int:
        print(read_status(options.sweep).text())
        return 0

    return ended("status", run, deliver=False)


if __name__ == "__main__":
    sys.exit(main())
