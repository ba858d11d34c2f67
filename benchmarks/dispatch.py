"""What keeps the GPU waiting for the host, and what removing it brings: before and after.

    python -m benchmarks.dispatch --dataset cifar10-12k.zip --out DIR

On a fast GPU a step of ResNet-50 at 32x32 takes as long as the host needs to launch its kernels.
Each contender removes one thing more, from plain Keras to what a run of this project executes, and
does the same arithmetic. All of a group are warmed up, then measured in turns. The second group is
quantization-aware training beside a plain step: tensorflow-model-optimization's quantizers, ours in
plain ops, and ours compiled by XLA, which is what a run executes on a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contenders import (
    SEED,
    Contender,
    Results,
    base_config,
    measure,
    median,
    ours,
    plain,
    split_of,
    warm_up,
)
from green_screen.data.data import load_dataset
from green_screen.measurement.run_measurement import synchronize_gpu
from green_screen.network import fake_quant
from green_screen.network.optimizer import make_optimizer
from green_screen.power.meter import EnergyMeter
from green_screen.training.setup import STEPS_PER_EXECUTION

Make = Callable[[], Contender]


def with_steps(contender: Contender, steps: int) -> Contender:
    """Return the contender with so many steps between two returns to Python."""
    contender.model._configure_steps_per_execution(steps)
    return contender


def step_contenders(inputs: tuple[Any, Any, str], batch_size: int) -> dict[str, dict[str, Make]]:
    """Return group -> contender -> how to make it."""
    dataset, split, model = inputs
    groups: dict[str, dict[str, Make]] = {}
    for name in ("SGD", "Adam"):
        config = base_config(batch_size=batch_size, optimizer=name)

        def keras(config: Any = config, **settings: Any) -> Contender:
            return plain(dataset, split, config, model, **settings)

        def own(config: Any = config, on_device: bool = True) -> Contender:
            return ours(dataset, split, config, model, on_device=on_device)

        def fused(config: Any = config, steps: int = 1) -> Contender:
            return keras(config, optimizer=make_optimizer(config, 10**6), steps_per_execution=steps)

        groups[name] = {
            "plain Keras": keras,
            f"+ {STEPS_PER_EXECUTION} steps per execution": lambda keras=keras: keras(
                steps_per_execution=STEPS_PER_EXECUTION
            ),
            "fused optimizer kernels": fused,
            "both": lambda fused=fused: fused(steps=STEPS_PER_EXECUTION),
            "both, and batches by tf.data": lambda own=own: own(on_device=False),
            "ours: copied to the device ahead": own,
        }
    groups["SGD"]["ours, 32 steps per execution"] = lambda: with_steps(
        ours(dataset, split, base_config(batch_size=batch_size), model), 32
    )
    return groups


def quantization_contenders(inputs: tuple[Any, Any, str], batch_size: int) -> dict[str, Make]:
    """Return how to make each way of quantization-aware training, and the plain step beside it."""
    dataset, split, model = inputs
    plain_step = base_config(batch_size=batch_size)
    aware = dataclasses.replace(plain_step, internal="pre_quantization")

    def vectorised(compiled: bool) -> Contender:
        with fake_quant.compiled(compiled):
            contender = ours(dataset, split, aware, model)
            warm_up(contender)  # which traces it
        return contender

    def library() -> Contender:
        return plain(
            dataset,
            split,
            aware,
            model,
            optimizer=make_optimizer(aware, 10**6),
            steps_per_execution=STEPS_PER_EXECUTION,
        )

    return {
        "no quantization": lambda: ours(dataset, split, plain_step, model),
        "vectorised, plain ops": lambda: vectorised(compiled=False),
        "vectorised, compiled by XLA": lambda: vectorised(compiled=True),
        "tensorflow-model-optimization's own": library,
    }


def compare(makes: dict[str, Make], meter: EnergyMeter, args: argparse.Namespace) -> dict[str, Any]:
    """Warm all contenders of a group up, then measure them in turns."""
    contenders = {name: make() for name, make in makes.items()}
    row: dict[str, Any] = {name: [] for name in contenders}
    row["warm_up_s"] = {name: warm_up(contender) for name, contender in contenders.items()}
    for _ in range(args.rounds):
        for name, contender in contenders.items():
            row[name].append(measure(contender, meter, args.seconds))
    return row


def markdown(results: Results, batch_size: int) -> str:
    """Return one table a group; ratios are to its first contender."""
    lines: list[str] = []
    for group, row in results.rows.items():
        names = [name for name in row if name != "warm_up_s"]
        first = median(row[names[0]], "images_per_s")
        lines += [
            f"\n{group}\n",
            "| executed | ms a step | images/s | times as fast | J per 1,000 images | W |",
            "|---|---|---|---|---|---|",
        ]
        for name in names:
            rate = median(row[name], "images_per_s")
            energy = median(row[name], "joules_per_1k_images")
            power = median(row[name], "mean_power_w")
            lines.append(
                f"| {name} | {1000 * batch_size / rate:.1f} | {rate:.0f} | {rate / first:.2f} "
                f"| {energy:.1f} | {power:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--images", type=int, default=1280, help="training images of an epoch")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--groups", nargs="*", default=["SGD", "quantization", "Adam"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="least length of a window")
    parser.add_argument("--budget_s", type=float, default=float("inf"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    start = time.perf_counter()

    kept_out = ("out", "budget_s", "groups")
    settings = {key: value for key, value in vars(args).items() if key not in kept_out}
    results = Results(args.out, "dispatch", settings)
    dataset = load_dataset(args.dataset, image_size=args.image_size, samples=args.images, seed=SEED)
    inputs = (dataset, split_of(dataset, args.images), args.model)
    groups = {
        **step_contenders(inputs, args.batch_size),
        "quantization": quantization_contenders(inputs, args.batch_size),
    }
    with EnergyMeter(synchronize=synchronize_gpu) as meter:
        for group in args.groups:
            if group in results.rows:
                continue
            if time.perf_counter() - start > args.budget_s:
                print(f"out of time before {group}: the same command goes on from here")
                break
            results.add(group, compare(groups[group], meter, args))
            table = markdown(results, args.batch_size)
            (args.out / "dispatch.md").write_text(table, encoding="utf-8")
            print(f"{table}{time.perf_counter() - start:.0f} s", flush=True)
            gc.collect()


if __name__ == "__main__":
    main()
