"""Batches for ``fit`` and ``evaluate``: images held in memory, every batch made by vector ops.

The parts share one uint8 tensor in host memory (TensorFlow's copy of the data set's array) and
differ in their indices alone. A training batch
is a function of the seed and of the step number: which images (a new permutation each epoch), how
they are augmented, how they are scaled. So nothing is kept between batches, they can be made in
parallel and ahead, and a run can be repeated exactly.

Batches have one static shape, because XLA compiles anew for every other one and a changed shape
re-tunes convolutions:

- Training drops what does not fill a batch at the end of an epoch's order; it is other images each
  epoch. :attr:`Pipeline.images_per_epoch` counts what is trained.
- Validation and test evaluate every image exactly once. Their batches are the largest of equal
  size that do not exceed ``batch_size``; where the last is not full it is padded with images of
  weight 0. The others' weight is such that Keras's mean loss is the mean over the images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from green_screen.data import preprocessing
from green_screen.data.augmentation import Augmentation, make_augmentation
from green_screen.data.data import ImageDataset
from green_screen.data.preprocessing import Preprocessing
from green_screen.data.splits import Indices, Split, check_batch_size, split_indices
from green_screen.network.precision import POLICIES
from green_screen.space import TrainingConfig

# Rounds of the cipher that shuffles. TensorFlow's `index_shuffle` makes 4, which leaves structure:
# of 54,000 images the same hundred pairs are neighbours in two epochs, where one is by chance.
_SHUFFLE_ROUNDS = 8
# Batches that wait on the GPU.
_ON_DEVICE = 4


@dataclass(frozen=True)
class Pipeline:
    """The three parts, ready for Keras, and what was fitted to make them.

    Attributes:
        train_from: Epoch, from 0 -> endless batches from its beginning on, as :attr:`train`.
        validation: Batches (images, labels, weights [batch]) that end; compile the model with
            ``weighted_metrics``, so that padding does not count.
        test: As `validation`, and of the same batch shape.
        split: Indices of the three parts in the data set.
        batch_size: Images a training step.
        evaluation_batch_size: Images an evaluation step.
        preprocessing: The scaling, fitted to the training part.
        augmentation_ops: What ``random`` augmentation picked; empty for the other levels.
    """

    train_from: Callable[[int], Any]
    validation: Any
    test: Any
    split: Split
    batch_size: int
    evaluation_batch_size: int
    preprocessing: Preprocessing
    augmentation_ops: tuple[str, ...]

    @property
    def train(self) -> Any:
        """Endless batches: images [batch, h, w, 3] in the compute dtype, one-hot labels [batch, n].

        Give ``fit`` :attr:`steps_per_epoch`.
        """
        return self.train_from(0)

    @property
    def n_train(self) -> int:
        """Images of the training part."""
        return len(self.split.train)

    @property
    def n_validation(self) -> int:
        """Images of the validation part."""
        return len(self.split.validation)

    @property
    def n_test(self) -> int:
        """Images of the test part."""
        return len(self.split.test)

    @property
    def steps_per_epoch(self) -> int:
        """Training steps an epoch."""
        return self.n_train // self.batch_size

    @property
    def images_per_epoch(self) -> int:
        """Images that an epoch trains on: the training part less what fills no batch."""
        return self.steps_per_epoch * self.batch_size


def make_pipeline(dataset: ImageDataset, config: TrainingConfig, *, seed: int) -> Pipeline:
    """Split a data set as `config` says and return its batches.

    Args:
        dataset: The images.
        config: The effective configuration.
        seed: Seed of the split, the order and the augmentation.

    Raises:
        OptionError: A class or a part is too small, or the training part fills no batch.
    """
    split = split_indices(dataset.labels, config.partitioning, seed)
    return from_parts(dataset, split, config, seed=seed)


def from_parts(
    dataset: ImageDataset, split: Split, config: TrainingConfig, *, seed: int
) -> Pipeline:
    """Return the batches of parts that are given, whatever the configuration's partitioning.

    Args:
        dataset: The images.
        split: Indices of the parts, none of them empty.
        config: The effective configuration; `partitioning` is not read.
        seed: Seed of the order and the augmentation.

    Raises:
        OptionError: The training part fills no batch.
    """
    check_batch_size(split, config.batch_size)
    augmentation = make_augmentation(config.augmentation, seed=seed, batch_size=config.batch_size)
    fitted = preprocessing.fit(dataset.images[split.train], config.preprocessing)
    policy = tf.keras.mixed_precision.Policy(POLICIES[config.precision])
    source = _Source(dataset, fitted, policy.compute_dtype)
    evaluation_batch = _evaluation_batch(config.batch_size, split)
    return Pipeline(
        train_from=_train(source, split.train, config.batch_size, augmentation, seed),
        validation=_evaluation(source, split.validation, evaluation_batch),
        test=_evaluation(source, split.test, evaluation_batch),
        split=split,
        batch_size=config.batch_size,
        evaluation_batch_size=evaluation_batch,
        preprocessing=fitted,
        augmentation_ops=augmentation.ops,
    )


def ahead_on_device(batches: Any) -> Any:
    """Return endless batches, copied to the GPU ahead of the step that takes them.

    For ``fit`` alone: on a GPU the result is no data set that further operations could be applied
    to, and its length is unknown. Without a GPU it is `batches`.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        return batches
    ahead = tf.data.experimental.prefetch_to_device(gpus[0].name, _ON_DEVICE)
    # AutoGraph would convert the functions that copy, which need it not.
    return tf.autograph.experimental.do_not_convert(batches.apply)(ahead)


