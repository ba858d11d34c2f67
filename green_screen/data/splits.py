"""Train, validation and test indices: drawn once, seeded, stratified and disjoint.

Everything downstream takes images by these indices, so no image can be in two parts, whatever is
shuffled later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from green_screen.options import OptionError
from green_screen.space import partition_percentages

Indices = NDArray[np.int64]

# One image of each class for each of the three parts.
MIN_IMAGES_PER_CLASS = 3


@dataclass(frozen=True)
class Split:
    """Indices of the three parts: disjoint, together every image once.

    Each part is in random order, so that the first few of it are a random sample.

    Attributes:
        train: Indices of the training part, int64 [n_train].
        validation: Indices of the validation part, int64 [n_validation].
        test: Indices of the test part, int64 [n_test].
    """

    train: Indices
    validation: Indices
    test: Indices


def part_sizes(n_images: int, partitioning: str) -> tuple[int, int, int]:
    """Return how many images train, validation and test hold.

    Validation and test are rounded to the nearest integer, the training part is the rest.
    """
    _, validation, test = partition_percentages(partitioning)
    n_validation = (n_images * validation + 50) // 100
    n_test = (n_images * test + 50) // 100
    return n_images - n_validation - n_test, n_validation, n_test


def split_indices(labels: NDArray[np.int64], partitioning: str, seed: int) -> Split:
    """Split images into train, validation and test.

    The sizes are those of :func:`part_sizes`; each part holds each class in the proportion of the
    whole, to within two images. Which images of a class go where depends on `seed` alone.

    Args:
        labels: Class of each image, int64 [n].
        partitioning: Percentages such as ``60-20-20``.
        seed: Seed of the drawing.

    Raises:
        OptionError: A class has fewer than three images, a part would be empty, or a class would
            have no training image.
    """
    _check_class_sizes(labels, "the data set")
    sizes = part_sizes(len(labels), partitioning)
    if min(sizes) < 1:
        raise OptionError(
            f"partitioning {partitioning} of {len(labels)} images leaves "
            f"{sizes[0]} for training, {sizes[1]} for validation and {sizes[2]} for test, but each "
            f"part needs at least one: use more samples"
        )
    order = _class_order(labels, seed)
    in_validation = _evenly(len(order), sizes[1])
    rest = order[~in_validation]
    in_test = _evenly(len(rest), sizes[2])
    train = rest[~in_test]
    absent = np.setdiff1d(labels, labels[train])
    if len(absent):
        raise OptionError(
            f"partitioning {partitioning} leaves no training image of class {absent[0]}, which has "
            f"{int(np.sum(labels == absent[0]))} images: use more samples of it"
        )
    rng = np.random.default_rng(seed)
    return Split(*(rng.permutation(p) for p in (train, order[in_validation], rest[in_test])))


def check_batch_size(split: Split, batch_size: int) -> None:
    """Refuse a batch that the training part cannot fill.

    Raises:
        OptionError: `batch_size` exceeds the number of training images.
    """
    if batch_size > len(split.train):
        raise OptionError(
            f"batch_size must be at most the number of training images, {len(split.train)}, but "
            f"got {batch_size}: use more samples or a smaller batch"
        )


def stratified_subset(labels: NDArray[np.int64], n_images: int, seed: int) -> Indices:
    """Return ascending indices of `n_images` images that keep the classes' proportions.

    Each class keeps its share to within one image.

    Raises:
        OptionError: There are fewer images than asked for, or a class would keep fewer than three.
    """
    if n_images > len(labels):
        raise OptionError(
            f"samples must be at most {len(labels)}, the size of the data set, but got {n_images}"
        )
    order = _class_order(labels, seed)
    chosen = np.sort(order[_evenly(len(order), n_images)])
    if len(np.setdiff1d(labels, labels[chosen])):
        raise OptionError(
            f"samples={n_images} leaves out a class of {len(np.unique(labels))}: use at least "
            f"{MIN_IMAGES_PER_CLASS} images per class"
        )
    _check_class_sizes(labels[chosen], f"samples={n_images}")
    return chosen


def _check_class_sizes(labels: NDArray[np.int64], where: str) -> None:
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2:
        raise OptionError(f"{where} must hold at least two classes, but holds {len(classes)}")
    smallest = int(np.argmin(counts))
    if counts[smallest] < MIN_IMAGES_PER_CLASS:
        raise OptionError(
            f"each class needs at least {MIN_IMAGES_PER_CLASS} images, one for each part, but "
            f"class {classes[smallest]} of {where} has {counts[smallest]}"
        )


def _class_order(labels: NDArray[np.int64], seed: int) -> Indices:
    """Return all indices, class after class, in seeded random order within a class."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def _evenly(n: int, n_chosen: int) -> NDArray[np.bool_]:
    """Return a mask [n] with `n_chosen` places as evenly spaced as integers allow.

    Over the order of :func:`_class_order` this is systematic sampling: a class of c images gets
    c * n_chosen / n of the places, rounded down or up, and the total is exact.
    """
    steps = np.arange(n + 1, dtype=np.int64) * n_chosen // n
    return np.diff(steps) > 0
