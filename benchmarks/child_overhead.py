"""What a run costs beside its training: a new interpreter for each, or a forkserver that is ready.

    python -m benchmarks.child_overhead --repeats 5

Both do the same jobs with the same isolation, a process each, in turns. The overhead of a run is
its wall time, from the parent's order to the end of the process, less the time of its epochs. The
runs that only import what a training needs show what remains of the start itself.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import tempfile
import time
from pathlib import Path

import mlflow

from benchmarks.jobs import run_job
from green_screen import names, tracking
from green_screen.executors.executor import TRAINER
from green_screen.executors.local import LocalExecutor
from green_screen.options import TrainOptions
from green_screen.space import Space, TrainingConfig
from green_screen.tracking import RunLogger

IMPORTS = "benchmarks.child_overhead:import_all"


def import_all(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Import what a training needs, and train nothing."""
    importlib.import_module("green_screen.training.run")


def run_one(executor: LocalExecutor, trainer: str, options: TrainOptions) -> tuple[float, float]:
    """Return a job's wall time and the time of its epochs, in seconds."""
    baseline = Space.load().baseline
    result = run_job(executor, baseline, options, experiment="child overhead", trainer=trainer)
    return result.wall_s, tracking.metric_sum(result.job.run_id, names.EPOCH_TIME_S)


def table(times: dict[tuple[str, str], list[tuple[float, float]]]) -> str:
    """Return the medians and ranges as a table."""
    lines = [
        "| job | process | wall s | epochs s | overhead s (least - most) |",
        "|---|---|---|---|---|",
    ]
    for (job, process), pairs in times.items():
        walls, fits = zip(*pairs, strict=True)
        overheads = [wall - fit for wall, fit in pairs]
        lines.append(
            f"| {job} | {process} | {statistics.median(walls):.2f} "
            f"| {statistics.median(fits):.2f} | {statistics.median(overheads):.2f} "
            f"({min(overheads):.2f} - {max(overheads):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure both in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="resnet8")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--samples", type=int, default=200)
    arguments = parser.parse_args()
    options = TrainOptions(
        model=arguments.model, epochs=arguments.epochs, samples=arguments.samples, min_window_s=0.0
    )
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GREEN_SCREEN_SPOOL"] = folder
        mlflow.set_tracking_uri(f"sqlite:///{Path(folder) / 'mlflow.db'}")
        with (
            LocalExecutor(devices=[None], start="spawn") as fresh,
            LocalExecutor(devices=[None]) as forked,
        ):
            started = time.monotonic()
            run_one(forked, IMPORTS, options)
            preload_s = time.monotonic() - started
            # A machine's first training fills caches, of files and of compiled kernels, for all.
            run_one(forked, TRAINER, options)
            for _ in range(arguments.repeats):
                for job, trainer in (("imports alone", IMPORTS), ("training", TRAINER)):
                    for process, executor in (("fresh", fresh), ("forkserver", forked)):
                        times.setdefault((job, process), []).append(
                            run_one(executor, trainer, options)
                        )
    print(
        f"{arguments.repeats} of each in turns; {options.model}, {options.epochs} epochs of "
        f"{options.samples} images; {os.cpu_count()} CPU cores"
    )
    print(f"the forkserver's own start, once a campaign: {preload_s:.1f} s")
    print(table(times))


if __name__ == "__main__":
    main()
