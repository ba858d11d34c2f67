"""What CUDA shows for values of CUDA_VISIBLE_DEVICES, beside what the meter takes it to show.

Run from the repository's root on a machine with NVIDIA boards, two or more for all cases. It needs
Python, nvidia-ml-py and the driver, no framework::

    python -m benchmarks.visible_devices

Each value is given to a process that starts CUDA and lists the PCI bus ids of its devices. The
table has a row a value; the exit status is 1 if any row differs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from green_screen.power.nvml import Board, NvmlError, list_boards
from green_screen.power.visible import bus_address, cuda_bus_ids, visible_boards


def values(boards: Sequence[Board]) -> list[str | None]:
    """Return the values to try: what the guide defines, and what it leaves open."""
    first, last = boards[0].uuid, boards[-1].uuid
    short = _shortest_prefix(first, [board.uuid for board in boards])
    indices = [None, "", " ", "0", "1", "0,1", "1,0", "0, 1", "0 ,1", "9", "-1", "all", "none"]
    repeated = ["0,0", "1,1", "0,1,0", "0,00", "0,9,0", "0,-1,0", "0,0,9"]
    ended = ["0,-1,1", "0,9,1", "1,x,0", "0,,1", ",0", "0,", "NoDevFiles", "x", "-0", str(2**32)]
    numbers = [
        " 0",
        "\t0",
        "+0",
        "00",
        "01",
        "+1",
        "0x0",
        "0x1",
        "1gpu",
        "1.5",
        "1e0",
        "--0",
        "0;1",
    ]
    identifiers = [
        *(first, last, f"{last},{first}", f"{first},{last}", f"{first}, {last}", f" {first}"),
        *(short, f"{first},{first}", f"{first},{short}", "GPU-", "GPU-ffffffff", first.lower()),
        *(first.upper(), f"{first}x", first.removeprefix("GPU-"), f"{first},GPU-ffffffff,{last}"),
    ]
    mixed = [f"0,{last}", f"{last},0", f"0,{first}", f"{first},1", "0,MIG-x", f"{first},MIG-x"]
    return [*indices, *repeated, *ended, *numbers, *identifiers, *mixed]


def _shortest_prefix(uuid: str, uuids: Sequence[str]) -> str:
    """Return the shortest beginning that fits no other board, with a digit at the least."""
    lengths = range(len("GPU-") + 1, len(uuid))
    fits = (uuid[:n] for n in lengths if sum(u.startswith(uuid[:n]) for u in uuids) == 1)
    return next(fits, uuid)


def shown_by_cuda(environment: Mapping[str, str]) -> list[str]:
    """Return the bus ids that CUDA lists, in the form that NVML gives them here."""
    return [_text(bus_id) for bus_id in cuda_bus_ids(environment)]


def shown_by_meter(environment: Mapping[str, str]) -> list[str]:
    """Return the bus ids of the boards that the meter would measure."""
    return [_text(board.pci_bus_id) for board in visible_boards(environment)]


def _text(bus_id: str) -> str:
    return "{:04x}:{:02x}:{:02x}".format(*bus_address(bus_id))


def main() -> int:
    """Print the table and return whether a row differs."""
    boards = list_boards().boards
    for board in boards:
        print(f"{_text(board.pci_bus_id)}  {board.label}")
    print(
        "\n| CUDA_VISIBLE_DEVICES | order | CUDA shows | the meter takes | |\n|---|---|---|---|---|"
    )
    differing = 0
    cases = [(value, "") for value in values(boards)]
    cases += [(value, "PCI_BUS_ID") for value in (None, "0", "1,0")]
    for value, order in cases:
        unset = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
        environment = {key: text for key, text in os.environ.items() if key not in unset}
        if value is not None:
            environment["CUDA_VISIBLE_DEVICES"] = value
        if order:
            environment["CUDA_DEVICE_ORDER"] = order
        answers = [_answer(ask, environment) for ask in (shown_by_cuda, shown_by_meter)]
        same = answers[0] == answers[1]
        differing += not same
        said = "not set" if value is None else f"`{value!r}`"
        print(f"| {said} | {order} | {answers[0]} | {answers[1]} | {'' if same else 'DIFFERS'} |")
    print(f"\n{len(cases)} values, {differing} differ")
    return 1 if differing else 0


def _answer(ask: Callable[[Mapping[str, str]], list[str]], environment: Mapping[str, str]) -> str:
    try:
        return ", ".join(ask(environment)) or "none"
    except NvmlError as error:
        return f"error: {error}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except NvmlError as error:
        sys.exit(f"there is nothing to compare: {error}")
