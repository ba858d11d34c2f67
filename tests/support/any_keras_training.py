"""What a Keras says to SMICallback in every kind of training; run by an interpreter that has it.

``python any_keras_training.py FOLDER`` prints, as JSON, what was found in each situation: which
cells of each row of ``logs.csv`` are filled, which metrics were logged and why others were not.
``$KERAS`` is the module to import, ``$KERAS_BACKEND`` what Keras 3 computes with.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import sys
from pathlib import Path

import numpy as np
from waiting import keep_busy

from green_screen import SMICallback

keras = importlib.import_module(os.environ.get("KERAS", "keras"))
layers = keras.layers
IMAGES = np.random.default_rng(0).random((96, 6), np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 96)


class Recorder:
    """Takes metrics and reasons."""

    def __init__(self) -> None:
        self.logged: set[str] = set()
        self.missing: set[str] = set()

    def metrics(self, metrics, step=0) -> None:
        self.logged |= {name for name, value in metrics.items() if value == value}

    def tags(self, tags) -> None:
        self.missing |= {name for name in tags if "missing" in name}


def plain(optimizer="sgd"):
    model = keras.Sequential([layers.Dense(8), layers.Dense(3, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def of_two_outputs():
    inputs = keras.Input((6,))
    shared = layers.Dense(8)(inputs)
    outputs = {name: layers.Dense(3, name=name)(shared) for name in ("val_kind", "age")}
    model = keras.Model(inputs, outputs)
    kind = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        "adam",
        loss=dict.fromkeys(outputs, kind),
        metrics={name: ["accuracy"] for name in outputs},
    )
    return model


def batches():
    while True:
        for start in range(0, 96, 32):
            yield IMAGES[start : start + 32], LABELS[start : start + 32]


class Busy(keras.callbacks.Callback):
    """Makes training and validation longer than the 100 ms in which a board's counter moves."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            keep_busy(0.3)

    on_test_batch_begin = on_train_batch_begin


class Faulty(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyError("a fault of the user's")


def validated(model, callback):
    model.fit(
        IMAGES,
        LABELS,
        epochs=2,
        verbose=0,
        validation_data=(IMAGES, LABELS),
        callbacks=[callback, Busy()],
    )


def two_outputs(callback):
    both = {"val_kind": LABELS, "age": LABELS}
    of_two_outputs().fit(IMAGES, both, epochs=2, verbose=0, callbacks=[callback, Busy()])


def a_generator(callback):
    plain().fit(batches(), steps_per_epoch=3, epochs=2, verbose=0, callbacks=[callback, Busy()])


def stopped_early(callback):
    stop = keras.callbacks.EarlyStopping(monitor="loss", min_delta=100.0, patience=1)
    plain().fit(IMAGES, LABELS, epochs=9, verbose=0, callbacks=[callback, Busy(), stop])


def a_failure_and_another_fit(callback):
    model = plain()
    try:
        model.fit(IMAGES, LABELS, epochs=3, verbose=0, callbacks=[callback, Busy(), Faulty()])
    except KeyError:
        model.fit(IMAGES, LABELS, epochs=1, verbose=0, callbacks=[callback, Busy()])


def a_schedule(callback):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    model = plain(keras.optimizers.SGD(rate))
    model.fit(IMAGES, LABELS, epochs=2, verbose=0, callbacks=[callback, Busy()])


def other_calls(callback):
    model = plain()
    validated(model, callback)
    model.evaluate(IMAGES, LABELS, verbose=0, callbacks=[callback, Busy()])
    model.predict(IMAGES, verbose=0, callbacks=[callback, Busy()])


SITUATIONS = {
    "with validation": lambda callback: validated(plain(), callback),
    **{
        function.__name__.replace("_", " "): function
        for function in (
            two_outputs,
            a_generator,
            stopped_early,
            a_failure_and_another_fit,
            a_schedule,
            other_calls,
        )
    },
}


def main() -> None:
    found = {}
    for name, train in SITUATIONS.items():
        folder, recorder = Path(sys.argv[1]) / name, Recorder()
        train(SMICallback(directory=folder, images_per_epoch=96, logger=recorder))
        with (folder / "logs.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found[name] = {
            "rows": [[row["epoch"], sorted(k for k, v in row.items() if v)] for row in rows],
            "rates": [float(row["learning_rate"]) for row in rows if row["learning_rate"]],
            "logged": sorted(recorder.logged),
            "missing": sorted(recorder.missing),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
