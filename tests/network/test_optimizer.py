import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from green_screen.measurement.keras_figures import learning_rate
from green_screen.network.optimizer import FLOAT16_LOSS_SCALE, make_optimizer
from green_screen.space import Space, resolve

BASELINE = Space.load().baseline
START = np.array([0.5, -2.0, 0.0])
GRADIENTS = [np.array([0.1, -3.0, 1e-3]), np.array([-0.2, 1.0, 1e-3]), np.array([0.3, 0.0, 1e-3])]
STEPS = 10


def config(**levels):
    return resolve(dataclasses.replace(BASELINE, **levels)).effective


def weights_after(effective, gradients, dtype=tf.float64):
    weight = tf.Variable(START, dtype=dtype)
    optimizer = make_optimizer(effective, STEPS)
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient, dtype), weight)])
    return weight.numpy(), optimizer


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_sgd_follows_its_formula(momentum):
    effective = config(optimizer="SGD", optimizer_momentum=momentum)
    actual, optimizer = weights_after(effective, GRADIENTS)
    weight, velocity = START.copy(), np.zeros(3)
    for gradient in GRADIENTS:
        velocity = momentum * velocity - 0.01 * gradient
        weight += velocity
    np.testing.assert_allclose(actual, weight, rtol=1e-6)
    assert optimizer.get_slot_names() == (["momentum"] if momentum else [])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_rmsprop_follows_its_formula_at_every_momentum(momentum):
    effective = config(optimizer="RMSProp", optimizer_momentum=momentum)
    actual, optimizer = weights_after(effective, GRADIENTS)
    weight, square, velocity = START.copy(), np.zeros(3), np.zeros(3)
    for gradient in GRADIENTS:
        square = 0.9 * square + 0.1 * gradient**2
        velocity = momentum * velocity + 0.01 * gradient / np.sqrt(square + 1e-7)
        weight -= velocity
    np.testing.assert_allclose(actual, weight, rtol=1e-5)
    assert sorted(optimizer.get_slot_names()) == ["momentum", "rms"]


def adam(weight, gradients, *, rates, decays):
    first, second = np.zeros(3), np.zeros(3)
    for t, gradient in enumerate(gradients, start=1):
        weight = weight - decays[t - 1] * weight
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = rates[t - 1] * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weight = weight - rate * first / (np.sqrt(second) + 1e-7)
    return weight


def test_adam_follows_its_formula_and_has_no_momentum_factor():
    effective = config(optimizer="Adam", optimizer_momentum=0.99)
    assert effective.optimizer_momentum is None
    actual, optimizer = weights_after(effective, GRADIENTS)
    expected = adam(START, GRADIENTS, rates=[0.01] * 3, decays=[0.0] * 3)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert sorted(optimizer.get_slot_names()) == ["m", "v"]


def test_adamw_decays_weights_beside_the_gradient_and_not_through_it():
    actual, optimizer = weights_after(config(optimizer="AdamW"), GRADIENTS)
    expected = adam(START, GRADIENTS, rates=[0.01] * 3, decays=[0.001] * 3)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert sorted(optimizer.get_slot_names()) == ["m", "v"]
    without_gradient, _ = weights_after(config(optimizer="AdamW"), [np.zeros(3)])
    np.testing.assert_allclose(without_gradient, START * (1 - 0.001), rtol=1e-6)


def test_adamw_decay_does_not_depend_on_the_learning_rate():
    at = {
        lr: weights_after(config(optimizer="AdamW", lr=lr), [np.zeros(3)])[0]
        for lr in (0.01, 0.00015)
    }
    np.testing.assert_allclose(at[0.01], at[0.00015], rtol=1e-12)


