"""Whether a run's GPU ran at the clock of the campaign's baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mlflow.entities import Run

from green_screen import names
from green_screen.power.validity import clock_reason


class BaselineClocks:
    """The clock of the first finished baseline on each board."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        """Begin with the runs of earlier attempts, the earliest first."""
        self._clocks_mhz: dict[str, float] = {}
        for run in runs:
            self.doubts(run)

    def doubts(self, run: Run) -> dict[str, str]:
        """Return the tags that say why a run's clock forbids to compare it; none if it is fine.

        A run on a board that has run no baseline yet is not judged.
        """
        tags, clock_mhz = run.data.tags, run.data.metrics.get(names.STEADY_SM_CLOCK_MHZ, math.nan)
        board = tags.get(names.TAG_GPU_DEVICES)
        if board is None or not math.isfinite(clock_mhz) or run.info.status != "FINISHED":
            return {}
        if tags.get(names.TAG_KIND) == names.KIND_BASELINE:
            self._clocks_mhz.setdefault(board, clock_mhz)
        reason = clock_reason(clock_mhz, self._clocks_mhz.get(board, math.nan))
        if not reason:
            return {}
        before = tags.get(names.TAG_INVALID_REASON)
        return {
            names.TAG_MEASUREMENT_VALID: "false",
            names.TAG_INVALID_REASON: "; ".join(filter(None, (before, reason))),
        }
