from __future__ import annotations

import io
import math
import re

import pytest
from mlflow.entities import Metric, Run, RunData, RunInfo, RunTag
from rich.console import Console
from simulated_nvml import Constant, SimulatedBoard, Simulation, simulated

from green_screen import names
from green_screen.executors.executor import Job, JobResult, Outcome
from green_screen.options import TrainOptions
from green_screen.power.visible import local_boards
from green_screen.space import Space
from green_screen.sweep.energies import EnergyTally, energy
from green_screen.sweep.progress import CampaignProgress, duration
from green_screen.sweep.runner import Ended


def job(position: int) -> Job:
    return Job(
        position=position,
        kind="run",
        config=Space.load().baseline,
        options=TrainOptions(),
        run_id=f"run-{position}",
        tracking_uri="",
    )


def ended(
    position: int,
    status: str = "FINISHED",
    energy_j: float = 1500.0,
    source: str = names.SOURCE_COUNTER,
) -> Ended:
    info = RunInfo(
        run_id=f"run-{position}",
        experiment_id="0",
        user_id="me",
        status=status,
        start_time=0,
        end_time=60_000,
        lifecycle_stage="active",
    )
    metrics = [Metric(names.ENERGY_TOTAL_J, energy_j, 0, 0), Metric(names.TEST_ACCURACY, 0.5, 0, 0)]
    result = JobResult(job=job(position), outcome=Outcome(status), reason="why", wall_s=60.0)
    tags = [RunTag(names.TAG_ENERGY_SOURCE, source)]
    return Ended(result=result, run=Run(info, RunData(metrics=metrics, tags=tags)))


def shown(terminal: bool, slots: int = 1) -> str:
    """Return what a campaign of ten runs shows.

    Two of before, one that ends, one that is lost and done again, and fails then.
    """
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=160, soft_wrap=True)
    before = [ended(0).run, ended(1, energy_j=math.nan).run]
    with CampaignProgress(10, before, slots, local_boards(), console) as progress:
        progress.started(job(2), "002 lr=0.01 [bold]")
        progress.ended(ended(2))
        progress.started(job(3), "003 baseline")
        progress.lost(ended(3, "KILLED", math.nan))
        progress.started(job(3), "003 baseline")
        progress.poll()
        progress.ended(ended(3, "FAILED"))
    return file.getvalue()


def test_plain_lines_without_a_terminal() -> None:
    lines = shown(terminal=False).splitlines()
    assert lines == [
        "run 3 of 10: 002 lr=0.01 [bold] (at least 1.50 kJ (1 run unknown) so far, 0:08:00 left)",
        "finished: 002 lr=0.01 [bold]: 0:01:00, 1.50 kJ, test accuracy 0.500",
        "run 4 of 10: 003 baseline (at least 3.00 kJ (1 run unknown) so far, 0:07:00 left)",
        "done again: 003 baseline: why",
        "run 4 of 10: 003 baseline (at least 3.00 kJ (2 runs unknown) so far, 0:07:00 left)",
        "failed: 003 baseline: why",
    ]


def test_a_live_bar_on_a_terminal() -> None:
    with simulated(Simulation(boards=[SimulatedBoard(curve=Constant(420.0))])):
        output = shown(terminal=True)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)
    assert "finished: 002 lr=0.01 [bold]: 0:01:00, 1.50 kJ, test accuracy 0.500" in text
    assert re.search(r"run 4 of 10 .* 420 W now, at least 3.00 kJ .* left  003 baseline", text)
    assert "run 4 of 10: 003 baseline" not in text


def test_two_at_once_take_half_the_time() -> None:
    assert "0:04:00 left" in shown(terminal=False, slots=2)


@pytest.mark.parametrize(
    ("joules", "text"), [(0.0, "0 J"), (999.0, "999 J"), (22_803.0, "22.80 kJ"), (1.5e6, "1.50 MJ")]
)
def test_energy_in_words(joules: float, text: str) -> None:
    assert energy(joules) == text


def test_what_is_not_known_of_an_energy_is_said() -> None:
    measured, estimated = ended(0).run, ended(1, source=names.SOURCE_ESTIMATE).run
    unknown = ended(2, energy_j=math.nan).run
    assert EnergyTally([]).text() == "0 J"
    assert EnergyTally([unknown]).text() == "energy unknown"
    assert EnergyTally([estimated]).text() == "1.50 kJ (estimated)"
    assert EnergyTally([measured, estimated]).text() == "3.00 kJ (partly estimated)"
    expected = "at least 1.50 kJ (estimated, 1 run unknown)"
    assert EnergyTally([estimated, unknown]).text() == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.6, "0:01:00"), (3661.0, "1:01:01"), (math.nan, "-")]
)
def test_duration_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
