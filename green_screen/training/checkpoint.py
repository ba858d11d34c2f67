"""Checkpoints: what a training that is cut off leaves for the next process of the same place.

A training has a folder of its own, named by all that makes two trainings equal. In it lies the last
checkpoint, a folder ``epoch-N`` that takes its name when it is whole, and the note of what the
process has spent since (:mod:`green_screen.training.spent`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from green_screen import locks, names, tracking
from green_screen.measurement.callback import SMICallback
from green_screen.measurement.measured_json import from_json, to_json
from green_screen.options import option_params
from green_screen.training import places
from green_screen.training.settings import execution_settings
from green_screen.training.setup import Prepared
from green_screen.training.spent import SpentNote

logger = logging.getLogger(__name__)

# Of the files: what another version wrote is not read.
_VERSION = 1
_EPOCH = "epoch-"
_WRITING = "writing"
_NETWORK = "network"
_STATE = "state.json"
_SPENT = "spent.json"
# Options that leave the training as it is.
_NOT_THE_TRAINING = ("config", "trace", "log_model", "checkpoint_every")
# A training that nobody has gone on with for so long is given up.
_KEPT_S = 30 * 24 * 3600.0


def state_of(model: Any) -> tf.train.Checkpoint:
    """Return all of a compiled network that training changes: steps and loss scale too."""
    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


@contextmanager
def checkpoints(training: Prepared) -> Iterator[Checkpoints]:
    """Go on from the training's checkpoint if there is one, and write others on the way.

    They are removed when the run has finished. Where none can be kept, it is trained without.
    """
    with ExitStack() as stack:
        kept = Checkpoints(training)
        if training.options.checkpoint_every or names.TAG_RUNG_EPOCHS in training.run.opened_with:
            try:
                folder = _own_folder(training, stack)
            except OSError as error:
                logger.warning("no checkpoints are kept: %s", error)
            else:
                kept.go_on_from(folder)
                stack.enter_context(kept.note)
                if kept.to_the_end:
                    training.run.on_finished(lambda: shutil.rmtree(folder, ignore_errors=True))
        trained = int(training.run.opened_with.get(names.TAG_EPOCHS_TRAINED, 0))
        if kept.first_epoch < trained:
            raise RuntimeError(
                f"the run has been trained for {trained} epochs, and their checkpoint is not in "
                f"{places.root()}: its position has to begin anew"
            )
        yield kept


def _own_folder(training: Prepared, stack: ExitStack) -> Path:
    """Return the training's folder, which is nobody else's while the stack is open."""
    folder = places.folder_of(training.run.place, _key(training))
    folder.mkdir(parents=True, exist_ok=True)
    for other in places.root().iterdir():
        if time.time() - other.stat().st_mtime > _KEPT_S:
            shutil.rmtree(other, ignore_errors=True)
    try:
        stack.enter_context(locks.alone(folder, wait=False))
    except BlockingIOError:
        raise OSError("another process is doing the same training now") from None
    shutil.rmtree(folder / _WRITING, ignore_errors=True)
    return folder


def _key(training: Prepared) -> str:
    """Return what tells the training from others of its place: all that it is made by."""
    options = option_params(training.options)
    facts = {
        "version": _VERSION,
        "config": training.config.as_params(),
        "options": {k: v for k, v in options.items() if k not in _NOT_THE_TRAINING},
        "dataset": training.dataset.digest,
        "tensorflow": tf.__version__,
        "settings": [execution_settings(), os.environ.get("XLA_FLAGS", "")],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class Checkpoints:
    """The checkpoints of one training, while a process is at it; at first it keeps none.

    Attributes:
        first_epoch: The epoch that this process begins with.
        until: How many epochs are trained when it ends: all, or those of a rung of a search.
        to_the_end: Whether that is all.
        rows: Epoch and metrics of the epochs so far, those of earlier processes included.
        note: What is spent.
    """

    note: SpentNote

    def __init__(self, training: Prepared) -> None:
        """Prepare."""
        self.first_epoch = 0
        self.rows: list[tuple[int, dict[str, float]]] = []
        epochs = training.options.epochs
        self.until = int(training.run.opened_with.get(names.TAG_RUNG_EPOCHS, epochs))
        self.to_the_end = self.until >= epochs
        self._training = training
        self._folder: Path | None = None
        self._network = state_of(training.model)
        self._logs_unix_s = math.nan

    def go_on_from(self, folder: Path) -> None:
        """Keep checkpoints in a folder, and go on from the one that is there."""
        self._folder = folder
        training, last = self._training, self._last()
        if last is not None:
            with _removed_if_unreadable(last):
                self._restore(last)
        run_id, path = training.run.run_id, folder / _SPENT
        self.note = SpentNote(path, training.measurement, run_id=run_id, epoch=self.first_epoch)
        if self.note.before is not None:
            before = dict.fromkeys(self.note.before.run_ids)
            before.pop(run_id, None)
            training.run.tags({names.TAG_CONTINUES: ", ".join(before)})
            # A campaign ends what it finds under way; after a single training nobody has looked.
            reason = f"cut off; run {run_id} goes on with it"
            for cut_off in list(before)[-1:]:
                tracking.end_left_behind(cut_off, reason, tracking.INTERRUPTED_PATIENCE_S)

    @property
    def callbacks(self) -> list[Any]:
        """What ``fit`` needs, behind the callback that measures."""
        return [_Writer(self)] if self._folder is not None else []

    def is_due(self, epochs_done: int) -> bool:
        """Whether a checkpoint is to be written after so many epochs."""
        every = self._training.options.checkpoint_every or 0
        if epochs_done == self.until and not self.to_the_end:
            return True
        return every > 0 and epochs_done <= self.until and epochs_done % every == 0

    @property
    def losses(self) -> dict[str, list[float]]:
        """The losses of all epochs so far, as Keras's history names them."""
        return {
            name: [metrics.get(name, math.nan) for _, metrics in self.rows]
            for name in (names.LOSS, names.VAL_LOSS)
        }

    def metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log metrics to the run, and keep those of an epoch for a process that goes on."""
        if names.EPOCH_TIME_S in metrics:
            self.rows.append((step, dict(metrics)))
        self._training.run.metrics(metrics, step=step)

    def tags(self, tags: Mapping[str, object]) -> None:
        """Set tags of the run."""
        self._training.run.tags(tags)

    def attach(self, callback: SMICallback) -> None:
        """Have the callback that measures go on with the files of the process before."""
        if self.first_epoch:
            callback.go_on(time.time() - self._logs_unix_s)
        else:
            self._logs_unix_s = time.time()

    def log(self) -> None:
        """Log of how many parts the run is, and what is known of the time between them."""
        if self._folder is None or self.note.before is None:
            return
        spent = self.note.spent
        figures = {
            names.PARTS: len(spent.run_ids),
            names.CONTINUED_FROM_EPOCH: self.first_epoch,
            names.GAP_S: spent.gap_s,
            names.LOST_S: spent.lost_s,
            names.ENERGY_LOST_J: spent.lost_j,
        }
        self._training.run.metrics(figures)
        self._training.run.missing(figures, spent.lost_reason)

    def nothing_is_lost(self) -> None:
        """Note that what follows the last checkpoint is no part of the training."""
        if self._folder is not None:
            self.note.checkpoint(self.until)

    def write(self, epochs_done: int) -> None:
        """Write a checkpoint in the place of the one before, as a phase of the run.

        If it cannot be written, as on a full disk, the one before stays.
        """
        assert self._folder is not None
        measurement, before = self._training.measurement, self._last()
        writing = self._folder / _WRITING
        try:
            shutil.rmtree(writing, ignore_errors=True)
            writing.mkdir()
            with measurement.phase("checkpoint"):
                self._network.write(str(writing / _NETWORK))
                for file in writing.iterdir():
                    _synchronize(file)
            # The phase's own energy is part of what is kept.
            state = {
                "epoch": epochs_done,
                "run_id": self._training.run.run_id,
                "logs_unix_s": self._logs_unix_s,
                "rows": self.rows,
                "measured": to_json(measurement.measured),
            }
            shutil.copy(self._training.folder / names.LOGS_CSV, writing)
            (writing / _STATE).write_text(json.dumps(state), encoding="utf-8")
            _synchronize(writing / _STATE)
            writing.rename(self._folder / f"{_EPOCH}{epochs_done}")
            _synchronize(self._folder)
        except (OSError, tf.errors.OpError) as error:
            logger.warning("the checkpoint after epoch %d is not written: %s", epochs_done, error)
            return
        self.note.checkpoint(epochs_done)
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def _last(self) -> Path | None:
        assert self._folder is not None
        found = {int(p.name.removeprefix(_EPOCH)): p for p in self._folder.glob(f"{_EPOCH}*")}
        return found[max(found)] if found else None

    def _restore(self, folder: Path) -> None:
        """Take over the network, the files and the figures of a checkpoint."""
        training, measurement = self._training, self._training.measurement
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        measured = from_json(state["measured"])
        with measurement.phase("checkpoint"):
            self._network.read(str(folder / _NETWORK)).assert_consumed()
        shutil.copy(folder / names.LOGS_CSV, training.folder)
        measurement.go_on(measured)
        self.first_epoch, self._logs_unix_s = state["epoch"], state["logs_unix_s"]
        self.until = max(self.until, self.first_epoch)
        self.rows = [(epoch, metrics) for epoch, metrics in state["rows"]]
        if state["run_id"] != training.run.run_id:  # else it has them
            for epoch, metrics in self.rows:
                training.run.metrics(metrics, step=epoch)
        if measurement.idle_before is not None:
            self.tags({names.TAG_ENERGY_SOURCE: measurement.idle_before.reading.source})
        logger.info("going on from the checkpoint after epoch %d", self.first_epoch)


class _Writer(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes checkpoints between epochs."""

    def __init__(self, kept: Checkpoints) -> None:
        super().__init__()
        self._kept = kept

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Write one if it is due; what follows the declared epochs is no training."""
        if self._kept.is_due(epoch + 1):
            self._kept.write(epoch + 1)


@contextmanager
def _removed_if_unreadable(folder: Path) -> Iterator[None]:
    """Remove a checkpoint that cannot be read, so that the next attempt begins anew.

    Raises:
        RuntimeError: It could not be read. The network may be half of it by then.
    """
    try:
        yield
    except Exception as error:  # TensorFlow's reader raises nearly anything
        shutil.rmtree(folder, ignore_errors=True)
        why = f"{type(error).__name__}: {error}"
        raise RuntimeError(
            f"the checkpoint {str(folder)!r} cannot be read ({why}) and is removed: the next "
            "attempt begins anew"
        ) from error


def _synchronize(path: Path) -> None:
    """Have the disk hold a file or a folder before going on: a preempted machine is cut off."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
