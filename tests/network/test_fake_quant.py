import numpy as np
import pytest
import tensorflow as tf

from green_screen.network import fake_quant as fq

CHANNELS = 7


def per_channel(x, low, high, narrow):
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(x, low, high, 8, narrow)


def per_tensor(x, low, high, narrow):
    return tf.quantization.fake_quant_with_min_max_vars(x, low, high, 8, narrow)


def run(function, x, low, high, upstream):
    x, low, high = (tf.constant(v, tf.float32) for v in (x, low, high))
    with tf.GradientTape() as tape:
        tape.watch([x, low, high])
        y = function(x, low, high)
    return [t.numpy() for t in (y, *tape.gradient(y, [x, low, high], upstream))]


def assert_same(reference, x, low, high, narrow):
    upstream = tf.constant(np.random.default_rng(1).normal(size=x.shape), tf.float32)
    expected = run(lambda *a: reference(*a, narrow), x, low, high, upstream)
    actual = run(lambda *a: fq.fake_quant(*a, narrow_range=narrow), x, low, high, upstream)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])
    # The sums over a channel may add in another order.
    np.testing.assert_allclose(actual[2:], expected[2:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_op_per_channel_on_random_tensors(seed, narrow):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, 3, 40, CHANNELS)) * rng.lognormal(0, 2, CHANNELS)
    spread = rng.lognormal(0, 2, (2, CHANNELS))
    assert_same(per_channel, x, -spread[0], spread[1], narrow)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equals_the_op_per_tensor_on_random_tensors(seed, narrow):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, 4, 4, 6)) * 3
    low, high = -rng.lognormal(), rng.lognormal()
    assert_same(per_tensor, x, low, high, narrow)


@pytest.mark.parametrize("narrow", [False, True])
def test_equals_the_op_in_the_corner_cases(narrow):
    low = np.array([0.0, 0.0, -1.0, 0.0, -2.0, 1.0, -1e-30], np.float32)
    high = np.array([0.0, 5.0, 0.0, 0.0, 2.0, 1.0, 1e-30], np.float32)
    rows = [np.zeros(CHANNELS), low, high, np.nextafter(low, -9), np.nextafter(high, 9)]
    rows += [np.full(CHANNELS, v) for v in (-1e30, 1e30, -0.0, 1e-38, 0.5)]
    with np.errstate(all="ignore"):
        assert_same(per_channel, np.stack(rows).astype(np.float32), low, high, narrow)


@pytest.mark.parametrize("narrow", [False, True])
def test_equals_the_op_at_the_nudged_limits(narrow):
    """The limits move so that zero is representable; the gradient switches exactly there."""
    low = np.array([-1.003, -0.4, -3.3, -1.0, -0.01, -127.0, -1.0], np.float32)
    high = np.array([1.0, 2.0, 0.7, 1.0, 9.0, 127.0, 254.0], np.float32)
    grid = fq._nudge(tf.constant(low), tf.constant(high), 1.0 if narrow else 0.0, 255.0)
    rows = []
    for limit in (grid.low.numpy(), grid.high.numpy()):
        rows += [limit, np.nextafter(limit, np.float32(-1e9)), np.nextafter(limit, np.float32(1e9))]
    # Halfway between two values, where rounding decides.
    rows += [grid.low.numpy() + (k + 0.5) * grid.step.numpy() for k in range(0, 250, 10)]
    assert_same(per_channel, np.stack(rows).astype(np.float32), low, high, narrow)


def test_all_zero_channel_gives_zero_and_passes_its_gradient():
    x = tf.constant([[0.0, 1.0]])
    y, dx, *_ = run(fq.fake_quant, x, [0.0, -1.0], [0.0, 1.0], tf.constant([[3.0, 4.0]]))
    assert y[0, 0] == 0.0
    assert dx.tolist() == [[3.0, 4.0]]


def test_compiled_by_xla_it_is_the_same_but_for_ties():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(64, CHANNELS)).astype(np.float32)
    low, high = np.full(CHANNELS, -1.5, np.float32), np.full(CHANNELS, 1.2, np.float32)
    upstream = tf.ones_like(x)
    plain = run(fq.fake_quant, x, low, high, upstream)
    compiled = run(tf.function(fq.fake_quant, jit_compile=True), x, low, high, upstream)
    step = (high - low)[0] / 255
    assert np.abs(plain[0] - compiled[0]).max() <= step * 1.001
    assert np.mean(np.abs(plain[0] - compiled[0]) > step / 2) < 0.01
    np.testing.assert_array_equal(plain[1], compiled[1])
