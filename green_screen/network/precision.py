"""Precision as a Keras dtype policy: it sets the dtype of variables and of computation.

==========================  ==============  ==========  ==========
level                       policy          variables   computes in
==========================  ==============  ==========  ==========
``float16``                 float16         float16     float16
``float32``                 float32         float32     float32
``float64``                 float64         float64     float64
``global_policy_float16``   mixed_float16   float32     float16
==========================  ==============  ==========  ==========

Keras keeps the four vectors of a batch normalization in float32 under both float16 policies, and
this project computes the final softmax and the loss in float32 there. On NVIDIA GPUs since Ampere
TensorFlow computes float32 convolutions in TensorFloat-32 (10 bits of mantissa) unless told
otherwise; that default is left alone, so float32 here means what it means to every Keras user. In
float64 TensorFlow has no fused batch normalization: it runs as single operations there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from green_screen.network.keras_defaults import set_keras_defaults

POLICIES: dict[str, str] = {
    "float16": "float16",
    "float32": "float32",
    "float64": "float64",
    "global_policy_float16": "mixed_float16",
}


@contextmanager
def dtype_policy(precision: str) -> Iterator[str]:
    """Set the global dtype policy for a level of precision, and restore the former at the end.

    It belongs around the building of a model alone: layers keep the policy that they were made
    under, while metrics made under float16 would count in float16, and stop at 2,048 images.

    Args:
        precision: A key of `POLICIES`.

    Yields:
        The compute dtype's name, which is also the dtype that images are fed in.
    """
    import tensorflow as tf

    set_keras_defaults()  # first: the global policy follows floatx until one is set
    before = tf.keras.mixed_precision.global_policy()
    policy = tf.keras.mixed_precision.Policy(POLICIES[precision])
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        yield policy.compute_dtype
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
