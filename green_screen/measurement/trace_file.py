"""The file of a run's sampled power: a row for each sample, and where its phases lie.

It needs PyArrow and pandas, which MLflow brings; the meter alone needs neither.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from green_screen.measurement.run_record import RunTrace
from green_screen.power.meter import Mark

# What lies in no phase, as `other_energy_j` calls it.
OTHER = "other"

_SCHEMA = pa.schema(
    [
        ("time_s", pa.float64()),
        ("board", pa.dictionary(pa.int16(), pa.string())),
        ("watts", pa.float32()),
        ("phase", pa.dictionary(pa.int32(), pa.string())),
    ]
)
# Where pandas looks for a table's `attrs`.
_ATTRS = "PANDAS_ATTRS"
_ROWS_AT_ONCE = 1_000_000


def write_trace(trace: RunTrace, path: Path) -> None:
    """Write a trace as Parquet, or nothing if nothing was sampled.

    Its columns are the time since the measuring began, the board's UUID or ``cpu``, the power, and
    the innermost phase that the sample lies in. A phase's edges lie between samples: the table's
    attributes have them (see :func:`read_trace`).

    Raises:
        OSError: It cannot be written.
    """
    if not trace.samples:
        return
    # The outer ones first, so that the inner ones are written over them.
    spans = sorted(trace.spans, key=lambda span: (span[1].time_s, -span[2].time_s))
    labels = pa.array([OTHER, *(name for name, _, _ in spans)])
    phases = [
        {
            "phase": name,
            "board": device.device,
            "start_s": _time_s(start, place) - trace.start_s,
            "end_s": _time_s(end, place) - trace.start_s,
        }
        for name, start, end in spans
        for place, device in enumerate(trace.samples)
    ]
    attributes = json.dumps({"start_unix_s": trace.start_unix_s, "phases": phases})
    schema = _SCHEMA.with_metadata({_ATTRS: attributes})
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for place, device in enumerate(trace.samples):
            times_s = np.asarray(device.times_s)
            codes = np.zeros(len(times_s), np.int32)
            for code, (_, start, end) in enumerate(spans, 1):
                edges = np.searchsorted(times_s, [_time_s(start, place), _time_s(end, place)])
                codes[slice(*edges)] = code
            for first in range(0, len(times_s), _ROWS_AT_ONCE):
                rows = slice(first, first + _ROWS_AT_ONCE)
                columns = [
                    pa.array(times_s[rows] - trace.start_s),
                    pa.DictionaryArray.from_arrays(
                        pa.array(np.zeros(len(times_s[rows]), np.int16)), pa.array([device.device])
                    ),
                    pa.array(np.asarray(device.powers_w)[rows].astype(np.float32)),
                    pa.DictionaryArray.from_arrays(pa.array(codes[rows]), labels),
                ]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def read_trace(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the samples and the phases of a trace.

    The first has the columns of :func:`write_trace`. The second has a row for each phase and board
    with the columns ``phase``, ``board``, ``start_s`` and ``end_s``: epochs contain their
    validation, and the phase ``further`` its epochs.
    """
    samples = pd.read_parquet(path)
    phases = pd.DataFrame(samples.attrs["phases"], columns=["phase", "board", "start_s", "end_s"])
    samples.attrs = {}
    return samples, phases


def integrals_j(samples: pd.DataFrame, phases: pd.DataFrame) -> NDArray[np.float64]:
    """Return the energy of each row of `phases`, as the meter integrates it; NaN before samples.

    By trapezoids up to the last sample before an edge, whose power is held up to the edge. What the
    next sample corrects falls to what follows the edge.
    """
    found = np.full(len(phases), np.nan)
    for board, rows in samples.groupby("board", observed=True):
        times_s, watts = rows["time_s"].to_numpy(), rows["watts"].to_numpy(np.float64)
        steps_j = np.diff(times_s) * (watts[1:] + watts[:-1]) / 2
        until_j = np.concatenate([[0.0], np.cumsum(steps_j)])
        mine = (phases["board"] == board).to_numpy()
        edges_s = phases.loc[mine, ["start_s", "end_s"]].to_numpy()
        last = np.searchsorted(times_s, edges_s, side="right") - 1
        totals_j = until_j[last] + watts[last] * (edges_s - times_s[last])
        totals_j[last < 0] = np.nan
        found[mine] = totals_j[:, 1] - totals_j[:, 0]
    return found


def _time_s(mark: Mark, place: int) -> float:
    """Return a mark's time: each board has its own, as reading one after the other takes time."""
    return mark.boards[place].time_s if place < len(mark.boards) else mark.time_s
