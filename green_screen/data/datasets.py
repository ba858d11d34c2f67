"""Data sets by name: labels at once, pixels on demand.

A source tells the labels first, so that a subset is drawn before any image is decoded or resized.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from green_screen import locks
from green_screen.options import OptionError

Labels = NDArray[np.int64]
Pixels = NDArray[np.uint8]

ALTERNATIVES = (
    "digits or synthetic (both need no network), cifar10, cifar100, or the path of a folder or "
    ".zip of class folders or of an .npz"
)
N_SYNTHETIC = 2000
N_SYNTHETIC_CLASSES = 10
# Keras's archive of each, as it lies in Keras's cache.
CIFAR_ARCHIVES = {
    "cifar10": "cifar-10-batches-py.tar.gz",
    "cifar100": "cifar-100-python.tar.gz",
}
# What is known of them before they are read: each class has as many images as any other.
CIFAR_CLASSES = {"cifar10": 10, "cifar100": 100}
N_CIFAR = 60_000
# What a NumPy archive holds.
_WHOLE = {"images", "labels"}
_PARTED = {"x_train", "y_train", "x_test", "y_test"}
_SHOWN = 5  # of a list that may be long
DOWNLOAD_TIMEOUT_S = 30  # without an answer


@dataclass(frozen=True)
class Source:
    """A data set whose labels are known and whose pixels are not read yet.

    Attributes:
        uri: Where the images come from.
        labels: Class of each image, int64 [n], from 0.
        class_names: Name of each class.
        predefined_test_from: Index of the first image of the test part it comes with, or ``None``.
        read: ``(indices, size) -> images``, uint8 [len(indices), size, size, 3].
        check: ``(indices)``: raises an :class:`OptionError` that names the images that `read` would
            fail at, all of them.
        left_out: What the store holds and is not read, counted and named; empty if nothing.
    """

    uri: str
    labels: Labels
    class_names: tuple[str, ...]
    predefined_test_from: int | None
    read: Callable[[NDArray[np.int64], int], Pixels]
    check: Callable[[NDArray[np.int64]], None] = lambda indices: None
    left_out: str = ""


def resize(image: Image.Image, size: int) -> Pixels:
    """Return an image as uint8 [size, size, 3]: three channels, bilinear with antialiasing.

    Raises:
        ValueError: Its pixels are 32-bit numbers, whose range nobody knows.
    """
    if image.mode.startswith("I;16"):
        # Pillow would cut all values above 255.
        grey = np.asarray(image).astype(np.float64) / 257.0
        image = Image.fromarray(np.rint(grey).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"its pixels must have 8 or 16 bits, but are of mode {image.mode}")
    image = image.convert("RGB")
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def from_arrays(
    uri: str,
    images: Pixels,
    labels: Labels,
    class_names: tuple[str, ...],
    predefined_test_from: int | None = None,
    left_out: str = "",
) -> Source:
    """Return images that are in memory as a source.

    Args:
        uri: Where they come from.
        images: Pixel values, uint8 [n, h, w, 3] or, for grey images, [n, h, w].
        labels: Class of each image, int64 [n], from 0.
        class_names: Name of each class.
        predefined_test_from: Index of the first test image, or ``None``.
        left_out: As of :class:`Source`.
    """

    def read(indices: NDArray[np.int64], size: int) -> Pixels:
        if images.shape[1:] == (size, size, 3):
            return images[indices]
        return np.stack([resize(Image.fromarray(images[i]), size) for i in indices])

    return Source(uri, labels, class_names, predefined_test_from, read, left_out=left_out)


def digits() -> Source:
    """Return scikit-learn's bundled digits: 1,797 grey images of 8x8 pixels, 10 classes."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)  # 17 levels of grey
    names = tuple(str(name) for name in bunch.target_names)
    return from_arrays("sklearn.datasets.load_digits", images, bunch.target.astype(np.int64), names)


