"""Images/s and J per 1,000 images of each level, ours beside plain Keras, in one run.

    python -m benchmarks.throughput --dataset cifar10-12k.zip --out DIR

One factor is varied at a time, from SGD with momentum 0.9 in float32. Each level's two contenders
are warmed up, then measured in turns; the ratio is of the two windows of a round, its median and
its range over the rounds. The input alone is how fast batches are made where no step takes them.
`DIR/throughput.json` is written after each level and a second call goes on from it;
`DIR/throughput.md` is the table. Plain Keras is `fit` on arrays that were preprocessed before,
without augmentation, with Keras's own optimizer and settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.contenders import (
    SEED,
    Contender,
    Results,
    base_config,
    input_images_per_s,
    measure,
    median,
    ours,
    paired_ratios,
    plain,
    split_of,
    warm_up,
)
from green_screen.data.data import ImageDataset, load_dataset
from green_screen.measurement.run_measurement import synchronize_gpu
from green_screen.power.meter import EnergyMeter
from green_screen.space import Space, TrainingConfig, canonical

# In this order, so that a run out of time has what matters most. The levels of partitioning change
# sizes alone, those of lr a constant; post_quantization trains as None does.
FACTORS = (
    "precision",
    "augmentation",
    "internal",
    "batch_size",
    "preprocessing",
    "optimizer",
    "optimizer_momentum",
    "lr_schedule",
)
# Factors that change batches and not the network: one compiled model serves all their levels.
BATCH_FACTORS = ("augmentation", "preprocessing")
# Factors that the plainest code does not have.
NOT_IN_PLAIN = ("lr_schedule",)

NOTE = (
    "Plain Keras never augments: the levels of augmentation are ours, augmenting, beside plain "
    "Keras without."
)


def levels(wanted: list[str]) -> list[tuple[str, Any]]:
    """Return the (factor, level) pairs to measure; `wanted` holds factors or factor=level."""
    space = Space.load()
    pairs = [(f, level) for f in FACTORS for level in space.levels[f]]
    pairs = [pair for pair in pairs if pair != ("internal", "post_quantization")]
    if not wanted:
        return pairs
    return [(f, v) for f, v in pairs if f in wanted or f"{f}={canonical(v)}" in wanted]


class Table:
    """Measures levels, and keeps the pair of the base configuration, which many levels share."""

    def __init__(self, args: argparse.Namespace, dataset: ImageDataset, meter: EnergyMeter) -> None:
        """Prepare to measure on the data set."""
        self._args, self._dataset, self._meter = args, dataset, meter
        self._split = split_of(dataset, args.images)
        self._base = base_config(batch_size=args.batch_size)
        self._base_pair: dict[str, Contender] = {}

    def row(self, factor: str, level: Any, results: Results) -> dict[str, Any]:
        """Return the windows of both contenders at a level, or those of an equal configuration."""
        config = dataclasses.replace(self._base, **{factor: level})
        for row in results.rows.values():
            if row["config"] == config.as_params():
                return row
        pair = self._pair(factor, config)
        warm_up_s = {name: warm_up(contender) for name, contender in pair.items()}
        windows: dict[str, Any] = {name: [] for name in pair}
        for _ in range(self._args.rounds):
            for name, contender in pair.items():
                windows[name].append(measure(contender, self._meter, self._args.seconds))
        return {
            "config": config.as_params(),
            "warm_up_s": warm_up_s,
            "input_images_per_s": input_images_per_s(pair["ours"], self._args.seconds),
            **windows,
        }

    def _pair(self, factor: str, config: TrainingConfig) -> dict[str, Contender]:
        inputs = (self._dataset, self._split)
        model = self._args.model
        if not self._base_pair:
            self._base_pair = {
                "ours": ours(*inputs, self._base, model),
                "plain": plain(*inputs, self._base, model),
            }
        if config == self._base:
            return self._base_pair
        gc.collect()
        shared = self._base_pair["ours"].model if factor in BATCH_FACTORS else None
        mine = ours(*inputs, config, model, compiled=shared)
        if factor in (*BATCH_FACTORS, *NOT_IN_PLAIN):
            return {"ours": mine, "plain": self._base_pair["plain"]}
        return {"ours": mine, "plain": plain(*inputs, config, model)}


def markdown(results: Results) -> str:
    """Return the table."""
    lines = [
        "| level | ours, images/s | plain Keras, images/s | ours/plain by round, median (range) |"
        " input alone, images/s | ours, J per 1,000 images | plain Keras, J per 1,000 images |",
        "|---|---|---|---|---|---|---|",
    ]
    for level, row in results.rows.items():
        mine, theirs = (median(row[name], "images_per_s") for name in ("ours", "plain"))
        energy = (median(row[name], "joules_per_1k_images") for name in ("ours", "plain"))
        joules = " | ".join(f"{value:.1f}" for value in energy)
        ratios = paired_ratios(row, "images_per_s")
        lines.append(
            f"| {level} | {mine:.0f} | {theirs:.0f} | {statistics.median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}) | {row['input_images_per_s']:.0f} | {joules} |"
        )
    return "\n".join([*lines, "", NOTE]) + "\n"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--images", type=int, default=1280, help="training images of an epoch")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--levels", nargs="*", default=[], help="factors or factor=level")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="least length of a window")
    parser.add_argument("--budget_s", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    start = time.perf_counter()

    settings = {k: v for k, v in vars(args).items() if k not in ("out", "budget_s", "levels")}
    results = Results(args.out, "throughput", settings)
    dataset = load_dataset(args.dataset, image_size=args.image_size, samples=args.images, seed=SEED)
    with EnergyMeter(synchronize=synchronize_gpu) as meter:
        table = Table(args, dataset, meter)
        for factor, level in levels(args.levels):
            name = f"{factor}={canonical(level)}"
            if name in results.rows:
                continue
            if time.perf_counter() - start > args.budget_s:
                print(f"out of time before {name}: the same command goes on from here", flush=True)
                break
            results.add(name, table.row(factor, level, results))
            (args.out / "throughput.md").write_text(markdown(results), encoding="utf-8")
            passed_s = time.perf_counter() - start
            print(markdown(results).splitlines()[-3], f"{passed_s:.0f} s", flush=True)
    print(markdown(results))


if __name__ == "__main__":
    main()
