import numpy as np
import pytest
from simulated_campaign import SimulatedCampaign, several, with_changes

from green_screen import names
from green_screen.decision.selection import OBJECTIVES, SelectionError, rule_text, select
from green_screen.space import Space


@pytest.fixture
def runs():
    return SimulatedCampaign(seed=1, n_runs=30, baseline_every=5).frame()


def put(runs, row, accuracy, energy_j):
    runs.loc[row, [names.VAL_ACCURACY, names.ENERGY_TOTAL_J]] = [accuracy, energy_j]


def test_each_objective_follows_its_rule(runs):
    assert runs.loc[[3, 4, 5], "kind"].eq(names.KIND_RUN).all()
    put(runs, 3, 0.95, 9e9)  # the most accurate
    put(runs, 4, 0.30, 10.0)  # the cheapest, and the best ratio
    put(runs, 5, 0.90, 5e4)  # the most accurate within 6e4 J
    assert select(runs, "accuracy").run_id == runs.loc[3, "run_id"]
    assert select(runs, "energy").run_id == runs.loc[4, "run_id"]
    assert select(runs, "efficiency").run_id == runs.loc[4, "run_id"]
    assert select(runs, "budget", energy_budget_j=6e4).run_id == runs.loc[5, "run_id"]
    assert select(runs, "energy", min_accuracy=0.85).run_id == runs.loc[5, "run_id"]


def test_the_test_set_does_not_take_part(runs):
    chosen = [select(runs, name).run_id for name in ("efficiency", "accuracy", "energy")]
    rng = np.random.default_rng(0)
    runs[names.TEST_ACCURACY] = rng.uniform(size=len(runs))
    runs[names.TEST_LOSS] = np.nan
    assert [select(runs, name).run_id for name in ("efficiency", "accuracy", "energy")] == chosen


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("status", "FAILED", "did not finish: FAILED"),
        ("diverged", True, "diverged"),
        ("measurement_valid", "false", "measurement invalid"),
        (names.ENERGY_TOTAL_J, np.nan, "energy_total_j missing"),
        (names.ENERGY_TOTAL_J, 0.0, "energy_total_j not positive"),
        (names.VAL_ACCURACY, np.nan, "val_accuracy missing"),
        ("kind", names.KIND_FINAL, "not a run of the campaign"),
        ("energy_source", names.SOURCE_ESTIMATE, "not the energy source of most runs"),
        ("dataset", "cifar10", "not the dataset of most runs"),
        ("epochs", 1.0, "not the epochs of most runs"),
    ],
)
def test_unusable_runs_are_never_chosen_and_are_listed(runs, column, value, reason):
    put(runs, 3, 0.99, 10.0)
    assert select(runs).run_id == runs.loc[3, "run_id"]
    runs.loc[3, column] = value
    selection = select(runs)
    assert selection.run_id != runs.loc[3, "run_id"]
    excluded = selection.excluded.set_index("run_id")["reason"]
    assert excluded[runs.loc[3, "run_id"]] == reason


def test_replicates_count_as_one_configuration_by_their_mean(runs):
    baseline = runs.index[runs["kind"] == names.KIND_BASELINE]
    runs.loc[baseline, names.VAL_ACCURACY] = 0.1
    put(runs, baseline[0], 0.99, 10.0)
    # One lucky baseline run among seven does not win.
    assert select(runs, "accuracy").run_id != runs.loc[baseline[0], "run_id"]
    table = select(runs).candidates.set_index("run_id")
    assert table.loc[runs.loc[baseline[0], "run_id"], "n_runs"] == len(baseline)


def test_the_result_says_everything(runs):
    selection = select(runs, "accuracy")
    row = runs.set_index("run_id").loc[selection.run_id]
    requested = selection.config.as_params()
    assert {row[f"requested_{factor}"] == level for factor, level in requested.items()} == {True}
    assert selection.val_accuracy == row[names.VAL_ACCURACY]
    assert selection.energy_j == row[names.ENERGY_TOTAL_J]
    assert selection.rule == rule_text("accuracy")
    assert "validation" in selection.rule and "of equals" in selection.rule
    assert list(selection.candidates["rank"]) == list(range(1, len(selection.candidates) + 1))
    assert selection.candidates["score"].is_monotonic_decreasing
    Space.load().parse(requested)


def test_equals_are_decided_by_energy_then_order(runs):
    put(runs, 7, 0.99, 500.0)
    put(runs, 3, 0.99, 400.0)
    put(runs, 9, 0.99, 400.0)
    assert select(runs, "accuracy").run_id == runs.loc[3, "run_id"]


def test_of_equals_in_several_campaigns_the_earlier_one_is_chosen():
    late = SimulatedCampaign(seed=1, n_runs=10)
    early = with_changes(late, start_ms=late.start_ms - 86_400_000)
    runs = several(late, early)
    for row in (3, 15):
        put(runs, row, 0.99, 400.0)
    # By id the other campaign would come first.
    assert runs.loc[[3, 15], "campaign"].tolist() == ["campaign0", "campaign1"]
    assert select(runs, "accuracy").run_id == runs.loc[15, "run_id"]


def test_an_incomplete_rule_is_refused(runs):
    assert set(OBJECTIVES) == {"efficiency", "accuracy", "energy", "budget"}
    with pytest.raises(SelectionError, match="objective must be one of .* got 'cheap'"):
        select(runs, "cheap")
    with pytest.raises(SelectionError, match="energy_budget_j must be given"):
        select(runs, "budget")
    with pytest.raises(SelectionError, match="and for no other"):
        select(runs, "accuracy", energy_budget_j=1.0)
    with pytest.raises(SelectionError, match="above 0"):
        select(runs, "budget", energy_budget_j=-1.0)


def test_without_any_candidate_the_reasons_are_counted(runs):
    with pytest.raises(SelectionError, match="37 did not finish") as error:
        select(runs.assign(status="FAILED"))
    assert "of 37 runs, 0 have usable figures" in str(error.value)
    with pytest.raises(SelectionError, match="37 have usable figures; none was left out"):
        select(runs, "budget", energy_budget_j=1e-3)
    with pytest.raises(SelectionError, match="of 0 runs"):
        select(runs.iloc[:0])
