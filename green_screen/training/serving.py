"""What a training hands to MLflow beside numbers: the data set it used and the model it made.

The model is logged as code (:mod:`green_screen.training.served_model`) with the network beside it
as a SavedModel or TensorFlow Lite file, both protocol buffers or flat buffers: nothing is pickled.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import tensorflow as tf
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.numpy_dataset import from_numpy
from mlflow.models import ModelSignature
from mlflow.types.schema import Schema, TensorSpec

import green_screen
from green_screen.data.preprocessing import Preprocessing
from green_screen.network import fake_quant
from green_screen.tracking import ModelLink

if TYPE_CHECKING:
    from green_screen.data.data import ImageDataset

ARTIFACT = "model"
# A step that no metric of a run is logged at.
_NO_EPOCH = 2**31 - 1
REQUIREMENTS = ("mlflow", "numpy", "tensorflow")


def mlflow_dataset(dataset: ImageDataset) -> Any:
    """Return MLflow's description of a data set: name, source, shape and digest, no pixels.

    MLflow holds 36 characters of digest; the whole SHA-256 is a parameter of the run.
    """
    return from_numpy(
        dataset.images,
        source=CodeDatasetSource({"uri": dataset.source}),
        targets=dataset.labels,
        name=Path(dataset.name).name,
        digest=dataset.digest[:36],
    )


def save_network(folder: Path, network: Any, preprocessing: Preprocessing) -> None:
    """Write a trained network and its preprocessing, for the served model to load.

    Args:
        folder: An existing, empty folder.
        network: A Keras model, or the content of a TensorFlow Lite file.
        preprocessing: What raw images go through before the network.
    """
    if isinstance(network, bytes):
        (folder / "network.tflite").write_bytes(network)
        described = {"format": "tflite", "dtype": "int8"}
    else:
        _save_function(network, folder / "network")
        described = {"format": "saved_model", "dtype": network.input.dtype.name}
    described_fully = {**described, "preprocessing": preprocessing.to_dict()}
    (folder / "network.json").write_text(json.dumps(described_fully, indent=2), encoding="utf-8")


def _save_function(network: Any, folder: Path) -> None:
    """Write the network's inference alone, as a SavedModel without any Keras object.

    So it loads without Keras, TensorFlow Addons and tensorflow-model-optimization, and without
    XLA, which the quantizers of a network that was trained on a GPU would else ask for.
    """
    spec = tf.TensorSpec([None, *network.input.shape[1:]], network.input.dtype)
    module = tf.Module()
    module.weights = network.weights  # what the function captures must be saved with it
    module.serve = tf.function(
        lambda images: network(images, training=False), input_signature=[spec]
    )
    with fake_quant.compiled(False):
        tf.saved_model.save(module, str(folder))


def log_model(network: Any, preprocessing: Preprocessing, dataset: ImageDataset) -> ModelLink:
    """Log the trained model to the active run: raw uint8 images in, class probabilities out.

    It carries its signature, an input example, pinned requirements and the code it needs, and as
    yet no figures.

    Args:
        network: A Keras model, or the content of a TensorFlow Lite file.
        preprocessing: What raw images go through before the network.
        dataset: Where the input example comes from; its class names are logged as metadata.

    Returns:
        What the run's figures reach the model by, once there are any.
    """
    size = dataset.images.shape[1]
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, size, size, 3))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(dataset.class_names)))]),
    )
    with tempfile.TemporaryDirectory() as text, warnings.catch_warnings():
        # MLflow would rather take a schema from type hints, which cannot tell shapes.
        warnings.filterwarnings("ignore", message=".*Add type hints to the `predict` method")
        folder = Path(text)
        save_network(folder, network, preprocessing)
        info = mlflow.pyfunc.log_model(
            name=ARTIFACT,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"network": str(folder)},
            code_paths=[str(Path(green_screen.__file__).parent)],
            signature=signature,
            input_example=dataset.images[:2],
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            metadata={"class_names": list(dataset.class_names)},
            # MLflow gives a model what the run has logged at its step. At 0 that would be the first
            # epoch's figures; at one that no epoch has, further ones included, there is nothing.
            step=_NO_EPOCH,
        )
    described = mlflow_dataset(dataset)
    return ModelLink(
        model_id=str(info.model_id), dataset_name=described.name, dataset_digest=described.digest
    )
