import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from green_screen.network.model import MODELS, build_model, check_model
from green_screen.network.precision import dtype_policy
from green_screen.options import OptionError, TrainOptions
from green_screen.space import Space, resolve
from green_screen.training.setup import compiled_model


def test_unknown_model_is_refused_by_name_with_the_alternatives():
    with pytest.raises(OptionError, match="resnet50, resnet8, convnext_tiny, but got 'resnet51'"):
        check_model("resnet51")


def test_help_and_readme_name_every_model():
    (model,) = [f for f in dataclasses.fields(TrainOptions) if f.name == "model"]
    assert set(re.findall(r"\w+", model.metadata["help"])) - {"or"} == set(MODELS)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"\*\*Models\*\*: (.*?)\n\n", readme, re.DOTALL)
    assert set(re.findall("`(.*?)`", sentence)) == set(MODELS)


def test_convnext_cannot_be_pre_quantized_and_the_message_says_what_can():
    check_model("convnext_tiny", internal="post_quantization")
    with pytest.raises(OptionError, match="choose resnet50 or resnet8"):
        check_model("convnext_tiny", internal="pre_quantization")


def test_images_too_small_for_a_model_are_refused():
    with pytest.raises(OptionError, match="at least 32 pixels for model=convnext_tiny, but got 16"):
        check_model("convnext_tiny", image_size=16)


def test_checking_a_model_needs_no_tensorflow():
    code = (
        "import sys; from green_screen.network.model import check_model; check_model('resnet50');"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def resnet50():
    """Ours and that of Keras."""
    ours = build_model("resnet50", image_size=32, n_classes=10, seed=1)
    theirs = tf.keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)
    return ours, theirs


def test_resnet50_is_the_network_of_keras_applications(resnet50):
    ours, theirs = resnet50
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    theirs.set_weights(ours.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(ours(images), theirs(images), rtol=1e-5)


def test_resnet50_sees_the_sizes_that_its_docstring_says(resnet50):
    model, _ = resnet50
    outputs = ("pool1_pool", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out")
    sizes = [model.get_layer(name).output.shape[1] for name in outputs]
    assert sizes == [8, 8, 4, 2]
    assert model.get_layer("conv5_block3_out").output.shape[1] == 1


def test_resnet8_has_eight_weighted_layers_of_the_same_blocks(resnet50):
    model = build_model("resnet8", image_size=32, n_classes=10, seed=1)
    weighted = [
        layer.name
        for layer in model.layers
        if isinstance(layer, tf.keras.layers.Conv2D | tf.keras.layers.Dense)
        and not layer.name.endswith("_0_conv")  # the shortcuts' projections
    ]
    assert len(weighted) == 8
    of_resnet50 = {layer.name for layer in resnet50[1].layers}
    assert {layer.name for layer in model.layers} - of_resnet50 == {"image", "probabilities"}


@pytest.mark.parametrize("name", MODELS)
def test_models_give_probabilities_and_are_flat_if_they_can_be_quantized(name):
    size = MODELS[name].min_image_size
    model = build_model(name, image_size=size, n_classes=5, seed=1)
    nested = any(isinstance(layer, tf.keras.Model) for layer in model.layers)
    assert nested is not MODELS[name].pre_quantizable  # quantize_model refuses nested models
    images = np.random.default_rng(0).normal(size=(3, size, size, 3)).astype(np.float32)
    probabilities = model(images).numpy()
    assert probabilities.shape == (3, 5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_convnext_trains():
    config = Space.load().parse({"batch_size": 4, "optimizer": "SGD"})
    model = compiled_model(
        "convnext_tiny",
        resolve(config).effective,
        image_size=32,
        n_classes=2,
        total_steps=1,
        seed=1,
    )
    before = [weight.numpy() for weight in model.trainable_variables]
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    logs = model.train_step((tf.constant(images), tf.one_hot([0, 1, 0, 1], 2)))
    assert np.isfinite(logs["loss"])
    moved = [np.any(a != b) for a, b in zip(before, model.trainable_variables, strict=True)]
    assert np.mean(moved) > 0.9


def test_convnext_can_be_built_in_float16():
    with dtype_policy("float16") as dtype:
        model = build_model("convnext_tiny", image_size=32, n_classes=2, seed=1)
    assert model.layers[-2].output.dtype == dtype
    assert model.output.dtype == "float32"


def test_the_seed_decides_the_initial_weights():
    def first_kernel(seed):
        return build_model("resnet8", image_size=8, n_classes=2, seed=seed).get_weights()[0]

    np.testing.assert_array_equal(first_kernel(1), first_kernel(1))
    assert not np.array_equal(first_kernel(1), first_kernel(2))
