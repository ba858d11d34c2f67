"""Whether a run's GPU ran at the clock of the campaign's baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mlflow.entities import Run

from green_screen import names
from green_screen.power.validity import Clock, clock_reason


class BaselineClocks:
    """The clock of the first baseline on each board whose measurement is not in doubt."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        """Begin with the runs of earlier attempts, the earliest first."""
        self._clocks: dict[str, Clock] = {}
        for run in runs:
            self.doubts(run)

    def doubts(self, run: Run) -> dict[str, str]:
        """Return the tags that say why a run's clock forbids to compare it; none if it is fine.

        A run on a board that has run no baseline yet is not judged.
        """
        tags, clock = run.data.tags, _clock(run)
        board = tags.get(names.TAG_GPU_DEVICES)
        if board is None or not math.isfinite(clock.sm_mhz) or run.info.status != "FINISHED":
            return {}
        # By a baseline that was throttled, all the others would be in doubt.
        trusted = tags.get(names.TAG_MEASUREMENT_VALID) != "false"
        if trusted and tags.get(names.TAG_KIND) == names.KIND_BASELINE:
            self._clocks.setdefault(board, clock)
        baseline = self._clocks.get(board)
        reason = clock_reason(clock, baseline) if baseline else ""
        if not reason:
            return {}
        before = tags.get(names.TAG_INVALID_REASON)
        return {
            names.TAG_MEASUREMENT_VALID: "false",
            names.TAG_INVALID_REASON: "; ".join(filter(None, (before, reason))),
        }


def _clock(run: Run) -> Clock:
    metrics = run.data.metrics
    return Clock(
        sm_mhz=metrics.get(names.STEADY_SM_CLOCK_MHZ, math.nan),
        power_capped=metrics.get(names.STEADY_POWER_CAPPED_PERCENT, math.nan) / 100,
        power_limit_w=run.data.tags.get(names.TAG_GPU_POWER_LIMIT_W, ""),
    )
