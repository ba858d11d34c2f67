"""A whole training is predicted from the laws of its parts, with intervals that hold new runs."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from law_campaign import LawCampaign

from entrypoints import predict
from green_screen import names
from green_screen.registry.energy_service import (
    energy_models,
    log_energy_model,
    predict_table,
    read_models,
    write_models,
)
from green_screen.results.frame import EFFECTIVE
from green_screen.space import FACTOR_NAMES, Space
from green_screen.statistics.law_analysis import LawAnalysis, analyze_law
from green_screen.statistics.law_prediction import PARTS_J, TrainingModel


@pytest.fixture(scope="module")
def law() -> LawAnalysis:
    """Return the law of a simulated campaign."""
    return analyze_law(LawCampaign(seed=1).frame(), permutations=0, cv_repeats=2)


def _model(law: LawAnalysis) -> TrainingModel:
    assert law.model is not None
    return law.model


def test_new_runs_lie_in_their_intervals(law: LawAnalysis) -> None:
    new = LawCampaign(seed=99, n_runs=150).frame()
    levels = new[[EFFECTIVE + f for f in FACTOR_NAMES]].set_axis(list(FACTOR_NAMES), axis=1)
    found = _model(law).predict(levels, epochs=5)
    energy = new[names.ENERGY_TOTAL_J]
    emissions = new[names.EMISSIONS_TOTAL_KG_CO2EQ]
    for true, name in ((energy, "energy_{}j"), (emissions, "emissions_{}kg_co2eq")):
        low, high = found[name.format("low_")], found[name.format("high_")]
        assert 0.9 <= ((true >= low) & (true <= high)).mean() <= 1.0
    assert np.median(np.abs(found["energy_j"] / energy - 1)) < 0.05
    # 300 W of training, 250 W of validation.
    assert 240 < found["mean_power_w"].median() < 310


def test_the_parts_are_the_whole(law: LawAnalysis) -> None:
    levels = pd.DataFrame([Space.load().baseline.as_params()])
    found = _model(law).predict(levels, epochs=3).iloc[0]
    assert found[list(PARTS_J)].sum() == pytest.approx(found["energy_j"])
    # Batch 4 lies left of the crossover.
    assert found["launching_j"] > found["computing_j"]
    big = _model(law).predict(levels.assign(batch_size="128"), epochs=3).iloc[0]
    assert big["launching_j"] < big["computing_j"]
    once = ["warmup_j", "setup_j", "conversion_j", "evaluation_j"]
    longer = _model(law).predict(levels, epochs=30).iloc[0]
    assert longer[once].tolist() == pytest.approx(found[once].tolist())
    assert longer["validation_j"] == pytest.approx(10 * found["validation_j"])


def test_an_integer_model_is_tested_at_a_cost_of_its_own(law: LawAnalysis) -> None:
    base = Space.load().baseline.as_params()
    changes = [{}, {"internal": "post_quantization"}, {"precision": "float64"}]
    levels = pd.DataFrame([base | change for change in changes])
    found = _model(law).predict(levels, epochs=1)["evaluation_j"]
    assert found[1] == pytest.approx(8.0 * 10_000, rel=0.05)
    assert found[0] == pytest.approx(0.66 / 3 * 10_000, rel=0.1)
    assert found[0] < found[2] < found[1]


def test_an_evaluation_that_was_not_measured_costs_what_a_validation_does(law: LawAnalysis) -> None:
    levels = pd.DataFrame([Space.load().baseline.as_params()])
    runs = LawCampaign(seed=1).frame()
    without = analyze_law(
        runs.assign(**{names.EVALUATION_ENERGY_J: np.nan}), permutations=0, cv_repeats=0
    )
    evaluation_j, validation_j = (
        _model(without).predict(levels, epochs=1)[f"{part}_j"][0]
        for part in ("evaluation", "validation")
    )
    assert evaluation_j == pytest.approx(validation_j)  # 60-20-20: as many images
    assert evaluation_j == pytest.approx(
        _model(law).predict(levels, epochs=1)["evaluation_j"][0], rel=0.02
    )
    assert not any(text.startswith("evaluation energy:") for text in without.statements)
    neither = {names.EVALUATION_ENERGY_J: np.nan, names.VALIDATION_ENERGY_PER_1K_IMAGES_J: np.nan}
    least = analyze_law(runs.assign(**neither), permutations=0, cv_repeats=0)
    assert _model(least).predict(levels, epochs=1)["evaluation_j"][0] == 0
    assert "evaluation_j" in _model(least).missing
    assert any("evaluation energy: not in predictions" in text for text in least.statements)


def test_images_train_without_validation(law: LawAnalysis) -> None:
    levels = pd.DataFrame([Space.load().baseline.as_params()])
    found = _model(law).predict(levels, epochs=1, images=1000).iloc[0]
    assert found["validation_j"] == 0
    steady = found["launching_j"] + found["computing_j"]
    assert steady == pytest.approx(1000 * 0.66, rel=0.1)


def test_the_json_form_predicts_the_same(law: LawAnalysis) -> None:
    levels = pd.DataFrame([Space.load().baseline.as_params()])
    again = TrainingModel.from_json(_model(law).to_json())
    pd.testing.assert_frame_equal(
        again.predict(levels, epochs=2), _model(law).predict(levels, epochs=2)
    )
    with pytest.raises(ValueError, match="format"):
        TrainingModel.from_json('{"format": 0}')


def test_another_batch_is_what_the_law_is_for_and_another_level_is_not(law: LawAnalysis) -> None:
    models = energy_models(law, [])
    assert models is not None
    base = Space.load().baseline.as_params()
    table = pd.DataFrame([base | {"batch_size": size} for size in ("16", "512")])
    inside, beyond = predict_table(models, table, epochs=1, images=None).to_dict("records")
    assert inside["in_range"] and inside["energy_j"] > 0
    assert not beyond["in_range"] and "lies outside 4 to 128" in beyond["outside"]
    without = analyze_law(
        LawCampaign(seed=2).frame().query("effective_precision != 'float64'"),
        permutations=0,
        cv_repeats=2,
    )
    known = energy_models(without, [])
    assert known is not None
    table = pd.DataFrame([base | {"precision": "float64"}])
    (row,) = predict_table(known, table, epochs=1, images=None).to_dict("records")
    assert np.isnan(row["energy_j"]) and "precision=float64 does not occur" in row["outside"]


def test_the_registered_law_explains_itself(
    law: LawAnalysis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = energy_models(law, [])
    assert models is not None
    assert read_models(write_models(models)).law is not None
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    try:
        where = (tmp_path / "artifacts").as_uri()
        experiment = mlflow.create_experiment("e", artifact_location=where)
        with mlflow.start_run(experiment_id=experiment):
            log_energy_model(models)
        assert predict.main(["--epochs", "5", "--explain", "true"]) == 0
    finally:
        mlflow.set_tracking_uri(before)
    printed = capsys.readouterr().out
    for text in (
        "launching",
        "computing",
        "validation",
        "evaluation",
        "warmup",
        "setup",
        " W, 95 %",
        "kg CO2eq",
    ):
        assert text in printed
    assert "come on top" not in printed
