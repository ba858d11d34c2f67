"""The energy law is found in campaigns that it governs, and in the pilot campaign."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from law_campaign import LAW, NULL_LAW, LawCampaign
from pilot import FOLDER, pilot

from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.statistics import law_responses
from green_screen.statistics.choice import choose
from green_screen.statistics.law import jacobian, law_design, log_energy
from green_screen.statistics.law_effects import law_lines, references
from green_screen.statistics.law_fit import LawFit, enough, fit_law
from green_screen.statistics.law_responses import log_response, training_response, usable_law_runs
from green_screen.statistics.law_tests import (
    control_tests,
    factor_tests,
    groups_off,
    law_permutation,
)
from green_screen.statistics.validation import PermutationCheck


def fitted(runs: pd.DataFrame) -> tuple[LawFit, pd.DataFrame, np.ndarray]:
    """Fit the law to a campaign's training energies."""
    response = training_response(runs)
    used = usable_law_runs(runs, response).runs
    design, y = law_design(used), log_response(used, response)
    return fit_law(design, design.rows(used), y), used, y


def inside(fit: LawFit, campaign: LawCampaign) -> np.ndarray:
    """Return which parameters' intervals hold the truth."""
    truth, common = campaign.theta(fit.design)
    half = fit.t(0.05) * fit.standard_error(np.eye(len(truth)))
    return (np.abs(fit.theta - truth) <= half)[:common]


def test_the_jacobian_is_the_derivative() -> None:
    runs = LawCampaign(seed=3, n_runs=40, boards={"Card GPU-0a": 1.0, "Card GPU-1b": 1.1}).frame()
    fit, used, _ = fitted(runs)
    rows = fit.design.rows(used)
    numeric = np.empty((len(used), len(fit.theta)))
    for j, step in enumerate(np.eye(len(fit.theta)) * 1e-6):
        up = log_energy(fit.theta + step, fit.design, rows)
        numeric[:, j] = (up - log_energy(fit.theta - step, fit.design, rows)) / 2e-6
    assert np.abs(jacobian(fit.theta, fit.design, rows) - numeric).max() < 1e-6


@pytest.mark.parametrize("n_runs", [40, 100])
@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_intervals_hold_the_truth(n_runs: int, noise: float) -> None:
    campaigns = [LawCampaign(seed=s, n_runs=n_runs, noise=noise) for s in range(6)]
    hits = np.concatenate([inside(fitted(c.frame())[0], c) for c in campaigns])
    # Of 126, 95 % of them; benchmarks/law_calibration.py has the exact figures.
    assert hits.mean() > 0.88


@pytest.mark.parametrize(
    "base", [{"step: a": 0.05}, {"step: a": 3000.0}], ids=["compute", "launch"]
)
def test_one_regime_is_fitted_and_the_other_is_not_told(base: dict[str, float]) -> None:
    campaign = LawCampaign(seed=1, n_runs=100, noise=0.02, law=LAW | base)
    runs = campaign.frame()
    fit, used, _ = fitted(runs)
    predicted = np.exp(fit.log_energy(fit.design.rows(used)))
    # The board is one, and the drift is none: the truth is the mean.
    assert np.median(np.abs(predicted / campaign.per_image(used) - 1)) < 0.02
    hidden = "step: Adam" if base["step: a"] < 1 else "image: jit_compilation"
    told = dict(zip(fit.design.names(), fit.told, strict=True))
    assert not told[hidden]


def test_missing_cells_leave_out_what_they_would_tell() -> None:
    runs = LawCampaign(seed=2).frame()
    half = runs[EFFECTIVE + "precision"].isin(("float16", "global_policy_float16"))
    xla = runs[EFFECTIVE + "internal"] == "jit_compilation"
    fit, _, _ = fitted(runs[~(half & xla)])
    assert "step: half precision x jit_compilation" not in fit.design.names()


