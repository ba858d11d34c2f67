"""Trainings of seconds, for the tests of the model side."""

import functools

import tensorflow as tf

from green_screen.data.data import load_dataset
from green_screen.data.pipeline import make_pipeline
from green_screen.space import Space, resolve
from green_screen.training.run import fit
from green_screen.training.setup import compiled_model

SIZE = 8


@functools.cache
def dataset(samples=60):
    return load_dataset("synthetic", image_size=SIZE, samples=samples, seed=1)


def effective(**levels):
    return resolve(Space.load().parse({"optimizer": "SGD", "batch_size": 32, **levels})).effective


def build(config, total_steps=10):
    classes = len(dataset().class_names)
    return compiled_model(
        "resnet8", config, image_size=SIZE, n_classes=classes, total_steps=total_steps, seed=1
    )


def train(config, epochs=1, samples=60):
    """Return the trained model, its pipeline and its history."""
    pipeline = make_pipeline(dataset(samples), config, seed=1)
    model = build(config, epochs * pipeline.steps_per_epoch)
    history = fit(model, pipeline, tf.keras.callbacks.Callback(), epochs=epochs)
    return model, pipeline, history


@functools.cache
def trained(config, epochs=1, samples=60):
    """Return what `train` does, made once: for tests that only look at it."""
    return train(config, epochs, samples)


def executed_nodes(model, pipeline):
    """All nodes of the train function's graph and of the functions it calls."""
    function = model.train_function.get_concrete_function(iter(pipeline.train))
    graph = function.graph.as_graph_def()
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
