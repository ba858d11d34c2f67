import collections

import numpy as np
import pytest
import tensorflow as tf
import tiny_training as tiny

from green_screen.network.precision import POLICIES, dtype_policy

HALF, SINGLE, DOUBLE = "float16", "float32", "float64"


@pytest.mark.parametrize(
    ("precision", "variables", "computation"),
    [
        ("float16", HALF, HALF),
        ("float32", SINGLE, SINGLE),
        ("float64", DOUBLE, DOUBLE),
        ("global_policy_float16", SINGLE, HALF),
    ],
)
def test_precision_is_what_is_executed(precision, variables, computation):
    model, pipeline, _ = tiny.trained(tiny.effective(precision=precision))

    images, labels = next(iter(pipeline.train))
    assert images.dtype == computation
    for layer in model.layers:
        norm = isinstance(layer, tf.keras.layers.BatchNormalization)
        expected = SINGLE if norm and variables == HALF else variables
        assert {v.dtype.name for v in layer.weights} <= {expected}, layer.name
    activations = tf.keras.Model(model.input, [layer.output for layer in model.layers[1:-1]])
    assert {a.dtype.name for a in activations(images)} == {computation}
    assert model(images).dtype == (DOUBLE if precision == DOUBLE else SINGLE)

    nodes = tiny.executed_nodes(model, pipeline)
    computed_in = collections.defaultdict(set)
    for node in nodes:
        if node.op.startswith("Conv2D"):
            computed_in[node.op].add(tf.as_dtype(node.attr["T"].type).name)
    operations = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")
    assert computed_in == {operation: {computation} for operation in operations}
    # TensorFlow has no fused batch normalization in float64.
    fused = {"FusedBatchNormV3", "FusedBatchNormGradV3"}
    assert fused & {node.op for node in nodes} == (set() if precision == DOUBLE else fused)


def test_under_float16_metrics_still_count_beyond_2048():
    """2,048 + 1 is 2,048 in float16, so a metric kept in it stops there."""
    model = tiny.build(tiny.effective(precision="float16"))
    (accuracy,) = model.compiled_metrics.weighted_metrics
    for _ in range(3):
        accuracy.update_state(np.eye(10)[np.zeros(1000, int)], np.eye(10)[np.zeros(1000, int)])
    assert accuracy.count.numpy() == 3000
    assert {v.dtype.name for v in accuracy.variables} == {SINGLE}


@pytest.mark.parametrize("precision", POLICIES)
def test_the_policy_is_restored_even_after_an_error(precision):
    before = tf.keras.mixed_precision.global_policy().name
    with pytest.raises(RuntimeError), dtype_policy(precision):
        assert tf.keras.mixed_precision.global_policy().name == POLICIES[precision]
        raise RuntimeError
    assert tf.keras.mixed_precision.global_policy().name == before


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_pure_float16_trains_three_epochs_without_a_nan(optimizer):
    """On real images with `benchmarks/accuracy.py --check_float16`, which needs a GPU."""
    config = tiny.effective(
        precision="float16", optimizer=optimizer, lr=0.0008, preprocessing="standardization"
    )
    model, _, history = tiny.train(config, epochs=3)
    assert np.isfinite([*history["loss"], *history["val_loss"]]).all()
    assert all(np.isfinite(w).all() for w in model.get_weights())
    assert history["loss"][-1] < history["loss"][0]
