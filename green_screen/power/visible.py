"""Which boards CUDA gives this process, from the environment that CUDA reads.

CUDA numbers its devices by its own rules: ``CUDA_VISIBLE_DEVICES`` selects and orders them, by
index, by ``GPU-`` or by ``MIG-`` identifier, and ``CUDA_DEVICE_ORDER`` says what an index counts
(CUDA C++ Programming Guide, "CUDA Environment Variables"). NVML counts by PCI bus id and heeds
neither.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence

from green_screen.power.nvml import Board, NvmlError, boards, mig_uuids

# Asked in a process of its own: initialising CUDA here would take the device from a later fork.
_ASK_CUDA = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
count, bus_id = ctypes.c_int(), ctypes.create_string_buffer(32)
assert cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
for device in range(count.value):
    assert cuda.cuDeviceGetPCIBusId(bus_id, 32, device) == 0
    print(bus_id.value.decode())
"""
_ASK_TIMEOUT_S = 60


def visible_boards(
    environment: Mapping[str, str] = os.environ,
    cuda_order: Callable[[Sequence[Board]], Sequence[Board]] | None = None,
) -> tuple[Board, ...]:
    """Return the boards of the devices that CUDA shows this process, in CUDA's order.

    A MIG instance is represented by its parent board, with ``mig_uuid`` set. As CUDA does, the
    list ends at the first entry that names no device.

    Args:
        environment: Where the two variables are read.
        cuda_order: Sorts the machine's boards as CUDA numbers them when the order is not by PCI
            bus id; the default asks the CUDA driver if the boards differ.

    Raises:
        NvmlError: NVML cannot list the boards, or an index cannot be resolved.
    """
    present = boards()
    selection = environment.get("CUDA_VISIBLE_DEVICES")
    if selection is not None and selection.strip() in ("", "-1", "NoDevFiles"):
        return ()
    wants_indices = selection is None or any(
        entry.strip().isdecimal() for entry in selection.split(",")
    )
    if wants_indices and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        present = tuple((cuda_order or _cuda_order)(present))
    if selection is None:
        chosen = [_first_device(board) for board in present]
        # Of boards in MIG mode CUDA shows one instance and no more.
        return tuple(chosen[:1] if chosen and chosen[0].mig_uuid else chosen)
    selected: list[Board] = []
    for entry in selection.split(","):
        device = _find(entry.strip(), present)
        if device is None:
            break
        selected.append(device)
    return tuple(selected)


def local_boards() -> tuple[Board, ...]:
    """Return the boards that this process may use; none where NVML does not tell."""
    try:
        return visible_boards()
    except NvmlError:
        return ()


def pin_first_board(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have CUDA show this process the first of its visible boards only, by its identifier.

    A training uses one GPU. Call this before CUDA starts: TensorFlow would hold, and the meter
    measure, the others too, and the identifier makes sure that both mean the same board. Where no
    board can be seen the environment is left as it is.
    """
    try:
        boards = visible_boards(environment)
    except NvmlError:
        return
    if boards:
        environment["CUDA_VISIBLE_DEVICES"] = boards[0].mig_uuid or boards[0].uuid


def _first_device(board: Board) -> Board:
    """Return the board, or in MIG mode its first instance."""
    instances = mig_uuids(board)
    return dataclasses.replace(board, mig_uuid=instances[0]) if instances else board


def _find(entry: str, present: Sequence[Board]) -> Board | None:
    """Return the device that an entry names, or ``None``."""
    if entry.isdecimal():
        return _first_device(present[int(entry)]) if int(entry) < len(present) else None
    if entry.startswith("MIG-GPU-"):
        # The form of drivers before 470: MIG-GPU-<uuid of the board>/<instance>/<slice>.
        uuid = entry.removeprefix("MIG-").split("/")[0]
        found = [dataclasses.replace(b, mig_uuid=entry) for b in present if b.uuid == uuid]
    elif entry.startswith("MIG-"):
        found = [
            dataclasses.replace(board, mig_uuid=instance)
            for board in present
            for instance in mig_uuids(board)
            if instance.startswith(entry)
        ]
    elif entry.startswith("GPU-"):
        found = [_first_device(board) for board in present if board.uuid.startswith(entry)]
    else:
        found = []
    # An abbreviation that fits two devices names neither.
    return found[0] if len(found) == 1 else None


def _cuda_order(present: Sequence[Board]) -> Sequence[Board]:
    """Return the boards as CUDA numbers them by default: the fastest first.

    Boards of one kind keep the order of their bus ids. Where they differ only CUDA knows.
    """
    if len({board.name for board in present}) <= 1:
        return present
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _ASK_CUDA],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise NvmlError(
            "the machine has boards of different kinds and CUDA does not say how it numbers "
            f"them ({error}): set CUDA_DEVICE_ORDER=PCI_BUS_ID or select by GPU- identifiers"
        ) from error
    by_bus_id = {bus_address(board.pci_bus_id): board for board in present}
    return [by_bus_id[bus_address(line)] for line in answer.stdout.split()]


def bus_address(pci_bus_id: str) -> tuple[int, int, int]:
    """Return (domain, bus, device) of ``[domain:]bus:device.function``."""
    *domain, bus, rest = pci_bus_id.split(":")
    return int(domain[0], 16) if domain else 0, int(bus, 16), int(rest.split(".")[0], 16)
