"""Reads the sampled power of a run from its store."""

from __future__ import annotations

import logging
import tempfile

import pandas as pd
from mlflow.tracking import MlflowClient

from green_screen import names
from green_screen.measurement.trace_file import read_trace

logger = logging.getLogger(__name__)


def read_run_trace(run_id: str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return samples and phases of a run (:func:`~green_screen.measurement.trace_file.read_trace`).

    It takes two requests. ``None`` if the run has kept none, or if its artifacts cannot be reached
    from here: they are to look at, and nothing else may fail for want of them.
    """
    client = MlflowClient()
    try:
        files = {file.path for file in client.list_artifacts(run_id)}
        if names.TRACE_PARQUET not in files:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return read_trace(client.download_artifacts(run_id, names.TRACE_PARQUET, folder))
    except Exception as error:
        logger.warning("the sampled power of run %s cannot be read: %s", run_id, error)
        return None
