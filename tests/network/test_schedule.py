import math

import numpy as np
import pytest
import tensorflow as tf

from green_screen.network.schedule import make_schedule

STEPS = 40
FORMULAS = {
    "constant": lambda t: 1.0,
    "exponential": lambda t: 0.01**t,
    "polynomial": lambda t: (1 - t) ** 2,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
}


def applied_rates(name, initial, steps):
    """What the optimizer subtracts in each step from a weight whose gradient is 1."""
    optimizer = tf.keras.optimizers.legacy.SGD(make_schedule(name, initial, STEPS))
    weight = tf.Variable(0.0, dtype=tf.float64)
    rates = []
    for _ in range(steps):
        before = weight.numpy()
        optimizer.apply_gradients([(tf.constant(1.0, tf.float64), weight)])
        rates.append(before - weight.numpy())
    return np.array(rates)


@pytest.mark.parametrize("initial", [0.01, 0.00015, 0.0008, 0.00625])
@pytest.mark.parametrize("name", FORMULAS)
def test_rate_at_the_first_middle_and_last_step(name, initial):
    rates = applied_rates(name, initial, STEPS)
    for step in (0, STEPS // 2, STEPS - 1):
        assert rates[step] == pytest.approx(initial * FORMULAS[name](step / STEPS), rel=1e-4)
    assert rates[0] == pytest.approx(initial, rel=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_steps_beyond_the_training_stay_at_or_below_its_end(name):
    rates = applied_rates(name, 0.01, 2 * STEPS)
    assert rates[STEPS:].max() <= rates[STEPS - 1] * (1 + 1e-6)


def test_schedules_that_decay_differ_from_each_other_half_way():
    halves = sorted(applied_rates(name, 1.0, STEPS // 2 + 1)[-1] for name in FORMULAS)
    assert min(b / a for a, b in zip(halves, halves[1:], strict=False)) > 1.5


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="but got 'linear'"):
        make_schedule("linear", 0.1, 10)
