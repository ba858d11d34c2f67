"""Which epochs are steady: by one rule, for made-up epochs and for those of a real campaign."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean, median
from types import SimpleNamespace

import pytest
from virtual_time import time

from green_screen import names
from green_screen.measurement import used_gpus
from green_screen.measurement.run_measurement import RunMeasurement
from green_screen.measurement.run_record import Epoch
from green_screen.measurement.steady import after_the_first, steady_state, unlike_others
from green_screen.power.heartbeat import Heartbeat, Stop, was_starved

PILOT = Path(__file__).parents[3] / "shared" / "data" / "pilot-h100"


def epochs(*fits_s: list[float]) -> list[Epoch]:
    """Return epochs of these times, one list a fit."""
    return [
        Epoch(SimpleNamespace(name=f"epoch {n}", seconds=s, energy_j=100 * s), None, False, fit)
        for fit, times_s in enumerate(fits_s)
        for n, s in enumerate(times_s)
    ]


def steady_s(*fits_s: list[float]) -> list[float]:
    return [epoch.reading.seconds for epoch in steady_state(epochs(*fits_s)).epochs]


def test_the_first_epoch_of_no_fit_is_steady():
    # Also where its time would pass for a steady one's.
    assert steady_s([1.0]) == []
    assert steady_s([11.4, 2.98], [2.97]) == [2.98]
    assert steady_s([17.2, 1.02], [4.98, 0.99, 1.0, 1.01]) == [1.02, 0.99, 1.0, 1.01]
    assert steady_s([1.0, 1.0, 1.0], [1.0, 1.0]) == [1.0] * 3


def test_epochs_count_from_where_their_time_is_that_of_those_that_follow():
    state = steady_state(epochs([13.7, 1.5, 1.02, 1.0, 0.98, 1.0]))
    assert [epoch.reading.seconds for epoch in state.epochs] == [1.02, 1.0, 0.98, 1.0]
    assert state.left_out == (
        "2 of 6 epochs: 1 the first of a fit, 1 unlike those that follow (+50% of time)"
    )
    # Too fast is not steady either: a board that is still cool.
    assert steady_s([9.0, 0.7, 1.0, 1.0]) == [1.0, 1.0]
    # A single late one in the middle belongs to it: that is how this host runs.
    assert steady_s([9.0, 1.0, 1.2, 1.0, 1.0]) == [1.0, 1.2, 1.0, 1.0]
    assert steady_state([]).epochs == () and steady_state([]).left_out == ""


def test_an_epoch_that_takes_many_times_as_long_as_the_others_is_a_doubt():
    assert unlike_others(after_the_first(epochs([30.0, 1.0, 16.0, 1.1], [5.0, 1.0]))) == [
        "epoch 2 took 16.0 s, 16 times as long as the others"
    ]
    # A start is not, nor are tenths of a second.
    assert unlike_others(after_the_first(epochs([30.0, 1.0, 1.1], [5.0, 1.0]))) == []
    assert unlike_others(after_the_first(epochs([30.0, 0.01, 0.2, 0.01]))) == []
    assert unlike_others(after_the_first(epochs([1.0, 30.0]))) == unlike_others([]) == []


def pilot_runs() -> dict[tuple[str, str], tuple[dict[str, str], list[Epoch]]]:
    if not (PILOT / "epochs.csv").is_file():
        pytest.skip("the epochs of the campaign on H100s are not here")

    def rows(name: str) -> list[dict[str, str]]:
        with (PILOT / name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    found = {(run["campaign"], run["position"]): (run, []) for run in rows("runs.csv")}
    for row in rows("epochs.csv"):
        seconds, joules = float(row["seconds"]), float(row["joules"])
        reading = SimpleNamespace(name=row["index"], seconds=seconds, energy_j=joules)
        fit = int(row["part"] == "further")
        found[row["campaign"], row["position"]][1].append(Epoch(reading, None, bool(fit), fit))
    return found


def test_in_a_real_campaign_every_level_is_measured_in_the_same_state():
    """What comes last is the truth: `post_quantization` was 10 to 30 % above it."""
    ratios: dict[str, list[float]] = {}
    for run, found in pilot_runs().values():
        state = steady_state(found)
        if run["status"] == "FINISHED":
            assert state.epochs, run["position"]
            assert not unlike_others(after_the_first(found))
        # Epochs are compared with the median of the last ones, where there are enough.
        last_j = [epoch.reading.energy_j for epoch in found if epoch.fit == 1][1:]
        if len(last_j) >= 3:
            ratio = mean(epoch.reading.energy_j for epoch in state.epochs) / median(last_j)
            ratios.setdefault(run["effective_internal"], []).append(ratio)
    assert len(ratios["post_quantization"]) >= 3 and len(ratios["None"]) >= 5
    for level, found_ratios in ratios.items():
        assert mean(found_ratios) == pytest.approx(1, abs=0.02), level
        assert max(abs(math.log(ratio)) for ratio in found_ratios) < 0.06, level


_STOPPED = """
import sys
from green_screen.measurement.run_measurement import RunMeasurement
with RunMeasurement(country="USA", synchronize=lambda: None) as run:
    run.begin_fit()
    for epoch in range(2):
        run.begin_epoch(epoch)
        print("at work", flush=True)
        sys.stdin.readline()
        run.end_epoch(images=100)
print(run.summary(100).tags.get("measurement_invalid_reason", "valid"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_process_that_was_stopped_says_so_wherever_it_was(stopped):
    """For a first epoch, which no other is like, and for others, with a real signal."""
    child = subprocess.Popen(
        [sys.executable, "-c", _STOPPED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        for epoch in range(2):
            assert child.stdout.readline() == "at work\n"
            if epoch == stopped:
                os.kill(child.pid, signal.SIGSTOP)
                os.waitpid(child.pid, os.WUNTRACED)
                time.sleep(3)  # for longer than any thread is late
                os.kill(child.pid, signal.SIGCONT)
            child.stdin.write("go on\n")
            child.stdin.flush()
        told = child.stdout.read().strip()
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    assert told.startswith("the process was stopped for ") and f"(epoch {stopped})" in told


def test_a_process_that_waits_for_a_cpu_is_told_from_one_that_was_stopped():
    # Either thread may be the one that waited; a stopped one is in no queue.
    assert was_starved(3.0, [1.0, 5.0], [3.9, 5.0]) and was_starved(3.0, [1.0, 5.0], [1.0, 6.6])
    assert not was_starved(3.0, [1.0, 5.0], [1.2, 5.9])
    assert not was_starved(3.0, [], [])  # the kernel does not tell


def test_a_starved_process_is_tagged_and_stays_valid(monkeypatch):
    hole = [Stop(0.0, math.inf, 2.5, starved=True)]
    monkeypatch.setattr(Heartbeat, "stops", property(lambda self: tuple(hole)))
    monkeypatch.setattr(used_gpus, "tensorflow_gpus", lambda: ())
    with RunMeasurement(country="USA", synchronize=lambda: None, min_window_s=0.0) as run:
        run.begin_fit()
        for epoch in range(2):
            run.begin_epoch(epoch)
            time.sleep(0.1)
            run.end_epoch()
    tags = run.summary(None).tags
    assert tags[names.TAG_STARVED].startswith("the process waited for a CPU for 2.5 s (")
    assert tags[names.TAG_MEASUREMENT_VALID] == "true", tags
