"""Each doubt about a measurement, alone and at its threshold."""

from __future__ import annotations

import math

import pytest

from green_screen.power.validity import Clock, Evidence, clock_reason, reasons, unchecked

GOOD = {
    "other_processes": 0.0,
    "throttled": {},
    "start_temperature_c": 40.0,
    "sm_clock_mhz": 1900.0,
    "disagreement": 0.019,
    "steady_window_s": 5.0,
    "min_window_s": 5.0,
}


def test_a_good_run_and_one_that_could_see_nothing_have_no_reasons():
    assert reasons(Evidence(**GOOD)) == ()
    assert reasons(Evidence()) == ()
    nothing = Evidence(**{**dict.fromkeys(GOOD, math.nan), "throttled": None})
    assert reasons(nothing) == ()
    # What was not seen is told all the same.
    assert unchecked(Evidence(**GOOD)) == ()
    rules = ("other processes", "throttling", "start temperature", "clocks")
    assert unchecked(nothing) == (*rules, "counter against integral")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"other_processes": 2}, "2 other processes on the GPU"),
        ({"throttled": {"power brake": 0.25}}, "throttled: power brake in 25% of the readings"),
        ({"start_temperature_c": 56.0}, "hot start: 56 C, above 55"),
        ({"disagreement": 0.031}, "counter and integral disagree by 3.1%, above 2%"),
        ({"steady_window_s": 4.9}, "steady window of 4.9 s, shorter than 5.0 s"),
        ({"incomplete": "GPU is lost"}, "incomplete: GPU is lost"),
        ({"shared_mig": 1}, "1 other MIG instances on the board, whose energy is counted too"),
        ({"device_mismatch": "TensorFlow uses 2"}, "TensorFlow uses 2"),
    ],
)
def test_each_doubt_is_a_reason(change, expected):
    assert reasons(Evidence(**{**GOOD, **change})) == (expected,)


def test_all_doubts_are_told():
    found = reasons(Evidence(**{**GOOD, "other_processes": 1, "start_temperature_c": 80.0}))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("clock_mhz", "baseline_mhz", "expected"),
    [
        (1900.0, 1920.0, ""),
        (1800.0, 1920.0, "clocks: 1800 MHz is -6% from the baseline's 1920 MHz"),
        (2030.0, 1920.0, "clocks: 2030 MHz is +6% from the baseline's 1920 MHz"),
        (math.nan, 1920.0, ""),
        (1900.0, math.nan, ""),
        (1900.0, 0.0, ""),
    ],
)
def test_clocks_far_from_the_baselines_are_told(clock_mhz, baseline_mhz, expected):
    run, baseline = (
        Clock(sm_mhz=mhz, power_capped=0.0, power_limit_w="700")
        for mhz in (clock_mhz, baseline_mhz)
    )
    assert clock_reason(run, baseline) == expected


def clock(sm_mhz: float, power_capped: float = 0.0, power_limit_w: str = "700") -> Clock:
    return Clock(sm_mhz=sm_mhz, power_capped=power_capped, power_limit_w=power_limit_w)


@pytest.mark.parametrize(
    ("run", "baseline", "fine"),
    [
        # A load at the power limit all the time, and one that is there half of it.
        (clock(1500.0, 1.0), clock(1980.0), True),
        (clock(1700.0, 0.5), clock(1980.0), True),
        # Readings at the limit in 10 % of the time cannot take 24 % off the mean.
        (clock(1500.0, 0.1), clock(1980.0), False),
        # The baseline is the one at the limit, or both are.
        (clock(1980.0), clock(1500.0, 1.0), True),
        (clock(1980.0, 1.0), clock(1500.0, 0.1), False),
        (clock(1700.0, 1.0), clock(1500.0, 1.0), True),
        # Somebody has set another limit in between, which is no matter of the load.
        (clock(1500.0, 1.0, "400"), clock(1980.0), False),
        (clock(1980.0, 0.0, "400"), clock(1980.0), True),
        # A board that does not say why gets no excuse.
        (clock(1500.0, math.nan), clock(1980.0), False),
    ],
)
def test_a_clock_that_the_load_has_set_at_the_power_limit_is_no_doubt(run, baseline, fine):
    assert (clock_reason(run, baseline) == "") is fine


def test_another_power_limit_is_told():
    reason = clock_reason(clock(1500.0, 1.0, "400"), clock(1980.0))
    assert reason.endswith("baseline's 1980 MHz, at a power limit of 400 W instead of 700 W")
