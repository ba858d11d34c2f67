from __future__ import annotations

import dataclasses
import io
import math
import re

import numpy as np
import pytest
from mlflow.entities import Metric, Run, RunData, RunInfo, RunTag
from rich.console import Console
from simulated_nvml import Constant, SimulatedBoard, Simulation, simulated

from green_screen import names, tracking
from green_screen.executors.executor import Job, JobResult, Outcome
from green_screen.options import TrainOptions
from green_screen.power.visible import local_boards
from green_screen.space import Space, TrainingConfig
from green_screen.sweep import forecast
from green_screen.sweep.energies import EnergyTally, energy
from green_screen.sweep.progress import CampaignProgress, duration, shortened
from green_screen.sweep.runner import Ended

BASELINE = Space.load().baseline


def job(position: int, config: TrainingConfig = BASELINE) -> Job:
    return Job(
        position=position,
        kind="run",
        config=config,
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
    tags = [RunTag(names.TAG_ENERGY_SOURCE, source), RunTag(names.TAG_POSITION, str(position))]
    return Ended(result=result, run=Run(info, RunData(metrics=metrics, tags=tags)))


def shown(terminal: bool, slots: int = 1) -> str:
    """Return what a campaign of ten runs shows.

    Two of before, one that ends, one that is lost and done again, and fails then.
    """
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=160, soft_wrap=True)
    before = {0: ended(0).run, 1: ended(1, energy_j=math.nan).run}
    with CampaignProgress([BASELINE] * 10, before, slots, local_boards(), console) as progress:
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
        f"{'002 lr=0.01 [bold]':<48}  0:01:00             1.50 kJ  test accuracy  50.0 %",
        "run 4 of 10: 003 baseline (at least 3.00 kJ (1 run unknown) so far, 0:07:00 left)",
        "done again: 003 baseline: why",
        "run 4 of 10: 003 baseline (at least 3.00 kJ (2 runs unknown) so far, 0:07:00 left)",
        "failed: 003 baseline: why",
    ]


def plain(output: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)


def test_a_live_bar_on_a_terminal() -> None:
    with simulated(Simulation(boards=[SimulatedBoard(curve=Constant(420.0))])):
        text = plain(shown(terminal=True))
    assert re.search(r"002 lr=0.01 \[bold\] +0:01:00 +1.50 kJ  test accuracy  50.0 %", text)
    assert re.search(r"run 4 of 10 .* 420 W now, at least 3.00 kJ .* left", text)
    assert "run 4 of 10: 003 baseline" not in text


ALL_DIFFERENT = (
    "017 batch_size=128 internal=pre_quantization precision=global_policy_float16 optimizer=AdamW "
    "preprocessing=robust_scaling augmentation=cutmix partitioning=90-5-5 lr=0.00625"
)


@pytest.mark.parametrize("width", [70, 80, 100, 200])
@pytest.mark.parametrize("slots", [1, 8])
@pytest.mark.parametrize("terminal", [False, True])
def test_no_line_is_wider_than_the_terminal(
    terminal: bool, width: int, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "metric_values", lambda *args, **kwargs: [])
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=terminal, width=width, soft_wrap=True, highlight=False
    )
    before = {0: ended(0).run, 1: ended(1, energy_j=math.nan).run}
    boards = [SimulatedBoard(curve=Constant(420.0)) for _ in range(slots)]
    with (
        simulated(Simulation(boards=boards)),
        CampaignProgress([BASELINE] * 1000, before, slots, local_boards(), console) as progress,
    ):
        progress.say("design: constant " + ", ".join(["optimizer_momentum"] * 10))
        for position in range(2, 2 + slots):
            progress.started(job(position), ALL_DIFFERENT)
        progress.ended(ended(2, source=names.SOURCE_ESTIMATE))
        failure = ended(3, "FAILED")
        long = dataclasses.replace(failure.result, reason="ValueError: a tensor [[0.1 0.2]] " * 99)
        if slots > 1:
            progress.ended(dataclasses.replace(failure, result=long))
    shown_lines = re.split(r"[\r\n]+", plain(file.getvalue()))
    limit = min(width, 100) if terminal else 100
    assert max(map(len, shown_lines)) <= limit
    assert "017 " in file.getvalue()
    if limit == 100:
        assert "017 batch_size=128 internal=pre_quantization +6" in file.getvalue()
    if slots > 1:
        assert "failed: 017 batch_size=128" in file.getvalue() and " ..." in file.getvalue()


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (200, "007 batch_size=64 lr=0.01 optimizer=Adam"),
        (30, "007 batch_size=64 lr=0.01 +1"),
        (24, "007 batch_size=64 +2"),
        (6, "007 +3"),
        (3, "007"),
    ],
)
def test_a_name_that_does_not_fit_says_how_much_is_left_out(columns: int, text: str) -> None:
    assert shortened("007 batch_size=64 lr=0.01 optimizer=Adam", columns) == text