def test_boards_are_told_apart() -> None:
    campaign = LawCampaign(seed=4, noise=0.01, boards={"Card GPU-0a": 0.95, "Card GPU-1b": 1.05})
    fit, _, _ = fitted(campaign.frame())
    found = dict(zip(fit.design.names(), fit.theta, strict=True))
    ratio = np.exp(found["board Card GPU-1b"] - found["board Card GPU-0a"])
    assert ratio == pytest.approx(1.05 / 0.95, abs=0.01)


def test_heavy_noise_is_noise() -> None:
    fit, _, _ = fitted(LawCampaign(seed=5, noise=0.3).frame())
    assert 0.2 < fit.noise < 0.4


def test_factors_that_act_are_found_and_others_are_not() -> None:
    fit, used, y = fitted(LawCampaign(seed=6).frame())
    found = factor_tests(fit, used, y, 0.05).set_index("term")["finding"]
    assert found[["batch_size", "precision", "internal", "optimizer"]].all()
    null = LawCampaign(seed=6, law=NULL_LAW)
    fit, used, y = fitted(null.frame())
    found = factor_tests(fit, used, y, 0.05).set_index("term")["finding"]
    assert found["batch_size"]
    assert not found.drop("batch_size").any()


def test_permuted_runs_have_few_findings() -> None:
    fit, used, y = fitted(LawCampaign(seed=7).frame())
    check = law_permutation(fit, used, y, permutations=400, alpha=0.05, seed=1)
    assert isinstance(check, PermutationCheck)
    assert check.rate_low <= 0.05
    assert check.p < 0.01


@pytest.mark.parametrize(
    ("violated", "control"),
    [
        ({"internal=post_quantization": 1.2}, "post_quantization"),
        ({"lr_schedule=cosine": 1.15}, "lr_schedule"),
        ({"partitioning=90-5-5": 0.85}, "partitioning"),
    ],
)
def test_a_control_that_acts_is_caught(violated: dict[str, float], control: str) -> None:
    campaign = LawCampaign(seed=8, violated=violated)
    controls, _ = control_tests(*fitted(campaign.frame()), 0.05)
    row = controls.set_index("term").loc[control]
    assert row["finding"]
    assert row["ci_low"] <= next(iter(violated.values())) <= row["ci_high"]
    clean, untested = control_tests(*fitted(LawCampaign(seed=8).frame()), 0.05)
    assert not clean["finding"].any()
    assert not untested
    assert len(clean) == 6


def test_runs_that_are_off_together_are_named() -> None:
    runs = LawCampaign(seed=9, noise=0.02).frame()
    slow = (runs[EFFECTIVE + "optimizer"] == "AdamW") & (runs[EFFECTIVE + "augmentation"] == "None")
    runs.loc[slow, names.ENERGY_PER_1K_IMAGES_J] *= 1.2
    fit, used, y = fitted(runs)
    named = groups_off(fit, used, y, 0.05)
    assert named["group"][0] == "augmentation=None, optimizer=AdamW"
    assert named["percent"][0] > 5


def test_noise_alone_puts_no_group_off() -> None:
    fit, used, _ = fitted(LawCampaign(seed=9, noise=0.02).frame())
    rows = fit.design.rows(used)
    fitted_y, slopes = fit.log_energy(rows), jacobian(fit.theta, fit.design, rows)
    rng, told = np.random.default_rng(3), np.linalg.qr(slopes)[0]
    named = 0
    for _ in range(60):
        error = rng.normal(0.0, fit.noise, len(used))
        named += len(groups_off(fit, used, fitted_y + error - told @ (told.T @ error), 0.05)) > 0
    # More than 8 of 60 has less than one chance in a hundred at a rate of 5 %.
    assert named <= 8
    # A baseline that is repeated counts once.
    baseline = (used["kind"] == names.KIND_BASELINE).to_numpy()
    assert groups_off(fit, used, fitted_y + 3 * fit.noise * baseline, 0.05).empty


