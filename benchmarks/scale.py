"""A simulated campaign on Ray: do the parent's memory and the cost of a run stay flat?

    python -m benchmarks.scale --runs 10000 --workers 16 --out DIR

Everything but the training is real: Ray, a process for each run, the store, the parent with its
summary and progress. The training sleeps 0.1 s and logs what a training of two epochs logs. The Ray
cluster is this benchmark's own, on this host, with as many logical CPUs as workers.
At the end all its runs are read back by the query with which a resume begins.
SIGTERM stops it; the course so far is told all the same.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import mlflow
import psutil

from benchmarks.simulated_training import TRAIN
from green_screen.executors.executor import JobResult
from green_screen.executors.local import PRELOAD_TRACKING
from green_screen.executors.ray import RayExecutor
from green_screen.options import OptionError, SweepOptions
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.resume import children_of
from green_screen.sweep.status import find_campaign

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 2  # of 0.05 s each


@dataclass(frozen=True)
class Sample:
    """The state of the parent when so many runs had ended."""

    runs: int
    seconds: float
    parent_cpu_s: float
    parent_rss_mib: float


class SamplingExecutor(RayExecutor):
    """A Ray executor that notes the parent's state as runs end."""

    def __init__(self, *, address: str, every: int) -> None:
        """Note it every so many runs."""
        super().__init__(address=address, num_gpus_per_job=0, preload=PRELOAD_TRACKING)
        self.samples: list[Sample] = []
        self._every = every
        self._ended = 0
        self._noted = 0
        self._started = time.monotonic()
        self._process = psutil.Process()

    def wait(self, timeout_s: float) -> list[JobResult]:
        """Return the jobs that ended, as the base class does."""
        results = super().wait(timeout_s)
        self._ended += len(results)
        if self._ended >= self._noted + self._every:
            self._noted = self._ended
            cpu = self._process.cpu_times()
            self.samples.append(
                Sample(
                    runs=self._ended,
                    seconds=time.monotonic() - self._started,
                    parent_cpu_s=cpu.user + cpu.system,
                    parent_rss_mib=self._process.memory_info().rss / 2**20,
                )
            )
        return results


@contextlib.contextmanager
def ray_cluster(workers: int, port: int) -> Iterator[str]:
    """Run a Ray head of our own with so many logical CPUs; yield its address."""
    ray = Path(sys.executable).with_name("ray")
    command = [str(ray), "start", "--head", "--block", "--port", str(port)]
    command += ["--num-cpus", str(workers), "--num-gpus", "0", "--include-dashboard", "false"]
    command += ["--object-store-memory", str(80 * 2**20), "--disable-usage-stats"]
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    head = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        head.terminate()
        head.wait(60)


def connect(address: str, every: int, limit_s: float = 120.0) -> SamplingExecutor:
    """Return an executor on a cluster that is starting up."""
    until = time.monotonic() + limit_s
    while True:
        try:
            return SamplingExecutor(address=address, every=every)
        except OptionError:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


def table(samples: list[Sample], rows: int = 10) -> str:
    """Return the course of a campaign in about ten rows, each about the runs since the last."""
    lines = [
        "| runs ended | wall ms a run | parent's CPU ms a run | parent's memory MiB |",
        "|---|---|---|---|",
    ]
    step = max(len(samples) // rows, 1)
    for before, now in itertools.pairwise(samples[::step]):
        runs = now.runs - before.runs
        lines.append(
            f"| {now.runs} | {1e3 * (now.seconds - before.seconds) / runs:.0f} "
            f"| {1e3 * (now.parent_cpu_s - before.parent_cpu_s) / runs:.1f} "
            f"| {now.parent_rss_mib:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run the campaign, print its course and write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--port", type=int, default=6390)
    parser.add_argument("--tracking_uri", help="default: a fresh sqlite database")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of scale.csv")
    arguments = parser.parse_args()
    options = SweepOptions(
        n_runs=arguments.runs - 1,  # the baseline comes on top
        baseline_every=0,
        model="resnet8",
        epochs=EPOCHS,
        cooldown_timeout_s=0,
        resume="new",
    )
    every = max(arguments.runs // 100, 1)
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAY_AUTH_MODE"] = "token"  # what `ray start` chooses by itself for a head
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        os.environ["GREEN_SCREEN_SPOOL"] = str(Path(folder) / "spool")
        mlflow.set_tracking_uri(arguments.tracking_uri or f"sqlite:///{Path(folder) / 'mlflow.db'}")
        os.chdir(folder)  # where MLflow puts artifacts without a server
        with (
            ray_cluster(arguments.workers, arguments.port) as address,
            connect(address, every) as executor,
            (Path(folder) / "progress.txt").open("w") as progress,
            contextlib.redirect_stdout(progress),
        ):
            try:
                run_sweep(options, trainer=TRAIN, executor=executor)
            finally:
                report(executor.samples, arguments)
                print(read_back(), file=sys.stderr)


def read_back() -> str:
    """Read all runs of the latest campaign as a resume does, and say what that takes."""
    process = psutil.Process()
    parent = find_campaign(None)
    rss, started = process.memory_info().rss, time.monotonic()
    runs = children_of(parent)
    seconds = time.monotonic() - started
    mib = (process.memory_info().rss - rss) / 2**20
    return f"one query of a resume: {len(runs)} runs in {seconds:.1f} s, {mib:.0f} MiB"


def report(samples: list[Sample], arguments: argparse.Namespace) -> None:
    """Print the course of a campaign, also of one that was stopped, and write it to a file."""
    if not samples:
        print("no run has ended", file=sys.stderr)
        return
    with (arguments.out / "scale.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Sample))
        writer.writerows(astuple(sample) for sample in samples)
    print(
        f"{samples[-1].runs} of {arguments.runs} runs, {arguments.workers} workers, "
        f"{os.cpu_count()} CPU cores\n{table(samples)}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
