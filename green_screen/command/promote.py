"""Promote a registered model to champion, if it is not worse."""

from __future__ import annotations

from green_screen.options import PromoteOptions
from green_screen.registry.promotion import promote
from green_screen.registry.registry import RegistryError

FAILURES = (RegistryError,)


def work(options: PromoteOptions, factors: dict[str, str]) -> int:
    """Return 0 if the version is the champion afterwards, 1 if the gate refused it."""
    decision = promote(options)
    verdict = "champion" if decision.accepted else "refused"
    print(f"{options.name} version {decision.version}: {verdict}: {decision.reason}")
    if not decision.accepted and decision.champion is not None:
        print(f"the champion is still version {decision.champion}")
    return 0 if decision.accepted else 1
