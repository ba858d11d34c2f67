"""What is logged to a run, as records that can wait in a file and be sent twice without harm.

A record is a JSON object whose ``op`` says what it holds. Sending one again changes nothing: the
server keeps one metric value for each key, step, time and value, and tags, artifacts and the end of
a run are overwritten by the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from green_screen.tracking.store import in_spite_of_others

Record: TypeAlias = dict[str, Any]

# Limits of one `log_batch` call (MLflow's REST API).
_MAX_METRICS = 1000
_MAX_PARAMS = 100
_MAX_TAGS = 100


@dataclass(frozen=True, kw_only=True)
class ModelLink:
    """A model that the run has logged, and the data set that its figures are of.

    Its fields are named as MLflow's ``Metric`` names them.
    """

    model_id: str
    dataset_name: str
    dataset_digest: str


def send(client: MlflowClient, run_id: str, record: Record, folder: Path | None) -> None:
    """Send one record to the server.

    Args:
        client: Where to.
        run_id: The run.
        record: What.
        folder: Where the copies of artifacts are; ``None`` if they are the files themselves.

    Raises:
        Exception: MLflow's, as it comes.
    """
    match record["op"]:
        case "metrics":
            values = record["metrics"].items()
            time_ms, step = record["time_ms"], record["step"]
            model = record.get("model", {})
            batch = [
                # A model's metrics cannot be NaN in MLflow's tables: it would become 0.
                Metric(key, value, time_ms, step, **(model if math.isfinite(value) else {}))
                for key, value in values
            ]
            for start in range(0, len(batch), _MAX_METRICS):
                client.log_batch(run_id, metrics=batch[start : start + _MAX_METRICS])
        case "params":
            present = client.get_run(run_id).data.params
            new = [Param(k, v) for k, v in record["params"].items() if k not in present]
            for start in range(0, len(new), _MAX_PARAMS):
                client.log_batch(run_id, params=new[start : start + _MAX_PARAMS])
        case "tags":
            tags = [RunTag(key, value) for key, value in record["tags"].items()]
            for start in range(0, len(tags), _MAX_TAGS):
                client.log_batch(run_id, tags=tags[start : start + _MAX_TAGS])
            if model_id := record.get("model_id"):
                client.set_logged_model_tags(model_id, record["tags"])
        case "untag":
            present = client.get_run(run_id).data.tags
            for key in record["keys"]:
                if key in present:
                    client.delete_tag(run_id, key)
        case "artifact":
            path = Path(record["path"]) if folder is None else folder / record["path"]
            # The copy of a file that has been sent is deleted at once.
            if folder is None or path.exists():
                client.log_artifact(run_id, str(path), record["folder"])
        case "dataset":
            context = InputTag("mlflow.data.context", record["context"])
            inputs = [DatasetInput(Dataset(**record["dataset"]), [context])]
            in_spite_of_others(lambda: client.log_inputs(run_id, inputs))
        case "end":
            client.set_terminated(run_id, record["status"], record["time_ms"])
        case other:
            raise ValueError(f"op must be one that this version knows, but got {other!r}")
