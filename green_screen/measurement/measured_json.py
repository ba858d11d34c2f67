"""What was measured of a run as JSON, for the process that goes on with it."""

from __future__ import annotations

import dataclasses
from typing import Any

from green_screen.measurement.run_record import Epoch, Measured
from green_screen.power.reading import CarbonReading, DeviceReading, EnergyReading

_OF_READINGS = ("totals", "outside", "phases", "steady_spans")


def to_json(measured: Measured) -> dict[str, Any]:
    """Return dictionaries, lists, texts and numbers, NaN among them."""
    return dataclasses.asdict(measured)


def from_json(content: dict[str, Any]) -> Measured:
    """Return what :func:`to_json` was given.

    Raises:
        KeyError: A part of it is missing.
        TypeError: It was written by another version, which knew other figures.
    """
    parts: dict[str, tuple[Any, ...]] = {name: tuple(part) for name, part in content.items()}
    readings = {name: tuple(map(_reading, parts[name])) for name in _OF_READINGS}
    return Measured(**{**parts, **readings, "epochs": tuple(map(_epoch, parts["epochs"]))})


def _epoch(content: dict[str, Any]) -> Epoch:
    validation = content["validation"]
    read = {
        "reading": _reading(content["reading"]),
        "validation": validation and _reading(validation),
    }
    return Epoch(**{**content, **read})


def _reading(content: dict[str, Any]) -> EnergyReading:
    carbon = {**content["carbon"], "covers": tuple(content["carbon"]["covers"])}
    devices = tuple(DeviceReading(**device) for device in content["devices"])
    return EnergyReading(**{**content, "devices": devices, "carbon": CarbonReading(**carbon)})
