"""Green Screen: what training a neural network costs in energy, measured.

The public names are imported on first use, so that a parent of many runs, which must hold no GPU
memory, never loads TensorFlow by importing this package.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from green_screen.measurement.callback import SMICallback
    from green_screen.measurement.lightning_callback import LightningEnergyCallback
    from green_screen.measurement.transformers_callback import TransformersEnergyCallback
    from green_screen.power.measured import measured
    from green_screen.power.meter import EnergyMeter, EnergyReading

# Nothing is sent to anybody. MLflow reads this as it is imported, and whoever imports it first does
# so after this package; processes that are started from here inherit it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# The one definition: pyproject.toml reads it, and it is there without the project being installed.
__version__ = "1.1.0"

__all__ = [
    "EnergyMeter",
    "EnergyReading",
    "LightningEnergyCallback",
    "SMICallback",
    "TransformersEnergyCallback",
    "measured",
]

_HOMES = {
    "EnergyMeter": "green_screen.power.meter",
    "EnergyReading": "green_screen.power.meter",
    "LightningEnergyCallback": "green_screen.measurement.lightning_callback",
    "SMICallback": "green_screen.measurement.callback",
    "TransformersEnergyCallback": "green_screen.measurement.transformers_callback",
    "measured": "green_screen.power.measured",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            if error.name not in ("lightning", "transformers"):
                raise
            raise ModuleNotFoundError(
                f"{name} needs {error.name}, which is not installed: pip install {error.name}",
                name=error.name,
            ) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
