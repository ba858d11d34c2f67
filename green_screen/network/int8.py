"""Quantization after training: post_quantization, a full-integer TensorFlow Lite model.

Conversion and evaluation run on the processor, while a GPU waits. TensorFlow Lite calibrates on one
core; here all cores take images, one interpreter each, and so they do in the evaluation.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.python.lite import TFLiteFrozenGraphConverterV2
from tensorflow.lite.tools import flatbuffer_utils

# Images that calibrate the ranges of activations; TensorFlow's guide asks for one to five hundred.
CALIBRATION_IMAGES = 100

# Interpreters at once: calibrating, each holds the weights and all activations of an image, which
# are 150 MB in ResNet-50 at 224 pixels.
MOST_WORKERS = 16

Item = TypeVar("Item")
Result = TypeVar("Result")
Limits = tuple[float, float]


class NotFiniteError(ValueError):
    """A network that does not compute numbers of which there could be integers."""


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

    Raises:
        NotFiniteError: A weight, or an activation of one of these images, is not finite.
    """
    if not all(np.isfinite(weight).all() for weight in model.get_weights()):
        raise NotFiniteError("the trained weights are not finite")
    images = images[:CALIBRATION_IMAGES].astype(np.float32)

    network = tf.function(lambda batch: model(batch, training=False))
    batch = tf.TensorSpec([None, *images.shape[1:]], tf.float32, name="image")
    converter = _Converter([network.get_concrete_function(batch)], model)
    # The detour by a file of all functions takes ResNet-50 longer than the conversion itself.
    converter.experimental_lower_to_saved_model = False
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        # The converter warns that the input's statistics are missing; calibration measures them.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        return bytes(converter.convert())


class _Converter(TFLiteFrozenGraphConverterV2):  # type: ignore[misc]
    """TensorFlow Lite's converter, whose calibration takes all cores."""

    def _quantize(self, content: bytes, input_type: Any, output_type: Any, *_: Any) -> bytes:
        model = flatbuffer_utils.convert_bytearray_to_object(content)
        (graph,) = model.subgraphs
        images = (image for (image,) in self.representative_dataset())
        for index, (low, high) in _ranges(model, images).items():
            limits = schema.QuantizationParametersT()
            limits.min, limits.max = [low], [high]
            graph.tensors[index].quantization = limits
        calibrated = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
        return bytes(
            mlir_quantize(calibrated, input_data_type=input_type, output_data_type=output_type)
        )


def _activations(model: Any) -> list[int]:
    """Return the indices of the float tensors that an operation of a model takes or makes."""
    (graph,) = model.subgraphs
    used = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    return [
        index
        for index in sorted(used)
        if graph.tensors[index].type == schema.TensorType.FLOAT32
        and model.buffers[graph.tensors[index].buffer].data is None
    ]


def _ranges(model: Any, images: Iterable[npt.NDArray[np.float32]]) -> dict[int, Limits]:
    """Return activation -> its least and greatest value over images, each a batch of one."""
    (graph,) = model.subgraphs
    activations, outputs = _activations(model), graph.outputs
    # As outputs they are kept: otherwise a sum is written over what it adds to, even where the
    # interpreter is asked to preserve all tensors.
    graph.outputs = np.array(activations, np.int32)
    content = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    graph.outputs = outputs

    def make_worker() -> Callable[[npt.NDArray[np.float32]], list[Limits]]:
        interpreter = tf.lite.Interpreter(
            model_content=content,
            # The values that calibrated before; XNNPACK's delegate rounds otherwise.
            experimental_op_resolver_type=(
                tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
        )
        interpreter.allocate_tensors()
        (details,) = interpreter.get_input_details()

        def limits(index: int) -> Limits:
            values = interpreter.tensor(index)()
            return values.min(), values.max()

        def work(image: npt.NDArray[np.float32]) -> list[Limits]:
            interpreter.set_tensor(details["index"], image)
            interpreter.invoke()
            return [limits(index) for index in activations]

        return work

    found = np.array(_on_all_cores(make_worker, images))  # [images, activations, 2]
    if not np.isfinite(found).all():
        raise NotFiniteError("activations of the trained network are not finite")
    pairs = zip(found[..., 0].min(axis=0), found[..., 1].max(axis=0), strict=True)
    return dict(zip(activations, pairs, strict=True))


def _on_all_cores(
    make_worker: Callable[[], Callable[[Item], Result]], items: Iterable[Item]
) -> list[Result]:
    """Return what workers make of items, in the items' order.

    Args:
        make_worker: Returns what works on one item at a time; called once in each thread.
        items: Taken one after the other, and no sooner than a worker is free.
    """
    numbered, taking = enumerate(items), threading.Lock()

    def take() -> tuple[int, Item] | None:
        with taking:
            return next(numbered, None)

    def work(_: int) -> list[tuple[int, Result]]:
        done = []
        worker: Callable[[Item], Result] | None = None
        while (taken := take()) is not None:
            worker = worker or make_worker()
            done.append((taken[0], worker(taken[1])))
        return done

    n_workers = min(cpu_cores(), MOST_WORKERS)
    with ThreadPoolExecutor(n_workers) as pool:
        parts = list(pool.map(work, range(n_workers)))
    return [result for _, result in sorted((x for part in parts for x in part), key=lambda x: x[0])]


def cpu_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Int8Model:
    """Runs a full-integer TensorFlow Lite model on batches, on the CPU."""

    def __init__(self, content: bytes) -> None:
        """Load a model from the content of its file."""
        self._interpreter = tf.lite.Interpreter(model_content=content)
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()
        self._batch = 0

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


def evaluate(content: bytes, batches: Iterable[tuple[Any, Any, Any]]) -> tuple[float, float]:
    """Return a model's mean cross-entropy and accuracy over a part of the data.

    Args:
        content: Of the model's file.
        batches: Preprocessed images, one-hot labels and weights; weight 0 marks padding.
            Probabilities that round to zero count as 1e-7 in the loss, as in Keras.
    """

    def make_worker() -> Callable[[tuple[Any, Any, Any]], tuple[Any, Any]]:
        model = Int8Model(content)

        def work(batch: tuple[Any, Any, Any]) -> tuple[Any, Any]:
            images, labels, weights = (np.asarray(part) for part in batch)
            real = weights > 0
            probabilities = model.predict(images)[real]
            truth = labels[real].argmax(axis=1)
            of_truth = probabilities[np.arange(len(truth)), truth]
            return -np.log(np.clip(of_truth, 1e-7, 1.0)), probabilities.argmax(axis=1) == truth

        return work

    losses, hits = zip(*_on_all_cores(make_worker, batches), strict=True)
    return float(np.concatenate(losses).mean()), float(np.concatenate(hits).mean())
