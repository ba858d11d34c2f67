"""What the code that trains says about its run."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from green_screen import names
from green_screen.tracking.outbox import Outbox
from green_screen.tracking.records import ModelLink, Record, send
from green_screen.tracking.store import MAX_TAG_LENGTH


class RunLogger:
    """Writes to one run; nothing else in the training code talks to the server.

    Parameters are written in their canonical form; one that the run has already is left alone,
    because ``mlflow run`` has written it before, perhaps in another spelling, and MLflow refuses a
    second one.

    Attributes:
        run_id: The run's id.
        opened_with: The tags that the run had when it was opened.
    """

    def __init__(
        self,
        run_id: str,
        client: MlflowClient | None = None,
        outbox: Outbox | None = None,
        opened_with: Mapping[str, str] | None = None,
    ) -> None:
        """Log to a run.

        Args:
            run_id: The run.
            client: Where to; the default is the current tracking URI's.
            outbox: Takes what is logged and sends it in the background, as in the runs of
                :func:`~green_screen.tracking.open_run`. Without one every call waits for the server
                and raises its errors.
            opened_with: Its tags, where it has just been opened.
        """
        self.run_id = run_id
        self.opened_with = opened_with or {}
        self._on_finished: list[Callable[[], object]] = []
        self._client = client or MlflowClient()
        self._outbox = outbox

    @property
    def place(self) -> tuple[str, str] | None:
        """The run id of the campaign that it is of and its position there; ``None`` outside."""
        tags = self.opened_with
        if names.TAG_POSITION not in tags or MLFLOW_PARENT_RUN_ID not in tags:
            return None
        return tags[MLFLOW_PARENT_RUN_ID], tags[names.TAG_POSITION]

    def on_finished(self, action: Callable[[], object]) -> None:
        """Have something done once the run is over and has finished, as far as its process goes."""
        self._on_finished.append(action)

    def finished(self) -> None:
        """Do what was asked for by :meth:`on_finished`."""
        for action in self._on_finished:
            action()

    def params(self, params: Mapping[str, str]) -> None:
        """Log parameters; those the run has already are left as they are."""
        self._log({"op": "params", "params": dict(params)})

    def metrics(
        self, metrics: Mapping[str, float], step: int = 0, model: ModelLink | None = None
    ) -> None:
        """Log metrics at one step. NaN is logged as NaN: a gap must be visible.

        Args:
            metrics: Name -> value.
            step: The step.
            model: A model of the run that gets those that are finite too.
        """
        values = {key: float(value) for key, value in metrics.items()}
        now_ms = int(time.time() * 1000)
        record = {"op": "metrics", "metrics": values, "time_ms": now_ms, "step": step}
        self._log({**record, "model": dataclasses.asdict(model)} if model else record)

    def tags(self, tags: Mapping[str, object], model: ModelLink | None = None) -> None:
        """Set tags, each as text of at most 5,000 characters, on the run and on a model of it."""
        texts = {key: str(value)[:MAX_TAG_LENGTH] for key, value in tags.items()}
        record = {"op": "tags", "tags": texts}
        self._log({**record, "model_id": model.model_id} if model else record)

    def untag(self, keys: Iterable[str]) -> None:
        """Take tags away; those that the run does not have are none to take."""
        self._log({"op": "untag", "keys": list(keys)})

    def missing(self, metrics: Mapping[str, float], reason: str) -> None:
        """Say why each NaN among `metrics` is missing, as a tag beside it.

        Raises:
            ValueError: One is missing and the reason is empty.
        """
        gaps = [key for key, value in metrics.items() if math.isnan(value)]
        if gaps and not reason:
            raise ValueError(f"a missing metric needs a reason, but {', '.join(gaps)} has none")
        self.tags({names.MISSING_PREFIX + key: reason for key in gaps})

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Upload a file as it is now."""
        if self._outbox is not None:
            self._outbox.put_file(Path(path), folder)
        else:
            self._client.log_artifact(self.run_id, str(path), folder)

    def text(self, text: str, file: str) -> None:
        """Upload `text` as an artifact named `file`."""
        folder, _, name = file.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            path.write_text(text, encoding="utf-8")
            self.artifact(path, folder or None)

    def dataset(self, dataset: Any, context: str) -> None:
        """Link an MLflow dataset to the run."""
        entity = dict(dataset._to_mlflow_entity())
        self._log({"op": "dataset", "dataset": entity, "context": context})

    def flush(self, patience_s: float) -> bool:
        """Wait until the server has everything, at most `patience_s` seconds; return whether."""
        return self._outbox is None or self._outbox.flush(patience_s)

    def _log(self, record: Record) -> None:
        if self._outbox is not None:
            self._outbox.put(record)
        else:
            send(self._client, self.run_id, record, None)
