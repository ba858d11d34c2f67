"""Which of the figures that Keras gives a callback are a training's loss, accuracy and rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from green_screen import names
from green_screen.measurement.any_keras import keras_of

# What Keras calls the accuracy of a model with one output, the plainest first.
_ACCURACIES = (
    "accuracy",
    "acc",
    "categorical_accuracy",
    "sparse_categorical_accuracy",
    "binary_accuracy",
)


def figures(training: Mapping[str, Any], validation: Mapping[str, Any]) -> dict[str, float]:
    """Return loss and accuracy under our names; what is not certainly one of them is left out.

    Args:
        training: What Keras says at an epoch's end. What begins with ``val_`` there is not looked
            at: it may be of the validation, or of an output with such a name.
        validation: What Keras says at the validation's end; empty without one.
    """
    of_training = {key: v for key, v in training.items() if not str(key).startswith("val_")}
    found: dict[str, float] = {}
    for prefix, logs in (("", of_training), ("val_", validation)):
        for name, key in ((names.LOSS, "loss"), (names.ACCURACY, _accuracy(logs))):
            value = number(logs.get(key)) if key else None
            if value is not None:
                found[prefix + name] = value
    return found


def unclear(training: Mapping[str, Any]) -> dict[str, str]:
    """Return why there is no accuracy where there are several, or some of another kind."""
    others = [key for key in map(str, training) if key.endswith(("accuracy", "acc"))]
    if names.ACCURACY in figures(training, {}) or not others:
        return {}
    return {names.ACCURACY: f"Keras names none of these plainly so: {', '.join(others)}"}


def _accuracy(logs: Mapping[str, Any]) -> str | None:
    """Return the key of the accuracy of all that a model answers.

    A model of several outputs has a loss for each, and names each one's accuracy after it: that of
    an output ``binary`` is ``binary_accuracy``, which is the name of a metric as well.
    """
    outputs = tuple(str(key).removesuffix("loss") for key in logs if str(key).endswith("_loss"))
    return next(
        (k for k in _ACCURACIES if k in logs and not (outputs and k.startswith(outputs))), None
    )


def number(value: Any) -> float | None:
    """Return a single number as such; ``None`` for text, vectors, dictionaries and the like."""
    if isinstance(value, str | bytes) or np.iscomplexobj(value):
        return None
    try:
        return float(value)
    except Exception:  # a training step may return anything, and no training is worth it
        return None


def learning_rate(model: Any) -> tuple[float, str]:
    """Return a model's learning rate now and ``""``, or NaN and why there is none."""
    optimizer: Any = getattr(model, "optimizer", None)
    try:
        rate = getattr(optimizer, "learning_rate", None)
        if callable(rate):
            rate = rate(optimizer.iterations)
        if rate is None:
            return math.nan, "the model has no optimizer with a learning rate"
        found = number(rate)
        if found is None:  # Keras 2 without eager execution
            found = number(keras_of(optimizer).backend.get_value(rate))
    except Exception as error:  # as above
        return math.nan, f"its learning rate cannot be read: {type(error).__name__}: {error}"
    return (math.nan, "its learning rate is not one number") if found is None else (found, "")
