import math

import numpy as np
import pandas as pd
import pytest
from simulated_campaign import SimulatedCampaign

from green_screen import names
from green_screen.decision.tradeoff import (
    accuracy_candidates,
    campaign_cost,
    carbon_intensity_g_per_kwh,
    energy_to_accuracy,
    front_candidates,
    pareto_front,
)

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

    # A run that a search has stopped, and one of which a part was trained twice.
    runs[names.TRAINED_ENERGY_J] = [np.nan, np.nan, 0.9e6, np.nan, np.nan]
    runs[names.ENERGY_LOST_J] = [0.9e6, np.nan, np.nan, np.nan, np.nan]
    assert campaign_cost(runs, country="DEU").energy_kwh == pytest.approx(4.5)
    runs = runs.drop(columns=[names.TRAINED_ENERGY_J, names.ENERGY_LOST_J])

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
