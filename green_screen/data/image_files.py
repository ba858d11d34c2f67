"""Class folders of image files, in a folder or in a .zip.

Images lie in ``CLASS/name.jpg``, or in ``train/CLASS/name.jpg`` and ``test/CLASS/name.jpg``, under
any number of common folders. An archive is read in memory and never extracted: a name inside it
cannot reach the file system.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from green_screen.data.datasets import Pixels, Source, resize
from green_screen.options import OptionError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_IMAGE_BYTES = 64 * 2**20  # of one unpacked file; more is no photograph
PARTS = ("train", "test")

_ReadFile = Callable[[str], bytes]


@dataclass(frozen=True)
class _Layout:
    """Image files in order, the training ones first, and what their folders say."""

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    predefined_test_from: int | None


def folder(path: Path) -> Source:
    """Return the images of a folder of class folders.

    Raises:
        OptionError: It holds no images, or they do not lie in class folders.
    """
    files = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    reader = nullcontext(lambda file: (path / file).read_bytes())
    return _source(path, _layout(path, files), lambda: reader)


def archive(path: Path) -> Source:
    """Return the images of a .zip of class folders.

    Raises:
        OptionError: It is no .zip, holds no images, or they do not lie in class folders.
    """
    try:
        with zipfile.ZipFile(path) as opened:
            files = opened.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise OptionError(f"dataset {str(path)!r} cannot be read: {error}") from error

    @contextmanager
    def reader() -> Iterator[_ReadFile]:
        with zipfile.ZipFile(path) as opened:
            yield lambda file: _unpacked(opened, file)

    return _source(path, _layout(path, files), reader)


def _unpacked(opened: zipfile.ZipFile, file: str) -> bytes:
    with opened.open(file) as member:
        content = member.read(MAX_IMAGE_BYTES + 1)
    if len(content) > MAX_IMAGE_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_IMAGE_BYTES} bytes")
    return content


def _source(
    path: Path, layout: _Layout, reader: Callable[[], AbstractContextManager[_ReadFile]]
) -> Source:
    def read(indices: NDArray[np.int64], size: int) -> Pixels:
        def decode(read_file: _ReadFile, index: int) -> Pixels:
            file = layout.files[index]
            try:
                with Image.open(io.BytesIO(read_file(file))) as image:
                    return resize(image, size)
            # Pillow and zipfile raise many kinds for broken, encrypted and oversized files.
            except Exception as error:
                raise OptionError(
                    f"image {file!r} of {str(path)!r} is unreadable: {error}"
                ) from error

        # Pillow decodes without the interpreter's lock.
        with reader() as read_file, ThreadPoolExecutor() as pool:
            return np.stack(list(pool.map(partial(decode, read_file), indices)))

    return Source(str(path), layout.labels, layout.class_names, layout.predefined_test_from, read)


def _layout(path: Path, files: Iterable[str]) -> _Layout:
    """Read parts and classes from the folders that image files lie in."""
    images = [PurePosixPath(file) for file in files if _is_image(PurePosixPath(file))]
    if not images:
        raise OptionError(
            f"dataset {str(path)!r} holds no images in class folders; known are "
            f"{', '.join(SUFFIXES)}"
        )
    for image in images:
        if _place(image) != _place(images[0]) or len(image.parts) < 2:
            raise OptionError(
                f"every image of {str(path)!r} must lie in CLASS/ or every one in train/CLASS/ and "
                f"test/CLASS/, but it holds {str(images[0])!r} and {str(image)!r}"
            )
    images.sort(key=lambda image: (_part(image) == "test", image))
    names, labels = np.unique([image.parts[-2] for image in images], return_inverse=True)
    if len(names) < 2:
        raise OptionError(f"dataset {str(path)!r} must hold at least two classes, but holds 1")
    n_train = sum(_part(image) != "test" for image in images)
    return _Layout(
        files=tuple(str(image) for image in images),
        labels=labels.astype(np.int64),
        class_names=tuple(str(name) for name in names),
        predefined_test_from=n_train if 0 < n_train < len(images) else None,
    )


def _part(image: PurePosixPath) -> str | None:
    return image.parts[-3] if len(image.parts) > 2 and image.parts[-3] in PARTS else None


def _place(image: PurePosixPath) -> tuple[tuple[str, ...], bool]:
    """Return the folders above part and class, and whether there is a part."""
    has_part = _part(image) is not None
    return image.parts[: -3 if has_part else -2], has_part


def _is_image(file: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in file.parts)
    return file.suffix.lower() in SUFFIXES and not hidden
