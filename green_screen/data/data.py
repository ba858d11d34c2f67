"""The images of a run: one name, one array in memory, checked before anything starts.

Needs no TensorFlow, except that Keras downloads and reads CIFAR.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from green_screen.data import datasets, image_files
from green_screen.data.splits import check_batch_size, split_indices, stratified_subset
from green_screen.options import OptionError
from green_screen.space import TrainingConfig


@dataclass(frozen=True)
class ImageDataset:
    """Labelled images in memory.

    Attributes:
        name: What the user asked for.
        source: Where the images come from, as text: a path, or the name of a library's data set.
        images: Pixel values, uint8 [n, size, size, 3].
        labels: Class of each image, int64 [n], from 0.
        class_names: Name of each class.
        digest: SHA-256 of images, labels and class names, in hexadecimal.
        predefined_test_from: Index of the first image of the test part that the data set comes
            with; ``None`` where it comes with none. The experiment pools both parts and splits
            by `partitioning`; comparisons with other programs may keep it.
        left_out: What its store holds and is not read, counted and named; empty if nothing.
    """

    name: str
    source: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    digest: str
    predefined_test_from: int | None
    left_out: str = ""


def check_dataset(
    name: str,
    *,
    samples: int | None = None,
    seed: int = 0,
    configs: Sequence[TrainingConfig] = (),
) -> str:
    """Refuse a data set that cannot be used, before anything starts.

    Every image that will be used is decoded. CIFAR is downloaded here where it is missing, once and
    outside any measurement.

    Args:
        name: As :func:`load_dataset`.
        samples: Size of the stratified subset that will be used; ``None`` is all.
        seed: Seed of the subset.
        configs: The configurations that will be trained: each must leave every part an image, each
            class a training image, and fill a batch.

    Returns:
        What is left out of the data set, as :attr:`ImageDataset.left_out`.

    Raises:
        OptionError: The name is unknown, the path holds no images of at least two classes, the
            download fails (the message names the alternatives), there are too few images, or some
            cannot be read.
    """
    source = None
    if name in datasets.CIFAR_ARCHIVES:
        datasets.download_cifar(name)
        labels = np.arange(datasets.N_CIFAR, dtype=np.int64) % datasets.CIFAR_CLASSES[name]
    else:
        source = _open(name, samples=samples, seed=seed)
        labels = source.labels
    chosen = np.arange(len(labels), dtype=np.int64)
    if samples is not None:
        chosen = stratified_subset(labels, samples, seed)
        labels = labels[chosen]
    for partitioning in {config.partitioning for config in configs}:
        split = split_indices(labels, partitioning, seed=0)
        for config in configs:
            if config.partitioning == partitioning:
                check_batch_size(split, config.batch_size)
    if source is None:
        return ""
    source.check(chosen)
    return source.left_out


def load_dataset(name: str, *, image_size: int, samples: int | None, seed: int) -> ImageDataset:
    """Read a data set into memory.

    Args:
        name: ``digits``, ``cifar10``, ``cifar100``, ``synthetic``, or the path of a folder, a
            ``.zip`` or an ``.npz`` (see :mod:`green_screen.data.datasets`
            and :mod:`green_screen.data.image_files`).
        image_size: Height and width in pixels; images of another size are resized (bilinear, with
            antialiasing), whatever their proportions.
        samples: Size of a stratified subset; ``None`` is all.
        seed: Seed of the subset, and of the synthetic images.

    Raises:
        OptionError: As :func:`check_dataset`, or `samples` exceeds the data set or leaves a class
            fewer than three images.
    """
    source = _open(name, samples=samples, seed=seed)
    if samples is None:
        chosen = np.arange(len(source.labels), dtype=np.int64)
    else:
        chosen = stratified_subset(source.labels, samples, seed)
    images = source.read(chosen, image_size)
    labels = source.labels[chosen]
    test_from = np.searchsorted(chosen, source.predefined_test_from or 0)
    return ImageDataset(
        name=name,
        source=source.uri,
        images=images,
        labels=labels,
        class_names=source.class_names,
        digest=_digest(images, labels, source.class_names),
        predefined_test_from=int(test_from) if 0 < test_from < len(chosen) else None,
        left_out=source.left_out,
    )


def _open(name: str, *, samples: int | None, seed: int) -> datasets.Source:
    if name == "digits":
        return datasets.digits()
    if name == "synthetic":
        return datasets.synthetic(samples or datasets.N_SYNTHETIC, seed)
    if name in datasets.CIFAR_ARCHIVES:
        return datasets.cifar(name)
    path = Path(name)
    if path.is_dir():
        return image_files.folder(path)
    if path.is_file() and path.suffix.lower() == ".zip":
        return image_files.archive(path)
    if path.is_file() and path.suffix.lower() == ".npz":
        return datasets.npz(path)
    raise OptionError(f"dataset must be {datasets.ALTERNATIVES}, but got {name!r}")


def _digest(
    images: NDArray[np.uint8], labels: NDArray[np.int64], class_names: tuple[str, ...]
) -> str:
    digest = hashlib.sha256(repr((images.shape, class_names)).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()
