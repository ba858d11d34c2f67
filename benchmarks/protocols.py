"""Whether a screening forecasts what the training takes, and whether all levels are measured alike.

``forecasts`` screens eight configurations and trains each in full: the forecast beside the truth.
``pairs`` trains ``post_quantization`` and ``None``, which train alike, in turn: the ratio of their
joules per 1,000 images. What has been run is kept in `--out` and not run again.

    python -m benchmarks.protocols pairs forecasts --out DIR --dataset cifar10 --boards 0,1
    python -m benchmarks.protocols table --out DIR

A board does one thing at a time: all pairs, or one configuration both ways.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from statistics import mean, median

from mlflow.tracking import MlflowClient

from green_screen import names

# Over both regimes: the board waits for its host, or the host for its board.
CONFIGURATIONS: dict[str, dict[str, str]] = {
    "batch 4, XLA": {"batch_size": "4", "internal": "jit_compilation", "optimizer": "SGD"},
    "batch 32, Adam": {"batch_size": "32", "optimizer": "Adam", "partitioning": "80-10-10"},
    "batch 128": {"batch_size": "128", "optimizer": "SGD", "augmentation": "mixup"},
    "batch 64, XLA": {"batch_size": "64", "internal": "jit_compilation", "optimizer": "RMSProp"},
    "batch 128, half, XLA": {
        **{"batch_size": "128", "precision": "global_policy_float16"},
        **{"internal": "jit_compilation", "optimizer": "SGD"},
    },
    "batch 32, half": {"batch_size": "32", "precision": "float16", "optimizer": "SGD"},
    "batch 64, QAT": {
        **{"batch_size": "64", "internal": "pre_quantization"},
        **{"optimizer": "SGD", "preprocessing": "standardization"},
    },
    "batch 128, double": {"batch_size": "128", "precision": "float64", "optimizer": "SGD"},
}
PAIR = {"batch_size": "64", "optimizer": "SGD"}


def run_once(file: Path, options: Mapping[str, str], board: str) -> dict[str, float]:
    """Do one run in a process of its own and return its figures; at once if it was done before."""
    if file.is_file():
        found: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
        return found
    store = f"sqlite:///{file.with_suffix('.db')}"
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store}
    if board:
        environment["CUDA_VISIBLE_DEVICES"] = board
    began_s = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints.train", *words],
        env=environment,
        capture_output=True,
        text=True,
    )
    wall_s = time.perf_counter() - began_s
    if done.returncode != 0:
        raise RuntimeError(f"{file.stem} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    client = MlflowClient(store)
    experiments = [e.experiment_id for e in client.search_experiments()]
    (run,) = client.search_runs(experiments)
    figures = {**run.data.metrics, "wall_s": wall_s}
    for metric in (names.EPOCH_ENERGY_J, names.EPOCH_TIME_S):
        history = client.get_metric_history(run.info.run_id, metric)
        figures[f"sum_{metric}"] = sum(m.value for m in history) if history else math.nan
    for tag in (names.TAG_MEASUREMENT_VALID, names.TAG_FIRST_ON_MACHINE):
        figures[tag] = float(run.data.tags.get(tag) == "true")
    part = file.with_suffix(".part")
    part.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    part.rename(file)
    print(f"{file.stem}: {wall_s:.0f} s", flush=True)
    return figures


def forecast(name: str, board: str, *, out: Path, common: Mapping[str, str]) -> None:
    """Screen a configuration and train it in full on the same board."""
    options = {**common, **CONFIGURATIONS[name]}
    stem = name.replace(", ", "-").replace(" ", "-")
    run_once(out / f"{stem}.screening.json", {**options, "protocol": "screening"}, board)
    run_once(out / f"{stem}.full.json", options, board)


def pairs(n_pairs: int, board: str, *, out: Path, common: Mapping[str, str]) -> None:
    """Train the two levels in turn, the first of a pair by turns too."""
    for pair in range(n_pairs):
        levels = ("None", "post_quantization")
        for level in levels if pair % 2 == 0 else levels[::-1]:
            options = {**common, **PAIR, "epochs": "2", "internal": level}
            run_once(out / f"pair-{pair}-{level}.json", options, board)


def run_on(boards: Sequence[str], tasks: Sequence[Callable[[str], None]]) -> None:
    """Do the tasks in order, as many at once as there are boards; one that fails is told."""
    free: SimpleQueue[str] = SimpleQueue()
    for board in boards:
        free.put(board)

    def do(task: Callable[[str], None]) -> None:
        board = free.get()
        try:
            task(board)
        except RuntimeError as error:
            print(error, flush=True)
        finally:
            free.put(board)

    with ThreadPoolExecutor(len(boards)) as pool:
        list(pool.map(do, tasks))


def table(out: Path) -> None:
    """Print what has been run so far."""
    print(
        "| configuration | forecast kJ (95 %) | truth kJ | error | inside | screened s | full s |"
    )
    print("|---|---|---|---|---|---|---|")
    errors, inside = [], []
    for name in CONFIGURATIONS:
        stem = out / name.replace(", ", "-").replace(" ", "-")
        files = [stem.with_name(f"{stem.name}.{kind}.json") for kind in ("screening", "full")]
        if not all(file.is_file() for file in files):
            continue
        screened, full = (json.loads(file.read_text(encoding="utf-8")) for file in files)
        truth_j = full[names.SETUP_ENERGY_J] + full[f"sum_{names.EPOCH_ENERGY_J}"]
        value_j, low_j, high_j = (
            screened[metric]
            for metric in (
                names.FORECAST_ENERGY_J,
                names.FORECAST_ENERGY_LOW_J,
                names.FORECAST_ENERGY_HIGH_J,
            )
        )
        errors.append(value_j / truth_j - 1)
        inside.append(low_j <= truth_j <= high_j)
        print(
            f"| {name} | {value_j / 1e3:.2f} ({low_j / 1e3:.2f} to {high_j / 1e3:.2f}) | "
            f"{truth_j / 1e3:.2f} | {errors[-1]:+.1%} | {'yes' if inside[-1] else 'no'} | "
            f"{screened['wall_s']:.0f} | {full['wall_s']:.0f} |"
        )
    if errors:
        sizes = [abs(error) for error in errors]
        print(
            f"error: median {median(sizes):.1%}, at most {max(sizes):.1%}; "
            f"inside {sum(inside)} of {len(inside)}"
        )
    ratios = []
    for file in sorted(out.glob("pair-*-None.json")):
        other = file.with_name(file.name.replace("-None", "-post_quantization"))
        if other.is_file():
            plain, quantized = (json.loads(f.read_text(encoding="utf-8")) for f in (file, other))
            ratios.append(
                quantized[names.ENERGY_PER_1K_IMAGES_J] / plain[names.ENERGY_PER_1K_IMAGES_J]
            )
    if ratios:
        print(
            f"post_quantization over None, J per 1,000 images: mean {mean(ratios):.3f} of "
            f"{len(ratios)} pairs ({', '.join(f'{ratio:.3f}' for ratio in ratios)})"
        )


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("parts", nargs="+", choices=("forecasts", "pairs", "table"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--samples", default="12000")
    parser.add_argument("--image_size", default="32")
    parser.add_argument("--epochs", default="10", help="of each training that is forecast")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--boards", default="", help="as in CUDA_VISIBLE_DEVICES, used at once")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    out, boards = arguments.out.resolve(), arguments.boards.split(",")
    common = {
        name: getattr(arguments, name)
        for name in ("dataset", "model", "samples", "image_size", "epochs")
    }
    tasks: list[Callable[[str], None]] = []
    if "pairs" in arguments.parts:
        tasks.append(partial(pairs, arguments.pairs, out=out, common=common))
    if "forecasts" in arguments.parts:
        tasks += [partial(forecast, name, out=out, common=common) for name in CONFIGURATIONS]
    run_on(boards, tasks)
    table(out)


if __name__ == "__main__":
    main()
