"""Which board is measured, for each way to say which one CUDA may use."""

from __future__ import annotations

import pytest
from simulated_nvml import SimulatedBoard, Simulation, simulated

from green_screen.power import nvml
from green_screen.power.visible import bus_address, pin_first_board, visible_boards

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


def test_indices_count_in_the_order_that_cuda_uses():
    with simulated(fast_and_slow()):
        by_speed = visible_boards({"CUDA_VISIBLE_DEVICES": "0"}, lambda boards: boards[::-1])
        by_bus = visible_boards(
            {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            lambda boards: boards[::-1],
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
    assert (found.index, found.mig_uuid, found.mig_instances) == (0, instance, 2)
    assert f"parent board of {instance}" in found.label


def test_unknown_mig_instance_shows_nothing():
    with simulated(Simulation(boards=[SimulatedBoard(mig=("MIG-aaaa",))])):
        assert visible_boards({"CUDA_VISIBLE_DEVICES": "MIG-cccc"}) == ()


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
