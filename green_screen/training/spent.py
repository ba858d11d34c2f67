"""The note of what a training's processes have spent, for when one is gone and another goes on."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from green_screen.measurement.run_measurement import RunMeasurement
from green_screen.power.nvml import NvmlError

logger = logging.getLogger(__name__)

# How often it is renewed: so much of a killed process's time is not known at most.
_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What is known of a training's processes beside what the checkpoint holds.

    Attributes:
        run_ids: The MLflow runs of all of them, in order.
        epoch: The checkpoint that the last one has written or begun with; 0 is the beginning.
        unix_s: The last sign of life.
        since_j: What the last one has spent since that checkpoint.
        since_s: The time of the same.
        reason: Why `since_j` is missing; empty if it is not.
        lost_j: The sum of what earlier ones had spent after their last checkpoints.
        lost_s: The time of the same.
        lost_reason: Why `lost_j` is missing; empty if it is not.
        gap_s: The sum of the times between two of them.
    """

    run_ids: tuple[str, ...]
    epoch: int
    unix_s: float
    since_j: float = 0.0
    since_s: float = 0.0
    reason: str = ""
    lost_j: float = 0.0
    lost_s: float = 0.0
    lost_reason: str = ""
    gap_s: float = 0.0

    def followed_by(self, later: Spent) -> Spent:
        """Return the first note of a process that goes on, with what is lost of this one.

        A checkpoint that this note does not know was the last thing that its process wrote.
        """
        knows = later.epoch == self.epoch
        return dataclasses.replace(
            later,
            run_ids=self.run_ids + later.run_ids,
            lost_j=self.lost_j + (self.since_j if knows else 0.0),
            lost_s=self.lost_s + (self.since_s if knows else 0.0),
            lost_reason=self.lost_reason or (self.reason if knows else ""),
            gap_s=self.gap_s + max(0.0, later.unix_s - self.unix_s),
        )


def read_spent(path: Path) -> Spent | None:
    """Return the note that an earlier process has left, if there is one that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Spent(**{**content, "run_ids": tuple(content["run_ids"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("what earlier processes spent is not known: %s", error)
        return None


class SpentNote:
    """Keeps the note of a process while it is open as a context manager."""

    def __init__(self, path: Path, measurement: RunMeasurement, *, run_id: str, epoch: int) -> None:
        """Follow on the note that is there.

        Args:
            path: The note's file.
            measurement: What is under way.
            run_id: The run of this process.
            epoch: The checkpoint that it begins with.
        """
        self._path = path
        self._measurement = measurement
        self._base_j = self._base_s = 0.0
        self.before = read_spent(path)
        started_unix_s = time.time() - measurement.spent.seconds
        own = Spent(run_ids=(run_id,), epoch=epoch, unix_s=started_unix_s)
        self.spent = self.before.followed_by(own) if self.before is not None else own
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="spent-note", daemon=True)

    def __enter__(self) -> SpentNote:
        """Write the first note and begin to renew it."""
        self.take()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Write the last note, whatever the process ends by."""
        self._ending.set()
        self._thread.join()
        self.take()

    def checkpoint(self, epoch: int) -> None:
        """Begin to count anew: nothing before this moment would be done again."""
        with self._lock:
            reading = self._measurement.spent
            self._base_j, self._base_s = reading.energy_j, reading.seconds
            self.spent = dataclasses.replace(self.spent, epoch=epoch)
        self.take()

    def take(self) -> None:
        """Write what was spent since the last checkpoint, or since the process began."""
        with self._lock:
            try:
                reading = self._measurement.spent
                self.spent = dataclasses.replace(
                    self.spent,
                    unix_s=time.time(),
                    since_j=reading.energy_j - self._base_j,
                    since_s=reading.seconds - self._base_s,
                    reason=reading.reason if math.isnan(reading.energy_j) else "",
                )
                written = self._path.with_suffix(".new")
                written.write_text(json.dumps(dataclasses.asdict(self.spent)), encoding="utf-8")
                written.replace(self._path)
            except (OSError, NvmlError) as error:
                logger.debug("what was spent is not noted: %s", error)

    def _renew(self) -> None:
        while not self._ending.wait(_EVERY_S):
            self.take()
