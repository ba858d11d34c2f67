"""The sampled power of runs, read from a store."""

from __future__ import annotations

import mlflow
from traces import BOARD, run_trace

from green_screen import names
from green_screen.measurement.trace_file import write_trace
from green_screen.results.traces import read_run_trace


def test_a_trace_is_read_as_it_was_written_and_its_want_is_no_error(store, tmp_path, caplog):
    caplog.set_level("WARNING", "green_screen")
    with mlflow.start_run() as run:
        assert read_run_trace(run.info.run_id) is None
        write_trace(run_trace(), tmp_path / names.TRACE_PARQUET)
        mlflow.log_artifact(tmp_path / names.TRACE_PARQUET)
    samples, phases = read_run_trace(run.info.run_id)
    assert set(samples["board"]) == {BOARD} and "epoch 3" in set(phases["phase"])
    assert not caplog.records
    assert read_run_trace("f" * 32) is None
    assert "f" * 32 in caplog.text
