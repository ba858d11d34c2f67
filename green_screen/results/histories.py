"""Reads the metric histories of many runs with few requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils.rest_utils import http_request_safe

from green_screen.results.paging import STREAMS
from green_screen.tracking import store

# Runs a request: a server accepts 100, but their ids must also fit the address.
RUNS_A_REQUEST = 50
# Most values of an answer: a server gives no more, however many are asked for.
MAX_VALUES = 25_000

# The route that MLflow's own pages draw their charts from.
_ROUTE = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"


class Entry(NamedTuple):
    """A value of a metric of a run."""

    run_id: str
    step: int
    metric: str
    value: float


def read_histories(
    client: MlflowClient, run_ids: Sequence[str], metrics: Sequence[str]
) -> list[Entry]:
    """Return the values of metrics of runs; those of a run and metric in the order of logging.

    MLflow's client asks for one metric of one run at a time, and each time SQLite looks through all
    values of that metric in the whole store: of 10,000 runs, that is half a minute for 200 of them.
    Stores and servers answer for many runs at once, but only their own interfaces offer it. Where
    that fails (another kind of server, or a proxy that knows the documented routes alone), the
    client is asked after all.
    """
    spans = range(0, len(run_ids), RUNS_A_REQUEST)
    parts = [(metric, run_ids[at : at + RUNS_A_REQUEST]) for metric in metrics for at in spans]
    # A server has several processes to answer with.
    streams = STREAMS if client.tracking_uri.startswith("http") else 1
    try:
        with ThreadPoolExecutor(streams) as pool:
            found = list(pool.map(lambda part: _of(client, *part), parts))
        return [entry for entries in found for entry in entries]
    except (MlflowException, AttributeError, KeyError, ValueError) as error:
        if store.is_transient(error):
            raise
    return _one_by_one(client, run_ids, metrics)


def _of(client: MlflowClient, metric: str, run_ids: Sequence[str]) -> list[Entry]:
    """Return the histories of a metric; of a full answer nobody knows whether it is complete."""
    asked = _from_server if client.tracking_uri.startswith("http") else _from_store
    found = asked(client.tracking_uri, run_ids, metric)
    if len(found) < MAX_VALUES:
        return found
    if len(run_ids) > 1:
        half = len(run_ids) // 2
        return [*_of(client, metric, run_ids[:half]), *_of(client, metric, run_ids[half:])]
    return _one_by_one(client, run_ids, [metric])


def _one_by_one(
    client: MlflowClient, run_ids: Sequence[str], metrics: Sequence[str]
) -> list[Entry]:
    return [
        Entry(run_id, value.step, metric, value.value)
        for run_id in run_ids
        for metric in metrics
        for value in client.get_metric_history(run_id, metric)
    ]


def _from_server(uri: str, run_ids: Sequence[str], metric: str) -> list[Entry]:
    asked = {"run_id": list(run_ids), "metric_key": metric, "max_results": MAX_VALUES}
    # With the credentials and the repetitions of all other requests to this server.
    answer = http_request_safe(  # type: ignore[no-untyped-call]
        _store(uri).get_host_creds(), _ROUTE, "GET", params=asked
    )
    return [
        Entry(value["run_id"], int(value["step"]), metric, float(value["value"]))
        # Not `answer.json()`: its error would pass for a connection's, which is tried again.
        for value in json.loads(answer.text)["metrics"]
    ]


def _from_store(uri: str, run_ids: Sequence[str], metric: str) -> list[Entry]:
    found = _store(uri).get_metric_history_bulk(list(run_ids), metric, MAX_VALUES)
    return [Entry(value.run_id, value.step, metric, value.value) for value in found]


def _store(uri: str) -> Any:
    """Return the store that a client at this URI uses."""
    return _get_store(uri)  # type: ignore[no-untyped-call]