def test_two_at_once_take_half_the_time() -> None:
    assert "0:04:00 left" in shown(terminal=False, slots=2)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


def test_the_first_run_s_epochs_tell_the_time_left(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(forecast, "time", clock)
    file = io.StringIO()
    console = Console(file=file, soft_wrap=True)
    with tracking.open_run() as run:
        first = dataclasses.replace(job(0), run_id=run.run_id, options=TrainOptions(epochs=5))
        with CampaignProgress([BASELINE] * 4, {}, 1, (), console) as progress:
            progress.started(first, "000 baseline")
            clock.now_s += 30
            run.metrics({names.EPOCH_TIME_S: 20.0}, step=0)
            assert run.flush(60.0)
            progress.poll()
            clock.now_s += 10
            run.metrics({names.EPOCH_TIME_S: 5.0}, step=1)
            assert run.flush(60.0)
            progress.poll()
            assert progress._time_left() == "0:03:00 left (a guess)"
    assert file.getvalue().splitlines() == [
        "run 1 of 4: 000 baseline (0 J so far, time left: after the first epochs)",
        # Not by the first epoch, which says nothing: three epochs and three runs are to come.
        "  0:03:00 left (a guess)",
    ]


@pytest.mark.parametrize(("epochs", "first_s"), [(5, 100.0), (1, 20.0)])
def test_a_long_or_only_first_epoch_tells_too(
    store: str, monkeypatch: pytest.MonkeyPatch, epochs: int, first_s: float
) -> None:
    clock = Clock()
    monkeypatch.setattr(forecast, "time", clock)
    with tracking.open_run() as run:
        left = forecast.Forecast(1, [BASELINE])
        options = TrainOptions(epochs=epochs)
        left.started(dataclasses.replace(job(0), run_id=run.run_id, options=options))
        clock.now_s += first_s
        run.metrics({names.EPOCH_TIME_S: first_s}, step=0)
        assert run.flush(60.0)
        left.look()
        assert left.left_s() == pytest.approx((epochs - 1) * first_s)


def test_a_store_that_is_away_costs_a_guess_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, calls = Clock(), []

    def away(*args: object, **options: object) -> list[float]:
        calls.append(options)
        raise tracking.StoreUnavailableError("away")

    monkeypatch.setattr(forecast, "time", clock)
    monkeypatch.setattr(tracking, "metric_values", away)
    left = forecast.Forecast(1, [BASELINE] * 3)
    left.started(job(0))
    for _ in range(100):
        clock.now_s += 0.5
        left.look()
    assert calls == [{"patience": 0.0}]
    assert not left.guessed and math.isnan(left.left_s())
    left.ended("run-0", 60.0)
    clock.now_s += 100
    left.look()
    assert len(calls) == 1 and left.left_s() == pytest.approx(120.0)


def test_the_time_left_is_that_of_the_runs_to_come() -> None:
    space = Space.load()

    def seconds(config: TrainingConfig) -> float:
        return 20.0 + 400.0 / config.batch_size * (3.0 if config.precision == "float64" else 1.0)

    rng = np.random.default_rng(0)
    configs = [
        space.parse({name: rng.choice(levels) for name, levels in space.levels.items()})
        for _ in range(60)
    ]
    small = space.parse({"batch_size": 4, "precision": "float64"})
    large = space.parse({"batch_size": 128, "precision": "float32"})
    took = [(config, seconds(config)) for config in configs]
    left_s = {
        config: forecast.Forecast(1, [config] * 10, took).left_s() for config in (small, large)
    }
    assert left_s[small] == pytest.approx(10 * seconds(small), rel=0.4)
    assert left_s[large] == pytest.approx(10 * seconds(large), rel=0.4)
    # One run says what each of the others takes, and failed ones nothing.
    one = forecast.Forecast(2, [large, small, small], [(large, 60.0), (small, math.nan)])
    assert one.left_s() == pytest.approx(90.0)
    one.started(job(0, large))
    one.ended("run-0", math.nan)
    assert one.left_s() == pytest.approx(60.0)


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
