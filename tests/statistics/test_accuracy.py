"""What levels do to the accuracy: known differences are found, and what cannot be said is said."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from law_campaign import ACCURACY, CHANCE, LawCampaign
from pilot import FOLDER, pilot
from simulated_campaign import SimulatedCampaign

from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.space import FACTOR_NAMES
from green_screen.statistics.accuracy import analyze_accuracy
from green_screen.statistics.law import LAW_FACTORS
from green_screen.statistics.law_analysis import analyze_law
from green_screen.statistics.plane import level_plane


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return LawCampaign(seed=5, n_runs=120).frame()


def test_differences_are_the_true_ones(runs: pd.DataFrame) -> None:
    found = analyze_accuracy(runs)
    table = found.differences[~found.differences["is_reference"].astype(bool)]
    assert len(table) == 33  # 27 levels, and momentum within two optimizers
    names_of = table["factor"] + "=" + table["level"]
    truth = np.where(table["within"] == "", names_of.map(ACCURACY).fillna(0.0), 0.0)
    inside = (table["ci_low"] <= truth) & (truth <= table["ci_high"])
    assert inside.mean() >= 0.85
    assert np.abs(table["points"] - truth).max() < 1.5
    assert found.spread_points == pytest.approx(0.5, rel=0.2)


def test_intervals_cover_the_truth_at_the_stated_rate() -> None:
    inside = []
    for seed in range(12):
        found = analyze_accuracy(LawCampaign(seed=seed, n_runs=100).frame()).differences
        table = found[~found["is_reference"].astype(bool) & (found["within"] == "")]
        truth = (table["factor"] + "=" + table["level"]).map(ACCURACY).fillna(0.0)
        inside += list((table["ci_low"] <= truth) & (truth <= table["ci_high"]))
    assert 0.92 <= np.mean(inside) <= 0.98


def test_new_runs_lie_in_their_intervals(runs: pd.DataFrame) -> None:
    model = analyze_accuracy(runs).model
    assert model is not None
    new = LawCampaign(seed=77, n_runs=150).frame()
    levels = new[[EFFECTIVE + f for f in FACTOR_NAMES]].set_axis(list(FACTOR_NAMES), axis=1)
    found = model.predict(levels)
    sound = ~new["diverged"]
    inside = (found["accuracy_low"] <= new["val_accuracy"]) & (
        new["val_accuracy"] <= found["accuracy_high"]
    )
    assert 0.9 <= inside[sound].mean() <= 0.99
    assert model.predict(levels.assign(lr="0.5"))["accuracy"].isna().all()


def test_runs_that_diverged_are_counted_apart(runs: pd.DataFrame) -> None:
    found = analyze_accuracy(runs)
    both = (runs["effective_precision"] == "float16") & (runs["effective_optimizer"] == "Adam")
    assert found.n_diverged == both.sum() > 0
    assert found.n_learnt == len(runs) - both.sum()
    shares = found.diverged.set_index(["factor", "level"])
    assert shares.loc[("precision", "float32"), "n_diverged"] == 0
    row = shares.loc[("precision", "float16")]
    assert row["share"] == pytest.approx(both.sum() / row["n_runs"])
    assert 0 < row["ci_low"] < row["share"] < row["ci_high"] < 1


def test_runs_too_short_to_have_learnt_show_nothing(runs: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    images = runs[names.N_VALIDATION_IMAGES].to_numpy()
    guessed = rng.binomial(images.astype(int), CHANCE) / images
    found = analyze_accuracy(runs.assign(val_accuracy=guessed))
    assert found.model is None and found.differences.empty
    assert "did not diverge have learnt more than guessing: the training was too short" in found.why
    # Somewhat above guessing is enough, on so many images.
    assert analyze_accuracy(runs.assign(val_accuracy=CHANCE + 0.02)).n_learnt > 100


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the pilot campaign is not at hand")
def test_the_pilot_was_too_short_to_have_learnt() -> None:
    runs = pilot()
    for size, n_learnt, n_runs in ((224, 4, 46), (32, 0, 24)):
        found = analyze_accuracy(runs[runs["image_size"] == size], names.TEST_ACCURACY)
        assert (found.n_learnt, found.n_runs) == (n_learnt, n_runs)
        assert found.model is None and "the training was too short" in found.why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({names.CHANCE_ACCURACY: np.nan}, "compared with guessing: chance_accuracy missing"),
        ({names.VAL_ACCURACY: np.nan}, "compared with guessing: val_accuracy missing"),
        ({"status": "FAILED"}, "compared with guessing: did not finish: FAILED"),
    ],
)
def test_runs_without_accuracies_say_so(
    runs: pd.DataFrame, changes: dict[str, object], why: str
) -> None:
    found = analyze_accuracy(runs.assign(**changes))
    assert found.model is None and found.diverged.empty and why in found.why


def test_an_invalid_measurement_of_energy_costs_no_accuracy(runs: pd.DataFrame) -> None:
    invalid = analyze_accuracy(runs.assign(measurement_valid="false"))
    assert invalid.n_learnt == analyze_accuracy(runs).n_learnt


def test_a_screened_campaign_has_no_accuracies() -> None:
    found = analyze_accuracy(SimulatedCampaign(n_runs=20, protocol="screening").frame())
    assert "val_accuracy missing" in found.why


def test_the_plane_lays_each_level_by_energy_and_accuracy(runs: pd.DataFrame) -> None:
    law = analyze_law(runs, permutations=0, cv_repeats=1)
    accuracy = analyze_accuracy(runs, names.TEST_ACCURACY)
    plane = level_plane(law, pd.DataFrame(), accuracy, by_law=True)
    assert len(plane) == 33
    of = plane.assign(name=plane["factor"] + "=" + plane["level"])
    of = of[of["within"] == ""].set_index("name")
    verdicts = of["verdict"]
    assert verdicts["batch_size=128"].startswith("paid for")
    assert verdicts["internal=jit_compilation"].startswith("free")
    assert verdicts["precision=float64"].startswith("a loss")
    assert verdicts["augmentation=random"].startswith("bought")
    assert verdicts["lr=0.00015"] == "a loss: less accuracy, no saving is shown"
    # What does not enter the law takes the same, without an interval.
    assert of.loc["lr=0.00015", ["ratio", "ratio_low", "ratio_high"]].tolist() == [1, 1, 1]
    true = true_ratio(runs, "precision", "float64", "float32", internal=["None", "jit_compilation"])
    assert of.loc["precision=float64", "ratio"] == pytest.approx(true, rel=0.02)
    true = true_ratio(runs, "batch_size", "128", "4")
    assert of.loc["batch_size=128", "ratio"] == pytest.approx(true, rel=0.02)
    true = true_ratio(runs, "internal", "pre_quantization", "None", precision=["float32"])
    assert of.loc["internal=pre_quantization", "ratio"] == pytest.approx(true, rel=0.02)


def true_ratio(
    runs: pd.DataFrame, factor: str, level: str, reference: str, **levels: list[str]
) -> float:
    """Return the ratio of joules of an image, at the mean log over the other factors' levels."""
    varied = ("batch_size", *LAW_FACTORS)
    seen = {f: levels.get(f, sorted(set(runs[EFFECTIVE + f]))) for f in varied}
    logs = []
    for at in (level, reference):
        product = itertools.product(*(seen | {factor: [at]}).values())
        rows = pd.DataFrame(product, columns=[EFFECTIVE + f for f in varied])
        task = {"model": "m", "dataset": "d", "image_size": 32.0, "machine": "b"}
        rows = rows.assign(**task, campaign="", position=np.nan)
        logs.append(np.log(LawCampaign().per_image(rows)).mean())
    return float(np.exp(logs[0] - logs[1]))


