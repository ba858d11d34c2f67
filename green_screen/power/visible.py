"""Which boards CUDA gives this process, from the environment that CUDA reads.

CUDA numbers its devices by its own rules: ``CUDA_VISIBLE_DEVICES`` selects and orders them, by
index, by ``GPU-`` or by ``MIG-`` identifier, and ``CUDA_DEVICE_ORDER`` says what an index counts
(CUDA C++ Programming Guide, "CUDA Environment Variables"). NVML counts by PCI bus id and heeds
neither. What the guide leaves open, above all repeated and malformed entries, is as CUDA was found
to behave on two H100s with driver 580 (2026-11-26): ``benchmarks/visible_devices.py`` compares 68
values with CUDA on the machine at hand.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence

from green_screen.power.nvml import Board, NvmlError, list_boards

# Asked in a process of its own: initialising CUDA here would take the device from a later fork.
# No check stands in an `assert`, which PYTHONOPTIMIZE would take out and the call with it.
_ASK_CUDA = """
import ctypes, sys

def check(name, *arguments, accepted=(0,)):
    result = getattr(cuda, name)(*arguments)
    if result not in accepted:
        sys.exit(f"{name} answers {result}")
    return result

try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    sys.exit(str(error))
NO_DEVICE, INVALID_DEVICE = 100, 101  # the second where one is named twice
count, bus_id = ctypes.c_int(), ctypes.create_string_buffer(32)
if check("cuInit", 0, accepted=(0, NO_DEVICE, INVALID_DEVICE)) == 0:
    check("cuDeviceGetCount", ctypes.byref(count))
for device in range(count.value):
    check("cuDeviceGetPCIBusId", bus_id, 32, device)
    print(bus_id.value.decode())
