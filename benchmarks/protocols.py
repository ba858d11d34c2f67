"""Whether a screening forecasts what the training takes, and whether all levels are measured alike.

``forecasts`` screens eight configurations and trains each in full: the forecast beside the truth.
``pairs`` trains ``post_quantization`` and ``None``, which train alike, in turn: the ratio of their
joules per 1,000 images. What has been run is kept in `--out` and not run again.

    python -m benchmarks.protocols pairs forecasts --out DIR --dataset cifar10
    python -m benchmarks.protocols table --out DIR

Each visible board does one thing at a time: all pairs, or one configuration both ways.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from statistics import mean, median

from benchmarks.jobs import run_job
from green_screen import names, tracking
from green_screen.executors.local import LocalExecutor, local_devices
from green_screen.options import TrainOptions
from green_screen.space import Space
from green_screen.sweep.runner import settle

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


def run_once(
    executor: LocalExecutor, file: Path, levels: Mapping[str, str], options: TrainOptions
) -> None:
    """Do one run in a process of its own and keep its figures, unless it was done before."""
    if file.is_file():
        return
    config = Space.load().parse(levels)
    ended = settle(run_job(executor, config, options, experiment="protocols"))
    run, run_id = ended.run, ended.run.info.run_id
    figures = {**run.data.metrics, "wall_s": ended.result.wall_s}
    for metric in (names.EPOCH_ENERGY_J, names.EPOCH_TIME_S):
        history = tracking.metric_values(run_id, metric)
        figures[f"sum_{metric}"] = sum(history) if history else math.nan
    for tag in (names.TAG_MEASUREMENT_VALID, names.TAG_FIRST_ON_MACHINE):
        figures[tag] = float(run.data.tags.get(tag) == "true")
    part = file.with_suffix(".part")
    part.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    part.rename(file)
    print(f"{file.stem}: {ended.result.wall_s:.0f} s", flush=True)


def forecast(name: str, executor: LocalExecutor, *, out: Path, options: TrainOptions) -> None:
    """Screen a configuration and train it in full on the same board."""
    stem = name.replace(", ", "-").replace(" ", "-")
    for kind, protocol in (("screening", "screening"), ("full", "full")):
        of_kind = dataclasses.replace(options, protocol=protocol)
        run_once(executor, out / f"{stem}.{kind}.json", CONFIGURATIONS[name], of_kind)


def pairs(n_pairs: int, executor: LocalExecutor, *, out: Path, options: TrainOptions) -> None:
    """Train the two levels in turn, the first of a pair by turns too."""
    for pair in range(n_pairs):
        both = ("None", "post_quantization")
        for level in both if pair % 2 == 0 else both[::-1]:
            levels = {**PAIR, "internal": level}
            run_once(executor, out / f"pair-{pair}-{level}.json", levels, options)


def run_on_each_board(tasks: Sequence[Callable[[LocalExecutor], None]]) -> None:
    """Do the tasks in order, as many at once as there are boards; one that fails is told."""
    free: SimpleQueue[LocalExecutor] = SimpleQueue()

    def do(task: Callable[[LocalExecutor], None]) -> None:
        executor = free.get()
        try:
            task(executor)
        except RuntimeError as error:
            print(error, flush=True)
        finally:
            free.put(executor)

    with ExitStack() as stack:
        devices = local_devices()
        for device in devices:
            free.put(stack.enter_context(LocalExecutor(devices=[device])))
        pool = stack.enter_context(ThreadPoolExecutor(len(devices)))
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
    parser.add_argument("--samples", type=int, default=12000)
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10, help="of each training that is forecast")
    # As `make study` screens: on an H100 a run differs more from its repetition than a longer
    # window would tell.
    parser.add_argument("--max_window_s", type=float, default=10.0)
    parser.add_argument("--pairs", type=int, default=5)
    # At 32 pixels the host sets the pace, and equal runs on an H100 differ by 8 %.
    parser.add_argument("--pair_image_size", type=int, default=224)
    parser.add_argument("--pair_samples", type=int, default=1500)
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    tracking.use_store(f"sqlite:///{out / 'mlflow.db'}")
    os.environ["GREEN_SCREEN_SPOOL"] = str(out / "spool")
    options = TrainOptions(
        dataset=arguments.dataset,
        model=arguments.model,
        samples=arguments.samples,
        image_size=arguments.image_size,
        epochs=arguments.epochs,
        max_window_s=arguments.max_window_s,
    )
    of_pairs = dataclasses.replace(
        options, epochs=2, image_size=arguments.pair_image_size, samples=arguments.pair_samples
    )
    tasks: list[Callable[[LocalExecutor], None]] = []
    if "pairs" in arguments.parts:
        tasks.append(partial(pairs, arguments.pairs, out=out, options=of_pairs))
    if "forecasts" in arguments.parts:
        tasks += [partial(forecast, name, out=out, options=options) for name in CONFIGURATIONS]
    if tasks:
        run_on_each_board(tasks)
    table(out)


if __name__ == "__main__":
    main()
