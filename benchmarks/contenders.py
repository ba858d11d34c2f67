"""What the training benchmarks compare, and how a steady window of one is measured."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from green_screen.data import preprocessing
from green_screen.data.data import ImageDataset
from green_screen.data.pipeline import ahead_on_device, from_parts
from green_screen.data.splits import Split
from green_screen.network.precision import dtype_policy
from green_screen.power.meter import EnergyMeter
from green_screen.space import Space, TrainingConfig
from green_screen.training.hardware import hardware_tags
from green_screen.training.setup import compiled_model

SEED = 22


@dataclass
class Contender:
    """A compiled model with what `fit` needs, ready to be measured again and again."""

    model: Any
    fit: dict[str, Any]
    images_per_epoch: int


class _Window(tf.keras.callbacks.Callback):  # type: ignore[misc]
    """Measures whole epochs after the first of a `fit`, until so many seconds have passed."""

    def __init__(self, meter: EnergyMeter, seconds: float) -> None:
        super().__init__()
        self._meter, self._seconds = meter, seconds
        self.epochs = 0
        self.reading: Any = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Open the window after the first epoch, and end the training with the window."""
        if epoch == 0:
            self._start_s = time.perf_counter()
            self._meter.begin("steady")
        elif time.perf_counter() - self._start_s >= self._seconds:
            self.reading = self._meter.end("steady")
            self.epochs = epoch
            self.model.stop_training = True


def measure(contender: Contender, meter: EnergyMeter, seconds: float) -> dict[str, Any]:
    """Return images/s and J per 1,000 images of one steady window."""
    window = _Window(meter, seconds)
    contender.model.fit(**contender.fit, epochs=10**6, verbose=0, callbacks=[window])
    images = window.epochs * contender.images_per_epoch
    reading = window.reading
    return {
        "images_per_s": images / reading.seconds,
        "joules_per_1k_images": 1000 * reading.energy_j / images,
        "mean_power_w": reading.mean_power_w,
        "seconds": reading.seconds,
        "source": reading.source,
    }


def warm_up(contender: Contender) -> float:
    """Trace, compile and tune; return how many seconds that took."""
    start = time.perf_counter()
    contender.model.fit(**contender.fit, epochs=2, verbose=0)
    return time.perf_counter() - start


def input_images_per_s(contender: Contender, seconds: float) -> float:
    """Return how fast the contender's batches are made where no step takes them.

    After as many seconds in which the buffers drain and tf.data tunes its threads.
    """
    batches = iter(contender.fit["x"])
    start_s = time.perf_counter()
    while time.perf_counter() - start_s < seconds:
        next(batches)
    images, start_s = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - start_s) < seconds:
        images += len(next(batches)[0])
    return images / passed_s


def base_config(**levels: Any) -> TrainingConfig:
    """Return SGD with momentum in float32, with some levels changed; no rule is applied."""
    start = dataclasses.replace(
        Space.load().baseline, optimizer="SGD", optimizer_momentum=0.9, partitioning="90-5-5"
    )
    return dataclasses.replace(start, **levels)


def ours(
    dataset: ImageDataset,
    split: Split,
    config: TrainingConfig,
    model: str,
    *,
    compiled: Any = None,
    on_device: bool = True,
) -> Contender:
    """Return what a run of this project trains with, or its batches for a `compiled` model.

    Without `on_device` batches are copied to the GPU in the step, and not ahead of it.
    """
    pipeline = from_parts(dataset, split, config, seed=SEED)
    compiled = compiled or compiled_model(
        model,
        config,
        image_size=dataset.images.shape[1],
        n_classes=len(dataset.class_names),
        total_steps=10**6,
        seed=SEED,
    )
    batches = ahead_on_device(pipeline.train) if on_device else pipeline.train
    fit = {"x": batches, "steps_per_epoch": pipeline.steps_per_epoch}
    return Contender(compiled, fit, pipeline.images_per_epoch)


