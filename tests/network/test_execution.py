"""Several steps an execution: the numbers of Keras, with one trace of a step instead of two."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from green_screen.network.execution import trace_once
from green_screen.space import Space
from green_screen.training import setup

N_STEPS = setup.STEPS_PER_EXECUTION + 3  # the last execution is a short one


def network(internal: str, *, by_keras: bool):
    """Return a network, and how often its steps have been called from Python."""
    tf.keras.backend.clear_session()
    calls = {"train_step": 0, "test_step": 0}

    def counted(name, step):
        def count(batch):
            calls[name] += 1
            return step(batch)

        return count

    def count_calls(model):
        for name in calls:
            setattr(model, name, counted(name, getattr(model, name)))
        if not by_keras:
            trace_once(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "trace_once", count_calls)
        config = dataclasses.replace(Space.load().baseline, optimizer="Adam", internal=internal)
        settings = {"image_size": 8, "n_classes": 3, "total_steps": 2 * N_STEPS, "seed": 0}
        return setup.compiled_model("resnet8", config, **settings), calls


def batches():
    random = np.random.default_rng(0)
    images = random.normal(size=(N_STEPS, 4, 8, 8, 3)).astype(np.float32)
    labels = tf.one_hot(random.integers(0, 3, (N_STEPS, 4)), 3)
    weights = random.uniform(size=(N_STEPS, 4)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((images, labels, weights))


def trained(model):
    history = model.fit(
        batches().repeat(), steps_per_epoch=N_STEPS, epochs=2, validation_data=batches(), verbose=0
    )
    return history.history, model.evaluate(batches(), verbose=0), int(model._train_counter)


@pytest.mark.parametrize("internal", ["None", "jit_compilation", "pre_quantization"])
def test_the_numbers_are_those_of_keras_and_a_step_is_traced_once(internal):
    keras, twice = network(internal, by_keras=True)
    expected = trained(keras)
    model, once = network(internal, by_keras=False)
    assert trained(model) == expected
    assert expected[-1] == 2 * N_STEPS
    for ours, theirs in zip(model.get_weights(), keras.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert once == {"train_step": 1, "test_step": 1}
    if internal != "jit_compilation":  # which is a function of its own, traced for both
        assert twice == {"train_step": 2, "test_step": 2}
