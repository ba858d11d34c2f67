"""How pixel values are scaled: statistics of the training part, applied to every part.

Each level is one shift and one scale per channel, so that it costs the same at every level and
commutes with the mixing augmentations. NumPy alone: the served model uses the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from green_screen.space import SpaceError

KINDS = ("None", "standardization", "robust_scaling", "minmax")
_CHUNK = 1024  # images counted at once, so that the counts need little memory


@dataclass(frozen=True)
class Preprocessing:
    """A fitted scaling, ``(pixel - center) / scale`` per channel, of pixel values 0 to 255.

    Attributes:
        kind: The level: ``"None"``, ``standardization``, ``robust_scaling`` or ``minmax``.
        center: What is subtracted from each of the three channels, in pixel values.
        scale: What each channel is divided by afterwards, in pixel values.
    """

    kind: str
    center: tuple[float, float, float]
    scale: tuple[float, float, float]

    def apply(self, images: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scaled float32 images of shape [n, h, w, 3] for raw ones of values 0 to 255."""
        center = np.asarray(self.center, np.float32)
        factor = (1.0 / np.asarray(self.scale)).astype(np.float32)
        return (images.astype(np.float32) - center) * factor

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {"kind": self.kind, "center": list(self.center), "scale": list(self.scale)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Return what :meth:`to_dict` described."""
        return cls(
            kind=str(values["kind"]),
            center=_three(values["center"]),
            scale=_three(values["scale"]),
        )


def fit(images: NDArray[np.uint8], kind: str) -> Preprocessing:
    """Fit a scaling to training images.

    The statistics are exact: they are taken from the counts of the 256 pixel values.

    - ``"None"`` leaves the raw values, 0 to 255.
    - ``standardization``: channel mean and standard deviation (of the population).
    - ``robust_scaling``: channel median and interquartile range, quartiles by linear
      interpolation, as scikit-learn's RobustScaler. Where the quartiles are equal, which happens
      to images with much plain background, the scale is the standard deviation.
    - ``minmax``: the channel's smallest value becomes 0, its largest 1.

    A channel of one value alone is centered and not scaled.

    Args:
        images: The training part alone, uint8 [n, h, w, 3], n at least 1.
        kind: The level.

    Raises:
        SpaceError: The level is unknown.
        TypeError: The images are not uint8.
    """
    if kind not in KINDS:
        raise SpaceError(f"preprocessing must be one of {', '.join(KINDS)}, but got {kind!r}")
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8, but got {images.dtype}")
    if kind == "None":
        return Preprocessing(kind, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    fitted = [_fit_channel(counts, kind) for counts in _pixel_counts(images)]
    return Preprocessing(
        kind, _three([center for center, _ in fitted]), _three([scale for _, scale in fitted])
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _pixel_counts(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each pixel value occurs in each channel, int64 [3, 256]."""
    counts = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        for channel in range(3):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    return counts


def _fit_channel(counts: NDArray[np.int64], kind: str) -> tuple[float, float]:
    """Return center and scale of a channel whose value v occurs ``counts[v]`` times."""
    values = np.arange(256.0)
    present = np.flatnonzero(counts)
    low, high = float(present[0]), float(present[-1])
    if low == high:
        return low, 1.0
    mean = float(np.average(values, weights=counts))
    deviation = float(np.sqrt(np.average((values - mean) ** 2, weights=counts)))
    if kind == "standardization":
        return mean, deviation
    if kind == "minmax":
        return low, high - low
    lower, median, upper = (_quantile(counts, q) for q in (0.25, 0.5, 0.75))
    return median, (upper - lower) or deviation


def _quantile(counts: NDArray[np.int64], q: float) -> float:
    """Return the quantile of counted values, by linear interpolation between order statistics."""
    cumulative = np.cumsum(counts)
    position = q * (int(cumulative[-1]) - 1)
    below = int(np.floor(position))
    low, high = (
        int(np.searchsorted(cumulative, rank, side="right")) for rank in (below, below + 1)
    )
    return low + (position - below) * (min(high, 255) - low)
