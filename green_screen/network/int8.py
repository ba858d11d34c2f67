"""Quantization after training: post_quantization, a full-integer TensorFlow Lite model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# Images that calibrate the ranges of activations; TensorFlow's guide asks for one to five hundred.
CALIBRATION_IMAGES = 100


def to_int8(model: Any, images: npt.NDArray[np.float32]) -> bytes:
    """Convert a trained float32 model to a full-integer TensorFlow Lite model.

    Weights, activations, input and output become int8 (biases int32), by TensorFlow Lite's
    converter; an op without an integer form is an error.

    Args:
        model: A float32 Keras model.
        images: Preprocessed training images ``[n, size, size, 3]`` that calibrate the activations'
            ranges; the first `CALIBRATION_IMAGES` are used.

    Returns:
        The model file's content.
    """

    def representative() -> Iterator[list[npt.NDArray[np.float32]]]:
        for image in images[:CALIBRATION_IMAGES]:
            yield [image[np.newaxis].astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        # The converter warns that the input's statistics are missing; calibration measures them.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        return bytes(converter.convert())


class Int8Model:
    """Runs a full-integer TensorFlow Lite model on batches, on the CPU."""

    def __init__(self, content: bytes) -> None:
        """Load a model from the content of its file."""
        self._interpreter = tf.lite.Interpreter(model_content=content)
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self._batch = 0

    def tensor_dtypes(self) -> dict[str, str]:
        """Return tensor -> dtype."""
        details = self._interpreter.get_tensor_details()
        return {tensor["name"]: np.dtype(tensor["dtype"]).name for tensor in details}

    def predict(self, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return class probabilities ``[n, n_classes]`` of preprocessed images ``[n, s, s, 3]``.

        The output is int8, so probabilities come in steps of 1/256.
        """
        if len(images) != self._batch:
            self._batch = len(images)
            self._interpreter.resize_tensor_input(self._input["index"], images.shape)
            self._interpreter.allocate_tensors()
        scale, zero_point = self._input["quantization"]
        levels = np.round(images.astype(np.float32) / scale) + zero_point
        self._interpreter.set_tensor(
            self._input["index"], np.clip(levels, -128, 127).astype(np.int8)
        )
        self._interpreter.invoke()
        scale, zero_point = self._output["quantization"]
        outputs = self._interpreter.get_tensor(self._output["index"]).astype(np.float32)
        return np.asarray((outputs - zero_point) * scale, np.float32)

    def evaluate(self, batches: Iterable[tuple[Any, Any, Any]]) -> tuple[float, float]:
        """Return the mean cross-entropy and the accuracy over a part of the data.

        Args:
            batches: Preprocessed images, one-hot labels and weights; weight 0 marks padding.
                Probabilities that round to zero count as 1e-7 in the loss, as in Keras.
        """
        losses, hits = [], []
        for images, labels, weights in batches:
            real = np.asarray(weights) > 0
            probabilities = self.predict(np.asarray(images))[real]
            truth = np.asarray(labels)[real].argmax(axis=1)
            losses.append(-np.log(np.clip(probabilities[np.arange(len(truth)), truth], 1e-7, 1.0)))
            hits.append(probabilities.argmax(axis=1) == truth)
        return float(np.concatenate(losses).mean()), float(np.concatenate(hits).mean())
