"""How training images are changed: on whole batches, in pixel values, seeded by the step.

Each augmentation is a function of a batch and of a seed that differs from step to step, without
any state, so that a run can be repeated whatever the number of threads. Images are float tensors
[b, h, w, 3] of values 0 to 255 (before preprocessing), labels are one-hot [b, classes]. The batch
is drawn in random order, so the next image in the batch is a random partner for the mixing ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from green_screen.space import SpaceError

Batch = tuple[Any, Any]

N_RANDOM_OPS = 3
RANDOM_OPS = (
    "flip",
    "rotation",
    "zoom",
    "contrast",
    "translation",
    "height_shift",
    "width_shift",
)
# Strength of each op: the part of a turn, of the size or of the contrast, to either side.
FACTOR = 0.1
MIXUP_ALPHA = 0.2


@dataclass(frozen=True)
class Augmentation:
    """A change of a batch.

    Attributes:
        kind: The level: ``"None"``, ``random``, ``mixup`` or ``cutmix``.
        ops: The operations of ``random``, in the order in which they apply; empty for the others.
        apply: ``(images, labels, seed) -> (images, labels)``; `seed` is an integer tensor [2].
    """

    kind: str
    ops: tuple[str, ...]
    apply: Callable[[Any, Any, Any], Batch]


def make_augmentation(kind: str, *, seed: int, batch_size: int) -> Augmentation:
    """Return the augmentation of a level.

    Args:
        kind: The level.
        seed: What the operations of ``random`` are chosen by.
        batch_size: Images a step; mixing needs two.

    Raises:
        SpaceError: The level is unknown, or the batch has no second image to mix with.
    """
    ops = choose_ops(seed) if kind == "random" else ()
    functions: dict[str, Callable[[Any, Any, Any], Batch]] = {
        "None": _unchanged,
        "random": functools.partial(random_ops, ops=ops),
        "mixup": mixup,
        "cutmix": cutmix,
    }
    if kind not in functions:
        raise SpaceError(f"augmentation must be one of {', '.join(functions)}, but got {kind!r}")
    if kind in ("mixup", "cutmix") and batch_size < 2:
        raise SpaceError(f"{kind} mixes pairs: batch_size must be at least 2, but got {batch_size}")
    return Augmentation(kind, ops, functions[kind])


def choose_ops(seed: int) -> tuple[str, ...]:
    """Return the three different operations that `random` applies in a run with this seed."""
    chosen = np.random.default_rng(seed).choice(len(RANDOM_OPS), N_RANDOM_OPS, replace=False)
    return tuple(RANDOM_OPS[i] for i in sorted(chosen))


def _unchanged(images: Any, labels: Any, seed: Any) -> Batch:
    return images, labels


def mixup(images: Any, labels: Any, seed: Any) -> Batch:
    """Blend each image and its label with the next one's (Zhang et al. 2018, arXiv 1710.09412).

    One weight a pair, from Beta(0.2, 0.2).
    """
    weight = _beta(MIXUP_ALPHA, tf.shape(images)[0], seed, images.dtype)
    return _blend(images, weight[:, None, None, None]), _blend(labels, weight[:, None])


def cutmix(images: Any, labels: Any, seed: Any) -> Batch:
    """Paste a box of the next image into each one (Yun et al. 2019, arXiv 1905.04899).

    One box a pair: its area is uniform (Beta(1, 1)), its center uniform over the pixels, and it is
    clipped at the border. Labels are mixed by the area of the clipped box.
    """
    _, height, width, channels = images.shape
    draws = tf.random.stateless_uniform([3, tf.shape(images)[0]], seed)
    side = tf.sqrt(draws[0])  # of the box, as a part of the image's; its square is uniform
    top, bottom = _interval(draws[1], side, height)
    left, right = _interval(draws[2], side, width)
    # An outer product of 0 and 1 and a blend: exact, and several times faster than `tf.where`.
    rows = tf.cast(_between(top, bottom, height), images.dtype)
    columns = tf.repeat(tf.cast(_between(left, right, width), images.dtype), channels, axis=1)
    inside = tf.reshape(rows[:, :, None] @ columns[:, None, :], tf.shape(images))
    area = tf.cast((bottom - top) * (right - left), labels.dtype)
    kept = 1 - area[:, None] / (height * width)
    return _blend(images, 1 - inside), _blend(labels, kept)


def _interval(center: Any, side: Any, size: int) -> tuple[Any, Any]:
    """Return the clipped pixel range [start, end) about uniform draws of its center."""
    middle = tf.cast(center * size, tf.int32)
    half = tf.cast(side * size, tf.int32) // 2
    return tf.maximum(middle - half, 0), tf.minimum(middle + half, size)


def _between(start: Any, end: Any, size: int) -> Any:
    pixels = tf.range(size)[None, :]
    return (pixels >= start[:, None]) & (pixels < end[:, None])


def _blend(values: Any, weight: Any) -> Any:
    return weight * values + (1 - weight) * tf.roll(values, -1, axis=0)


def _beta(alpha: float, n: Any, seed: Any, dtype: Any) -> Any:
    """Return n draws from Beta(alpha, alpha), made from two gamma draws each."""
    first, second = tf.unstack(
        tf.random.stateless_gamma(
            [2, n], seed, alpha=tf.constant(alpha, tf.float64), dtype=tf.float64
        )
    )
    return tf.cast(tf.math.divide_no_nan(first, first + second), dtype)


def random_ops(images: Any, labels: Any, seed: Any, *, ops: tuple[str, ...]) -> Batch:
    """Apply geometric operations and contrast, each drawn for each image; labels stay.

    They are the random layers of Keras with factor 0.1: a mirror image (left to right) with
    probability 1/2, rotation by up to 0.1 of a turn, zoom of both sides by up to 10 %, translation
    of each axis by up to 10 % of the size, and shifts along one axis alone. Their transforms are
    composed and the image is resampled once (bilinear, reflected at the border), where Keras's
    layers resample once each. Contrast scales the distance to the image's channel means by 0.9 to
    1.1 and clips to 0..255; Keras's layer draws that once for the batch.
    """
    _, height, width, _ = images.shape
    draws = tf.random.stateless_uniform([8, tf.shape(images)[0]], seed, -1.0, 1.0)
    geometric = [op for op in ops if op != "contrast"]
    if geometric:
        images = _resample(images, _transforms(geometric, draws, height, width))
    if "contrast" in ops:
        mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
        factor = tf.cast(1 + FACTOR * draws[7], images.dtype)[:, None, None, None]
        images = tf.clip_by_value(factor * images + (1 - factor) * mean, 0, 255)
    return images, labels


def _transforms(ops: list[str], draws: Any, height: int, width: int) -> Any:
    """Return for each image the map from output to input pixels, float [b, 8].

    About the image's center it is ``A @ offset + shift``: A is rotation times zoom times flip.
    """
    zeros = tf.zeros_like(draws[0])
    angle = 2 * math.pi * FACTOR * draws[0] if "rotation" in ops else zeros
    zoom_y = 1 + FACTOR * draws[1] if "zoom" in ops else zeros + 1
    flip = tf.where(draws[2] < 0, -1.0, 1.0) if "flip" in ops else zeros + 1
    shift_y = _shift(ops, "height_shift", draws[3], draws[4]) * height
    shift_x = _shift(ops, "width_shift", draws[5], draws[6]) * width
    cos, sin = tf.cos(angle), tf.sin(angle)
    a, b = flip * zoom_y * cos, -zoom_y * sin
    c, d = flip * zoom_y * sin, zoom_y * cos
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    x = center_x - a * center_x - b * center_y + shift_x
    y = center_y - c * center_x - d * center_y + shift_y
    return tf.stack([a, b, x, c, d, y, zeros, zeros], axis=1)


def _shift(ops: list[str], name: str, own: Any, both: Any) -> Any:
    """Return the shift along one axis as a part of the size, from its own and the common op."""
    shift = tf.zeros_like(own)
    if name in ops:
        shift += FACTOR * own
    if "translation" in ops:
        shift += FACTOR * both
    return shift


def _resample(images: Any, transforms: Any) -> Any:
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.cast(transforms, tf.float32),
        output_shape=images.shape[1:3],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
