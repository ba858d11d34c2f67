import itertools

import numpy as np
import pytest
import tensorflow as tf

from green_screen.data.data import ImageDataset
from green_screen.data.pipeline import (
    _shuffled,
    ahead_on_device,
    from_parts,
    make_pipeline,
)
from green_screen.data.splits import Split
from green_screen.options import OptionError
from green_screen.space import Space, TrainingConfig

SPACE = Space.load()
SIZE = 8


@pytest.fixture(scope="module")
def dataset():
    """200 images of ten classes; the first two pixels hold the image's number."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (200, SIZE, SIZE, 3)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(200)
    labels = np.arange(200, dtype=np.int64) % 10
    names = tuple("abcdefghij")
    return ImageDataset("test", "test", images, labels, names, "0" * 64, 150)


def config(**changes) -> TrainingConfig:
    return SPACE.parse({"batch_size": 32, **changes})


def batches(part, n=None):
    return [tuple(t.numpy() for t in batch) for batch in (part if n is None else part.take(n))]


def numbers(images):
    """Which images of the data set these are, where no preprocessing changes values."""
    return images[:, 0, 0, 0].astype(int)


@pytest.mark.parametrize("partitioning", SPACE.levels["partitioning"])
@pytest.mark.parametrize("batch_size", SPACE.levels["batch_size"])
def test_every_level_of_partitioning_and_batch_size(dataset, partitioning, batch_size):
    wanted = config(partitioning=partitioning, batch_size=batch_size)
    if batch_size > 200 * int(partitioning[:2]) // 100:
        with pytest.raises(
            OptionError, match=f"number of training images, 1.., but got {batch_size}"
        ):
            make_pipeline(dataset, wanted, seed=1)
        return
    pipeline = make_pipeline(dataset, wanted, seed=1)
    parts = (pipeline.n_train, pipeline.n_validation, pipeline.n_test)
    assert parts == tuple(2 * int(p) for p in partitioning.split("-"))
    steps = pipeline.steps_per_epoch
    assert steps == pipeline.n_train // batch_size
    assert pipeline.images_per_epoch == steps * batch_size
    epoch = batches(pipeline.train, steps)
    assert {images.shape for images, _ in epoch} == {(batch_size, SIZE, SIZE, 3)}
    assert pipeline.evaluation_batch_size <= batch_size
    seen = {"train": np.concatenate([numbers(images) for images, _ in epoch])}
    for name, part in (("validation", pipeline.validation), ("test", pipeline.test)):
        seen[name] = np.concatenate([numbers(x)[weight > 0] for x, _, weight in batches(part)])
    # Every image of validation and test once, no training image twice, none in two parts.
    assert len(seen["train"]) == len(set(seen["train"])) == pipeline.images_per_epoch
    assert sorted(seen["validation"]) == sorted(pipeline.split.validation)
    assert sorted(seen["test"]) == sorted(pipeline.split.test)
    assert set(seen["train"]) <= set(pipeline.split.train)


def test_each_epoch_has_another_order_and_leaves_out_other_images(dataset):
    pipeline = make_pipeline(dataset, config(), seed=1)  # 120 images, 3 steps of 32
    stream = [numbers(images) for images, _ in batches(pipeline.train, 60)]
    epochs = [np.concatenate(stream[i : i + 3]) for i in range(0, 60, 3)]
    assert all(len(set(epoch)) == 96 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 20
    seen = np.bincount(np.concatenate(epochs), minlength=200)[pipeline.split.train]
    # Each image is in a fraction 96/120 of the epochs: 16 of 20, standard deviation 1.8.
    assert abs(seen.mean() - 16) < 1e-9
    assert seen.min() >= 8
    assert seen.std() < 4


def test_order_within_an_epoch_is_random(dataset):
    pipeline = make_pipeline(dataset, config(batch_size=4), seed=1)
    place = {image: i for i, image in enumerate(pipeline.split.train)}
    order = [place[i] for x, _ in batches(pipeline.train, 30) for i in numbers(x)]
    assert sorted(order) == list(range(120))
    assert abs(np.corrcoef(order, np.arange(120))[0, 1]) < 0.35
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.1


@pytest.mark.parametrize("n", [600, 54_000])
def test_neighbours_of_one_epoch_are_neighbours_of_another_by_chance_alone(n):
    """Mixing takes them as partners; with TensorFlow's default, 100 pairs of 54,000 recurred."""
    pairs = []
    for seed in (123_456, -77_777):
        for epoch in range(5):
            order = _shuffled(tf.range(n, dtype=tf.int64), n, seed, tf.constant(epoch)).numpy()
            assert np.array_equal(np.sort(order), np.arange(n))
            pairs.append(order[:-1] * n + order[1:])
    recurring = [len(np.intersect1d(a, b)) for a, b in itertools.combinations(pairs, 2)]
    assert np.mean(recurring) == pytest.approx(1, abs=0.5)  # Poisson, 45 pairs of epochs
    assert max(recurring) < 8


