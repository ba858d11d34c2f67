"""Class folders of image files, in a folder or in a .zip.

Images lie in ``CLASS/name.jpg``, or in ``train/CLASS/name.jpg`` and ``test/CLASS/name.jpg``, under
any number of common folders. An archive is read in memory and never extracted: a name inside it
cannot reach the file system. Links in a folder are followed, also those to folders.
"""

from __future__ import annotations

import io
import os
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from green_screen.data.datasets import Pixels, Source, resize
from green_screen.options import OptionError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_IMAGE_BYTES = 64 * 2**20  # of one unpacked file; more is no photograph
PARTS = ("train", "test")
_SHOWN = 5  # of a list that may be long
_CHUNK = 64  # images that a thread decodes at a time
# What the interpreter itself takes for an image, with the handing over of its lock: a thread more
# pays where an image takes so much longer. 60,000 images of 32 pixels took 20 threads on 16 cores
# 21 s; to open and decode them on 2 cores took six threads 10 s, and one 5.8 s.
_INTERPRETED_S = 2e-4

_T = TypeVar("_T")
_ReadFile = Callable[[str], bytes]
_Parts = tuple[str, ...]  # of a name: folders and file


@dataclass(frozen=True)
class _Layout:
    """Image files in order, the training ones first, and what their folders say."""

    files: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    predefined_test_from: int | None
    left_out: str


def folder(path: Path) -> Source:
    """Return the images of a folder of class folders.

    Raises:
        OptionError: It holds no images, they do not lie in class folders, or a folder of it cannot
            be read.
    """
    files = list(_walk(path, "", frozenset()))
    reader = nullcontext(lambda file: (path / file).read_bytes())
    return _source(path, _layout(path, files), lambda: reader)


def _walk(root: Path, inside: str, above: frozenset[Path]) -> Iterator[str]:
    """Yield the names of what lies below a folder as a .zip has them: folders end in a slash."""
    folder = root / inside
    real = folder.resolve()
    if real in above:
        raise OptionError(f"the link {str(folder)!r} leads to a folder that it lies in: remove it")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise OptionError(f"folder {str(folder)!r} cannot be read: {error}") from error
    for entry in entries:
        name = inside + entry.name
        if entry.is_dir() and not _is_hidden((entry.name,)):
            yield f"{name}/"
            yield from _walk(root, f"{name}/", above | {real})
        else:
            yield name


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
    twice = [name for name, count in Counter(files).items() if count > 1 and name[-1:] != "/"]
    if twice:
        raise OptionError(f"dataset {str(path)!r} holds {twice[0]!r} twice: pack it anew")

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
    def decode(read_file: _ReadFile, size: int, index: int) -> Pixels | str:
        """Return the image, or why there is none."""
        try:
            with Image.open(io.BytesIO(read_file(layout.files[index]))) as image:
                _check_frames(image)
                return resize(image, size)
        # Pillow and zipfile raise many kinds for broken, encrypted and oversized files.
        except Exception as error:
            return f"{layout.files[index]!r} ({error})"

    def decoded(indices: NDArray[np.int64], size: int) -> Iterator[Pixels]:
        broken = []
        with reader() as read_file:
            for result in _in_threads(partial(decode, read_file, size), indices):
                if isinstance(result, str):
                    broken.append(result)
                else:
                    yield result
        if broken:
            more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
            raise OptionError(
                f"{len(broken)} of {len(indices)} images of {str(path)!r} cannot be used: "
                f"{', '.join(broken[:_SHOWN])}{more}: repair or remove them"
            )

    def read(indices: NDArray[np.int64], size: int) -> Pixels:
        return np.stack(list(decoded(indices, size)))

    def check(indices: NDArray[np.int64]) -> None:
        for _ in decoded(indices, size=1):
            pass

    return Source(
        str(path),
        layout.labels,
        layout.class_names,
        layout.predefined_test_from,
        read,
        check,
        layout.left_out,
    )


