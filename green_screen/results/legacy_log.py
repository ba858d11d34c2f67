"""Reads the ``logs.csv`` of a run made elsewhere: every cell is what it must be, or is named.

Times are seconds, or ISO 8601 dates such as ``2026-04-11T23:59:50.25+02:00``; the letter T may be a
space, and fraction and offset may be missing. A file keeps to one of these forms: a date like
``12/04/2026`` is a day in April to some and in December to others.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from green_screen import strict_yaml

EPOCH, TIME, POWER = "epoch", "time", "gpu_power_W"
LEARNING = ("loss", "accuracy", "val_loss", "val_accuracy")
REQUIRED = (EPOCH, TIME, *LEARNING, POWER)

# The largest boards of 2026 may draw 1,400 W: more was not in watts, or not of one board.
MAX_POWER_W = 2000.0
# As seconds this is the year 5138: such a stamp counts milliseconds.
_MAX_TIME_S = 1e11
_ISO_8601 = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(?P<offset>Z|[-+]\d\d(:?\d\d)?)?"
)
_NOT_FINITE = ("nan", "inf", "-inf")  # a loss may be that: the training diverged

Numbers = npt.NDArray[np.float64]


class LegacyError(ValueError):
    """A folder that is not a complete run of the public form."""


@dataclass(frozen=True)
class Log:
    """The rows of a ``logs.csv``: ``pre``, one an epoch, ``post``.

    Attributes:
        cells: Column -> its texts, one a row.
        places: Where each row is, for messages.
    """

    cells: dict[str, list[str]]
    places: tuple[str, ...]

    def seconds(self) -> Numbers:
        """Return the rows' moments in seconds; they increase.

        Raises:
            LegacyError: One is of no known form or not of the first one's, or comes too early.
        """
        texts = self.cells[TIME]
        dates = _ISO_8601.fullmatch(texts[0])
        seconds = []
        for place, text in zip(self.places, texts, strict=True):
            try:
                seconds.append(_since(texts[0], text) if dates else _seconds(text))
            except ValueError as error:
                raise LegacyError(
                    f"{place}: time {text!r} {error}: all times must be seconds, or all must be "
                    "ISO 8601 such as 2026-04-11 23:59:50 or 2026-04-11T23:59:50.25+02:00"
                ) from None
        for row in range(1, len(seconds)):
            if not seconds[row] > seconds[row - 1]:
                raise LegacyError(
                    f"{self.places[row]}: time must increase from each row to the next, but "
                    f"{texts[row]} follows {texts[row - 1]}"
                )
        return np.array(seconds)

    def power_w(self) -> Numbers:
        """Return the rows' power in watts.

        Raises:
            LegacyError: One is missing, no number, or what no board draws.
        """
        power = []
        for place, text in zip(self.places, self.cells[POWER], strict=True):
            try:
                power.append(strict_yaml.number(text))
            except ValueError:
                raise LegacyError(f"{place}: {POWER} must be a number, but is {text!r}") from None
            if not 0 < power[-1] <= MAX_POWER_W:
                raise LegacyError(
                    f"{place}: {POWER} must be above 0 W and at most {MAX_POWER_W:.0f} W, as of a "
                    f"board, but is {text}"
                )
        return np.array(power)

    def learning(self, column: str) -> Numbers:
        """Return a loss or an accuracy of the epochs; NaN where there is none.

        Raises:
            LegacyError: One is no number, an accuracy is no fraction, or a training loss is
                missing: it alone tells whether the training diverged.
        """
        values = []
        for place, text in zip(self.places[1:-1], self.cells[column][1:-1], strict=True):
            if column == LEARNING[0] and not text:
                raise LegacyError(f"{place}: {column} is missing")
            try:
                value = float(text) if text.lower() in _NOT_FINITE else _or_nan(text)
            except ValueError:
                raise LegacyError(f"{place}: {column} must be a number, but is {text!r}") from None
            if column.endswith("accuracy"):
                check_accuracy(f"{place}: {column}", value)
            values.append(value)
        return np.array(values)

    def reading(self, column: str) -> Numbers:
        """Return what a board told beside its power; NaN where it did not."""
        values = []
        for text in self.cells.get(column, [""] * len(self.places)):
            try:
                values.append(_or_nan(text))
            except ValueError:  # such as "[Not Supported]"
                values.append(np.nan)
        return np.array(values)


def check_accuracy(what: str, value: float) -> None:
    """Refuse an accuracy that is no fraction, such as one in percent; NaN is none.

    Raises:
        LegacyError: It is below 0 or above 1.
    """
    if value < 0 or value > 1:
        raise LegacyError(f"{what} must be a fraction from 0 to 1, but is {value}")


def read_log(path: Path) -> Log:
    """Read the file.

    Raises:
        LegacyError: It is missing or no such table; a row or a column is missing or twice.
    """
    header, *rows = _rows(path)
    names = [name.strip() for name in header[1]]
    absent = [column for column in REQUIRED if column not in names]
    if absent:
        raise LegacyError(f"{path.name} lacks the columns {', '.join(absent)}")
    for name in names:
        if names.count(name) > 1:
            raise LegacyError(f"{path.name} has the column {name} twice")
    for place, row in rows:
        if any(cell.strip() for cell in row[len(names) :]):
            raise LegacyError(f"{place}: {len(row)} cells under {len(names)} columns")
    cells = {
        name: [row[i].strip() if i < len(row) else "" for _, row in rows]
        for i, name in enumerate(names)
    }
    _check_epochs(path, cells[EPOCH])
    return Log(cells, tuple(place for place, _ in rows))


def _rows(path: Path) -> list[tuple[str, list[str]]]:
    """Return the rows that are not blank, the header first, and where each is."""
    if not path.is_file():
        raise LegacyError(f"{path.name} is missing")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            rows = [(f"{path.name}, line {reader.line_num}", row) for row in reader if row]
    except UnicodeDecodeError:
        raise LegacyError(f"{path.name} is not UTF-8") from None
    except csv.Error as error:
        raise LegacyError(f"{path.name}: {error}") from None
    if not rows:
        raise LegacyError(f"{path.name} is empty")
    return rows


def _check_epochs(path: Path, marks: list[str]) -> None:
    if len(marks) < 3 or marks[0].lower() != "pre" or marks[-1].lower() != "post":
        raise LegacyError(f"{path.name} must have a row pre, one row an epoch and a row post")
    try:
        numbers = [strict_yaml.number(mark) for mark in marks[1:-1]]
    except ValueError:
        numbers = [np.nan]
    if numbers != [numbers[0] + i for i in range(len(marks) - 2)]:
        raise LegacyError(f"{path.name}: epochs must count up by one, but are {marks[1:-1]}")


def _or_nan(text: str) -> float:
    return strict_yaml.number(text) if text else np.nan


def _seconds(text: str) -> float:
    try:
        seconds = strict_yaml.number(text)
    except ValueError:
        raise ValueError("is not in seconds") from None
    if seconds >= _MAX_TIME_S:
        raise ValueError("is too large for seconds")
    return seconds


def _since(first: str, text: str) -> float:
    """Return the seconds from one date to another."""
    begin, end = _ISO_8601.fullmatch(first), _ISO_8601.fullmatch(text)
    assert begin is not None
    if end is None:
        raise ValueError("is not ISO 8601")
    if (begin["offset"] is None) != (end["offset"] is None):
        raise ValueError(f"and {first!r} must both have an offset or both none")
    try:
        return (datetime.fromisoformat(text) - datetime.fromisoformat(first)).total_seconds()
    except ValueError as error:
        raise ValueError(f"is no date ({error})") from None
