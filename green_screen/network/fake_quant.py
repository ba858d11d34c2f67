"""Fake quantization as a formula over whole tensors, for any number of channels at once.

TensorFlow's GPU kernel of ``fake_quant_with_min_max_vars_per_channel`` and that of its gradient
loop over the channels on the host and launch a kernel for each (26,560 channels in ResNet-50), and
the per-tensor kernels copy their range to the host first, which makes the host wait for the GPU.
The formula here has the same values and gradients, as `tests/training/test_fake_quant.py` shows,
and knows no loop and no copy. Definition: Jacob et al. 2018, arXiv:1712.05877, with the rounding of
``tensorflow/core/kernels/fake_quant_ops_functor.h``.

On a GPU a quantizer is one XLA program (as Keras does with its optimizers' updates): one launch
instead of some forty. Those of all weights are one program together, because to start a program
costs the host more than a kernel, and the gradient is a plain operation for the same reason. That
belongs to the quantizers: the network around them is not compiled.
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
        outputs, inside = _quantize(x, low, high, quant_min, quant_max)

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            grid = _nudge(low, high, quant_min, quant_max)
            below = tf.logical_and(x < grid.low, ~inside)
            above = tf.logical_and(x > grid.high, ~inside)
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


def _quantize(x: Any, low: Any, high: Any, quant_min: float, quant_max: float) -> tuple[Any, Any]:
    """Return the rounded values, and where the gradient passes."""
    grid = _nudge(low, high, quant_min, quant_max)
    empty = tf.logical_and(tf.equal(low, 0.0), tf.equal(high, 0.0))
    shifted = tf.maximum(tf.minimum(x, grid.high), grid.low) - grid.low
    # TensorFlow's per-tensor kernel divides by the step, its per-channel kernel multiplies.
    scaled = shifted * grid.steps_per_unit if low.shape.rank else shifted / grid.step
    rounded = tf.floor(scaled - grid.zero_point + 0.5) * grid.step
    outputs = tf.where(empty, tf.zeros_like(x), rounded)
    inside = tf.logical_or(tf.logical_and(x >= grid.low, x <= grid.high), empty)
    return outputs, inside


class _Spec(NamedTuple):
    """What tells one quantizer from another: of equal ones TensorFlow shares the programs."""

    update: str
    per_axis: bool
    symmetric: bool
    narrow_range: bool
    quant_max: float = 255.0

    @property
    def quant_min(self) -> float:
        return 1.0 if self.narrow_range else 0.0


def _observe(inputs: Any, spec: _Spec) -> Any:
    """Return the range of a batch, which always holds zero."""
    axes = list(range(inputs.shape.rank - 1)) if spec.per_axis else None
    low, high = tf.reduce_min(inputs, axes), tf.reduce_max(inputs, axes)
    if not spec.symmetric:
        return tf.minimum(low, 0.0), tf.maximum(high, 0.0)
    ratio = -1.0 if spec.narrow_range else -254.0 / 256.0
    return tf.minimum(low, high / ratio), tf.maximum(high, low * ratio)


def _train(inputs: Any, low: Any, high: Any, spec: _Spec) -> tuple[Any, Any, Any, Any]:
    """Update a range by a batch and quantize the batch with it.

    Returns the rounded values, where the gradient passes, and the range.
    """
    observed_low, observed_high = _observe(inputs, spec)
    if spec.update == "average":
        low -= (low - observed_low) * (1.0 - EMA_DECAY)
        high -= (high - observed_high) * (1.0 - EMA_DECAY)
    elif spec.update == "extremes":
        low, high = tf.minimum(low, observed_low), tf.maximum(high, observed_high)
    else:
        low, high = observed_low, observed_high
    outputs, inside = _quantize(inputs, low, high, spec.quant_min, spec.quant_max)
    return outputs, inside, low, high


def _train_all(
    tensors: list[Any], lows: list[Any], highs: list[Any], specs: tuple[_Spec, ...]
) -> list[tuple[Any, Any, Any, Any]]:
    """Do the same for several tensors."""
    return [_train(*one) for one in zip(tensors, lows, highs, specs, strict=True)]


def _infer_all(
    tensors: list[Any], lows: list[Any], highs: list[Any], specs: tuple[_Spec, ...]
) -> list[Any]:
    """Quantize several tensors with the ranges as they are."""
    return [
        fake_quant(tensor, low, high, narrow_range=spec.narrow_range)
        for tensor, low, high, spec in zip(tensors, lows, highs, specs, strict=True)
    ]


def _straight_through(inputs: Any, outputs: Any, inside: Any) -> Any:
    """Return `outputs` with the gradient of `inputs` where it passes.

    The range is state, not a function to be differentiated. The gradient is a single operation,
    which costs less to start than an XLA program.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def replace(x: Any) -> tuple[Any, Any]:
        return outputs, lambda upstream: tf.where(inside, upstream, tf.zeros_like(upstream))

    return replace(inputs)


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
    return tf.function(_train_all, jit_compile=True), tf.function(_infer_all, jit_compile=True)


