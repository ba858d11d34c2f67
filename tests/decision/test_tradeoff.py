import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from simulated_campaign import SimulatedCampaign

from green_screen import names
from green_screen.decision.tradeoff import (
    BREAK_EVEN_COLUMNS,
    ONCE_METRICS,
    accuracy_candidates,
    break_even,
    campaign_cost,
    carbon_intensity_g_per_kwh,
    energy_to_accuracy,
    front_candidates,
    once_j,
    pareto_front,
)
from green_screen.space import Space
from green_screen.statistics.regression import fit_energy_model

FAST = {"permutations": 0, "cv_repeats": 0, "trees": 0}


def test_the_front_is_what_no_run_beats():
    runs = SimulatedCampaign(seed=1, n_runs=80, invalid=(5,), failed=(6,)).frame()
    runs.loc[5, [names.TEST_ACCURACY, names.ENERGY_TOTAL_J]] = [1.0, 1.0]
    runs.loc[7, names.TEST_ACCURACY] = np.nan
    runs.loc[8, [names.TEST_ACCURACY, names.ENERGY_TOTAL_J]] = [1.0, 1.0]
    runs.loc[8, "measurement_valid"] = "false"
    front = pareto_front(runs)
    usable = runs[(runs["status"] == "FINISHED") & (runs["measurement_valid"] == "true")]
    usable = usable[usable[names.TEST_ACCURACY].notna()]
    expected = {
        run["run_id"]
        for _, run in usable.iterrows()
        if not (
            (usable[names.TEST_ACCURACY] >= run[names.TEST_ACCURACY])
            & (usable[names.ENERGY_TOTAL_J] <= run[names.ENERGY_TOTAL_J])
            & (usable["run_id"] != run["run_id"])
        ).any()
    }
    assert set(front["run_id"]) == expected
    assert len(front) > 2
    assert front[names.ENERGY_TOTAL_J].is_monotonic_increasing
    assert front[names.TEST_ACCURACY].is_monotonic_increasing
    assert pareto_front(runs.iloc[:0]).empty


def test_only_runs_that_can_be_compared_are_on_the_front():
    runs = SimulatedCampaign(seed=1, n_runs=40).frame()
    for row, column, value in (
        (3, "dataset", "cifar10"),
        (4, "model", "resnet8"),
        (5, "image_size", 64.0),
        (6, "samples", 100.0),
        (7, "energy_source", names.SOURCE_ESTIMATE),
        (8, "epochs", 1.0),
    ):
        runs.loc[row, [names.TEST_ACCURACY, names.ENERGY_TOTAL_J]] = [1.0, 1.0]
        runs.loc[row, column] = value
    excluded = front_candidates(runs).excluded
    assert list(excluded["reason"]) == [
        "not the dataset of most runs",
        "not the model of most runs",
        "not the image size of most runs",
        "not the samples of most runs",
        "not the energy source of most runs",
        "not the epochs of most runs",
    ]
    assert not set(pareto_front(runs)["run_id"]) & set(excluded["run_id"])
    # The energy to an accuracy is one of epochs, however many there were.
    others = accuracy_candidates(runs).excluded["reason"]
    assert "not the epochs of most runs" not in set(others) and len(others) == 5


def test_energy_to_an_accuracy_counts_set_up_and_every_epoch():
    runs = SimulatedCampaign(seed=1, n_runs=3, baseline_every=9).frame()
    ids = list(runs["run_id"])
    runs[names.SETUP_ENERGY_J] = [100.0, 100.0, 100.0, np.nan]
    epochs = pd.DataFrame(
        {
            "run_id": np.repeat(ids, 3),
            "epoch": [0, 1, 2] * 4,
            names.VAL_ACCURACY: [0.1, 0.5, 0.6, 0.1, 0.2, 0.3, 0.5, 0.4, 0.6, 0.5, 0.5, 0.5],
            names.EPOCH_ENERGY_J: [10, 20, 40, 1, 1, 1, np.nan, 5, 5, 1, 1, 1],
        }
    )
    table = energy_to_accuracy(runs, epochs, 0.5).set_index("run_id")
    assert table.loc[ids[0], ["epoch", "energy_j"]].tolist() == [1.0, 130.0]
    assert not table.loc[ids[1], "reached"] and math.isnan(table.loc[ids[1], "energy_j"])
    # Reached, but an energy is missing: no number.
    assert table.loc[ids[2], "reached"] and math.isnan(table.loc[ids[2], "energy_j"])
    # What the set-up took is unknown: it cannot be compared, and that is said.
    assert ids[3] not in table.index
    (why,) = accuracy_candidates(runs).excluded.itertuples(index=False)
    assert tuple(why)[::2] == (ids[3], "setup_energy_j missing")


def test_break_even_of_xla_covers_the_truth():
    # Truth: 6,000 J more once; 40 % of 50,000 J less an epoch, at the baseline.
    covered = 0
    for seed in range(6):
        runs = SimulatedCampaign(seed=seed).frame()
        table = break_even(fit_energy_model(runs, **FAST)).levels.set_index("level")
        assert set(table.index) == {"jit_compilation", "post_quantization"}
        row = table.loc["jit_compilation"]
        assert row["break_even_epochs"] == pytest.approx(6000 / 20_000, rel=0.1)
        covered += row["epochs_low"] <= 6000 / 20_000 <= row["epochs_high"]
    assert covered >= 4


