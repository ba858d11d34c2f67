import numpy as np
import pytest
from simulated_campaign import SimulatedCampaign, null_campaign
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from green_screen import names
from green_screen.results.frame import configurations
from green_screen.statistics import validation
from green_screen.statistics.anova import type_two
from green_screen.statistics.estimators import ModelMatrix, energy_pipeline
from green_screen.statistics.model_matrix import Design, build_design
from green_screen.statistics.validation import cross_validate, forest_importance, permutation_check


def prepared(campaign):
    frame = campaign.frame()
    design, matrix, _ = build_design(frame)
    return frame, np.log(frame[names.ENERGY_PER_EPOCH_J].to_numpy()), design, matrix


def test_the_pipeline_equals_scikit_learns_own_regression():
    frame, y, design, _ = prepared(SimulatedCampaign(seed=1, n_runs=150))
    ours = energy_pipeline(design).fit(frame, y).predict(frame)
    theirs = make_pipeline(ModelMatrix(design), LinearRegression(fit_intercept=False))
    np.testing.assert_allclose(ours, theirs.fit(frame, y).predict(frame), rtol=1e-9)


def test_cross_validation_equals_scikit_learns_over_whole_configurations():
    frame, y, design, _ = prepared(SimulatedCampaign(seed=1, n_runs=300))
    found, _ = cross_validate(frame, y, design, repeats=1, alpha=0.05, seed=7)
    folds = GroupKFold(5, shuffle=True, random_state=7)
    groups = configurations(frame).factorize()[0]
    pipeline = make_pipeline(ModelMatrix(design), LinearRegression(fit_intercept=False))
    predicted = cross_val_predict(pipeline, frame, y, groups=groups, cv=folds)
    assert found.r2 == pytest.approx(r2_score(y, predicted), abs=1e-6)
    percent = 100 * np.median(np.abs(np.exp(predicted - y) - 1))
    assert found.median_ape_percent == pytest.approx(percent, rel=1e-6)
    assert found.n_configurations == len(set(groups)) < len(frame)
    assert found.predicted == 1.0


def test_held_out_figures_of_known_effects():
    frame, y, design, _ = prepared(SimulatedCampaign(seed=2, n_runs=200))
    found, _ = cross_validate(frame, y, design, repeats=20, alpha=0.05, seed=22)
    assert (found.folds, found.repeats) == (5, 20)
    assert found.r2 > 0.98
    assert found.r2_low <= found.r2 <= found.r2_high
    # Batch size explains a part; the other factors remove most of what it leaves.
    assert 0.3 < found.r2_batch_size < 0.9
    assert found.skill > 0.9
    # Noise of 3 %: a median error of about 0.67 x 3 %, more with 53 parameters.
    assert 1.5 < found.median_ape_percent < 4
    assert 0.90 <= found.coverage <= 0.99
    assert 1.10 < found.interval_ratio < 1.25


def test_noise_has_no_skill_when_held_out():
    frame, y, design, _ = prepared(null_campaign(3, n_runs=150))
    found, _ = cross_validate(frame, y, design, repeats=5, alpha=0.05, seed=22)
    assert found.r2 < 0.1
    assert found.skill < 0.1


def test_a_repeated_configuration_is_never_in_train_and_test_at_once():
    # Each configuration has an energy of its own that tells nothing of the others: only a split
    # that sees a configuration in both parts predicts some of it.
    frame = SimulatedCampaign(seed=4, n_runs=79, baseline_every=99).frame()
    frame = frame.loc[np.repeat(np.arange(80), 4)].reset_index(drop=True)
    groups = configurations(frame).factorize()[0]
    rng = np.random.default_rng(0)
    design, matrix, _ = build_design(frame)
    held_out, mixed = [], KFold(5, shuffle=True, random_state=0)
    for _ in range(5):
        y = rng.normal(size=80)[groups] + rng.normal(scale=0.01, size=len(frame))
        found, _ = cross_validate(frame, y, design, repeats=3, alpha=0.05, seed=22)
        held_out.append(found.r2)
        seen = cross_val_predict(LinearRegression(fit_intercept=False), matrix, y, cv=mixed)
        assert r2_score(y, seen) > 0.1
    assert np.mean(held_out) < 0


