"""Where the checkpoints of trainings lie. Needs no TensorFlow."""

from __future__ import annotations

import shutil
from pathlib import Path

from green_screen import tracking

# Of a training that belongs to no campaign.
_ALONE = "alone"


def root() -> Path:
    """Return the folder of all checkpoints of this host, beside the records under way."""
    return tracking.spool_root() / "checkpoints"


def folder_of(place: tuple[str, str] | None, key: str) -> Path:
    """Return the folder of one training.

    Args:
        place: The campaign that it is of and its position there; ``None`` outside of one.
        key: What tells it from others of the same place.
    """
    return root() / "-".join((*(place or (_ALONE,)), key))


def remove(campaign: str, position: int) -> None:
    """Remove what is kept of a position of a campaign: nobody goes on with it."""
    for folder in root().glob(f"{campaign}-{position}-*"):
        shutil.rmtree(folder, ignore_errors=True)
