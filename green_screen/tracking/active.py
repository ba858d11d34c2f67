"""The run that somebody else's code has made active."""

from __future__ import annotations

import mlflow

from green_screen.tracking.run_logger import RunLogger


def active_logger() -> RunLogger | None:
    """Return a logger of the active MLflow run, or ``None`` if there is none."""
    run = mlflow.active_run()
    return RunLogger(run.info.run_id) if run else None