class _Source:
    """The data set in host memory, and how its images are taken and scaled."""

    def __init__(self, dataset: ImageDataset, fitted: Preprocessing, dtype: str) -> None:
        self.dtype = tf.as_dtype(dtype)
        # Half precision is the model's; pixels are augmented and scaled in float32 before it.
        self.working = tf.float64 if self.dtype == tf.float64 else tf.float32
        self.n_classes = len(dataset.class_names)
        self._scaled = fitted.kind != "None"
        with tf.device("CPU:0"):
            self._images = tf.constant(dataset.images)
            self._labels = tf.constant(dataset.labels)
            # One value a pixel, not a channel: TensorFlow broadcasts that three times as fast.
            shape = dataset.images.shape[1:]
            self._center = tf.constant(np.broadcast_to(fitted.center, shape), self.working)
            self._factor = tf.constant(
                np.broadcast_to(1 / np.asarray(fitted.scale), shape), self.working
            )

    def take(self, indices: Any) -> tuple[Any, Any]:
        """Return raw images (values 0 to 255) and one-hot labels."""
        images = tf.cast(tf.gather(self._images, indices), self.working)
        labels = tf.one_hot(tf.gather(self._labels, indices), self.n_classes, dtype=self.working)
        return images, labels

    def scale(self, images: Any) -> Any:
        """Return what the model is fed."""
        if self._scaled:
            images = (images - self._center) * self._factor
        return tf.cast(images, self.dtype)


def _train(
    source: _Source, part: Indices, batch_size: int, augmentation: Augmentation, seed: int
) -> Callable[[int], Any]:
    steps = len(part) // batch_size
    # Independent streams for the order and for the augmentation.
    order_seed, augmentation_seed = np.random.SeedSequence(seed).generate_state(2).astype(np.int32)
    with tf.device("CPU:0"):
        members = tf.constant(part)

    def make_batch(step: Any) -> tuple[Any, Any]:
        epoch, place = step // steps, step % steps
        positions = place * batch_size + tf.range(batch_size, dtype=tf.int64)
        shuffled = _shuffled(positions, len(part), order_seed, epoch)
        images, labels = source.take(tf.gather(members, shuffled))
        images, labels = augmentation.apply(
            images, labels, tf.stack([tf.constant(augmentation_seed, tf.int64), step])
        )
        return source.scale(images), labels

    return lambda epoch: _prefetched(tf.data.Dataset.counter(epoch * steps), make_batch)


def _shuffled(positions: Any, n: int, seed: int, epoch: Any) -> Any:
    """Return where the positions of an epoch's order are among `n` images."""
    return tf.raw_ops.RandomIndexShuffle(
        index=positions,
        seed=tf.stack([0, seed, tf.cast(epoch, tf.int32)]),
        max_index=tf.constant(n - 1, tf.int64),
        rounds=_SHUFFLE_ROUNDS,
    )


def _evaluation_batch(batch_size: int, split: Split) -> int:
    """Return the batch size of evaluation: equal batches for both parts, hardly any padding."""
    sizes = (len(split.validation), len(split.test))
    return max(-(-n // -(-n // batch_size)) for n in sizes)


def _evaluation(source: _Source, part: Indices, batch_size: int) -> Any:
    n = len(part)
    steps = -(-n // batch_size)
    with tf.device("CPU:0"):
        members = tf.constant(part)
    # Keras divides the sum of weighted losses by the number of rows, padding included.
    weight = steps * batch_size / n

    def make_batch(step: Any) -> tuple[Any, Any, Any]:
        positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        images, labels = source.take(tf.gather(members, tf.minimum(positions, n - 1)))
        weights = tf.where(positions < n, tf.constant(weight, source.working), 0)
        return source.scale(images), labels, weights

    return _prefetched(tf.data.Dataset.range(steps), make_batch)


def _prefetched(steps: Any, make_batch: Any) -> Any:
    make_batch = tf.autograph.experimental.do_not_convert(make_batch)  # straight-line code
    return steps.map(make_batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
