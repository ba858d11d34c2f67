"""Promote a registered model to champion, if it is not worse: ``python -m entrypoints.promote``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from entrypoints.ending import ended
from green_screen.options import PromoteOptions, parse_options


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0 if the version is the champion afterwards, 1 if the gate refused it."""
    options, _ = parse_options(PromoteOptions, argv, __doc__ or "")

    from green_screen.registry.promotion import promote
    from green_screen.registry.registry import RegistryError

    def run() -> int:
        decision = promote(options)
        verdict = "champion" if decision.accepted else "refused"
        print(f"{options.name} version {decision.version}: {verdict}: {decision.reason}")
        if not decision.accepted and decision.champion is not None:
            print(f"the champion is still version {decision.champion}")
        return 0 if decision.accepted else 1

    return ended("promote", run, RegistryError)


if __name__ == "__main__":
    sys.exit(main())
