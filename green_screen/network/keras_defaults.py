"""Keras's global settings as Keras publishes them, whatever its user's file of settings says.

``~/.keras/keras.json`` may name another layout, type or epsilon. Layers, metrics, optimizers and
losses read them when they are made: under ``channels_first`` the same code builds a network of
other shapes, and under ``floatx=float16`` metrics count in float16.
"""

from __future__ import annotations

IMAGE_DATA_FORMAT = "channels_last"
FLOATX = "float32"
EPSILON = 1e-7


def set_keras_defaults() -> None:
    """Set layout, type and epsilon for what is built after it in this process."""
    import tensorflow as tf

    tf.keras.backend.set_image_data_format(IMAGE_DATA_FORMAT)
    tf.keras.backend.set_floatx(FLOATX)
    tf.keras.backend.set_epsilon(EPSILON)
