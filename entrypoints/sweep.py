"""Run a campaign, or complete one that was cut short: ``python -m entrypoints.sweep``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

from green_screen.options import OptionError, SweepOptions, parse_options
from green_screen.space import SpaceError


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if the campaign came to its end with a run finished, else as :func:`ended`."""
    options, _ = parse_options(SweepOptions, argv, __doc__ or "")

    from green_screen.sweep.campaign import run_sweep

    return ended(lambda: run_sweep(options))


def ended(run: Callable[[], str]) -> int:
    """Run a campaign and return the exit status that its end means, after a line that says why.

    0; 1 for a campaign that failed; 2 for options that cannot be used; 128 plus the signal's number
    for one that was interrupted.
    """
    from green_screen.sweep.campaign import CampaignError
    from green_screen.tracking import Interrupted, StoreUnavailableError

    try:
        run()
    except (OptionError, SpaceError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    except (CampaignError, StoreUnavailableError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(f"sweep: ended by {error}; the same command resumes it", file=sys.stderr)
        return 128 + error.number
    except KeyboardInterrupt:
        print("sweep: ended before anything was started", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
