"""The served model as MLflow loads it: this file is run in the process that serves.

It needs TensorFlow, NumPy and the copy of this package that lies beside the model; no pickle, no
Keras objects, no training code.
"""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
from mlflow.pyfunc.model import PythonModel, PythonModelContext

BATCH = 128


class ImageClassifier(PythonModel):
    """Raw images in, class probabilities out; preprocessing is inside."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the network, and the scaling that was fitted to its training images."""
        from green_screen.data.preprocessing import Preprocessing

        folder = Path(context.artifacts["network"])
        described = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        self._preprocessing = Preprocessing.from_dict(described["preprocessing"])
        if described["format"] == "tflite":
            from green_screen.network.int8 import Int8Model

            self._predict = Int8Model((folder / "network.tflite").read_bytes()).predict
            return
        import tensorflow as tf

        network = tf.saved_model.load(str(folder / "network"))
        dtype = described["dtype"]
        self._predict = lambda images: network.serve(tf.constant(images, dtype)).numpy()

    # MLflow takes annotations here for a schema, which it has from the signature already.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Return float32 probabilities [n, n_classes] of uint8 images [n, size, size, 3]."""
        outputs = [
            self._predict(self._preprocessing.apply(model_input[start : start + BATCH]))
            for start in range(0, len(model_input), BATCH)
        ]
        return np.concatenate(outputs).astype(np.float32)


mlflow.models.set_model(ImageClassifier())
