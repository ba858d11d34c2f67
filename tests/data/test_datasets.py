import io
import os
import sys

import numpy as np
import pytest

from green_screen.data import datasets
from green_screen.data.data import check_dataset, load_dataset
from green_screen.options import OptionError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def load(name, image_size=8, samples=None):
    return load_dataset(name, image_size=image_size, samples=samples, seed=0)


@pytest.mark.parametrize("shape", [(40, 8, 8), (40, 8, 8, 1), (40, 8, 8, 3)])
@pytest.mark.parametrize("label_shape", [(40,), (40, 1)])
def test_npz_of_images_and_labels(tmp_path, rng, shape, label_shape):
    images = rng.integers(0, 256, shape).astype(np.uint8)
    labels = (np.arange(40) % 4).reshape(label_shape).astype(np.uint8)
    name = save(tmp_path / "data.npz", images=images, labels=labels)
    check_dataset(name)
    loaded = load(name)
    three = images if shape[3:] == (3,) else np.repeat(images.reshape(40, 8, 8, 1), 3, axis=3)
    assert np.array_equal(loaded.images, three)
    assert np.array_equal(loaded.labels, np.arange(40) % 4)
    assert loaded.class_names == ("0", "1", "2", "3")
    assert loaded.predefined_test_from is None
    assert loaded.source == name


def test_npz_with_a_test_part_and_class_names(tmp_path, rng):
    train, test = (rng.integers(0, 256, (n, 28, 28)).astype(np.uint8) for n in (30, 12))
    name = save(
        tmp_path / "data.npz",
        x_train=train,
        y_train=np.arange(30) % 2,
        x_test=test,
        y_test=np.arange(12) % 2,
        class_names=np.array(["cat", "dog"]),
    )
    loaded = load(name, image_size=28)
    assert loaded.predefined_test_from == 30
    assert np.array_equal(loaded.images[30:, :, :, 0], test)
    assert loaded.class_names == ("cat", "dog")
    subset = load(name, image_size=28, samples=20)
    test_images = {image.tobytes() for image in loaded.images[30:]}
    is_test = [image.tobytes() in test_images for image in subset.images]
    assert is_test == [i >= subset.predefined_test_from for i in range(20)]


def test_images_are_resized_with_antialiasing(tmp_path):
    stripes = np.zeros((10, 32, 32), np.uint8)
    stripes[:, :, ::2] = 200  # finer than the target's pixels: it must become grey, not stripes
    name = save(tmp_path / "data.npz", images=stripes, labels=np.arange(10) % 2)
    resized = load(name, image_size=8).images
    assert resized.shape == (10, 8, 8, 3)
    assert np.all(np.abs(resized[:, :, 1:-1].astype(int) - 100) < 5)


IMAGES = np.zeros((10, 8, 8, 3), np.uint8)
LABELS = np.arange(10) % 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": IMAGES, "y": LABELS}, "must hold images and labels, or x_train.* holds x, y"),
        ({"images": IMAGES / 255, "labels": LABELS}, "uint8 .* are float64 .10, 8, 8, 3."),
        ({"images": IMAGES[..., :2], "labels": LABELS}, r"uint8 .* \(10, 8, 8, 2\)"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "10 integers"),
        ({"images": IMAGES, "labels": LABELS / 2}, "10 integers.* are float64"),
        ({"images": IMAGES, "labels": LABELS - 1}, "each of 0 to 1 .* but are -1, 0:"),
        ({"images": IMAGES, "labels": LABELS + 1}, "each of 0 to 1 .* but are 1, 2: number"),
        ({"images": IMAGES, "labels": LABELS * 2}, "each of 0 to 1 .* but are 0, 2:"),
        ({"images": IMAGES, "labels": LABELS * 104 + 101}, "are 101, 205:"),
        # A network of 20 million outputs, had it been built.
        ({"images": IMAGES, "labels": LABELS * 20231105}, "are 0, 20231105:"),
        ({"images": IMAGES, "labels": np.arange(10) * 3}, "are 0, 3, 6, 9, 12 and 5 more:"),
        ({"images": IMAGES, "labels": LABELS.astype(np.uint64) - 1}, "are 0, 18446744073709551615"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "at least one"),
        ({"images": IMAGES, "labels": LABELS, "class_names": np.array(["a"])}, "its 1 classes"),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": np.array(["a", "b", "c"])},
            "each of 0 to 2 at least once, but are 0, 1:",
        ),
        (
            {"images": IMAGES, "labels": LABELS, "class_names": np.array([["a", "b"]])},
            "must be a list",
        ),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, :4], "y_test": LABELS},
            "of one shape",
        ),
    ],
)
def test_npz_of_another_form_is_refused(tmp_path, arrays, message):
    name = save(tmp_path / "data.npz", **arrays)
    with pytest.raises(OptionError, match=message):
        check_dataset(name)


def test_arrays_that_are_not_read_are_named(tmp_path):
    both = {"images": IMAGES, "labels": LABELS, "x_val": IMAGES, "y_val": LABELS}
    name = save(tmp_path / "data.npz", **both)
    said = f"left out of {name!r}: the arrays x_val, y_val"
    assert check_dataset(name) == load(name).left_out == said
    assert check_dataset(save(tmp_path / "all.npz", images=IMAGES, labels=LABELS)) == ""


def test_pickled_objects_are_not_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    name = save(tmp_path / "data.npz", images=IMAGES, labels=np.array([Trap()] * 10, dtype=object))
    with pytest.raises(OptionError, match="allow_pickle"):
        check_dataset(name)
    assert not (tmp_path / "sprung").exists()


def array_file():
    content = io.BytesIO()
    np.save(content, IMAGES)
    return content.getvalue()


@pytest.mark.parametrize("suffix", [".npz", ".zip"])
@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 not really", b"", array_file()], ids=["broken", "empty", "npy"]
)
def test_what_is_no_archive_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"data{suffix}"
    path.write_bytes(content)
    with pytest.raises(OptionError, match="cannot be read"):
        check_dataset(str(path))


def test_cifar_without_a_network_names_the_alternatives(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(
        OptionError, match="cifar100 cannot be downloaded .*without a network use digits"
    ):
        check_dataset("cifar100")


def test_arrays_of_keras_are_pooled_and_say_where_the_test_part_starts(rng):
    train, test = (rng.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8) for n in (40, 20))
    labels = np.arange(60)[:, None].astype(np.uint8) % 10  # a column, as CIFAR's are
    source = datasets.from_keras("keras.datasets.x", ((train, labels[:40]), (test, labels[40:])))
    assert source.predefined_test_from == 40
    assert np.array_equal(source.labels, np.arange(60) % 10)
    indices = np.array([0, 39, 40, 59])
    pooled = np.concatenate([train, test])
    assert np.array_equal(source.read(indices, 32), pooled[indices])
    assert source.read(indices, 16).shape == (4, 16, 16, 3)


def test_cached_cifar_is_not_downloaded_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    cache = tmp_path / ".keras" / "datasets"
    cache.mkdir(parents=True)
    (cache / datasets.CIFAR_ARCHIVES["cifar10"]).touch()
    check_dataset("cifar10")
    with pytest.raises(FileNotFoundError):
        check_dataset("cifar100")
