import json

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from green_screen.data import preprocessing
from green_screen.data.preprocessing import Preprocessing
from green_screen.space import IMPLEMENTED, SpaceError

KINDS = IMPLEMENTED["preprocessing"]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    # Three channels of different range and skew; more images than are counted at once.
    channels = [rng.integers(0, 200, (1500, 6, 5)), rng.gamma(2, 20, (1500, 6, 5)).clip(3, 255)]
    channels.append(rng.integers(100, 120, (1500, 6, 5)))
    return np.stack(channels, axis=-1).astype(np.uint8)


def test_every_level_is_implemented():
    assert set(preprocessing.KINDS) == set(KINDS)
    with pytest.raises(SpaceError, match="'whitening'"):
        preprocessing.fit(np.zeros((1, 8, 8, 3), np.uint8), "whitening")


@pytest.mark.parametrize(
    ("kind", "scaler"),
    [
        ("standardization", StandardScaler()),
        ("robust_scaling", RobustScaler()),
        ("minmax", MinMaxScaler()),
    ],
)
def test_each_channel_agrees_with_scikit_learn(images, kind, scaler):
    expected = scaler.fit_transform(images.reshape(-1, 3).astype(np.float64))
    ours = preprocessing.fit(images, kind).apply(images)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours.reshape(-1, 3), expected, atol=2e-6)


def test_statistics_of_the_scaled_training_part(images):
    standard = preprocessing.fit(images, "standardization").apply(images)
    np.testing.assert_allclose(standard.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(standard.std((0, 1, 2)), 1, atol=1e-4)
    ranged = preprocessing.fit(images, "minmax").apply(images)
    assert np.array_equal(ranged.min((0, 1, 2)), [0, 0, 0])
    np.testing.assert_allclose(ranged.max((0, 1, 2)), 1, atol=1e-6)
    robust = preprocessing.fit(images, "robust_scaling").apply(images)
    lower, median, upper = np.quantile(robust, (0.25, 0.5, 0.75), axis=(0, 1, 2))
    np.testing.assert_allclose(median, 0, atol=1e-6)
    np.testing.assert_allclose(upper - lower, 1, atol=1e-5)


def test_none_leaves_raw_values(images):
    scaled = preprocessing.fit(images, "None").apply(images)
    assert scaled.dtype == np.float32
    assert np.array_equal(scaled, images)


def test_other_parts_are_scaled_by_the_training_part(images):
    fitted = preprocessing.fit(images // 2, "minmax")
    assert fitted.apply(images).max() > 1.9


def test_float_images_are_scaled_like_integers(images):
    fitted = preprocessing.fit(images, "standardization")
    assert np.array_equal(fitted.apply(images), fitted.apply(images.astype(np.float32)))


def test_equal_quartiles_fall_back_to_the_deviation():
    images = np.zeros((10, 8, 8, 3), np.uint8)
    images[0] = 200  # a tenth of the pixels: both quartiles are 0
    fitted = preprocessing.fit(images, "robust_scaling")
    assert fitted.center == (0, 0, 0)
    np.testing.assert_allclose(fitted.scale, images.std((0, 1, 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_channel_stays_finite(kind):
    images = np.full((2, 8, 8, 3), 7, np.uint8)
    scaled = preprocessing.fit(images, kind).apply(images)
    assert np.all(scaled == (7 if kind == "None" else 0))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7])
def test_quartiles_of_few_pixels_are_interpolated(n):
    values = np.random.default_rng(n).integers(0, 256, (n, 1, 1, 1)).astype(np.uint8)
    fitted = preprocessing.fit(np.repeat(values, 3, axis=3), "robust_scaling")
    lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75))
    assert fitted.center[0] == pytest.approx(median)
    if n > 1:
        assert fitted.scale[0] == pytest.approx(upper - lower)


@pytest.mark.parametrize("kind", KINDS)
def test_survives_json(images, kind):
    fitted = preprocessing.fit(images, kind)
    assert Preprocessing.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


def test_scaled_pixels_are_refused(images):
    with pytest.raises(TypeError, match="float32"):
        preprocessing.fit(images.astype(np.float32), "minmax")