def _functions() -> tuple[Any, Any]:
    """Return what quantizes in training and in inference."""
    choice = _compile.get()
    if choice is None:
        choice = bool(tf.config.list_physical_devices("GPU"))
    return _programs() if choice else (_train_all, _infer_all)


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
        self.spec = _Spec(
            update=self._UPDATES[kinds[0]],
            per_axis=bool(original.per_axis),
            symmetric=bool(original.symmetric),
            narrow_range=bool(original.narrow_range),
        )
        self.group: WeightGroup | None = None

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Any:
        """Return the original's variables."""
        return self.original.build(tensor_shape, name, layer)

    def __call__(self, inputs: Any, training: bool, weights: Any, **kwargs: Any) -> Any:
        """Return `inputs` quantized; in training, move the range first."""
        if self.group is not None and not tf.executing_eagerly():
            return self.group.quantized(self, training)  # whose `inputs` are the weight it knows
        return _quantized([self], [inputs], [weights], training)[0]

    def get_config(self) -> Any:
        """Return the original's configuration."""
        return self.original.get_config()


def _quantized(
    members: list[VectorizedQuantizer],
    inputs: list[Any],
    ranges: list[dict[str, Any]],
    training: bool,
) -> list[Any]:
    """Return the inputs of some quantizers quantized; in training, move the ranges first."""
    train, infer = _functions()
    tensors = [tf.convert_to_tensor(one) for one in inputs]
    lows = [one["min_var"].read_value() for one in ranges]
    highs = [one["max_var"].read_value() for one in ranges]
    specs = tuple(member.spec for member in members)
    if not training:
        found: list[Any] = infer(tensors, lows, highs, specs)
        return found
    quantized = []
    for tensor, variables, (outputs, inside, low, high) in zip(
        tensors, ranges, train(tensors, lows, highs, specs), strict=True
    ):
        variables["min_var"].assign(low)
        variables["max_var"].assign(high)
        quantized.append(_straight_through(tensor, outputs, inside))
    return quantized


class WeightGroup:
    """The weights of a network, quantized together at the step's beginning: one program for all.

    A graph holds each weight as it was when the first of them is asked for. So the group is for
    graphs of one step with one gradient tape, in which weights change at the end.
    """

    def __init__(self) -> None:
        """Begin without members."""
        self._quantizers: list[VectorizedQuantizer] = []
        self._weights: list[Any] = []
        self._ranges: list[dict[str, Any]] = []

    def add(self, quantizer: VectorizedQuantizer, weight: Any, variables: dict[str, Any]) -> None:
        """Take a weight into the group."""
        quantizer.group = self
        self._quantizers.append(quantizer)
        self._weights.append(weight)
        self._ranges.append(variables)

    def quantized(self, quantizer: VectorizedQuantizer, training: bool) -> Any:
        """Return the quantized weight of a member in the graph that is being traced."""
        key = f"quantized by {id(self)}, training={bool(training)}"
        kept = tf.compat.v1.get_collection_ref(key)
        if not kept:
            kept.extend(_quantized(self._quantizers, self._weights, self._ranges, training))
        return kept[self._quantizers.index(quantizer)]
