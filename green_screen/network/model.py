"""The neural networks, by name. Adding one means writing a function and naming it in `MODELS`.

All are built by Keras's own code, so that a comparison with plain Keras compares the same network.
Each ends in logits (``predictions``) and a softmax of its own (``probabilities``), so that the
softmax and the loss keep float32 when everything before them computes in float16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from green_screen.network.keras_defaults import set_keras_defaults
from green_screen.options import OptionError

if TYPE_CHECKING:
    import tensorflow as tf

LOGITS = "predictions"
PROBABILITIES = "probabilities"


def resnet50(inputs: Any, n_classes: int) -> Any:
    """Return the logits of ``keras.applications.ResNet50`` (He et al. 2015, arXiv:1512.03385).

    Bottleneck blocks in stages of 3, 4, 6 and 3, as published for ImageNet. Nothing is changed for
    small images: at 32x32 the stem (7x7 convolution and 3x3 pooling, stride 2 each) leaves 8x8
    pixels, and the stages see 8x8, 4x4, 2x2 and 1x1. That makes a step cheap, and costs accuracy
    against variants with a stride-1 stem.
    """
    import tensorflow as tf

    network = tf.keras.applications.ResNet50(
        weights=None, input_tensor=inputs, classes=n_classes, classifier_activation=None
    )
    return network.output


def resnet8(inputs: Any, n_classes: int) -> Any:
    """Return the logits of two of ResNet-50's bottleneck blocks on its stem: 8 weighted layers.

    Keras builds it with the code that builds its ResNet50; 135 thousand parameters instead of 24
    million, for quick runs and tests.
    """
    from keras.src.applications import resnet

    def stages(x: Any) -> Any:
        x = resnet.stack1(x, 32, 1, stride1=1, name="conv2")
        return resnet.stack1(x, 64, 1, name="conv3")

    network = resnet.ResNet(
        stages,
        preact=False,
        use_bias=True,
        model_name="resnet8",
        weights=None,
        input_tensor=inputs,
        classes=n_classes,
        classifier_activation=None,
    )
    return network.output


def convnext_tiny(inputs: Any, n_classes: int) -> Any:
    """Return the logits of ``keras.applications.ConvNeXtTiny`` (Liu et al. 2022, arXiv:2201.03545).

    Without its built-in ImageNet normalization: preprocessing is a factor here.
    """
    import tensorflow as tf

    network = tf.keras.applications.ConvNeXtTiny(
        weights=None,
        include_preprocessing=False,
        input_tensor=inputs,
        classes=n_classes,
        classifier_activation=None,
    )
    return network.output


@dataclass(frozen=True)
class Architecture:
    """A network and what it can be used with.

    Attributes:
        logits: Maps an input tensor ``[n, size, size, 3]`` and the number of classes to logits.
        min_image_size: Smallest images that it can reduce, in pixels.
        pre_quantizable: Whether tensorflow-model-optimization knows all of its layers.
    """

    logits: Callable[[Any, int], Any]
    min_image_size: int = 8
    pre_quantizable: bool = True


MODELS: dict[str, Architecture] = {
    "resnet50": Architecture(resnet50),
    "resnet8": Architecture(resnet8),
    "convnext_tiny": Architecture(convnext_tiny, min_image_size=32, pre_quantizable=False),
}


def check_model(name: str, internal: str = "None", *, image_size: int | None = None) -> None:
    """Refuse a model that does not exist, or that cannot be trained as asked.

    Needs no TensorFlow, so that a campaign can check before anything starts.

    Args:
        name: One of `MODELS`.
        internal: The effective level of ``internal``.
        image_size: Height and width of the images in pixels, if known.

    Raises:
        OptionError: The name is unknown, or the combination is impossible.
    """
    if name not in MODELS:
        raise OptionError(f"model must be one of {', '.join(MODELS)}, but got {name!r}")
    least = MODELS[name].min_image_size
    if image_size is not None and image_size < least:
        raise OptionError(
            f"image_size must be at least {least} pixels for model={name}, but got {image_size}"
        )
    if internal == "pre_quantization" and not MODELS[name].pre_quantizable:
        able = [other for other, architecture in MODELS.items() if architecture.pre_quantizable]
        raise OptionError(
            f"internal=pre_quantization cannot train model={name!r}: tensorflow-model-optimization "
            f"has no quantizers for its layers; choose {' or '.join(able)}"
        )


def build_model(name: str, *, image_size: int, n_classes: int, seed: int) -> tf.keras.Model:
    """Build a network under the current dtype policy.

    Args:
        name: One of `MODELS`.
        image_size: Height and width of its images, in pixels.
        n_classes: Length of its output.
        seed: Seed of the initial weights. It seeds Python's, NumPy's and TensorFlow's global
            generators, as Keras's initializers draw from the last.

    Returns:
        A functional model: images ``[n, size, size, 3]`` in the policy's compute dtype ->
        class probabilities ``[n, n_classes]``, in float32, or float64 under that policy.

    Raises:
        OptionError: The name is unknown, or the images are too small for it.
    """
    import tensorflow as tf

    check_model(name, image_size=image_size)
    set_keras_defaults()
    tf.keras.utils.set_random_seed(seed)
    policy = tf.keras.mixed_precision.global_policy()
    inputs = tf.keras.Input((image_size, image_size, 3), dtype=policy.compute_dtype, name="image")
    logits = MODELS[name].logits(inputs, n_classes)
    output_dtype = "float64" if policy.compute_dtype == "float64" else "float32"
    softmax = tf.keras.layers.Activation("softmax", dtype=output_dtype, name=PROBABILITIES)
    return tf.keras.Model(inputs, softmax(logits), name=name)
