"""The table of a campaign's runs, kept up to date on its parent run."""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Iterable

from mlflow.entities import Run

from green_screen import names
from green_screen.space import FACTOR_NAMES
from green_screen.tracking import RunLogger

logger = logging.getLogger(__name__)

_TAGS = (
    names.TAG_ENERGY_SOURCE,
    names.TAG_MEASUREMENT_VALID,
    names.TAG_DIVERGED,
    names.TAG_OUT_OF_MEMORY,
    names.TAG_EPOCHS_TRAINED,
    names.TAG_PRUNED,
    names.TAG_FAILURE,
)
_METRICS = (
    names.VAL_ACCURACY,
    names.TEST_ACCURACY,
    names.ENERGY_PER_EPOCH_J,
    names.ENERGY_PER_1K_IMAGES_J,
    names.ENERGY_TOTAL_J,
    names.DURATION_S,
    names.TRAINED_ENERGY_J,
    names.SCREENING_ENERGY_J,
    names.FORECAST_ENERGY_J,
    names.RUN_OVERHEAD_S,
    names.COOLDOWN_S,
)
COLUMNS = (
    "position",
    "kind",
    "run_id",
    "run_name",
    "status",
    "start_time_ms",
    "end_time_ms",
    *FACTOR_NAMES,
    *(names.EFFECTIVE_PREFIX + factor for factor in FACTOR_NAMES),
    *_METRICS,
    *_TAGS,
)

# Writing the table takes at most this share of a campaign's time: it grows with every run, and at
# thousands of runs of a second each it would cost more than they do.
_WRITING_SHARE = 0.05


def row(run: Run) -> tuple[object, ...]:
    """Return a run's cells, in the order of :data:`COLUMNS`; what a run lacks is empty."""
    info, data = run.info, run.data
    params = [*FACTOR_NAMES, *(names.EFFECTIVE_PREFIX + factor for factor in FACTOR_NAMES)]
    return (
        data.tags.get(names.TAG_POSITION, ""),
        data.tags.get(names.TAG_KIND, ""),
        info.run_id,
        info.run_name,
        info.status,
        info.start_time,
        info.end_time,
        *(data.params.get(name, "") for name in params),
        *(data.metrics.get(name, "") for name in _METRICS),
        *(data.tags.get(name, "") for name in _TAGS),
    )


class Summary:
    """Collects rows, in the order in which runs end, and writes them as ``runs_summary.csv``."""

    def __init__(self, parent: RunLogger, runs: Iterable[Run] = ()) -> None:
        """Begin with the runs of earlier attempts, whose last may have missed the table."""
        self._parent = parent
        self._lines = {run.info.run_id: _line(row(run)) for run in runs}
        self._not_before = 0.0
        self._unwritten = bool(self._lines)

    def add(self, run: Run) -> None:
        """Add a run that ended and write the table, unless it has just been written.

        One that has gone on since it was added stands in it as it is now.
        """
        self._lines[run.info.run_id] = _line(row(run))
        self._unwritten = True
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write the table if it has changed, unless it has just been written."""
        if time.monotonic() >= self._not_before:
            self.write()

    def write(self) -> None:
        """Write the table if it has changed; a full disk leaves it for the next time."""
        if not self._unwritten:
            return
        started = time.monotonic()
        try:
            text = "".join((_line(COLUMNS), *self._lines.values()))
            self._parent.text(text, names.RUNS_SUMMARY_CSV)
            self._parent.flush(patience_s=1.0)
            self._unwritten = False
        except OSError as error:
            logger.warning("%s could not be written: %s", names.RUNS_SUMMARY_CSV, error)
        now = time.monotonic()
        self._not_before = now + (now - started) / _WRITING_SHARE


def _line(cells: Iterable[object]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
