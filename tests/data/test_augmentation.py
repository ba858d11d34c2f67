import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from green_screen.data import augmentation
from green_screen.data.augmentation import RANDOM_OPS, choose_ops, make_augmentation
from green_screen.space import IMPLEMENTED, SpaceError

SIZE = 16
DTYPES = ("float32", "float64")


def batch(n, dtype="float32", size=SIZE):
    """Images whose every pixel tells which image it is of, and labels that say the same."""
    images = np.broadcast_to(np.arange(n)[:, None, None, None], (n, size, size, 3))
    return tf.constant(images, dtype), tf.one_hot(tf.range(n), n, dtype=dtype)


def seed(step=0):
    return tf.constant([5, step], tf.int64)


def test_every_level_is_implemented():
    for kind in IMPLEMENTED["augmentation"]:
        assert make_augmentation(kind, seed=0, batch_size=2).kind == kind
    with pytest.raises(SpaceError, match="'erase'"):
        make_augmentation("erase", seed=0, batch_size=2)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_needs_a_second_image(kind):
    with pytest.raises(SpaceError, match="batch_size must be at least 2, but got 1"):
        make_augmentation(kind, seed=0, batch_size=1)


@pytest.mark.parametrize("kind", IMPLEMENTED["augmentation"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_shape_dtype_and_sum_of_labels_stay(kind, dtype):
    images, labels = batch(8, dtype)
    changed, mixed = make_augmentation(kind, seed=1, batch_size=8).apply(images, labels, seed())
    assert changed.shape == images.shape and changed.dtype == images.dtype
    assert mixed.shape == labels.shape and mixed.dtype == labels.dtype
    np.testing.assert_allclose(np.sum(mixed, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["random", "mixup", "cutmix"])
def test_the_seed_and_the_step_decide(kind):
    apply = make_augmentation(kind, seed=1, batch_size=8).apply
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(0, 255, (8, SIZE, SIZE, 3)), tf.float32)
    labels = batch(8)[1]
    first, again, next_step = (apply(images, labels, seed(step))[0] for step in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next_step)
    assert not np.array_equal(first, images)


def test_none_changes_nothing():
    images, labels = batch(4)
    same, same_labels = make_augmentation("None", seed=1, batch_size=4).apply(
        images, labels, seed()
    )
    assert same is images and same_labels is labels


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixup_labels_match_the_blend(dtype):
    n = 64
    images, labels = batch(n, dtype)
    mixed, mixed_labels = augmentation.mixup(images, labels, seed())
    for i in range(n):
        weight = mixed_labels[i, i].numpy()
        blended = weight * i + (1 - weight) * ((i + 1) % n)
        np.testing.assert_allclose(mixed[i], blended, atol=1e-4)
        assert mixed_labels[i, (i + 1) % n].numpy() == pytest.approx(1 - weight, abs=1e-6)


def test_mixup_weights_are_beta_distributed():
    weights = augmentation._beta(0.2, 5000, seed(), tf.float32).numpy()
    assert stats.kstest(weights, stats.beta(0.2, 0.2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("dtype", DTYPES)
def test_cutmix_labels_match_the_pasted_area(dtype):
    n = 256
    images, labels = batch(n, dtype)
    mixed, mixed_labels = augmentation.cutmix(images, labels, seed())
    clipped = 0
    for i, image in enumerate(mixed.numpy()):
        pasted = image[..., 0] == (i + 1) % n
        assert np.all(pasted | (image[..., 0] == i))
        assert np.all(image == image[..., :1])
        assert mixed_labels[i, (i + 1) % n].numpy() == pytest.approx(pasted.mean(), abs=1e-6)
        assert mixed_labels[i, i].numpy() == pytest.approx(1 - pasted.mean(), abs=1e-6)
        rows, columns = np.flatnonzero(pasted.any(1)), np.flatnonzero(pasted.any(0))
        if pasted.any():  # one full rectangle
            assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            clipped += {0, SIZE - 1} & {*rows, *columns} != set() and len(rows) != len(columns)
    assert clipped > 10  # boxes at the border are cut off, and their labels say so


def test_cutmix_box_before_clipping_is_uniform_in_area():
    # Boxes that touch no border show their side: even, about sqrt(u) of the size.
    n, size = 4000, 64
    draws = tf.random.stateless_uniform([3, n], seed())
    top, bottom = augmentation._interval(tf.fill([n], 0.5), tf.sqrt(draws[0]), size)
    areas = np.square((bottom - top).numpy() / size)
    assert np.mean(areas) == pytest.approx(0.5, abs=0.04)
    assert areas.max() > 0.9 and areas.min() < 0.01


def test_three_operations_are_chosen_by_the_seed():
    chosen = {choose_ops(s) for s in range(400)}
    assert chosen == set(itertools.combinations(RANDOM_OPS, 3))
    assert choose_ops(22) == choose_ops(22)
    assert make_augmentation("random", seed=22, batch_size=1).ops == choose_ops(22)


def gradient_image(n, size=SIZE):
    """x in the first channel, y in the second: pixels tell where they came from."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return tf.constant(np.repeat(np.stack([x, y, x + y], -1)[None], n, axis=0))


def changed_by(op, n=200):
    images = gradient_image(n)
    return augmentation.random_ops(images, None, seed(), ops=(op,))[0].numpy()


def inner(images):
    """The middle, which no resampling takes from beyond the border."""
    return images[:, 5:11, 5:11]


def test_flip_mirrors_half_of_the_images_left_to_right():
    flipped, original = changed_by("flip"), gradient_image(1).numpy()[0]
    mirrored = np.all(np.isclose(flipped, original[:, ::-1], atol=1e-4), axis=(1, 2, 3))
    same = np.all(np.isclose(flipped, original, atol=1e-4), axis=(1, 2, 3))
    assert np.all(mirrored ^ same)
    assert 60 < mirrored.sum() < 140


@pytest.mark.parametrize(
    ("op", "moved"),
    [
        ("height_shift", (False, True)),
        ("width_shift", (True, False)),
        ("translation", (True, True)),
    ],
)
def test_shifts_move_along_their_axes_by_up_to_a_tenth(op, moved):
    shift = inner(changed_by(op) - gradient_image(1).numpy()).mean(axis=(1, 2))
    for axis in (0, 1):
        if moved[axis]:
            assert np.abs(shift[:, axis]).max() == pytest.approx(0.1 * SIZE, rel=0.1)
            assert abs(shift[:, axis].mean()) < 0.03 * SIZE
        else:
            np.testing.assert_allclose(shift[:, axis], 0, atol=1e-4)
    if all(moved):
        assert abs(np.corrcoef(shift[:, 0], shift[:, 1])[0, 1]) < 0.3


def slopes(images):
    """For each image d(source x, y)/d(x, y), [n, 2, 2]."""
    middle = inner(images)[..., :2]
    along_x = np.diff(middle, axis=2).mean(axis=(1, 2))
    along_y = np.diff(middle, axis=1).mean(axis=(1, 2))
    return np.stack([along_x, along_y], axis=-1)


def test_rotation_turns_by_up_to_a_tenth_about_the_center():
    matrices = slopes(changed_by("rotation"))
    angles = np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]) / (2 * np.pi)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-3)
    assert np.abs(angles).max() == pytest.approx(0.1, rel=0.1)
    centers = inner(changed_by("rotation")).mean(axis=(1, 2))[:, :2]
    np.testing.assert_allclose(centers, (SIZE - 1) / 2, atol=1e-3)


def test_zoom_scales_both_axes_alike_by_up_to_a_tenth():
    matrices = slopes(changed_by("zoom"))
    zoom = matrices[:, 0, 0]
    np.testing.assert_allclose(matrices, zoom[:, None, None] * np.eye(2), atol=1e-3)
    assert zoom.max() == pytest.approx(1.1, abs=0.01)
    assert zoom.min() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("op", "layer"),
    [
        ("rotation", tf.keras.layers.RandomRotation((0.07, 0.07))),
        ("zoom", tf.keras.layers.RandomZoom((0.07, 0.07))),
    ],
)
def test_geometry_agrees_with_keras(monkeypatch, op, layer):
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(0, 255, (3, SIZE, SIZE, 3)), tf.float32)
    fixed = tf.fill([8, 3], 0.7)  # every draw at 0.7 of the factor
    monkeypatch.setattr(tf.random, "stateless_uniform", lambda *args, **kwargs: fixed)
    ours = augmentation.random_ops(images, None, seed(), ops=(op,))[0]
    monkeypatch.undo()
    np.testing.assert_allclose(ours, layer(images, training=True), atol=0.05)


def test_contrast_scales_about_the_mean_and_clips():
    rng = np.random.default_rng(0)
    images = rng.uniform(50, 200, (200, SIZE, SIZE, 3)).astype(np.float32)
    changed = augmentation.random_ops(tf.constant(images), None, seed(), ops=("contrast",))[0]
    np.testing.assert_allclose(np.mean(changed, (1, 2)), images.mean((1, 2)), atol=1e-2)
    factors = np.std(changed, (1, 2)) / images.std((1, 2))
    np.testing.assert_allclose(factors, factors[:, :1] * np.ones(3), atol=1e-3)
    assert factors.max() == pytest.approx(1.1, abs=0.01)
    assert factors.min() == pytest.approx(0.9, abs=0.01)
    black_and_white = tf.constant(np.where(images > 125, 255, 0), tf.float32)
    clipped = augmentation.random_ops(black_and_white, None, seed(), ops=("contrast",))[0]
    assert np.min(clipped) == 0 and np.max(clipped) == 255


def test_operations_compose():
    ops = ("flip", "rotation", "zoom", "contrast", "translation", "height_shift", "width_shift")
    images = gradient_image(50) * 10
    changed = augmentation.random_ops(images, None, seed(), ops=ops)[0].numpy()
    assert np.all(np.isfinite(changed))
    assert changed.min() >= 0 and changed.max() <= 255
    determinants = np.linalg.det(slopes(changed))
    assert np.any(determinants < 0) and np.any(determinants > 0)