def test_without_a_gpu_no_batch_is_copied(dataset):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    pipeline = make_pipeline(dataset, config(), seed=1)
    train = pipeline.train
    assert ahead_on_device(train) is train


def test_labels_belong_to_their_images(dataset):
    pipeline = make_pipeline(dataset, config(), seed=1)
    for images, labels, *_ in batches(pipeline.train, 6) + batches(pipeline.test):
        assert np.array_equal(labels, np.eye(10)[dataset.labels[numbers(images)]])


@pytest.mark.parametrize("augmentation", SPACE.levels["augmentation"])
def test_the_seed_repeats_a_run(dataset, augmentation):
    wanted = config(augmentation=augmentation)
    first, again, other = (
        batches(make_pipeline(dataset, wanted, seed=seed).train, 5) for seed in (1, 1, 2)
    )
    for one, two in zip(first, again, strict=True):
        assert all(map(np.array_equal, one, two))
    assert not np.array_equal(first[0][0], other[0][0])


@pytest.mark.parametrize("precision", SPACE.levels["precision"])
@pytest.mark.parametrize("augmentation", SPACE.levels["augmentation"])
def test_dtypes(dataset, precision, augmentation):
    pipeline = make_pipeline(
        dataset, config(precision=precision, augmentation=augmentation), seed=1
    )
    fed = {"float64": "float64", "float32": "float32"}.get(precision, "float16")
    for part in (pipeline.train, pipeline.validation, pipeline.test):
        images, labels, *_ = next(iter(part))
        assert images.dtype == fed
        assert labels.dtype == ("float64" if fed == "float64" else "float32")
        assert np.all(np.isfinite(images))
        np.testing.assert_allclose(np.sum(labels, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("augmentation", ["mixup", "cutmix", "random"])
@pytest.mark.parametrize("precision", ["float16", "float64"])
def test_other_precisions_feed_the_same_images(dataset, augmentation, precision):
    changes = {"augmentation": augmentation, "preprocessing": "standardization"}
    expected = batches(make_pipeline(dataset, config(**changes), seed=1).train, 3)
    fed = batches(make_pipeline(dataset, config(precision=precision, **changes), seed=1).train, 3)
    for (images, labels), (want_images, want_labels) in zip(fed, expected, strict=True):
        tolerance = 2e-3 if precision == "float16" else 2e-5
        np.testing.assert_allclose(images, want_images, atol=tolerance, rtol=tolerance)
        np.testing.assert_allclose(labels, want_labels, atol=1e-6)


@pytest.mark.parametrize("preprocessing", SPACE.levels["preprocessing"])
def test_preprocessing_knows_the_training_part_alone(dataset, preprocessing):
    pipeline = make_pipeline(dataset, config(preprocessing=preprocessing, batch_size=4), seed=1)
    train = dataset.images[pipeline.split.train]
    assert pipeline.preprocessing.kind == preprocessing
    epoch = np.concatenate([images for images, _ in batches(pipeline.train, 30)])
    flat = train.reshape(-1, 3).astype(np.float64)
    lower, median, upper = np.quantile(flat, (0.25, 0.5, 0.75), axis=0)
    center, scale = {
        "None": (np.zeros(3), np.ones(3)),
        "standardization": (flat.mean(0), flat.std(0)),
        "robust_scaling": (median, upper - lower),
        "minmax": (flat.min(0), flat.max(0) - flat.min(0)),
    }[preprocessing]
    # One epoch at this batch size is the whole training part, in another order.
    np.testing.assert_allclose(
        np.sort(epoch.ravel()), np.sort(((train - center) / scale).ravel()), atol=1e-5
    )
    # The other parts are scaled by the same numbers, and so is what is served.
    for part, indices in (
        (pipeline.validation, pipeline.split.validation),
        (pipeline.test, pipeline.split.test),
    ):
        images = np.concatenate([x[weight > 0] for x, _, weight in batches(part)])
        np.testing.assert_allclose(images, (dataset.images[indices] - center) / scale, atol=1e-5)
        served = pipeline.preprocessing.apply(dataset.images[indices])
        np.testing.assert_allclose(images, served, atol=1e-6)


def test_statistics_do_not_see_other_parts(dataset):
    images = dataset.images // 4
    split = make_pipeline(dataset, config(), seed=1).split
    images[split.test] = 255
    changed = ImageDataset("x", "x", images, dataset.labels, dataset.class_names, "", None)
    fitted = make_pipeline(changed, config(preprocessing="minmax"), seed=1).preprocessing
    assert max(fitted.scale) <= 63


@pytest.mark.parametrize("augmentation", ["random", "mixup", "cutmix"])
def test_augmentation_touches_the_training_part_alone(dataset, augmentation):
    pipeline = make_pipeline(dataset, config(augmentation=augmentation), seed=1)
    assert len(pipeline.augmentation_ops) == (3 if augmentation == "random" else 0)
    raw = {image.tobytes() for image in dataset.images}
    for part in (pipeline.validation, pipeline.test):
        for images, labels, _ in batches(part):
            assert {image.astype(np.uint8).tobytes() for image in images} <= raw
            assert np.all(labels.max(axis=1) == 1)
    changed = [
        image.astype(np.uint8).tobytes() not in raw for image in batches(pipeline.train, 1)[0][0]
    ]
    assert np.mean(changed) > 0.5


def test_augmentation_differs_from_epoch_to_epoch(dataset):
    """The same image, blended anew each time it is seen."""
    pipeline = make_pipeline(dataset, config(augmentation="mixup"), seed=1)
    weights = [tuple(labels.max(axis=1)) for _, labels in batches(pipeline.train, 12)]
    assert len(set(weights)) == 12


@pytest.mark.parametrize(
    "sizes", [(100, 7, 8), (96, 1, 1), (60, 20, 40), (64, 65, 71), (33, 64, 64)]
)
def test_evaluation_covers_every_image_with_little_padding(dataset, sizes):
    from green_screen.data.splits import Split

    indices = np.arange(sum(sizes))
    split = Split(*np.split(indices, np.cumsum(sizes)[:2]))
    pipeline = from_parts(dataset, split, config(), seed=1)
    for part, n in ((pipeline.validation, sizes[1]), (pipeline.test, sizes[2])):
        weights = [weight for *_, weight in batches(part)]
        assert sum(np.sum(weight > 0) for weight in weights) == n
        assert len({len(weight) for weight in weights}) == 1
        assert sum(map(np.sum, weights)) == pytest.approx(sum(map(len, weights)))
    longest = max(sizes[1:])
    steps = -(-longest // 32)
    assert steps * pipeline.evaluation_batch_size - longest < steps


def model_of(n_traces):
    """A small model that counts how often its training and its evaluation are traced."""
    inputs = tf.keras.Input((SIZE, SIZE, 3))
    outputs = tf.keras.layers.Dense(10, "softmax")(tf.keras.layers.Flatten()(inputs))

    class Counting(tf.keras.Model):
        def train_step(self, data):
            n_traces["train"] += 1
            return super().train_step(data)

        def test_step(self, data):
            n_traces["test"] += 1
            return super().test_step(data)

    model = Counting(inputs, outputs)
    model.compile("sgd", "categorical_crossentropy", weighted_metrics=["accuracy"])
    return model


@pytest.mark.parametrize("augmentation", SPACE.levels["augmentation"])
def test_nothing_is_traced_after_the_first_epoch(dataset, augmentation):
    pipeline = make_pipeline(
        dataset, config(augmentation=augmentation, preprocessing="minmax"), seed=1
    )
    for part in (pipeline.train, pipeline.validation, pipeline.test):
        assert all(spec.shape.is_fully_defined() for spec in part.element_spec)  # one XLA program
    assert pipeline.validation.element_spec == pipeline.test.element_spec
    n_traces = {"train": 0, "test": 0}
    model = model_of(n_traces)
    fit = {"steps_per_epoch": pipeline.steps_per_epoch, "verbose": 0}
    model.fit(pipeline.train, validation_data=pipeline.validation, epochs=1, **fit)
    first = dict(n_traces)
    model.fit(pipeline.train, validation_data=pipeline.validation, epochs=3, **fit)
    model.evaluate(pipeline.test, verbose=0)
    assert n_traces == first


def test_keras_evaluates_the_exact_means(dataset):
    pipeline = make_pipeline(
        dataset, config(partitioning="70-15-15", batch_size=4, preprocessing="minmax"), seed=1
    )
    model = model_of({"train": 0, "test": 0})
    loss, accuracy = model.evaluate(pipeline.test, verbose=0)
    assert pipeline.n_test == 30 and len(list(pipeline.test)) * 4 == 32  # two are padding
    images = pipeline.preprocessing.apply(dataset.images[pipeline.split.test])
    probabilities = model.predict(images, verbose=0)
    labels = dataset.labels[pipeline.split.test]
    assert accuracy == pytest.approx(np.mean(probabilities.argmax(1) == labels))
    assert loss == pytest.approx(-np.log(probabilities[np.arange(30), labels]).mean(), rel=1e-4)


def test_a_predefined_test_part(dataset):
    assert dataset.predefined_test_from == 150
    split = Split(*np.split(np.arange(200), [120, 150]))
    pipeline = from_parts(dataset, split, config(), seed=1)
    images = np.concatenate([x[weight > 0] for x, _, weight in batches(pipeline.test)])
    assert numbers(images).tolist() == list(range(150, 200))


def graph_ops(part):
    """Return the kinds of operation in a part's graph, functions included."""
    graph = tf.compat.v1.GraphDef.FromString(
        tf.raw_ops.DatasetToGraphV2(input_dataset=part._variant_tensor).numpy()
    )
    functions = [node.op for function in graph.library.function for node in function.node_def]
    return {*functions, *(node.op for node in graph.node)}


@pytest.mark.parametrize("augmentation", SPACE.levels["augmentation"])
def test_batches_are_made_by_tensorflow_and_ahead(dataset, augmentation):
    pipeline = make_pipeline(dataset, config(augmentation=augmentation), seed=1)
    for part in (pipeline.train, pipeline.validation, pipeline.test):
        ops = graph_ops(part)
        assert {"GatherV2", "ParallelMapDatasetV2", "PrefetchDataset"} <= ops
        assert not any("PyFunc" in op or "MapFn" in op or "While" in op for op in ops)
        assert "BatchDatasetV2" not in ops  # a batch is one gather, not images put together


def test_fit_without_the_number_of_steps_is_refused_by_keras(dataset):
    pipeline = make_pipeline(dataset, config(), seed=1)
    with pytest.raises(ValueError, match="number of steps"):
        model_of({"train": 0, "test": 0}).fit(pipeline.train, verbose=0)