def test_adamw_decay_follows_the_schedule_as_the_learning_rate_does():
    multipliers = [(1 - t / STEPS) ** 2 for t in range(3)]
    actual, _ = weights_after(config(optimizer="AdamW", lr_schedule="polynomial"), GRADIENTS)
    expected = adam(
        START,
        GRADIENTS,
        rates=[0.01 * m for m in multipliers],
        decays=[0.001 * m for m in multipliers],
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["RMSProp", "Adam", "AdamW"])
def test_float16_steps_are_no_longer_than_in_float32(name):
    """In float16 0.001 g**2 is zero below g = 5.5e-3 and g**2 infinite above 256."""
    levels = {"optimizer": name, "precision": "float16", "lr": 0.0008, "optimizer_momentum": 0.0}
    optimizer = make_optimizer(config(**levels), STEPS)
    magnitudes = tf.constant([*np.geomspace(1e-5, 1e-1, 17), 60.0], tf.float16)
    weights = tf.Variable(tf.zeros_like(magnitudes))
    optimizer.inner_optimizer._create_all_weights([weights])

    @tf.function
    def steps_of(n):
        for _ in tf.range(n):
            weights.assign(tf.zeros_like(weights))
            optimizer.apply_gradients([(magnitudes, weights)])

    def lengths(n):
        steps_of(tf.constant(n))
        return -weights.numpy() / (0.0008 * (10**0.5 if name == "RMSProp" else 1))

    for _ in range(100):
        assert lengths(10).max() <= 1.1
    if name != "RMSProp":
        assert lengths(1).min() > 0.4  # epsilon's part at 1e-5
        np.testing.assert_allclose(lengths(1)[4:], 1.0, atol=0.1)  # 1e-4 and more
    # Where steps end if the gradient stays: float16 loses the end of the square's growth.
    assert lengths(7000).max() <= 1.2


def test_float16_adamw_decays_by_what_the_spacing_of_float16_leaves():
    effective = config(optimizer="AdamW", precision="float16")
    start = np.linspace(0.01, 2, 400).astype(np.float16)
    weight = tf.Variable(start)
    make_optimizer(effective, STEPS).apply_gradients([(tf.zeros_like(weight), weight)])
    decayed = (start - weight.numpy().astype(float)) / start
    assert np.abs(decayed - 0.001).max() < 2**-11
    assert decayed.mean() == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("name", ["SGD", "RMSProp", "Adam", "AdamW"])
def test_float16_follows_the_schedule_at_steps_that_float16_cannot_count(name):
    """Float16 rounds whole numbers above 2,048 and ends at 65,504."""
    applied = {}
    for schedule in ("constant", "exponential", "polynomial", "cosine"):
        levels = {"optimizer": name, "precision": "float16", "lr_schedule": schedule}
        optimizer = make_optimizer(config(**levels), 100_000)
        model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,), dtype="float16")])
        model.compile(optimizer)
        optimizer.inner_optimizer.iterations.assign(70_000)
        logged, reason = learning_rate(model)
        assert not reason
        weight = tf.Variable([0.0], dtype=tf.float16)
        optimizer.apply_gradients([(tf.constant([0.1], tf.float16), weight)])
        applied[schedule] = -weight.numpy()[0] / logged
        expected = {
            "constant": 1,
            "exponential": 0.01**0.7,
            "polynomial": 0.3**2,
            "cosine": (1 + np.cos(0.7 * np.pi)) / 2,
        }[schedule]
        assert logged == pytest.approx(0.01 * expected, rel=1e-4)
    # What is applied is the same multiple of what is logged, whatever the schedule.
    np.testing.assert_allclose(list(applied.values()), applied["constant"], rtol=0.01)


def test_float16_loss_scale_is_constant_but_for_overflows_which_skip_the_step():
    optimizer = make_optimizer(config(optimizer="SGD", precision="float16"), STEPS)
    weight = tf.Variable(START, dtype=tf.float16)
    for _ in range(5):
        optimizer.apply_gradients([(tf.zeros(3, tf.float16), weight)])
    assert optimizer.loss_scale.numpy() == FLOAT16_LOSS_SCALE
    overflown = tf.constant([np.inf, 0, 0], tf.float16)
    optimizer.apply_gradients([(overflown, weight)])
    np.testing.assert_array_equal(weight.numpy(), START.astype(np.float16))
    assert optimizer.loss_scale.numpy() == FLOAT16_LOSS_SCALE / 2


def test_mixed_precision_uses_keras_dynamic_loss_scale_and_float32_none():
    mixed = make_optimizer(config(precision="global_policy_float16"), STEPS)
    assert (mixed.dynamic, mixed.initial_scale, mixed.dynamic_growth_steps) == (True, 2**15, 2000)
    assert not hasattr(make_optimizer(config(), STEPS), "loss_scale")


@pytest.mark.parametrize("lr", [0.01, 0.00015, 0.0008, 0.00625])
def test_the_learning_rate_is_what_is_applied(lr):
    moved, _ = weights_after(config(optimizer="SGD", optimizer_momentum=0.0, lr=lr), [np.ones(3)])
    np.testing.assert_allclose(START - moved, lr, rtol=1e-5)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="but got 'Lion'"):
        make_optimizer(dataclasses.replace(BASELINE, optimizer="Lion"), STEPS)