def synthetic(n_images: int, seed: int) -> Source:
    """Return seeded images of ten classes that a network can learn but not at a glance.

    Each class is a random pattern of 4 by 4 coloured fields; an image is its pattern, shifted
    cyclically by up to one field each way, under noise as strong as the pattern.
    """
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(N_SYNTHETIC_CLASSES, 4, 4, 3))
    labels = np.arange(n_images, dtype=np.int64) % N_SYNTHETIC_CLASSES
    shifts = rng.integers(-1, 2, size=(n_images, 2))
    noise_seeds = rng.integers(2**63, size=n_images)

    def draw(index: int, size: int) -> Pixels:
        pattern = np.roll(patterns[labels[index]], shifts[index], axis=(0, 1))
        repeats = -(-size // 4)
        fields = pattern.repeat(repeats, 0).repeat(repeats, 1)[:size, :size]
        noise = np.random.default_rng(noise_seeds[index]).normal(size=(size, size, 3))
        image: Pixels = np.clip(128 + 40 * (fields + noise), 0, 255).astype(np.uint8)
        return image

    def read(indices: NDArray[np.int64], size: int) -> Pixels:
        return np.stack([draw(i, size) for i in indices])

    names = tuple(f"class_{i}" for i in range(N_SYNTHETIC_CLASSES))
    return Source(f"synthetic, seed {seed}", labels, names, None, read)


def download_cifar(name: str) -> None:
    """Have Keras download a CIFAR data set if it is not in Keras's cache.

    In a process of its own, because the caller may be one that must not import TensorFlow.

    Raises:
        OptionError: It cannot be downloaded.
    """
    cache = Path.home() / ".keras" / "datasets"  # Keras 2's get_file heeds no KERAS_HOME
    # Keras downloads and unpacks in place: what another process is about looks like a whole file,
    # and two that download at once spoil each other's.
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
    with locks.alone(cache):
        if not (cache / CIFAR_ARCHIVES[name]).is_file():
            _download(name)


def _download(name: str) -> None:
    program = (
        f"import socket; socket.setdefaulttimeout({DOWNLOAD_TIMEOUT_S}); "
        f"from keras.datasets import {name}; {name}.load_data()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise _no_cifar(name, lines[-1])


def cifar(name: str) -> Source:
    """Return ``cifar10`` or ``cifar100`` (fine labels) as Keras downloads and reads it.

    Raises:
        OptionError: It is not in Keras's cache and cannot be downloaded.
    """
    import keras

    timeout_before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
    try:
        parts = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception where it cannot download
        raise _no_cifar(name, str(error)) from error
    finally:
        socket.setdefaulttimeout(timeout_before)
    return from_keras(f"keras.datasets.{name}", parts)


def from_keras(uri: str, parts: tuple[tuple[Any, Any], tuple[Any, Any]]) -> Source:
    """Return both parts, training first, of what a `load_data` of Keras returns."""
    (train, train_labels), (test, test_labels) = parts
    labels = np.concatenate([train_labels, test_labels]).reshape(-1).astype(np.int64)
    names = tuple(str(i) for i in range(int(labels.max()) + 1))
    return from_arrays(uri, np.concatenate([train, test]), labels, names, len(train))


def _no_cifar(name: str, reason: str) -> OptionError:
    return OptionError(
        f"dataset {name} cannot be downloaded ({reason}); without a network use {ALTERNATIVES}"
    )


def npz(path: Path) -> Source:
    """Return the images of a NumPy archive.

    It holds either `images` and `labels`, or `x_train`, `y_train`, `x_test` and `y_test` as the
    archives of Keras do; and `class_names`, an array of text, if it likes. Images are uint8
    [n, h, w], [n, h, w, 1] or [n, h, w, 3]; labels are integers [n] or [n, 1]: indices of the
    classes, each of which occurs. Pickled objects are refused.

    Raises:
        OptionError: The archive cannot be read, or a key is missing or of another form.
    """
    if not zipfile.is_zipfile(path):
        raise OptionError(
            f"dataset {str(path)!r} cannot be read: it is no archive as numpy.savez makes"
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise OptionError(f"dataset {str(path)!r} cannot be read: {error}") from error
    if arrays.keys() >= _WHOLE:
        images, labels, test_from = arrays["images"], arrays["labels"], None
    elif arrays.keys() >= _PARTED:
        images = _joined(path, arrays["x_train"], arrays["x_test"])
        labels = _joined(path, arrays["y_train"], arrays["y_test"])
        test_from = len(arrays["x_train"])
    else:
        raise OptionError(
            f"dataset {str(path)!r} must hold images and labels, or x_train, y_train, x_test and "
            f"y_test, but holds {', '.join(sorted(arrays)) or 'nothing'}"
        )
    images, labels = _checked(path, images, labels)
    names = arrays.get("class_names", np.arange(len(np.unique(labels))))
    if names.ndim != 1:
        raise OptionError(
            f"class_names of {str(path)!r} must be a list, but has shape {names.shape}"
        )
    _check_labels(path, labels, len(names))
    used = {"class_names", *(_PARTED if test_from is not None else _WHOLE)}
    others = ", ".join(sorted(arrays.keys() - used))
    left_out = f"left out of {str(path)!r}: the arrays {others}" if others else ""
    class_names = tuple(str(name) for name in names)
    return from_arrays(str(path), images, labels.astype(np.int64), class_names, test_from, left_out)


def _joined(path: Path, train: NDArray[Any], test: NDArray[Any]) -> NDArray[Any]:
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise OptionError(
            f"the train and test arrays of {str(path)!r} must be of one shape and dtype, but are "
            f"{train.dtype} {train.shape} and {test.dtype} {test.shape}"
        )
    return np.concatenate([train, test])


def _checked(path: Path, images: NDArray[Any], labels: NDArray[Any]) -> tuple[Pixels, NDArray[Any]]:
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.dtype != np.uint8 or not (images.ndim == 3 or images.shape[3:] == (3,)):
        raise OptionError(
            f"images of {str(path)!r} must be uint8 [n, h, w], [n, h, w, 1] or [n, h, w, 3], but "
            f"are {images.dtype} {images.shape}"
        )
    if labels.shape == (len(images), 1):
        labels = labels[:, 0]
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise OptionError(
            f"labels of {str(path)!r} must be {len(images)} integers, one for each image, but are "
            f"{labels.dtype} {labels.shape}"
        )
    if not len(labels):
        raise OptionError(f"labels of {str(path)!r} must be at least one")
    return images, labels


def _check_labels(path: Path, labels: NDArray[Any], n_classes: int) -> None:
    """Refuse what is no index of a class: the network has as many outputs as there are classes."""
    found = np.unique(labels)
    if len(found) != n_classes or found[0] != 0 or found[-1] != n_classes - 1:
        shown = ", ".join(str(label) for label in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise OptionError(
            f"labels of {str(path)!r} must be indices of its {n_classes} classes, each of 0 to "
            f"{n_classes - 1} at least once, but are {shown}{more}: number the classes from 0"
        )
