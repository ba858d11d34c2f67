"""Whether the driver has yet to make the kernels of a training.

TensorFlow brings no kernels for the newest boards: the driver makes them when they are used first,
which takes a minute, and keeps them in a folder of the user's. Whichever run comes first on a
machine would pay for all others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from green_screen import locks
from green_screen.power.nvml import Board
from green_screen.space import TrainingConfig, resolve

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KernelSet:
    """The kernels of one kind of training on one kind of board.

    Attributes:
        key: Of what they are.
    """

    key: str

    @property
    def made(self) -> bool:
        """Whether the driver's folder has them."""
        return self._marker.exists()

    def note(self) -> None:
        """Note that they have been made, in the folder itself: what empties it takes this along.

        Where the folder cannot be written the driver cannot keep them either.
        """
        try:
            self._marker.parent.mkdir(parents=True, exist_ok=True)
            self._marker.touch()
        except OSError as error:
            logger.warning("the driver cannot keep the kernels it makes: %s", error)

    @property
    def _marker(self) -> Path:
        return _folder() / f"green-screen-{self.key}"


def needed(boards: Sequence[Board], model: str, config: TrainingConfig) -> KernelSet | None:
    """Return the kernels that a training needs and the driver keeps.

    ``None`` without a board, or where the driver keeps none: then every process makes its own, as a
    part of its training.

    Args:
        boards: What it runs on.
        model: Name of the network.
        config: The effective configuration.
    """
    if not boards or os.environ.get("CUDA_CACHE_DISABLE") == "1":
        return None
    # Here, for a campaign's process asks for the kinds alone and has no TensorFlow.
    import tensorflow as tf

    from green_screen.training.hardware import gpu_driver

    names = sorted({board.name for board in boards})
    parts = [names, gpu_driver(), tf.__version__, model, *_kind(config)]
    return KernelSet(hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16])


def make_apart(configs: Iterable[TrainingConfig], model: str, image_size: int) -> list[bool]:
    """Have processes of their own make kernels, all at once; return which did, or warn why not.

    In the training's process that would load libraries and trace too, which is its warm-up: on an
    H100 the first run with quantization-aware training then warmed up in 19 s, the next in 30 s.

    Args:
        configs: Effective configurations, one for each set of kernels.
        model: Name of the network.
        image_size: Height and width of its images, in pixels.
    """
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    # Several processes share a board: none may take all of its memory.
    more = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    with ExitStack() as stack:
        started = []
        for config in configs:
            given, said = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            given.write(json.dumps([dataclasses.asdict(config), model, image_size]).encode())
            given.seek(0)
            process = subprocess.Popen(
                [sys.executable, "-m", "green_screen.training.warm_up"],
                env={**os.environ, **more},
                stdin=given,
                stdout=said,
                stderr=said,
            )
            stack.enter_context(process)
            stack.callback(process.kill)  # of what is left when this process is told to end
            started.append((process, said))
        made = []
        for process, said in started:
            made.append(process.wait() == 0)
            if not made[-1]:
                said.seek(0)
                last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                logger.warning("the kernels were not made in advance: %s", "".join(last))
    return made


@contextmanager
def alone() -> Iterator[None]:
    """Keep other processes of this host out of blocks like this one, which look and then make."""
    folder = _folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    with locks.alone(folder):
        yield


def one_of_each_kind(configs: Iterable[TrainingConfig]) -> list[TrainingConfig]:
    """Return the first of the requested configurations for each set of kernels that they need."""
    found: dict[tuple[str, bool], TrainingConfig] = {}
    for config in configs:
        found.setdefault(_kind(resolve(config).effective), config)
    return list(found.values())


def _kind(config: TrainingConfig) -> tuple[str, bool]:
    """Return the levels of an effective configuration on which its kernels depend."""
    return config.precision, config.internal == "pre_quantization"


def _folder() -> Path:
    """Return where the driver keeps kernels."""
    return Path(os.environ.get("CUDA_CACHE_PATH") or Path.home() / ".nv" / "ComputeCache")
