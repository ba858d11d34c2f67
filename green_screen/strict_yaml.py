"""Reads YAML in which every value is what a reader sees; anything else is refused.

YAML 1.1 turns ``010`` into 8, ``1:30`` into 90 and ``no`` into false, takes the last of two equal
keys, copies by anchors, and ends a comment at a character that no editor shows. What is left is
mappings, lists, texts, decimal numbers, ``true``, ``false`` and ``null``, in UTF-8.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Value = Any  # text, number, bool, None, or a list or a mapping of them

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_PADDED = re.compile(r"[-+]?0[0-9]+([._eE][-+0-9_eE]*)?")
_WORDS = {"true": True, "false": False, "null": None}
_RESOLVER: Any = yaml.resolver.Resolver()
_STRING = "tag:yaml.org,2002:str"
_INVISIBLE = ("Cc", "Cf", "Zl", "Zp")  # control, format, line and paragraph separators
_MAX_DEPTH = 20


class YamlError(ValueError):
    """A text that is no YAML, or YAML that does not mean what it looks like."""


def number(text: str) -> float:
    """Return the number that a text shows in decimal notation, such as 10, 0.01 or 1e-3.

    Raises:
        ValueError: It shows none, also where Python knows one: ``1_000``, ``010``, ``inf``.
    """
    text = text.strip()
    value = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no decimal number")
    return value


def integer(text: str) -> int:
    """Return the integer that a text shows in decimal notation.

    Raises:
        ValueError: It shows none.
    """
    if not _INTEGER.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is no decimal integer")
    return int(text)


def read(path: Path) -> Value:
    """Return what a YAML file holds.

    Raises:
        OSError: It cannot be read.
        YamlError: It is not UTF-8, or as :func:`parse`.
    """
    try:
        return parse(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise YamlError(
            f"it is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}; save it as "
            "UTF-8"
        ) from None


def parse(text: str) -> Value:
    """Return what a YAML text holds.

    Raises:
        YamlError: Something in it is no YAML, or can be misread; the message names the line.
    """
    text = text.replace("\r\n", "\n")
    for number_of_line, line in enumerate(text.split("\n"), start=1):
        for character in line:
            if character != "\t" and unicodedata.category(character) in _INVISIBLE:
                raise YamlError(
                    f"line {number_of_line}: the invisible character U+{ord(character):04X} must go"
                )
    try:
        events = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        return _document(events)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        said = ", ".join(filter(None, (error.context, error.problem)))
        raise YamlError(where + said) from None
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from None


def _document(events: Iterator[yaml.Event]) -> Value:
    next(events)  # the stream's start
    start = next(events)
    if not isinstance(start, yaml.DocumentStartEvent):
        raise YamlError("it is empty")
    if start.version or start.tags:
        raise _refused(start, "a directive")
    value = _value(next(events), events, 0)
    next(events)  # the document's end
    more = next(events)
    if not isinstance(more, yaml.StreamEndEvent):
        raise _refused(more, "a second document")
    return value


def _value(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Value:
    """Return the value that begins with an event, and take all its events."""
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise _refused(event, "an anchor or a reference to one")
    if getattr(event, "tag", None):
        raise _refused(event, "a tag")
    if depth > _MAX_DEPTH:
        raise YamlError(f"line {_line(event)}: more than {_MAX_DEPTH} lists or mappings deep")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Value] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(_value(event, events, depth + 1))
        return items
    mapping: dict[str, Value] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = _value(event, events, depth + 1)
        if not isinstance(key, str):
            raise YamlError(f"line {_line(event)}: the key {key!r} must be a text")
        key = key.strip()
        if key in mapping:
            raise YamlError(f"line {_line(event)}: {key} is given twice")
        value = next(events)
        if isinstance(value, yaml.ScalarEvent) and value.implicit[0] and not value.value:
            raise YamlError(f"line {_line(event)}: {key} has no value")
        mapping[key] = _value(value, events, depth + 1)
    return mapping


def _scalar(event: yaml.ScalarEvent) -> Value:
    text: str = event.value
    if event.style is not None:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _DECIMAL.fullmatch(text):
        try:
            return integer(text) if _INTEGER.fullmatch(text) else number(text)
        except ValueError as error:  # more digits than Python reads, or too large
            raise YamlError(f"line {_line(event)}: {error}") from None
    tag = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False))
    if tag == _STRING and not _PADDED.fullmatch(text):
        return text
    kind = "number" if tag == _STRING else tag.rpartition(":")[2]
    raise YamlError(
        f"line {_line(event)}: {text!r} is a YAML {kind} that can be misread: write a decimal "
        "number such as 10, 0.01 or 1e-3, or put a text in quotes"
    )


def _refused(event: yaml.Event, what: str) -> YamlError:
    return YamlError(f"line {_line(event)}: {what} is not allowed: write each value out")


def _line(event: yaml.Event) -> int:
    mark: Any = event.start_mark
    return int(mark.line) + 1