def plain_arrays(
    dataset: ImageDataset, part: Any, config: TrainingConfig, dtype: str
) -> tuple[Any, Any]:
    """Return whole batches of preprocessed images and one-hot labels, as arrays in memory."""
    part = part[: len(part) // config.batch_size * config.batch_size]
    fitted = preprocessing.fit(dataset.images[part], config.preprocessing)
    images = fitted.apply(dataset.images[part]).astype(dtype)
    return images, np.eye(len(dataset.class_names), dtype=np.float32)[dataset.labels[part]]


def plain_optimizer(config: TrainingConfig) -> Any:
    """Return Keras's own optimizer of that name, as `keras.optimizers` has it."""
    optimizers = tf.keras.optimizers
    if config.optimizer == "SGD":
        return optimizers.SGD(config.lr, momentum=config.optimizer_momentum)
    if config.optimizer == "RMSProp":
        return optimizers.RMSprop(config.lr, momentum=config.optimizer_momentum)
    if config.optimizer == "Adam":
        return optimizers.Adam(config.lr)
    return optimizers.AdamW(config.lr, weight_decay=0.001)


def plain(
    dataset: ImageDataset,
    split: Split,
    config: TrainingConfig,
    model: str,
    *,
    optimizer: Any = None,
    quantize: Callable[[Any], Any] | None = None,
    steps_per_execution: int = 1,
) -> Contender:
    """Return the plainest Keras code for the same network, on arrays in memory.

    Its images are preprocessed before it starts, and not augmented.
    """
    import tensorflow_model_optimization as tfmot

    from green_screen.network.model import build_model

    size, classes = dataset.images.shape[1], len(dataset.class_names)
    part = split.train
    with dtype_policy(config.precision) as dtype:
        if model == "resnet50":
            network = tf.keras.applications.ResNet50(
                weights=None, input_tensor=tf.keras.Input((size, size, 3)), classes=classes
            )
        else:
            network = build_model(model, image_size=size, n_classes=classes, seed=SEED)
        if config.internal == "pre_quantization":
            network = (quantize or tfmot.quantization.keras.quantize_model)(network)
            part = part[: 10 * config.batch_size]  # half a second a step on a GPU
        network.compile(
            optimizer or plain_optimizer(config),
            "categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=config.internal == "jit_compilation",
            steps_per_execution=steps_per_execution,
        )
    images, labels = plain_arrays(dataset, part, config, dtype)
    return Contender(
        network, {"x": images, "y": labels, "batch_size": config.batch_size}, len(images)
    )


class Results:
    """Windows by row and contender, kept in a JSON file after each addition."""

    def __init__(self, folder: Path, name: str, settings: dict[str, Any]) -> None:
        """Go on with the file in `folder` if it is of the same settings and hardware."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.json"
        about = {"settings": settings, "hardware": hardware_tags()}
        self.content: dict[str, Any] = {**about, "date": time.strftime("%Y-%m-%d"), "rows": {}}
        if self.path.exists():
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if {key: found[key] for key in about} == about:
                self.content = found

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Row -> contender -> its windows."""
        rows: dict[str, dict[str, Any]] = self.content["rows"]
        return rows

    def add(self, row: str, windows: dict[str, Any]) -> None:
        """Add a row and write the file."""
        self.rows[row] = windows
        self.path.write_text(json.dumps(self.content, indent=2), encoding="utf-8")


def median(windows: list[dict[str, Any]], figure: str) -> float:
    """Return the median of a figure over windows."""
    return statistics.median(window[figure] for window in windows)


def paired_ratios(row: dict[str, Any], figure: str) -> list[float]:
    """Return ours over plain Keras in each round, in ascending order."""
    pairs = zip(row["ours"], row["plain"], strict=True)
    return sorted(mine[figure] / theirs[figure] for mine, theirs in pairs)


def split_of(dataset: ImageDataset, images: int) -> Split:
    """Return a split whose training part is the first `images`, for timing alone."""
    everything = np.arange(len(dataset.labels), dtype=np.int64)
    return Split(everything[:images], everything[:images], everything[:images])
