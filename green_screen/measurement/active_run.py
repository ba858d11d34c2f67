"""Where a training's metrics go: to the MLflow run that its user has made active."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol


class MetricLog(Protocol):
    """What :class:`~green_screen.measurement.callback.SMICallback` writes to."""

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at one step; NaN is a gap, and is logged as such."""

    def tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""


class ActiveRun:
    """Writes to one run through the MLflow that its user has imported.

    Args:
        mlflow: The module.
        run_id: The run, whichever is active later.
    """

    def __init__(self, mlflow: Any, run_id: str) -> None:
        """Log to a run."""
        self._mlflow = mlflow
        self._run_id = run_id

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at one step."""
        values = {key: float(value) for key, value in metrics.items()}
        self._mlflow.log_metrics(values, step=step, run_id=self._run_id)

    def tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        client = self._mlflow.MlflowClient()
        for key, value in tags.items():
            client.set_tag(self._run_id, key, str(value))


def active_run() -> ActiveRun | None:
    """Return the active MLflow run; none is active where nobody has imported MLflow."""
    mlflow = sys.modules.get("mlflow")
    run = mlflow.active_run() if mlflow is not None else None
    return ActiveRun(mlflow, run.info.run_id) if run is not None else None