def test_without_the_law_the_plane_takes_the_log_linear_ratios(runs: pd.DataFrame) -> None:
    law = analyze_law(runs.iloc[:12], permutations=0, cv_repeats=1)
    accuracy = analyze_accuracy(runs)
    effects = pd.DataFrame(
        [("lr", "", "0.0008", 0.9, 0.85, 0.95), ("lr", "", "0.00015", np.nan, np.nan, np.nan)],
        columns=["factor", "within", "level", "ratio", "ci_low", "ci_high"],
    )
    (row,) = level_plane(law, effects, accuracy, by_law=False).to_dict("records")
    assert (row["level"], row["ratio"]) == ("0.0008", 0.9)
    assert row["verdict"].startswith("free")


def test_differences_that_are_noise_are_not_shown() -> None:
    shown = []
    for seed in range(20):
        # Accuracies of a simulated campaign do not depend on any level.
        runs = SimulatedCampaign(seed=seed, n_runs=60).frame()
        model = analyze_accuracy(runs).model
        assert model is not None
        levels = runs[[EFFECTIVE + f for f in FACTOR_NAMES]].set_axis(list(FACTOR_NAMES), axis=1)
        shown.append(model.differs(levels, 0).any())
    # Binomial(20, 0.05): more than 4 with a probability of 0.3 %.
    assert np.sum(shown) <= 4
    known = LawCampaign(seed=1, n_runs=100).frame()
    model = analyze_accuracy(known).model
    assert model is not None
    levels = known[[EFFECTIVE + f for f in FACTOR_NAMES]].set_axis(list(FACTOR_NAMES), axis=1)
    pair = pd.concat([levels.iloc[[0]], levels.iloc[[0]].assign(lr="0.00015")])
    assert model.differs(pair, 0).tolist() == [False, True]
