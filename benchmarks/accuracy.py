"""Does it learn: test accuracy beside Keras's own ResNet50 trained with the plainest Keras code.

    python -m benchmarks.accuracy --dataset cifar10-12k.zip --out DIR

Both train on all images of the data set's training part and are tested once, at the end, on its
test part; no validation, no choice among epochs. Ours is ResNet-50 with mixed precision, XLA,
standardization, random augmentation and a cosine schedule over the whole training, so each number
of epochs is a training of its own. The plain one is `keras.applications.ResNet50`, pixel values
divided by 255, Adam with its defaults, and `fit`; its learning rate is constant, so one training
passes through all numbers of epochs. `DIR/accuracy.json` is written after each, and a second call
goes on from it.

`--check_float16` trains 3 epochs in pure float16 at learning rate 0.0008 with each optimizer
instead, and says which stay finite.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.contenders import Results, base_config
from green_screen.data.data import ImageDataset, load_dataset
from green_screen.data.pipeline import Pipeline, ahead_on_device, from_parts
from green_screen.data.splits import Split
from green_screen.measurement.run_measurement import synchronize_gpu
from green_screen.power.meter import EnergyMeter
from green_screen.space import IMPLEMENTED, TrainingConfig
from green_screen.training.setup import compiled_model


def whole_split(dataset: ImageDataset) -> Split:
    """Return the data set's own training and test part; what is called validation is not used."""
    n_train = dataset.predefined_test_from
    if n_train is None:
        raise SystemExit("this comparison needs a data set that comes with a test part")
    train = np.random.default_rng(0).permutation(n_train).astype(np.int64)
    test = np.arange(n_train, len(dataset.labels), dtype=np.int64)
    return Split(train, test, test)


def make_ours(
    dataset: ImageDataset, config: TrainingConfig, epochs: int, args: argparse.Namespace
) -> tuple[Any, Pipeline]:
    """Return what a run of this project would train, on the given parts."""
    pipeline = from_parts(dataset, whole_split(dataset), config, seed=args.seed)
    model = compiled_model(
        args.model,
        config,
        image_size=args.image_size,
        n_classes=len(dataset.class_names),
        total_steps=epochs * pipeline.steps_per_epoch,
        seed=args.seed,
    )
    return model, pipeline


def train_ours(dataset: ImageDataset, epochs: int, args: argparse.Namespace) -> dict[str, float]:
    """Train once for so many epochs and return the figures of the test."""
    config = base_config(
        precision="global_policy_float16",
        internal="jit_compilation",
        preprocessing="standardization",
        augmentation="random",
        lr_schedule="cosine",
        optimizer=args.optimizer,
        optimizer_momentum=args.momentum,
        lr=args.lr,
        batch_size=args.batch_size,
    )
    model, pipeline = make_ours(dataset, config, epochs, args)
    history = model.fit(
        ahead_on_device(pipeline.train),
        steps_per_epoch=pipeline.steps_per_epoch,
        epochs=epochs,
        verbose=0,
    )
    loss, accuracy = model.evaluate(pipeline.test, verbose=0)
    return {
        "test_accuracy": accuracy,
        "test_loss": loss,
        "train_accuracy": history.history["accuracy"][-1],
    }


