import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from green_screen.data.splits import (
    part_sizes,
    split_indices,
    stratified_subset,
)
from green_screen.options import OptionError
from green_screen.space import Space

LEVELS = [str(level) for level in Space.load().levels["partitioning"]]

labels_of = st.lists(st.integers(20, 60), min_size=2, max_size=12).map(
    lambda counts: np.random.default_rng(0).permutation(
        np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    )
)
seeds = st.integers(0, 2**32 - 1)
partitionings = (
    st.tuples(st.integers(20, 90), st.integers(5, 60))
    .filter(lambda p: p[0] + p[1] <= 95)
    .map(lambda p: f"{p[0]}-{p[1]}-{100 - p[0] - p[1]}")
)


@pytest.mark.parametrize("level", [*LEVELS, None], ids=str)
@given(labels=labels_of, other=partitionings, seed=seeds)
@settings(max_examples=50)
def test_parts_are_disjoint_cover_everything_and_keep_proportions(level, labels, other, seed):
    """For each level of the factor; without one, for any other partitioning."""
    partitioning = level or other
    split = split_indices(labels, partitioning, seed)
    parts = (split.train, split.validation, split.test)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert tuple(len(part) for part in parts) == part_sizes(len(labels), partitioning)
    for part in parts:
        for label in np.unique(labels):
            share = np.sum(labels == label) * len(part) / len(labels)
            assert abs(np.sum(labels[part] == label) - share) < 2
    again = split_indices(labels, partitioning, seed)
    assert all(map(np.array_equal, parts, (again.train, again.validation, again.test)))


@pytest.mark.parametrize("partitioning", LEVELS)
def test_sizes_are_the_percentages(partitioning):
    percentages = [int(p) for p in partitioning.split("-")]
    assert part_sizes(1000, partitioning) == tuple(10 * p for p in percentages)
    for n in (10, 333, 1797, 60_000):
        sizes = part_sizes(n, partitioning)
        assert sum(sizes) == n
        assert np.allclose(sizes, np.array(percentages) * n / 100, atol=1)


def test_seeds_draw_different_images_of_every_class():
    labels = np.repeat(np.arange(10), 30)
    first, second = (split_indices(labels, "60-20-20", seed) for seed in (1, 2))
    for label in range(10):
        assert set(first.test[labels[first.test] == label]) != set(
            second.test[labels[second.test] == label]
        )


@pytest.mark.parametrize("partitioning", LEVELS)
def test_the_first_images_of_a_part_are_of_all_classes(partitioning):
    labels = np.repeat(np.arange(10), 400)  # class after class, as folders are read
    split = split_indices(labels, partitioning, 4)
    for part in (split.train, split.validation, split.test):
        counts = np.bincount(labels[part[:100]], minlength=10)
        assert counts.min() > 0 and counts.max() < 30


def test_which_images_are_test_does_not_follow_their_order():
    labels = np.repeat(np.arange(2), 5000)
    test = split_indices(labels, "60-20-20", 3).test
    # Uniform over the 5,000 places of a class: the mean's standard error is 46 places.
    assert abs(np.mean(test % 5000) - 2499.5) < 5 * 46


@given(labels_of, st.data(), seeds)
def test_subset_keeps_proportions(labels, data, seed):
    n = data.draw(st.integers(len(labels) // 2, len(labels)))
    chosen = stratified_subset(labels, n, seed)
    assert len(chosen) == n == len(set(chosen))
    for label in np.unique(labels):
        share = np.sum(labels == label) * n / len(labels)
        assert abs(np.sum(labels[chosen] == label) - share) < 1


@pytest.mark.parametrize(
    ("counts", "partitioning", "message"),
    [
        ([10, 2], "60-20-20", "at least 3 images.* class 1 .* has 2"),
        ([50], "60-20-20", "at least two classes"),
        ([4, 4], "90-5-5", "8 for training, 0 for validation and 0 for test"),
        ([3, 3, 3, 3], "10-45-45", "no training image of class"),
    ],
)
def test_what_cannot_be_split_is_refused(counts, partitioning, message):
    labels = np.repeat(np.arange(len(counts)), counts)
    with pytest.raises(OptionError, match=message):
        split_indices(labels, partitioning, 0)


@pytest.mark.parametrize(
    ("samples", "message"),
    [(101, "at most 100"), (20, "has 2"), (9, "leaves out a class")],
)
def test_subsets_that_are_too_large_or_too_small_are_refused(samples, message):
    with pytest.raises(OptionError, match=message):
        stratified_subset(np.repeat(np.arange(10), 10), samples, 0)
