"""What post_quantization costs beside its training: TensorFlow Lite's own way, and this project's.

    python -m benchmarks.int8_conversion --image_size 224 --rounds 1

converts a network of random weights and tests the integer model, both ways in turns: seconds, CPU
seconds and joules (of a board that waits, where there is one), and whether both predict alike.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from green_screen.measurement.run_measurement import synchronize_gpu
from green_screen.network import int8
from green_screen.network.model import build_model
from green_screen.power.meter import EnergyMeter

N_CLASSES = 10


def library_convert(model: Any, images: Any) -> bytes:
    """Convert as TensorFlow Lite's guide does."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    calibration = images[: int8.CALIBRATION_IMAGES]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in calibration)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def predict_on_one_core(content: bytes, batches: list[Any]) -> Any:
    """Return the probabilities of all batches, one after the other."""
    model = int8.Int8Model(content)
    return np.concatenate([model.predict(images) for images, _, _ in batches])


def cpu_s() -> float:
    """Return the CPU seconds of this process so far, all threads'."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measured(meter: EnergyMeter, what: str, call: Callable[[], Any]) -> Any:
    """Print what a call costs, as a row, and return what it returns."""
    cpu_before_s = cpu_s()
    meter.begin(what)
    result = call()
    reading = meter.end(what)
    print(
        f"| {what} | {reading.seconds:.1f} | {cpu_s() - cpu_before_s:.1f} | {reading.energy_j:.0f} "
        f"({reading.source}) |",
        flush=True,
    )
    return result


def compare(meter: EnergyMeter, model: Any, images: Any, batches: list[Any]) -> float:
    """Measure both ways once and return by how much their probabilities differ at most."""
    theirs = measured(meter, "library: convert", lambda: library_convert(model, images))
    expected = measured(
        meter, "library: test, one core", lambda: predict_on_one_core(theirs, batches)
    )
    ours = measured(meter, "ours: convert", lambda: int8.to_int8(model, images))
    measured(meter, "ours: test", lambda: int8.evaluate(ours, batches))
    return float(np.abs(predict_on_one_core(ours, batches) - expected).max())


def main() -> None:
    """Measure and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--images", type=int, default=300, help="of the test")
    parser.add_argument("--batch_size", type=int, default=4, help="of the test")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    size = args.image_size
    model = build_model(args.model, image_size=size, n_classes=N_CLASSES, seed=22)
    shape = (max(args.images, int8.CALIBRATION_IMAGES), size, size, 3)
    images = np.random.default_rng(22).normal(size=shape).astype(np.float32)
    model(images[:1])  # a board that waits holds a context
    labels = np.eye(N_CLASSES)[np.arange(args.images) % N_CLASSES]
    test, weights = images[: args.images], np.ones(args.images)
    parts = [slice(i, i + args.batch_size) for i in range(0, args.images, args.batch_size)]
    batches = [(test[part], labels[part], weights[part]) for part in parts]
    print(f"{args.model}, {size} pixels, {args.images} test images, {int8.cpu_cores()} CPU cores")
    print("| what | s | CPU s | J |\n|---|---|---|---|")
    with EnergyMeter(synchronize=synchronize_gpu) as meter:
        for _ in range(args.rounds):
            difference = compare(meter, model, images, batches)
            print(f"probabilities differ by {difference:.4f} at most (a step is 0.0039)")


if __name__ == "__main__":
    main()
