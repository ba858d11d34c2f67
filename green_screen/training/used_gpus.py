"""Which GPUs TensorFlow uses, how to wait for them, and which of them can be measured."""

from __future__ import annotations

from green_screen.power.nvml import NvmlError
from green_screen.power.visible import visible_boards


def synchronize_gpu() -> None:
    """Wait until the GPU has done what TensorFlow gave it."""
    import tensorflow as tf

    if tf.executing_eagerly():
        tf.test.experimental.sync_devices()


def tensorflow_gpus() -> tuple[int, ...]:
    """Return which GPUs TensorFlow uses, as places in CUDA's order from 0."""
    import tensorflow as tf

    return tuple(int(gpu.name.rsplit(":", 1)[1]) for gpu in tf.config.get_visible_devices("GPU"))


def measurable_gpus() -> tuple[tuple[int, ...], str]:
    """Return the GPUs that TensorFlow uses and NVML shows, and in words where the two differ."""
    used = tensorflow_gpus()
    try:
        shown, reason = len(visible_boards()), ""
    except NvmlError as error:
        shown, reason = 0, f": {error}"
    measurable = tuple(gpu for gpu in used if gpu < shown)
    if len(measurable) == len(used):
        return measurable, ""
    return measurable, f"TensorFlow uses {len(used)} GPUs, of which NVML shows {shown}{reason}"
