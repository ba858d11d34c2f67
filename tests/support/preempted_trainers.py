"""The real training, ended where ``$ENDS`` says: JSON of a run's number -> place."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import waiting
from faulty_trainers import count_run, kill_myself

from green_screen.measurement.further import FurtherEpochs
from green_screen.options import TrainOptions
from green_screen.space import TrainingConfig
from green_screen.tracking import RunLogger
from green_screen.training import checkpoint, places, setup, spent
from green_screen.training import run as training


def preempted(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Train, and be ended on the way if it is this run's turn."""
    place = json.loads(os.environ["ENDS"]).get(str(count_run()))
    if place is not None:
        PLACES[place]()
    training.train(config, options, run)


def in_setup() -> None:
    setup.load_dataset = lambda *_, **__: kill_myself()


def in_an_epoch(end: Callable[[], None] = kill_myself) -> None:
    """In the third one, once it has been noted what was spent so far."""
    spent._EVERY_S = 0.05

    def end_in_the_third(callback: FurtherEpochs, batch: int, logs: Any = None) -> None:
        if callback._measurement._epoch == 2:
            note = next(places.root().glob("*/spent.json"))
            waiting.until(lambda: json.loads(note.read_text())["since_s"] > 0.5)
            end()

    FurtherEpochs.on_train_batch_end = end_in_the_third


def by_sigterm() -> None:
    in_an_epoch(lambda: os.kill(os.getpid(), signal.SIGTERM))


def in_writing_a_checkpoint() -> None:
    """In the second one's."""

    def end_in_the_second(path: Path) -> None:
        if any(path.parents[1].glob("epoch-*")):
            kill_myself()

    checkpoint._synchronize = end_in_the_second


def in_evaluation() -> None:
    training.evaluate = lambda *_: kill_myself()


PLACES = {
    function.__name__: function
    for function in (
        in_setup,
        in_an_epoch,
        by_sigterm,
        in_writing_a_checkpoint,
        in_evaluation,
    )
}