class _TestAt(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Tests the plain model after each of the wanted numbers of epochs."""

    def __init__(self, images: Any, labels: Any, epochs: list[int]) -> None:
        super().__init__()
        self._data, self._epochs = (images, labels), epochs
        self.found: dict[int, dict[str, float]] = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Test, where asked."""
        if epoch + 1 in self._epochs:
            loss, accuracy = self.model.evaluate(*self._data, verbose=0)
            figures = {"test_accuracy": accuracy, "test_loss": loss}
            self.found[epoch + 1] = {**figures, "train_accuracy": logs["accuracy"]}


def train_plain(dataset: ImageDataset, args: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Train the plainest way and return epochs -> the figures of the test."""
    tf.keras.utils.set_random_seed(args.seed)
    split = whole_split(dataset)
    images, labels = dataset.images.astype(np.float32) / 255, dataset.labels
    model = tf.keras.applications.ResNet50(
        weights=None,
        input_tensor=tf.keras.Input((args.image_size, args.image_size, 3)),
        classes=len(dataset.class_names),
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    tests = _TestAt(images[split.test], labels[split.test], args.epochs)
    model.fit(
        images[split.train],
        labels[split.train],
        batch_size=args.batch_size,
        epochs=max(args.epochs),
        verbose=0,
        callbacks=[tests],
    )
    return tests.found


def check_float16(dataset: ImageDataset, args: argparse.Namespace) -> None:
    """Train 3 epochs in pure float16 with each optimizer and print whether it stays finite."""
    for optimizer in IMPLEMENTED["optimizer"]:
        config = base_config(
            precision="float16",
            preprocessing="standardization",
            optimizer=optimizer,
            lr=0.0008,
            batch_size=args.batch_size,
        )
        model, pipeline = make_ours(dataset, config, 3, args)
        history = model.fit(
            ahead_on_device(pipeline.train),
            steps_per_epoch=pipeline.steps_per_epoch,
            epochs=3,
            verbose=0,
        ).history
        loss, accuracy = model.evaluate(pipeline.test, verbose=0)
        finite = bool(np.isfinite([*history["loss"], loss]).all())
        losses = ", ".join(f"{value:.3f}" for value in history["loss"])
        print(
            f"float16 {optimizer} lr 0.0008: {'finite' if finite else 'DIVERGED'}; loss by epoch "
            f"{losses}; test accuracy {accuracy:.3f}; loss scale {model.optimizer.loss_scale:.0f}",
            flush=True,
        )


def markdown(results: Results) -> str:
    """Return the table."""
    lines = [
        "| epochs | ours, test accuracy | plain Keras, test accuracy | difference, points |"
        " ours, J | plain Keras, J |",
        "|---|---|---|---|---|---|",
    ]
    for epochs in sorted(int(key.split()[1]) for key in results.rows if key.startswith("ours")):
        mine = results.rows[f"ours {epochs}"]
        theirs = results.rows.get(f"plain {epochs}")
        if theirs is None:
            continue
        difference = 100 * (mine["test_accuracy"] - theirs["test_accuracy"])
        # One training passed through all of the plain one's numbers of epochs.
        theirs_j = f"{theirs['energy_j']:.0f}" if "energy_j" in theirs else "-"
        lines.append(
            f"| {epochs} | {mine['test_accuracy']:.4f} | {theirs['test_accuracy']:.4f} "
            f"| {difference:+.1f} | {mine['energy_j']:.0f} | {theirs_j} |"
        )
    return "\n".join(lines) + "\n"


def compare(dataset: ImageDataset, args: argparse.Namespace) -> None:
    """Train both contenders, as far as the time goes."""
    start = time.perf_counter()
    kept_out = ("out", "budget_s", "epochs", "variants", "check_float16")
    settings = {key: value for key, value in vars(args).items() if key not in kept_out}
    results = Results(args.out, "accuracy", settings)
    with EnergyMeter(synchronize=synchronize_gpu) as meter:
        for variant in args.variants:
            wanted = [e for e in args.epochs if f"{variant} {e}" not in results.rows]
            if variant == "plain" and wanted:
                with meter.window("plain") as window:
                    found = train_plain(dataset, args)
                for epochs, figures in found.items():
                    results.add(f"plain {epochs}", figures)
                whole = {**found[max(found)], "energy_j": window.reading.energy_j}
                results.add(f"plain {max(found)}", {**whole, "seconds": window.reading.seconds})
                continue
            for epochs in wanted:
                if time.perf_counter() - start > args.budget_s:
                    print(f"out of time before {variant} {epochs}: the same command goes on")
                    break
                with meter.window("ours") as window:
                    figures = train_ours(dataset, epochs, args)
                measured = {"energy_j": window.reading.energy_j, "seconds": window.reading.seconds}
                results.add(f"ours {epochs}", {**figures, **measured})
                print(f"ours {epochs}", results.rows[f"ours {epochs}"], flush=True)
    (args.out / "accuracy.md").write_text(markdown(results), encoding="utf-8")
    for name, figures in results.rows.items():
        print(name, figures)
    print(markdown(results))


def main() -> None:
    """Compare, or check float16."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=None)
    parser.add_argument("--epochs", type=int, nargs="*", default=[10, 30, 60])
    parser.add_argument("--variants", nargs="*", default=["ours", "plain"])
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--optimizer", default="Adam")
    parser.add_argument("--momentum", type=float, default=0.9, help="of SGD and RMSProp")
    parser.add_argument("--lr", type=float, default=0.0008)
    parser.add_argument("--seed", type=int, default=22)
    parser.add_argument("--budget_s", type=float, default=float("inf"))
    parser.add_argument("--check_float16", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    dataset = load_dataset(
        args.dataset, image_size=args.image_size, samples=args.samples, seed=args.seed
    )
    if args.check_float16:
        check_float16(dataset, args)
    else:
        compare(dataset, args)


if __name__ == "__main__":
    main()
