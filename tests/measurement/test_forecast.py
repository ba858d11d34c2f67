"""The forecast of a training from a window: right as often as its interval says."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from green_screen import names
from green_screen.measurement.forecast import (
    BETWEEN_RUNS,
    BETWEEN_STARTS,
    EPOCH_SCATTER,
    Interval,
    Spread,
    energy_spread,
    energy_text,
    forecast,
    forecast_rest,
    time_spread,
)
from green_screen.measurement.run_record import Epoch

WATTS = 200.0


def blocks(seconds: list[float], *, counter_s: float = 0.0, work: float = 0.1) -> list[Epoch]:
    """Return blocks one after another, by a counter that moves every `counter_s`."""
    edges_s = np.cumsum([0.03, *seconds])
    if counter_s:
        edges_s = np.floor(edges_s / counter_s) * counter_s
    return [
        Epoch(
            SimpleNamespace(
                seconds=s,
                energy_j=WATTS * shown_s,
                mean_power_w=WATTS * shown_s / s,
                resolution_j=counter_s * WATTS,
                source=names.SOURCE_COUNTER if counter_s else names.SOURCE_ESTIMATE,
            ),
            None,
            further=False,
            work=work,
        )
        for s, shown_s in zip(seconds, np.diff(edges_s), strict=True)
    ]


def test_the_standard_error_is_that_of_the_mean():
    rng = np.random.default_rng(1)
    found = []
    for _ in range(300):
        seconds = rng.normal(1.5, 0.06, 12).tolist()
        found.append((np.mean(seconds) / 1.5 - 1, energy_spread(blocks(seconds)).standard_error))
    truth = np.std([error for error, _ in found])
    assert np.mean([told for _, told in found]) == pytest.approx(truth, rel=0.15)


def test_the_counters_steps_are_no_scatter_of_the_work():
    """Blocks of equal length, whose joules differ by the counter's steps alone."""
    seconds = [1.537] * 12
    spread = energy_spread(blocks(seconds, counter_s=0.1))
    naive = np.std([b.reading.energy_j for b in blocks(seconds, counter_s=0.1)]) / math.sqrt(12)
    assert spread.standard_error < 0.005 < naive / (1.537 * WATTS)
    assert spread.resolution == pytest.approx(0.1 / (12 * 1.537), rel=0.02)
    assert time_spread(blocks(seconds)).standard_error == 0.0


def test_blocks_may_be_of_different_size():
    short, long = blocks([0.5], work=0.1)[0], blocks([1.0], work=0.2)[0]
    spread = energy_spread([short, long, long, short])
    assert spread.standard_error == pytest.approx(0.0, abs=1e-9)
    assert spread.drift == pytest.approx(0.0, abs=1e-9)
    slower = dataclasses.replace(long, work=0.16)
    assert energy_spread([short, long, slower, slower]).drift == pytest.approx(0.25)


def test_too_few_blocks_tell_nothing_of_their_scatter():
    for few in ([], blocks([1.0, 1.0, 1.0])):
        spread = energy_spread(few)
        assert math.isnan(spread.standard_error) and math.isnan(spread.half_width)
        assert spread.n == len(few)


def test_blocks_in_which_no_energy_was_counted_tell_of_no_drift():
    found = blocks([0.05, 0.05, 0.05, 0.05])
    for block in found[:2]:
        block.reading.energy_j = 0.0
    assert math.isnan(energy_spread(found).drift)


def test_the_interval_holds_all_that_is_known_to_differ():
    sure = Spread(n=12, seconds=18.0, standard_error=0.0, resolution=0.0, drift=0.0)
    assert sure.half_width == pytest.approx(1.96 * BETWEEN_RUNS)
    rough = dataclasses.replace(sure, standard_error=0.01, resolution=0.005, drift=-0.02)
    expected = math.hypot(2.201 * 0.01, 0.005, 0.02, 1.96 * BETWEEN_RUNS)  # t of 11 degrees
    assert rough.half_width == pytest.approx(expected, rel=0.005)
    few = dataclasses.replace(rough, n=4)
    expected = math.hypot(3.182 * 0.01, 0.005, 0.02, 1.96 * BETWEEN_RUNS)
    assert few.half_width == pytest.approx(expected, rel=0.01)


def test_a_forecast_is_the_start_and_the_epochs():
    found = forecast(1000.0, 500.0, 10, 0.04)
    assert found.value == 6000.0
    error = math.hypot(5000 * 0.04, 1000 * 1.96 * BETWEEN_STARTS)
    assert (found.low, found.high) == pytest.approx((6000 - error, 6000 + error))


def test_of_a_training_under_way_the_rest_alone_is_uncertain():
    found = forecast_rest(1000.0, 500.0, 4, 0.05)
    assert (found.value, found.low, found.high) == (3000.0, 2900.0, 3100.0)
    assert forecast_rest(1000.0, 500.0, 0, 0.05) == Interval(1000.0, 1000.0, 1000.0)
    assert energy_text(Interval(41_234.0, 40_100.0, 42_300.0)) == "41.2 kJ (40.1 to 42.3)"
    assert energy_text(Interval(0.5, 0.4, 0.6)) == "0.5 J (0.4 to 0.6)"
    # A few epochs cannot tell their own scatter, which is then that of others.
    assert energy_spread(blocks([1.0])).own_half_width == pytest.approx(1.96 * EPOCH_SCATTER)
    assert energy_spread(blocks([1.0] * 4)).own_half_width == pytest.approx(0.0, abs=1e-9)


def test_the_interval_is_right_in_nineteen_of_twenty_runs():
    """Runs that scatter as the replicates do, and within a run as much again."""
    rng = np.random.default_rng(2)
    right, n = 0, 400
    for _ in range(n):
        screened, trained = 1.5 * np.exp(rng.normal(0.0, BETWEEN_RUNS / math.sqrt(2), 2))
        seconds = (screened * np.exp(rng.normal(0.0, 0.04, 8))).tolist()
        window = blocks(seconds, counter_s=0.1)
        epoch_j = sum(b.reading.energy_j for b in window) / sum(b.work for b in window)
        start_j = 2000 * np.exp(rng.normal(0.0, BETWEEN_STARTS / math.sqrt(2), 2))
        found = forecast(start_j[0], epoch_j, 20, energy_spread(window).half_width)
        right += found.low <= start_j[1] + 20 * WATTS * trained / 0.1 <= found.high
    assert 0.93 <= right / n <= 1.0