def test_one_batch_size_is_refused() -> None:
    runs = LawCampaign(seed=1).frame()
    one = runs[runs[EFFECTIVE + "batch_size"] == "4"]
    assert "one batch size" in enough(law_design(one), one)
    assert "too few" in enough(law_design(runs), runs.iloc[:20])
    assert enough(law_design(runs), runs) == ""


def test_the_law_predicts_what_the_other_model_cannot() -> None:
    fit, used, y = fitted(LawCampaign(seed=10).frame())
    found = choose(fit, used, y, repeats=2, alpha=0.05, seed=1)
    assert found.model == "law"
    assert found.law is not None and found.log_linear is not None
    assert found.law.r2 > 0.99 > found.log_linear.r2


def test_a_campaign_that_is_log_linear_stays_so() -> None:
    runs = LawCampaign(seed=11, noise=0.02).frame()
    # Energies that no launching explains: they fall faster than with the batch.
    batch = runs[EFFECTIVE + "batch_size"].astype(float)
    order = {"60-20-20": 1.0, "70-15-15": 1.6, "80-10-10": 0.5, "90-5-5": 2.0}
    energy = batch**-1.5 * runs[EFFECTIVE + "partitioning"].map(order)
    noise = np.exp(np.random.default_rng(1).normal(0, 0.02, len(runs)))
    runs[names.ENERGY_PER_1K_IMAGES_J] = 1e3 * energy * noise
    fit, used, y = fitted(runs)
    assert choose(fit, used, y, repeats=2, alpha=0.05, seed=1).model == "log-linear"


def test_runs_without_energies_of_training_alone_fall_back_to_epochs() -> None:
    campaign = LawCampaign(seed=12, noise=0.01)
    runs = campaign.frame()
    runs[names.ENERGY_PER_1K_IMAGES_J] = np.nan
    assert training_response(runs) is law_responses.EPOCH_J
    uncounted = runs.assign(**{names.N_TRAIN_IMAGES: np.nan, names.N_VALIDATION_IMAGES: np.nan})
    assert training_response(uncounted) is law_responses.PASS_J
    both = [fitted(frame)[0] for frame in (runs, uncounted)]
    # 50,000 images a pass: only the unit differs, so the crossover and the ratios do not.
    assert both[1].theta[0] - both[0].theta[0] == pytest.approx(np.log(50_000), abs=1e-3)
    assert both[1].theta[1:5] == pytest.approx(both[0].theta[1:5], abs=1e-3)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the pilot campaign is not at hand")
def test_the_pilot_campaign() -> None:
    fit, used, y = fitted(pilot())
    assert len(used) == 70
    found = choose(fit, used, y, repeats=20, alpha=0.05, seed=22)
    assert found.model == "law"
    assert found.law is not None
    assert found.law.r2 >= 0.98
    assert found.law.median_ape_percent <= 5.0
    controls, _ = control_tests(fit, used, y, 0.05)
    assert not controls["finding"].any()


def test_a_design_without_launching_has_no_batch() -> None:
    runs = LawCampaign(seed=13, law=LAW | {"step: a": 1e-9}).frame()
    fit, used, y = fitted(runs)
    flat = dataclasses.replace(fit.design, launching=False)
    rows = flat.rows(used)
    alone = fit_law(flat, rows, y)
    assert alone.launching_share(rows) == pytest.approx(0.0)


def test_a_precision_that_was_only_quantized_afterwards_has_its_line() -> None:
    """It trains as it would without."""
    runs = LawCampaign(seed=3, n_runs=100).frame()
    internal, double = EFFECTIVE + "internal", runs[EFFECTIVE + "precision"] == "float64"
    runs = runs[~double | (runs[internal] != "None")]
    assert (runs.loc[double, internal] == "post_quantization").any()
    fit, used, _ = fitted(runs)
    lines, crossings = law_lines(fit, used, references(used), 0.05)
    for table in (lines, crossings):
        assert {"float64", "float32"} <= set(table.loc[table["internal"] == "None", "precision"])
        assert "post_quantization" not in set(table["internal"])
