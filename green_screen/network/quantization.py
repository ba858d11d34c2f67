"""Quantization while training: pre_quantization."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
from tensorflow_model_optimization.python.core.quantization.keras import (
    quantize_layer,
    quantize_wrapper,
)

from green_screen.network.fake_quant import VectorizedQuantizer, WeightGroup


def quantization_aware(model: Any) -> Any:
    """Return `model` with 8-bit fake quantization of weights and activations in its graph.

    It is tensorflow-model-optimization's ``quantize_model``, whose quantizers are exchanged for
    vectorised ones of the same values (:mod:`green_screen.network.fake_quant`). Computation stays
    in float32: training feels the rounding; nothing gets smaller or faster by it.

    Args:
        model: A flat functional float32 model.
    """
    # Without AutoGraph, which converts each layer's code, needed or not: for ResNet-50 1.5 of 6 s.
    quantize_model = tf.autograph.experimental.do_not_convert(
        tfmot.quantization.keras.quantize_model
    )
    quantized = quantize_model(model)
    weights = WeightGroup()
    for layer in quantized.layers:
        _vectorize(layer, weights)
    return quantized


def _vectorize(layer: Any, group: WeightGroup) -> None:
    """Exchange the quantizers that a wrapped layer holds, those of its weights into a group."""
    if isinstance(layer, quantize_layer.QuantizeLayer):
        layer.quantizer = VectorizedQuantizer(layer.quantizer)
    if isinstance(layer, quantize_wrapper.QuantizeWrapper):
        layer._weight_vars = [
            (weight, VectorizedQuantizer(quantizer), variables)
            for weight, quantizer, variables in layer._weight_vars
        ]
        for weight, quantizer, variables in layer._weight_vars:
            group.add(quantizer, weight, variables)
        layer._output_quantizers = [VectorizedQuantizer(q) for q in layer._output_quantizers]
        for activation in layer._quantize_activations:
            activation.quantizer = VectorizedQuantizer(activation.quantizer)


def n_parameters(model: Any) -> int:
    """Return how many numbers the network holds: without the ranges and counters of quantizers."""
    quantizing = {
        layer.name
        for layer in model.layers
        if isinstance(layer, quantize_layer.QuantizeLayer | quantize_wrapper.QuantizeWrapper)
    }
    network = (weight for weight in model.weights if weight.name.split("/")[0] not in quantizing)
    return sum(weight.shape.num_elements() for weight in network)
