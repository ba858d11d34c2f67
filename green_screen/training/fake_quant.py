"""Fake quantization as a formula over whole tensors, for any number of channels at once.

TensorFlow's GPU kernel of ``fake_quant_with_min_max_vars_per_channel`` and that of its gradient
loop over the channels on the host and launch a kernel for each (26,560 channels in ResNet-50), and
the per-tensor kernels copy their range to the host first, which makes the host wait for the GPU.
The formula here has the same values and gradients, as `tests/training/test_fake_quant.py` shows,
and knows no loop and no copy. Definition: Jacob et al. 2018, arXiv:1712.05877, with the rounding of
``tensorflow/core/kernels/fake_quant_ops_functor.h``.

On a GPU each quantizer is one XLA program (as Keras does with its optimizers' updates): one launch
instead of some forty. That belongs to the quantizer: the network around it is not compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow_model_optimization.python.core.quantization.keras import quantizers

EMA_DECAY = 0.999  # of the activations' ranges; tensorflow-model-optimization's constant


class _Grid(NamedTuple):
    """The grid of representable values: `low` to `high` in steps of `step`."""

    low: Any
    high: Any
    step: Any
    steps_per_unit: Any
    zero_point: Any


def _nudge(low: Any, high: Any, quant_min: float, quant_max: float) -> _Grid:
    """Shift a range so that zero is one of its values, which zero padding relies on."""
    step = (high - low) / (quant_max - quant_min)
    steps_per_unit = (quant_max - quant_min) / (high - low)
    position = quant_min - low / step
    whole = tf.floor(position)
    # Half away from zero; `tf.round` would go to even.
    nearest = whole + tf.cast(position - whole >= 0.5, position.dtype)
    zero = tf.minimum(tf.maximum(nearest, quant_min), quant_max)
    nudged_low = (quant_min - zero) * step
    return _Grid(
        low=nudged_low,
        high=(quant_max - zero) * step,
        step=step,
        steps_per_unit=steps_per_unit,
        zero_point=tf.floor(-nudged_low * steps_per_unit + 0.5),
    )


def fake_quant(
    inputs: Any, low: Any, high: Any, *, num_bits: int = 8, narrow_range: bool = False
) -> Any:
    """Round `inputs` to the 2**num_bits values between `low` and `high`, in float32.

    Equal to ``tf.quantization.fake_quant_with_min_max_vars`` for scalar ranges and to its
    ``_per_channel`` form for ranges of one value a channel, with their straight-through gradients.

    Args:
        inputs: float32, any shape; channels last.
        low: Lower ends, shape ``[]`` or ``[channels]``; at most 0.
        high: Upper ends, of the same shape; at least 0. Where both ends are 0 the output is 0 and
            the gradient passes.
        num_bits: Width of the integer that is imitated.
        narrow_range: Whether the lowest integer is left out, so that the range is symmetric.
    """
    quant_min, quant_max = (1.0 if narrow_range else 0.0), float(2**num_bits - 1)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def quantize(x: Any, low: Any, high: Any) -> tuple[Any, Any]:
        grid = _nudge(low, high, quant_min, quant_max)
        empty = tf.logical_and(tf.equal(low, 0.0), tf.equal(high, 0.0))
        shifted = tf.maximum(tf.minimum(x, grid.high), grid.low) - grid.low
        # TensorFlow's per-tensor kernel divides by the step, its per-channel kernel multiplies.
        scaled = shifted * grid.steps_per_unit if low.shape.rank else shifted / grid.step
        rounded = tf.floor(scaled - grid.zero_point + 0.5) * grid.step
        outputs = tf.where(empty, tf.zeros_like(x), rounded)

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            below = tf.logical_and(x < grid.low, ~empty)
            above = tf.logical_and(x > grid.high, ~empty)
            inside = tf.logical_or(tf.logical_and(x >= grid.low, x <= grid.high), empty)
            nothing = tf.zeros_like(upstream)
            axes = list(range(x.shape.rank - 1)) if low.shape.rank else None
            return (
                tf.where(inside, upstream, nothing),
                tf.reduce_sum(tf.where(below, upstream, nothing), axes),
                tf.reduce_sum(tf.where(above, upstream, nothing), axes),
            )

        return outputs, gradient

    return quantize(
        tf.convert_to_tensor(inputs), tf.convert_to_tensor(low), tf.convert_to_tensor(high)
    )


def _observe(inputs: Any, *, per_axis: bool, symmetric: bool, narrow_range: bool) -> Any:
    """Return the range of a batch, which always holds zero."""
    axes = list(range(inputs.shape.rank - 1)) if per_axis else None
    low, high = tf.reduce_min(inputs, axes), tf.reduce_max(inputs, axes)
    if not symmetric:
        return tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    ratio = -1.0 if narrow_range else -254.0 / 256.0
    return tf.minimum(low, high / ratio), tf.maximum(high, low * ratio)


def _train(inputs: Any, low: Any, high: Any, *, update: str, **spec: bool) -> tuple[Any, Any, Any]:
    """Update a range by a batch and quantize the batch with it."""
    observed_low, observed_high = _observe(inputs, **spec)
    if update == "average":
        low -= (low - observed_low) * (1.0 - EMA_DECAY)
        high -= (high - observed_high) * (1.0 - EMA_DECAY)
    elif update == "extremes":
        low, high = tf.minimum(low, observed_low), tf.maximum(high, observed_high)
    else:
        low, high = observed_low, observed_high
    # The range is state, not a function to be differentiated.
    low, high = tf.stop_gradient(low), tf.stop_gradient(high)
    return fake_quant(inputs, low, high, narrow_range=spec["narrow_range"]), low, high


# Whether quantizers are traced as XLA programs; None is where there is a GPU.
_compile: ContextVar[bool | None] = ContextVar("compile", default=None)


@contextmanager
def compiled(choice: bool) -> Iterator[None]:
    """Choose whether quantizers that are traced in this block become XLA programs."""
    token = _compile.set(choice)
    try:
        yield
    finally:
        _compile.reset(token)


@lru_cache(maxsize=1)
def _programs() -> tuple[Any, Any]:
    return tf.function(_train, jit_compile=True), tf.function(fake_quant, jit_compile=True)


def _functions() -> tuple[Any, Any]:
    """Return what quantizes in training and in inference."""
    choice = _compile.get()
    if choice is None:
        choice = bool(tf.config.list_physical_devices("GPU"))
    return _programs() if choice else (_train, fake_quant)


class VectorizedQuantizer(quantizers.Quantizer):  # type: ignore[misc]
    """Does what one of tensorflow-model-optimization's 8-bit quantizers does, over whole tensors.

    It shares that quantizer's variables and configuration, so a saved model names the original.
    """

    _UPDATES = {
        quantizers.LastValueQuantizer: "last",
        quantizers.MovingAverageQuantizer: "average",
        quantizers.AllValuesQuantizer: "extremes",
    }

    def __init__(self, original: Any) -> None:
        """Take the place of `original`.

        Raises:
            TypeError: `original` is of a kind whose rule is not known here.
        """
        kinds = [kind for kind in self._UPDATES if isinstance(original, kind)]
        if not kinds or original.num_bits != 8:
            raise TypeError(f"original must be an 8-bit range quantizer, but got {original!r}")
        self.original = original
        self._spec = {
            "update": self._UPDATES[kinds[0]],
            "per_axis": bool(original.per_axis),
            "symmetric": bool(original.symmetric),
            "narrow_range": bool(original.narrow_range),
        }

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Any:
        """Return the original's variables."""
        return self.original.build(tensor_shape, name, layer)

    def __call__(self, inputs: Any, training: bool, weights: Any, **kwargs: Any) -> Any:
        """Return `inputs` quantized; in training, move the range first."""
        train, infer = _functions()
        low, high = weights["min_var"], weights["max_var"]
        inputs = tf.convert_to_tensor(inputs)
        if not training:
            narrow = self._spec["narrow_range"]
            return infer(inputs, low.read_value(), high.read_value(), narrow_range=narrow)
        outputs, new_low, new_high = train(
            inputs, low.read_value(), high.read_value(), **self._spec
        )
        low.assign(new_low)
        high.assign(new_high)
        return outputs

    def get_config(self) -> Any:
        """Return the original's configuration."""
        return self.original.get_config()
