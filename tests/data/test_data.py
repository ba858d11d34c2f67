import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from green_screen.data.data import check_dataset, load_dataset
from green_screen.options import OptionError
from green_screen.space import Space

CIFAR_SUBSET = Path(__file__).parents[3] / "shared/data/cifar10-12k.zip"


def load(name, samples=None, seed=22, image_size=16):
    return load_dataset(str(name), image_size=image_size, samples=samples, seed=seed)


def test_checking_and_loading_need_no_tensorflow():
    program = (
        "import sys; from green_screen.data.data import check_dataset, load_dataset;"
        "check_dataset('digits'); load_dataset('digits', image_size=16, samples=50, seed=0);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_digits():
    digits = load("digits", image_size=32)
    assert digits.images.shape == (1797, 32, 32, 3)
    assert digits.images.dtype == np.uint8
    assert digits.images.min() == 0 and digits.images.max() == 255
    assert np.array_equal(digits.images[..., 0], digits.images[..., 2])
    assert digits.labels.dtype == np.int64
    assert np.array_equal(np.unique(digits.labels), np.arange(10))
    assert digits.class_names == tuple("0123456789")
    assert digits.predefined_test_from is None


def test_digits_at_their_own_size_are_scikit_learns():
    from sklearn.datasets import load_digits

    images = load("digits", image_size=8).images[..., 1] / 255 * 16
    np.testing.assert_allclose(images, load_digits().images, atol=0.04)


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_subset_is_stratified_and_seeded(name):
    subset = load(name, samples=100)
    assert len(subset.images) == len(subset.labels) == 100
    assert np.all(np.abs(np.bincount(subset.labels) - 10) <= 1)
    assert load(name, samples=100).digest == subset.digest
    assert load(name, samples=100, seed=23).digest != subset.digest


def test_subset_holds_images_of_the_whole_with_their_labels():
    whole, subset = load("digits"), load("digits", samples=200)
    known = {
        image.tobytes(): label for image, label in zip(whole.images, whole.labels, strict=True)
    }
    assert [known[image.tobytes()] for image in subset.images] == subset.labels.tolist()


def test_digest_tells_images_labels_and_sizes_apart():
    digests = {load("digits", image_size=size).digest for size in (8, 16)}
    digests |= {load("digits", samples=n).digest for n in (50, 60)}
    assert len(digests) == 4
    assert all(len(digest) == 64 for digest in digests)


def test_synthetic_images_can_be_learned_but_not_at_a_glance():
    from sklearn.neighbors import NearestCentroid

    images = load("synthetic", samples=1000)
    assert images.images.shape == (1000, 16, 16, 3)
    flat = images.images.reshape(1000, -1) / 255
    score = NearestCentroid().fit(flat[:800], images.labels[:800]).score
    assert 0.4 < score(flat[800:], images.labels[800:]) < 1


def test_more_samples_than_images_are_refused():
    with pytest.raises(OptionError, match="samples must be at most 1797.* got 1798"):
        load("digits", samples=1798)


@pytest.mark.parametrize("name", ["mnist", "missing.zip", "missing.npz", "/dev/null", "digits "])
def test_unknown_data_sets_are_refused_with_the_alternatives(name):
    with pytest.raises(OptionError, match="digits or synthetic .*cifar10.*zip.*npz") as caught:
        check_dataset(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("samples", "level", "message"),
    [
        (1800, {}, "at most 1797"),
        (200, {"partitioning": "60-20-20", "batch_size": 128}, "training images, 120, but got 128"),
        (40, {"partitioning": "90-5-5"}, None),
        (29, {}, "has 2"),
        (213, {"partitioning": "60-20-20", "batch_size": 128}, "training images, 127, but got 128"),
        (214, {"partitioning": "60-20-20", "batch_size": 128}, None),
    ],
)
def test_too_few_images_are_refused_before_anything_starts(samples, level, message):
    configs = [
        Space.load().parse({"batch_size": 4}),
        Space.load().parse({"batch_size": 4, **level}),
    ]
    if message is None:
        check_dataset("digits", samples=samples, configs=configs)
        return
    with pytest.raises(OptionError, match=message):
        check_dataset("digits", samples=samples, configs=configs)


def test_real_images_from_an_archive():
    if not CIFAR_SUBSET.exists():
        pytest.skip(f"{CIFAR_SUBSET} is not there")
    check_dataset(str(CIFAR_SUBSET))
    cifar = load(CIFAR_SUBSET, samples=120, image_size=32)
    assert cifar.images.shape == (120, 32, 32, 3)
    assert len(cifar.class_names) == 10 and "airplane" in cifar.class_names
    assert np.array_equal(np.bincount(cifar.labels), [12] * 10)
    assert 80 < cifar.images.mean() < 160
    # 10,000 training and 2,000 test images: a subset keeps about a sixth of test images, last.
    assert 90 <= cifar.predefined_test_from <= 110
