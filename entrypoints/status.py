"""Tell the state of a campaign from the store alone: ``python -m entrypoints.status``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from green_screen.options import OptionError, StatusOptions, parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0, or 2 if there is no such campaign."""
    options, _ = parse_options(StatusOptions, argv, __doc__ or "")

    from green_screen.sweep.status import read_status

    try:
        print(read_status(options.sweep).text())
    except OptionError as error:
        print(f"status: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