def _in_threads(function: Callable[[int], _T], items: NDArray[np.int64]) -> Iterator[_T]:
    """Yield a function's results in order, from as many threads as make that faster.

    Pillow decodes without the interpreter's lock, but holds it for all else: small images are done
    sooner by one thread.
    """
    durations_s = []
    for item in items[:_CHUNK]:
        began_s = time.perf_counter()
        result = function(item)
        durations_s.append(time.perf_counter() - began_s)
        yield result
    n_threads = min(os.cpu_count() or 1, int(median(durations_s) / _INTERPRETED_S))
    if n_threads < 2:
        yield from map(function, items[_CHUNK:])
        return
    chunks = [items[start : start + _CHUNK] for start in range(_CHUNK, len(items), _CHUNK)]
    with ThreadPoolExecutor(n_threads) as pool:
        for results in pool.map(lambda chunk: [function(item) for item in chunk], chunks):
            yield from results


def _check_frames(image: Image.Image) -> None:
    """Refuse an animation or a stack, of which the first frame alone would be read.

    Cameras put previews behind a photograph (the form MPO): those are no frames of it.
    """
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise ValueError(f"it holds {frames} frames: store each as an image of its own")


def _layout(path: Path, files: Iterable[str]) -> _Layout:
    """Read parts and classes from the folders that image files lie in."""
    places = [(name, parts) for name in files if (parts := _parts(name))]
    paths = [(name, parts) for name, parts in places if not name.endswith("/")]
    folders = {parts for name, parts in places if name.endswith("/")}
    images = [(name, parts) for name, parts in paths if _is_image(parts)]
    if not images:
        raise OptionError(
            f"dataset {str(path)!r} holds no images in class folders; known are "
            f"{', '.join(SUFFIXES)}"
        )
    first, place = images[0][0], _place(images[0][1])
    for name, parts in images:
        if _place(parts) != place or len(parts) < 2:
            raise OptionError(
                f"every image of {str(path)!r} must lie in CLASS/ or every one in train/CLASS/ and "
                f"test/CLASS/, but it holds {first!r} and {name!r}"
            )
    images.sort(key=lambda image: (_part(image[1]) == "test", image[1]))
    classes, labels = np.unique([parts[-2] for _, parts in images], return_inverse=True)
    if len(classes) < 2:
        raise OptionError(f"dataset {str(path)!r} must hold at least two classes, but holds 1")
    n_train = sum(_part(parts) != "test" for _, parts in images)
    others = [parts for _, parts in paths if not _is_image(parts)]
    return _Layout(
        files=tuple(name for name, _ in images),
        labels=labels.astype(np.int64),
        class_names=tuple(str(name) for name in classes),
        predefined_test_from=n_train if 0 < n_train < len(images) else None,
        left_out=_left_out(path, {parts[:-1] for _, parts in images}, others, folders),
    )


def _left_out(path: Path, used: set[_Parts], others: list[_Parts], folders: set[_Parts]) -> str:
    """Return what is no image, by kind, and the folders that would be a class if they had one.

    Args:
        path: Of the data set.
        used: The folders that images lie in.
        others: The files that are no images.
        folders: Those that the data set names.
    """
    kinds = Counter(
        "hidden" if _is_hidden(file) else _suffix(file) or "without a suffix" for file in others
    )
    texts = [f"{count} {kind}" for kind, count in sorted(kinds.items())]
    folders = folders | {file[:-1] for file in others}
    folders -= {folder[:depth] for folder in used for depth in range(len(folder) + 1)}
    without = sorted("/".join(f) for f in folders if f[:-1] not in folders and not _is_hidden(f))
    if without:
        more = f" and {len(without) - _SHOWN} more" if len(without) > _SHOWN else ""
        texts.append(f"{', '.join(without[:_SHOWN])}{more}, where no image is")
    return f"left out of {str(path)!r}: {', '.join(texts)}" if texts else ""


# Names are taken apart here: a .zip of 60,000 took 3.4 to 4.5 s to open by pathlib, 1.0 s so.
def _parts(name: str) -> _Parts:
    return tuple(part for part in name.split("/") if part not in ("", "."))


def _suffix(file: _Parts) -> str:
    stem, dot, suffix = file[-1].rpartition(".")
    return f".{suffix.lower()}" if stem and dot and suffix else ""


def _part(image: _Parts) -> str | None:
    return image[-3] if len(image) > 2 and image[-3] in PARTS else None


def _place(image: _Parts) -> tuple[_Parts, bool]:
    """Return the folders above part and class, and whether there is a part."""
    has_part = _part(image) is not None
    return image[: -3 if has_part else -2], has_part


def _is_image(file: _Parts) -> bool:
    return _suffix(file) in SUFFIXES and not _is_hidden(file)


def _is_hidden(path: _Parts) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path)