def test_too_few_configurations_are_not_cross_validated():
    frame, y, _, _ = prepared(SimulatedCampaign(seed=1, n_runs=3))
    found, why = cross_validate(frame, y, Design((), {}, {}), repeats=2, alpha=0.05, seed=1)
    assert found is None and why == "needs at least 5 different configurations among the runs"


@pytest.mark.parametrize("n_runs", [60, 100])
def test_with_few_runs_only_what_can_be_predicted_is_scored(n_runs):
    # The fit has 10 residual degrees of freedom or more, but without a fifth of 60 runs hardly one.
    coverage, silent = [], 0
    for seed in range(6):
        frame, y, design, _ = prepared(SimulatedCampaign(seed=seed, n_runs=n_runs))
        found, why = cross_validate(frame, y, design, repeats=3, alpha=0.05, seed=22)
        if found is None:
            silent += 1
            assert "of held-out runs cannot be predicted from the rest" in why
            continue
        assert 0.5 <= found.predicted <= 1 and np.isfinite([found.r2, found.interval_ratio]).all()
        coverage.append(found.coverage)
    assert min(coverage) >= 0.9
    assert silent == 4 if n_runs == 60 else silent == 0


def test_the_whole_rule_finds_something_in_permuted_data_at_the_stated_rate():
    _, y, design, matrix = prepared(SimulatedCampaign(seed=5, drift=2.0))
    check = permutation_check(
        type_two(design, matrix), matrix, y, permutations=1000, alpha=0.05, seed=1
    )
    assert check.permutations == 1000
    assert check.rate_low <= 0.05 <= check.rate_high
    assert check.false_finding_rate <= 0.075
    assert check.p == pytest.approx(1 / 1001)


def test_the_permutation_p_value_of_noise_is_not_small():
    small = 0
    for seed in range(10):
        _, y, design, matrix = prepared(null_campaign(seed, n_runs=80))
        check = permutation_check(
            type_two(design, matrix), matrix, y, permutations=100, alpha=0.05, seed=1
        )
        small += check.p <= 0.05
    # With the rate of 5 %, more than 2 of 10 have a probability of 1 %.
    assert small <= 2


def test_the_forest_ranks_the_strong_factors_first():
    frame, y, _, _ = prepared(SimulatedCampaign(seed=6, n_runs=150))
    table = forest_importance(frame, y, trees=30, seed=1)
    assert list(table["factor"][:3]) == ["batch_size", "internal", "precision"]
    assert table["importance"].is_monotonic_decreasing
    by_factor = table.set_index("factor")["importance"]
    assert by_factor["batch_size"] > 0.3
    assert abs(by_factor["lr"]) < 0.05


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n_runs", "known"), [(5, False), (7, True)])
def test_a_fold_of_a_single_run_tells_no_importance(n_runs, known):
    """R2 is not defined for it."""
    frame, y, _, _ = prepared(SimulatedCampaign(seed=6, n_runs=150))
    different = (~configurations(frame).duplicated()).to_numpy()
    table = forest_importance(frame[different][:n_runs], y[different][:n_runs], trees=5, seed=1)
    assert bool(len(table)) == known
    assert np.isfinite(table["importance"].astype(float)).all()


def test_importances_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, size=(300, 3)).astype(float)
    y = codes[:, 0] - 0.2 * codes[:, 1] + rng.normal(0, 0.1, size=len(codes))
    forest = RandomForestRegressor(20, random_state=1).fit(codes[:200], y[:200])
    ours = validation._drops(forest, codes[200:], y[200:], seed=5)
    theirs = permutation_importance(
        forest, codes[200:], y[200:], n_repeats=3, random_state=5, scoring="r2"
    )
    np.testing.assert_allclose(ours, theirs.importances, rtol=0, atol=1e-12)
