"""Which GPUs a training uses, how to wait for them, and which of them can be measured."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from green_screen.measurement.any_keras import TENSORFLOW
from green_screen.power.nvml import Board, NvmlError
from green_screen.power.visible import bus_address, visible_boards

logger = logging.getLogger(__name__)


def synchronize_gpu() -> None:
    """Wait until the GPU has done what TensorFlow gave it."""
    import tensorflow as tf

    if tf.executing_eagerly():
        tf.test.experimental.sync_devices()


def tensorflow_gpus() -> tuple[int, ...]:
    """Return which GPUs TensorFlow uses, as places in CUDA's order from 0."""
    import tensorflow as tf

    return tuple(int(gpu.name.rsplit(":", 1)[1]) for gpu in tf.config.get_visible_devices("GPU"))


def measurable_gpus(framework: str) -> tuple[tuple[int, ...] | None, str]:
    """Return the GPUs that a training uses, or none and why if NVML does not show all of them.

    The energy of a part of them is not the energy of the training.

    Args:
        framework: What trains. TensorFlow says which it uses; of another it is all that CUDA shows
            the process, which is ``None``.
    """
    if framework != TENSORFLOW:
        return None, ""
    used = tensorflow_gpus()
    try:
        shown, reason = len(visible_boards()), ""
    except NvmlError as error:
        shown, reason = 0, f": {error}"
    if all(gpu < shown for gpu in used):
        return used, ""
    return (), f"TensorFlow uses {len(used)} GPUs, of which NVML shows {shown}{reason}"


def other_boards(boards: Sequence[Board]) -> str:
    """Return in words where TensorFlow's GPUs are not these boards; empty if they are.

    Ask when TensorFlow has its devices already: it makes them to answer. What it cannot answer is
    held against nobody.
    """
    try:
        from tensorflow.python.client import device_lib
        from tensorflow.python.eager import context

        # With the user's own options, above all for the growth of the memory it takes.
        devices = device_lib.list_local_devices(session_config=context.context().config)
        used = pci_bus_ids([d.physical_device_desc for d in devices if d.device_type == "GPU"])
        measured = {bus_address(board.pci_bus_id): board.pci_bus_id for board in boards}
        differing = {bus_address(bus_id): bus_id for bus_id in used}
        lacking = [text for address, text in differing.items() if address not in measured]
    except Exception:
        logger.debug("TensorFlow does not say on which boards its GPUs are", exc_info=True)
        return ""
    if not lacking:
        return ""
    return (
        f"TensorFlow uses the GPUs at {', '.join(lacking)}, but those measured are at "
        f"{', '.join(measured.values())}"
    )


def pci_bus_ids(descriptions: Sequence[str]) -> tuple[str, ...]:
    """Return the PCI bus ids in TensorFlow's descriptions of GPUs.

    A description reads ``device: 0, name: NVIDIA H200, pci bus id: 0000:19:00.0, compute
    capability: 9.0``; one without a bus id is left out.
    """
    found = (re.search(r"pci bus id: ([0-9a-fA-F:.]+)", text) for text in descriptions)
    return tuple(match.group(1) for match in found if match)