"""
_ASK_TIMEOUT_S = 60

_INDEX = re.compile(r"\s*([+-]?[0-9]+)")


def visible_boards(
    environment: Mapping[str, str] = os.environ,
    ask_cuda: Callable[[Mapping[str, str]], Sequence[str]] | None = None,
) -> tuple[Board, ...]:
    """Return the boards of the devices that CUDA shows this process, in CUDA's order.

    A MIG instance is represented by its parent board, with ``mig_uuid`` set.

    Args:
        environment: Where the two variables are read.
        ask_cuda: Returns the bus ids of the devices that CUDA shows under an environment;
            the default is :func:`cuda_bus_ids`. It is asked only where CUDA alone knows its order:
            boards of different kinds, or one that NVML cannot describe.

    Raises:
        NoBoardsError: There is nothing to measure on this machine.
        NvmlError: NVML cannot list the boards, or not the one that is selected.
    """
    selection = environment.get("CUDA_VISIBLE_DEVICES")
    if selection is not None and not selection.strip():
        return ()
    listing = list_boards()
    present = listing.boards
    by_index = selection is None or _INDEX.match(selection)
    by_bus_id = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    # Boards of one kind keep the order of their bus ids.
    one_kind = len({board.name for board in present}) <= 1
    if by_index and (listing.failures or not (one_kind or by_bus_id)):
        unmasked = {k: v for k, v in environment.items() if k != "CUDA_VISIBLE_DEVICES"}
        present = _in_order(listing.boards, (ask_cuda or cuda_bus_ids)(unmasked))
    found = resolve(selection, present)
    if listing.failures and not by_index and len(found) < len(str(selection).split(",")):
        raise NvmlError(
            f"CUDA_VISIBLE_DEVICES={selection!r} may name a board that is there and cannot be "
            f"described: {'; '.join(listing.failures)}"
        )
    return found


def resolve(selection: str | None, present: Sequence[Board]) -> tuple[Board, ...]:
    """Return the devices that a value of ``CUDA_VISIBLE_DEVICES`` shows, in their order.

    The first entry says whether entries are indices, ``GPU-`` or ``MIG-`` identifiers. The list
    ends before the first that is of another form, or names no device, or several. Of an index the
    leading digits count, with white space or a sign before them, as a number of 32 bits. An
    identifier may be abbreviated, its digits may be capitals, and what stands behind a whole one is
    not read. If a device is named twice CUDA does not start: none is shown.

    Args:
        selection: The variable's value; ``None`` if it is not set.
        present: The machine's boards, as CUDA numbers them.
    """
    if selection is None:
        chosen = [_first_device(board) for board in present]
        # Of boards in MIG mode CUDA shows one instance and no more.
        return tuple(chosen[:1] if chosen and chosen[0].mig_uuid else chosen)
    entries = selection.split(",")
    find = next((find for form, find in _FORMS if re.match(form, entries[0])), None)
    selected: list[Board] = []
    for entry in entries:
        found = find(entry, present) if find else []
        # An abbreviation that fits two devices names neither.
        if len(found) != 1:
            break
        if found[0] in selected:
            return ()
        selected += found
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
    return dataclasses.replace(board, mig_uuid=board.instances[0]) if board.instances else board


def _by_index(entry: str, present: Sequence[Board]) -> list[Board]:
    found = _INDEX.match(entry)
    if found is None:
        return []
    index = (int(found[1]) + 2**31) % 2**32 - 2**31
    return [_first_device(present[index])] if index in range(len(present)) else []


def _by_uuid(entry: str, present: Sequence[Board]) -> list[Board]:
    if not entry.startswith("GPU-"):
        return []
    text = "GPU-" + entry.removeprefix("GPU-").lower()
    return [_first_device(b) for b in present if b.uuid.startswith(text[: len(b.uuid)])]


def _by_instance(entry: str, present: Sequence[Board]) -> list[Board]:
    if entry.startswith("MIG-GPU-"):
        # The form of drivers before 470: MIG-GPU-<uuid of the board>/<instance>/<slice>.
        uuid = entry.removeprefix("MIG-").split("/")[0]
        return [dataclasses.replace(b, mig_uuid=entry) for b in present if b.uuid == uuid]
    if not entry.startswith("MIG-"):
        return []
    return [
        dataclasses.replace(board, mig_uuid=instance)
        for board in present
        for instance in board.instances
        if instance.startswith(entry)
    ]


_FORMS = ((_INDEX, _by_index), (re.compile("GPU-"), _by_uuid), (re.compile("MIG-"), _by_instance))


def cuda_bus_ids(environment: Mapping[str, str]) -> list[str]:
    """Return the PCI bus ids of the devices that CUDA shows a process, in its order.

    Raises:
        NvmlError: CUDA does not answer.
    """
    command = [sys.executable, "-c", _ASK_CUDA]
    try:
        answer = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,  # of PYTHONINSPECT
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
        )
    except (subprocess.SubprocessError, OSError) as error:
        answer = subprocess.CompletedProcess(command, 1, "", str(error))
    if answer.returncode != 0:
        raise NvmlError(
            f"CUDA does not say how it numbers its devices ({answer.stderr.strip()}): select "
            "boards by GPU- identifiers, or, where NVML describes all, set "
            "CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
    return answer.stdout.split()


def _in_order(boards: Sequence[Board], bus_ids: Sequence[str]) -> tuple[Board, ...]:
    by_address = {bus_address(board.pci_bus_id): board for board in boards}
    unknown = [bus_id for bus_id in bus_ids if bus_address(bus_id) not in by_address]
    if unknown:
        raise NvmlError(f"CUDA uses the boards at {', '.join(unknown)}, which NVML does not show")
    return tuple(by_address[bus_address(bus_id)] for bus_id in bus_ids)


def bus_address(pci_bus_id: str) -> tuple[int, int, int]:
    """Return (domain, bus, device) of ``[domain:]bus:device.function``."""
    *domain, bus, rest = pci_bus_id.split(":")
    return int(domain[0], 16) if domain else 0, int(bus, 16), int(rest.split(".")[0], 16)
