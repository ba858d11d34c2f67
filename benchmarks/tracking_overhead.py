"""What logging an epoch costs the training: the call in the epoch's path, and the request itself.

Run it against the store to be judged, from the project's root::

    python -m benchmarks.tracking_overhead --tracking_uri http://127.0.0.1:5000

The call is :meth:`green_screen.tracking.RunLogger.metrics`, which a training waits for; the request
is MLflow's own ``log_batch`` of the same metrics, which it would wait for without a queue. Both are
given as a part of an epoch of 5 s, the shortest window that a measurement trusts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
from mlflow.entities import Metric

from benchmarks.simulated_training import epoch_metrics
from green_screen import tracking

EPOCH_S = 5.0


def seconds(call: Callable[[int], None], epochs: int, pause_s: float) -> list[float]:
    """Return how long each call took, one an epoch, with a pause for the epoch's own work."""
    times = []
    for epoch in range(epochs):
        time.sleep(pause_s)
        start = time.perf_counter()
        call(epoch)
        times.append(time.perf_counter() - start)
    return times


def row(label: str, times: list[float]) -> str:
    """Return a line of the table: median, 95th percentile and maximum in ms, part of an epoch."""
    median, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    return (
        f"| {label} | {1e3 * median:.2f} | {1e3 * p95:.2f} | {1e3 * max(times):.2f} "
        f"| {100 * p95 / EPOCH_S:.3f} % |"
    )


def main() -> None:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tracking_uri", help="default: a fresh sqlite database")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--pause_s", type=float, default=0.2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        uri = arguments.tracking_uri or f"sqlite:///{Path(folder) / 'mlflow.db'}"
        mlflow.set_tracking_uri(uri)
        client = mlflow.MlflowClient()
        with tracking.open_run(run_name="tracking_overhead") as run:

            def request(epoch: int) -> None:
                now_ms = int(time.time() * 1000)
                batch = [
                    Metric(f"direct_{key}", value, now_ms, epoch)
                    for key, value in epoch_metrics(epoch).items()
                ]
                client.log_batch(run.run_id, metrics=batch)

            request(0)  # the connection, and sqlite's migration, are no part of an epoch
            asked = seconds(request, arguments.epochs, arguments.pause_s)
            called = seconds(
                lambda epoch: run.metrics(epoch_metrics(epoch), step=epoch),
                arguments.epochs,
                arguments.pause_s,
            )
            run_id = run.run_id
        stored = {name: len(client.get_metric_history(run_id, name)) for name in epoch_metrics(0)}
    if set(stored.values()) != {arguments.epochs}:
        raise RuntimeError(f"the server has not stored {arguments.epochs} epochs of each: {stored}")
    print(f"{len(stored)} metrics an epoch, {arguments.epochs} epochs, store {uri.split(':')[0]}")
    print("| | median ms | 95th percentile ms | maximum ms | 95th percentile of a 5 s epoch |")
    print("|---|---|---|---|---|")
    print(row("call in the epoch's path", called))
    print(row("request to the store", asked))


if __name__ == "__main__":
    main()