def test_what_saves_nothing_never_pays_back():
    effects = {"internal": {"post_quantization": 1.2, "jit_compilation": 0.9999}}
    runs = SimulatedCampaign(seed=2, effects=effects).frame()
    table = break_even(fit_energy_model(runs, **FAST)).levels.set_index("level")
    assert table.loc["post_quantization", "break_even_epochs"] == math.inf
    assert table.loc["post_quantization", "epochs_low"] == math.inf
    # Nothing rules out that XLA saves nothing: no upper end.
    assert table.loc["jit_compilation", "epochs_high"] == math.inf
    assert table.loc["jit_compilation", "epochs_low"] < math.inf


def test_break_even_depends_on_the_configuration():
    analysis = fit_energy_model(SimulatedCampaign(seed=3).frame(), **FAST)
    large = dataclasses.replace(Space.load().baseline, batch_size=128)
    row = break_even(analysis, large).levels.set_index("level").loc["jit_compilation"]
    assert row["break_even_epochs"] == pytest.approx(6000 / (0.15 * 20_000), rel=0.15)
    with pytest.raises(ValueError, match="batch_size=256"):
        break_even(analysis, dataclasses.replace(large, batch_size=256))


def test_break_even_without_an_estimate_says_why():
    runs = SimulatedCampaign(seed=1).frame()
    nothing = break_even(fit_energy_model(runs.iloc[:4], **FAST))
    assert nothing.levels.empty and tuple(nothing.levels.columns) == BREAK_EVEN_COLUMNS
    assert "no model of the energy per epoch was fitted" in nothing.statement
    unknown = break_even(fit_energy_model(runs.assign(**{names.SETUP_ENERGY_J: np.nan}), **FAST))
    assert unknown.levels.empty
    assert f"is known of 0 of {len(runs)} usable runs" in unknown.statement
    free = runs.assign(**{name: 100.0 for name in ONCE_METRICS})
    free.loc[free["effective_internal"] == "post_quantization", ONCE_METRICS[-1]] = 0.0
    free[names.SETUP_ENERGY_J] *= np.random.default_rng(0).lognormal(0, 0.01, len(free))
    none = break_even(fit_energy_model(free, **FAST))
    assert none.levels.empty and "No level is shown to cost more energy once" in none.statement
    with pytest.raises(ValueError, match="response epoch, but got total"):
        break_even(fit_energy_model(runs, response="total", **FAST))


def test_what_did_not_happen_took_no_energy_and_what_was_not_measured_is_unknown():
    runs = SimulatedCampaign(seed=1).frame()
    converts = runs["effective_internal"] == "post_quantization"
    assert (runs[names.CONVERSION_ENERGY_J].notna() == converts).all()
    without = runs[names.SETUP_ENERGY_J] + runs[names.WARMUP_ENERGY_J]
    np.testing.assert_allclose(once_j(runs), without + 1_500.0 * converts)
    unmeasured = once_j(runs.assign(**{names.CONVERSION_ENERGY_J: np.nan}))
    assert (unmeasured.isna() == converts).all()


def test_cost():
    runs = SimulatedCampaign(seed=1, n_runs=4).frame()
    runs[names.ENERGY_TOTAL_J] = [3.6e6, 3.6e6, np.nan, 1.8e6, 1.8e6]
    runs[names.FURTHER_ENERGY_J] = [np.nan, 3.6e6, np.nan, np.nan, np.nan]
    cost = campaign_cost(runs, country="DEU", price_per_kwh=0.3, currency="EUR")
    assert cost.energy_kwh == pytest.approx(4.0)
    assert (cost.n_runs, cost.n_missing) == (4, 1)
    assert cost.sources == (names.SOURCE_COUNTER,)
    assert cost.money == pytest.approx(1.2)
    assert cost.emissions_kg_co2eq == pytest.approx(4 * cost.intensity_g_per_kwh / 1000)
    # France's electricity is far less carbon-intensive than Germany's, in any year.
    assert carbon_intensity_g_per_kwh("FRA") < cost.intensity_g_per_kwh / 3
    assert 200 < cost.intensity_g_per_kwh < 600

    runs.loc[0, "energy_source"] = names.SOURCE_ESTIMATE
    mixed = campaign_cost(runs, country="DEU")
    assert mixed.sources == (names.SOURCE_ESTIMATE, names.SOURCE_COUNTER)

    without_price = campaign_cost(runs, country="DEU")
    assert math.isnan(without_price.money) and math.isnan(without_price.price_per_kwh)
    unknown = campaign_cost(runs.iloc[2:3], country="DEU", price_per_kwh=0.3)
    assert math.isnan(unknown.energy_kwh) and math.isnan(unknown.money)
    with pytest.raises(ValueError, match="XXX"):
        campaign_cost(runs, country="XXX")
    with pytest.raises(ValueError, match="at least 0, but got -1"):
        campaign_cost(runs, country="DEU", price_per_kwh=-1)
