"""The final comparison: estimates, intervals, what is left out, and the order of the runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from simulated_campaign import SimulatedCampaign
from simulated_findings import comparison, final_runs

from green_screen import names
from green_screen.decision.final import (
    BASELINE,
    RECOMMENDED,
    SELECTED,
    Contrast,
    FinalComparison,
    compare,
    paired_t,
)
from green_screen.decision.final_runs import FinalPlan, campaign_options
from green_screen.options import OptionError, TrainOptions
from green_screen.report.tables import final_tables
from green_screen.space import Space


def saving(found: FinalComparison) -> Contrast:
    """Return the selected configuration against the baseline."""
    assert found.saving is not None
    return found.saving


def test_the_interval_is_the_paired_t_interval() -> None:
    # Student's own data of 1908, "sleep": mean 1.58, 95 % interval 0.70 to 2.46 (R's t.test).
    sleep = np.array([1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4])
    estimate = paired_t(sleep, alpha=0.05)
    assert estimate.value == pytest.approx(1.58)
    assert (estimate.low, estimate.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_intervals_cover_the_truth_at_the_stated_rate() -> None:
    rng = np.random.default_rng(0)
    truth = np.log(0.4)
    found = [paired_t(rng.normal(truth, 0.05, 5), alpha=0.05) for _ in range(1000)]
    covered = sum(estimate.low <= truth <= estimate.high for estimate in found)
    # Binomial(1000, 0.95): outside of this with a probability of 0.3 %.
    assert 929 <= covered <= 970


def test_ratios_are_geometric_means_and_accuracies_differences() -> None:
    found = saving(comparison(pairs=50, ratio=0.4, noise=0.03, accuracy_gain=0.02))
    assert found.energy_ratio.low < 0.4 < found.energy_ratio.high
    assert found.energy_ratio.high - found.energy_ratio.low < 0.02
    assert found.accuracy_difference.low < 0.02 < found.accuracy_difference.high


def test_drift_common_to_a_pair_does_not_widen_the_interval() -> None:
    runs = SimulatedCampaign(n_runs=4).frame()
    finals = final_runs(runs, runs["run_id"].iloc[1], pairs=5, noise=0.01)
    steady = saving(compare(finals)).energy_ratio
    for metric in (names.ENERGY_TOTAL_J,):
        finals[metric] *= 1.3 ** finals["pair"]
    drifting = saving(compare(finals)).energy_ratio
    assert (drifting.low, drifting.high) == pytest.approx((steady.low, steady.high))


def test_one_pair_gives_an_estimate_without_an_interval() -> None:
    found = comparison(pairs=1)
    ratio = saving(found).energy_ratio
    assert ratio.value == pytest.approx(0.4, rel=0.2)
    assert not ratio.has_interval and np.isnan(ratio.high)
    assert found.statements == tuple(
        f"One pair of final runs counts for the {what}, and an interval needs at least 2: its "
        "difference may be noise."
        for what in ("energy", "test accuracy")
    )


def test_each_quantity_says_for_itself_that_it_has_no_interval() -> None:
    finals = comparison(pairs=3).runs.copy()
    finals.loc[finals["pair"] < 2, "measurement_valid"] = "false"
    energy = compare(finals)
    of = saving(energy)
    assert (of.energy_ratio.pairs, of.accuracy_difference.pairs) == (1, 3)
    (noise,) = (text for text in energy.statements if "noise" in text)
    assert "for the energy" in noise and "accuracy" not in noise
    finals["measurement_valid"] = "true"
    finals.loc[finals["pair"] < 2, names.TEST_ACCURACY] = np.nan
    (noise,) = compare(finals).statements
    assert "for the test accuracy" in noise and "energy" not in noise
    finals[names.TEST_ACCURACY] = np.nan
    (unknown,) = compare(finals).statements
    assert unknown.startswith("No pair of final runs counts for the test accuracy")


def test_mean_accuracies_are_those_of_the_pairs_that_the_difference_rests_on() -> None:
    finals = comparison(pairs=4).runs.copy()
    finals.loc[0, names.TEST_ACCURACY] = np.nan
    finals.loc[1, names.TEST_ACCURACY] = 0.1  # its pair does not count
    found = saving(compare(finals))
    means = found.means[names.TEST_ACCURACY]
    assert found.accuracy_difference.pairs == 3
    assert means[SELECTED] - means[BASELINE] == pytest.approx(found.accuracy_difference.value)


def test_means_are_those_of_the_pairs_that_the_ratio_rests_on() -> None:
    runs = comparison(pairs=5).runs.copy()
    spoilt = (runs["pair"] == 0) & (runs["role"] == SELECTED)
    runs.loc[spoilt, names.ENERGY_TOTAL_J] *= 100
    runs.loc[spoilt, "measurement_valid"] = "false"
    found = saving(compare(runs))
    means = found.means[names.ENERGY_TOTAL_J]
    assert found.energy_ratio.pairs == 4
    assert means[SELECTED] / means[BASELINE] == pytest.approx(found.energy_ratio.value, rel=0.02)


def test_failed_and_invalid_runs_cost_their_pair_and_are_named() -> None:
    runs = SimulatedCampaign(n_runs=4).frame()
    finals = final_runs(runs, runs["run_id"].iloc[1], pairs=4)
    finals.loc[0, "status"] = "FAILED"
    finals.loc[3, ["measurement_valid", "invalid_reason"]] = ["false", "window of 1 s"]
    found = compare(finals)
    assert saving(found).energy_ratio.pairs == 2
    assert saving(found).accuracy_difference.pairs == 3  # an accuracy needs no valid energy
    assert "final 1 baseline" in found.statements[0]
    assert "window of 1 s" in found.statements[1]


def test_the_energies_of_a_pair_are_of_one_source() -> None:
    runs = SimulatedCampaign(n_runs=4).frame()
    finals = final_runs(runs, runs["run_id"].iloc[1], pairs=4)
    finals.loc[2, "energy_source"] = names.SOURCE_ESTIMATE
    found = compare(finals)
    of = saving(found)
    assert of.energy_ratio.pairs == 3
    assert of.ratios[names.DURATION_S].pairs == 4 and of.accuracy_difference.pairs == 4
    assert "different sources (codecarbon_estimate and nvml_counter)" in found.statements[0]
    # Whole pairs of one source each hold: a ratio has no source.
    finals.loc[3, "energy_source"] = names.SOURCE_ESTIMATE
    assert saving(compare(finals)).energy_ratio.pairs == 4


def test_without_a_usable_pair_there_is_no_number() -> None:
    runs = SimulatedCampaign(n_runs=4).frame()
    finals = final_runs(runs, runs["run_id"].iloc[1], pairs=2)
    finals["status"] = "FAILED"
    ratio = saving(compare(finals)).energy_ratio
    assert np.isnan(ratio.value) and ratio.pairs == 0


def test_three_configurations_are_compared_within_their_rounds() -> None:
    runs = SimulatedCampaign(n_runs=4).frame()
    true = {SELECTED: 0.4, RECOMMENDED: 0.3}
    finals = final_runs(runs, runs["run_id"].iloc[1], 5, ratios=true, noise=0.01)
    found = compare(finals)
    compared = [(c.role, c.reference) for c in found.contrasts]
    assert compared == [(SELECTED, BASELINE), (RECOMMENDED, SELECTED), (RECOMMENDED, BASELINE)]
    assert found.recommended is found.contrasts[1]
    assert found.recommended.energy_ratio.value == pytest.approx(0.75, rel=0.03)
    # A drift that all of a round share is none between them.
    drifting = finals.assign(energy_total_j=finals[names.ENERGY_TOTAL_J] * 1.3 ** finals["pair"])
    again = compare(drifting).recommended
    assert again is not None
    assert again.energy_ratio.high == pytest.approx(found.recommended.energy_ratio.high)
    # One that failed costs the pairs that it is in, and no other.
    finals.loc[finals["role"].eq(RECOMMENDED) & finals["pair"].eq(2), "status"] = "FAILED"
    assert [c.energy_ratio.pairs for c in compare(finals).contrasts] == [5, 4, 4]


def test_the_recommended_one_is_kept_where_it_is_shown_to_be_better() -> None:
    runs = SimulatedCampaign(n_runs=4).frame()

    def finals(ratio: float, points: float, rounds: int = 5) -> FinalComparison:
        made = final_runs(
            runs, runs["run_id"].iloc[1], rounds, ratios={SELECTED: 0.4, RECOMMENDED: ratio}
        )
        made.loc[made["role"] == RECOMMENDED, names.TEST_ACCURACY] += points / 100
        return compare(made)

    assert finals(0.3, 0.0).kept == RECOMMENDED
    assert finals(0.3, 5.0).kept == RECOMMENDED
    assert finals(0.3, -5.0).kept == SELECTED  # shown to be less accurate
    assert finals(0.4, 0.0).kept == SELECTED  # not shown to take less
    assert finals(0.5, 5.0).kept == SELECTED
    assert finals(0.3, 0.0, rounds=1).kept == SELECTED  # no interval
    diverged = finals(0.3, 0.0).runs
    diverged.loc[diverged["role"] == RECOMMENDED, "diverged"] = True
    assert compare(diverged).kept == SELECTED


def test_a_selected_baseline_is_not_compared_with_itself() -> None:
    runs = SimulatedCampaign(n_runs=4).frame()
    alone = compare(final_runs(runs, runs["run_id"].iloc[0], 3, ratios={}))
    assert alone.contrasts == () and alone.statements == ()
    assert alone.saving is None and alone.kept == BASELINE
    (table,) = final_tables(alone)
    assert {row[2] for row in table.rows} == {"3"} and len(table.rows) == 6
    assert "n/a" not in str(table) and "with which nothing is compared" in table.caption
    both = compare(final_runs(runs, runs["run_id"].iloc[0], 3, ratios={RECOMMENDED: 0.5}))
    assert both.saving is None and both.recommended is not None
    assert both.recommended.reference == BASELINE and both.kept == RECOMMENDED


def test_the_runs_alternate_and_change_their_order() -> None:
    space = Space.load()
    plan = FinalPlan(
        campaign="c",
        baseline=space.baseline,
        selected=space.parse({"batch_size": 128}),
        options=TrainOptions(),
        repeats=3,
    )
    assert [(pair, role) for pair, role, _ in plan.turns()] == [
        (0, BASELINE),
        (0, SELECTED),
        (1, SELECTED),
        (1, BASELINE),
        (2, BASELINE),
        (2, SELECTED),
    ]
    assert plan.kept == (SELECTED,) and plan.runs == 6
    same = dataclasses.replace(plan, selected=space.baseline)
    assert [role for _, role, _ in same.turns()] == [BASELINE] * 3 and same.kept == (BASELINE,)
    three = dataclasses.replace(plan, recommended=space.parse({"batch_size": 64}))
    roles = [role for _, role, _ in three.turns()]
    assert roles[:6] == [BASELINE, SELECTED, RECOMMENDED, RECOMMENDED, SELECTED, BASELINE]
    assert three.runs == len(roles) == 9 and three.kept == (SELECTED, RECOMMENDED)


def test_options_come_from_the_campaign() -> None:
    params = {"dataset": "digits", "model": "resnet8", "epochs": "7", "samples": "None"}
    params |= {"seed": "3", "lr": "0.01", "log_model": "false", "trace": "false"}
    # The configuration is given: that its file is not here, or is another one here, is no matter.
    params["config"] = "a/relative/path.yaml"
    options = campaign_options(params, epochs=None)
    assert options == TrainOptions(dataset="digits", model="resnet8", epochs=7, seed=3, trace=False)
    assert campaign_options(params, epochs=2).epochs == 2
    with pytest.raises(OptionError, match="final_repeats=0"):
        campaign_options({"model": "resnet8"}, epochs=None)
