"""Which board is measured, for each way to say which one CUDA may use."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

import pytest
from simulated_nvml import SimulatedBoard, Simulation, simulated

from green_screen.power import nvml
from green_screen.power.visible import bus_address, cuda_bus_ids, pin_first_board, visible_boards

UUIDS = tuple(f"GPU-{i}{i}{i}{i}0000-aaaa-bbbb-cccc-ddddeeeeffff" for i in range(8))


@pytest.fixture
def eight():
    with simulated(Simulation(boards=[SimulatedBoard(uuid=uuid) for uuid in UUIDS])):
        yield


def indices(selection: str | None, **environment: str) -> list[int]:
    if selection is not None:
        environment["CUDA_VISIBLE_DEVICES"] = selection
    return [board.index for board in visible_boards(environment)]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (None, list(range(8))),
        ("", []),
        (" ", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0", [0]),
        ("3,1", [3, 1]),
        ("3, 1", [3, 1]),
        (" 3", [3]),
        ("+3", [3]),
        ("03", [3]),
        ("-0,1", [0, 1]),
        ("0x3", [0]),  # of an index the leading digits count
        ("3rd,1st", [3, 1]),
        ("0,0", []),  # named twice, none is shown
        ("2,1,2", []),
        ("0,00", []),
        ("0,9,0", [0]),  # the list has ended before
        ("0,", [0]),
        (",0", []),
        ("0,,1", [0]),
        ("all", []),
        ("9", []),
        (f"0,{UUIDS[5]}", [0]),  # the first entry says of which form they are
        (f"{UUIDS[5]},0", [5]),
        (f"{UUIDS[5]},{UUIDS[5][:8]}", []),
        ("gpu-5555", []),
        (UUIDS[5].replace("aaaa", "AAAA"), [5]),  # as an H100's driver 580 does, like the next two
        (f"{UUIDS[5]}x,3", [5]),
        (f"{2**32 + 3}", [3]),
        ("2,9,1", [2]),  # CUDA stops at the first that does not exist
        ("2,-1,1", [2]),
        ("nonsense", []),
        (UUIDS[5], [5]),
        (UUIDS[5][:8], [5]),  # abbreviated
        ("GPU-", []),  # fits all, names none
        (f"{UUIDS[6]},{UUIDS[2]}", [6, 2]),
        ("GPU-ffff", []),
    ],
)
def test_selection(eight, selection, expected):
    assert indices(selection) == expected


def fast_and_slow() -> Simulation:
    return Simulation(
        boards=[
            SimulatedBoard(name="NVIDIA T4", pci_bus_id="00000000:05:00.0"),
            SimulatedBoard(name="NVIDIA H200", pci_bus_id="00000000:3B:00.0"),
        ]
    )


def slow_last(environment: Mapping[str, str]) -> list[str]:
    assert "CUDA_VISIBLE_DEVICES" not in environment
    return ["0000:3b:00.0", "0000:05:00.0"]


def test_indices_count_in_the_order_that_cuda_uses():
    with simulated(fast_and_slow()):
        by_speed = visible_boards({"CUDA_VISIBLE_DEVICES": "0"}, slow_last)
        by_bus = visible_boards(
            {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            slow_last,
        )
    assert [board.name for board in by_speed] == ["NVIDIA H200"]
    assert [board.name for board in by_bus] == ["NVIDIA T4"]


def test_boards_of_different_kinds_without_cuda_to_ask_are_refused_with_advice():
    # There is no libcuda here: only CUDA knows its order, and no guess is made.
    with simulated(fast_and_slow()), pytest.raises(nvml.NvmlError, match="CUDA_DEVICE_ORDER"):
        visible_boards({"CUDA_VISIBLE_DEVICES": "0"})


def test_identifiers_need_no_order():
    simulation = fast_and_slow()
    with simulated(simulation):
        found = visible_boards({"CUDA_VISIBLE_DEVICES": simulation.boards[1].uuid})
    assert [board.name for board in found] == ["NVIDIA H200"]


@pytest.mark.parametrize(
    ("selection", "instance"),
    [
        (None, "MIG-aaaa"),
        ("0", "MIG-aaaa"),
        ("MIG-bbbb", "MIG-bbbb"),
        ("MIG-b", "MIG-bbbb"),
        ("GPU-00000000", "MIG-aaaa"),
        ("MIG-GPU-00000000-1111-2222-3333-444455556666/3/0",) * 2,
    ],
)
def test_a_mig_instance_is_measured_by_its_parent_board_and_says_so(selection, instance):
    board = SimulatedBoard(mig=("MIG-aaaa", "MIG-bbbb"))
    with simulated(Simulation(boards=[board, SimulatedBoard()])):
        environment = {} if selection is None else {"CUDA_VISIBLE_DEVICES": selection}
        (found,) = visible_boards(environment)
    assert (found.index, found.mig_uuid, len(found.instances)) == (0, instance, 2)
    assert f"parent board of {instance}" in found.label


def test_unknown_mig_instance_shows_nothing():
    with simulated(Simulation(boards=[SimulatedBoard(mig=("MIG-aaaa",))])):
        assert visible_boards({"CUDA_VISIBLE_DEVICES": "MIG-cccc"}) == ()


def one_of_three_is_lost() -> Simulation:
    boards = [SimulatedBoard(), SimulatedBoard(reset_required=True), SimulatedBoard()]
    return Simulation(boards=boards)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [(["0000:10:00.0", "0000:12:00.0"], [0, 2]), (["0000:12:00.0"], [2])],
)
@pytest.mark.parametrize("order", ["PCI_BUS_ID", "FASTEST_FIRST"])
def test_where_a_board_cannot_be_described_cuda_says_what_it_shows(shown, expected, order):
    with simulated(one_of_three_is_lost()):
        found = visible_boards({"CUDA_DEVICE_ORDER": order}, lambda environment: shown)
    assert [board.index for board in found] == expected


def test_a_board_that_cuda_uses_and_nvml_does_not_describe_is_no_energy_of_others():
    everything = ["0000:10:00.0", "0000:11:00.0", "0000:12:00.0"]
    with simulated(one_of_three_is_lost()) as simulation:
        with pytest.raises(nvml.NvmlError, match="0000:11:00.0, which NVML does not show"):
            visible_boards({}, lambda environment: everything)
        with pytest.raises(nvml.NvmlError, match="may name a board .* GPU 1 is left out"):
            visible_boards({"CUDA_VISIBLE_DEVICES": simulation.boards[1].uuid})
        with pytest.raises(nvml.NvmlError, match="CUDA does not say"):
            visible_boards({"CUDA_VISIBLE_DEVICES": "0"})  # there is no libcuda here


@pytest.mark.parametrize("optimize", ["", "1", "2"])
def test_cuda_is_asked_whether_or_not_python_leaves_assertions_out(tmp_path, optimize):
    """A libcuda of two devices, compiled here: of which this process shows the second alone."""
    source = tmp_path / "libcuda.c"
    source.write_text(_LIBCUDA, encoding="utf-8")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a stand-in for libcuda with")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", source], check=True
    )
    environment = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONOPTIMIZE": optimize}
    assert cuda_bus_ids(environment) == ["0000:3B:00.0", "0000:05:00.0"]
    for answer in ("100", "101"):  # no device, and one that is named twice
        assert cuda_bus_ids({**environment, "NO_DEVICE": answer}) == []
    with pytest.raises(nvml.NvmlError, match="cuInit answers 999"):
        cuda_bus_ids({**environment, "BROKEN": "1"})


_LIBCUDA = """
#include <stdio.h>
#include <stdlib.h>
static int started;
int cuInit(unsigned flags) {
    if (getenv("NO_DEVICE")) return atoi(getenv("NO_DEVICE"));
    if (getenv("BROKEN")) return 999;
    started = 1;
    return 0;
}
int cuDeviceGetCount(int *count) { if (!started) return 3; *count = 2; return 0; }
int cuDeviceGetPCIBusId(char *text, int size, int device) {
    if (!started) return 3;
    snprintf(text, size, "%s", device ? "0000:05:00.0" : "0000:3B:00.0");
    return 0;
}
"""


def test_bus_ids_are_compared_by_their_numbers():
    # NVML writes eight digits of domain, CUDA four.
    assert bus_address("00000000:3B:00.0") == bus_address("0000:3b:00.0") == (0, 0x3B, 0)


def test_a_missing_library_is_an_error_that_says_so():
    with (
        simulated(Simulation(library_missing=True)),
        pytest.raises(nvml.NvmlError, match="cannot list the GPUs"),
    ):
        visible_boards({})


def test_a_lost_board_does_not_hide_the_others():
    boards = [SimulatedBoard(lost=((0.0, float("inf")),)), SimulatedBoard()]
    with simulated(Simulation(boards=boards)):
        (found,) = visible_boards({"CUDA_VISIBLE_DEVICES": boards[1].uuid})
    assert found.index == 1


@pytest.mark.parametrize(
    ("selection", "expected"),
    [(None, UUIDS[0]), ("3,1", UUIDS[3]), (UUIDS[5], UUIDS[5]), ("", ""), ("9", "9")],
)
def test_a_training_is_pinned_to_its_first_board(eight, selection, expected):
    environment = {} if selection is None else {"CUDA_VISIBLE_DEVICES": selection}
    pin_first_board(environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == expected


def test_of_a_mig_board_the_instance_is_pinned_and_without_nvml_nothing():
    with simulated(Simulation(boards=[SimulatedBoard(mig=("MIG-a", "MIG-b"))])):
        environment = {"CUDA_VISIBLE_DEVICES": "MIG-b"}
        pin_first_board(environment)
        assert environment == {"CUDA_VISIBLE_DEVICES": "MIG-b"}
        pin_first_board(environment := {})
        assert environment == {"CUDA_VISIBLE_DEVICES": "MIG-a"}
    with simulated(Simulation(boards=[], library_missing=True)):
        pin_first_board(environment := {})
        assert environment == {}
