"""How long reading and analysing a large campaign takes, and how much memory.

    python -m benchmarks.analysis_scale --runs 10000 --epochs 50

makes a simulated campaign in a fresh SQLite store (through MLflow's client; by far the longest
part), then does what the entry point ``analyze`` does without final runs (read, fit, select, draw,
write and log the report, register the energy model), in a fresh process each, directly and through
``mlflow server`` once all of its processes are up. It prints one line a way: seconds from the first
import to the end, and the peak of that process's memory. ``--folder`` keeps the store, and a second
call with it uses it again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


def make_store(uri: str, runs: int, epochs: int) -> None:
    """Write a simulated campaign of `runs` runs into the store at `uri`."""
    from mlflow.tracking import MlflowClient
    from simulated_campaign import SimulatedCampaign

    from green_screen import names

    client = MlflowClient(uri)
    artifacts = Path(uri.removeprefix("sqlite:///")).parent / "artifacts"
    experiment_id = client.create_experiment(names.EXPERIMENT, artifact_location=artifacts.as_uri())
    # Every tenth place is the baseline's, so that all runs together are `runs`.
    campaign = SimulatedCampaign(
        n_runs=round((runs - 1) / 1.1), baseline_every=10, epochs=epochs, seed=1
    )
    campaign.write(client, experiment_id, "scale")


def measure(uri: str) -> None:
    """Analyse the latest campaign at `uri` in this process and print what it took."""
    start = time.perf_counter()
    os.environ["MLFLOW_TRACKING_URI"] = uri

    from green_screen.analysis.analyze import analyze
    from green_screen.options import AnalyzeOptions

    findings = analyze(AnalyzeOptions(final_repeats=0)).findings
    end = time.perf_counter()
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    assert findings.analysis.model is not None and findings.selection is not None
    print(
        f"{uri.partition(':')[0]:<8} {len(findings.runs)} runs: analysed and reported in "
        f"{end - start:.1f} s, peak {peak_gb:.2f} GB",
        flush=True,
    )


def used_s(pid: int) -> float:
    """Return the processor time of a process and those that it started, in seconds."""
    total = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def wait_until_idle(pid: int) -> None:
    """Wait until a server has started: it answers long before its job runners are imported."""
    before_s = used_s(pid)
    for _ in range(60):
        time.sleep(2)
        now_s = used_s(pid)
        if abs(now_s - before_s) < 0.2:
            return
        before_s = now_s


@contextmanager
def server(store: str) -> Iterator[str]:
    """Run ``mlflow server`` on a free port and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    uri = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=1)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        wait_until_idle(process.pid)
        yield uri
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Make the store if it is not there and measure both ways."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", help="tracking URI to measure in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        store = f"sqlite:///{folder / 'mlflow.db'}"
        if not (folder / "mlflow.db").exists():
            start = time.perf_counter()
            make_store(store, arguments.runs, arguments.epochs)
            print(f"store made in {time.perf_counter() - start:.0f} s", flush=True)
        again = [sys.executable, __file__, "--measure"]
        subprocess.run([*again, store], check=True, cwd=folder)
        with server(store) as uri:
            subprocess.run([*again, uri], check=True, cwd=folder)


if __name__ == "__main__":
    main()
