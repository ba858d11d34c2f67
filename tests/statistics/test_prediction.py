import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from simulated_campaign import SimulatedCampaign, several

from entrypoints import predict
from green_screen import names
from green_screen.registry.energy_service import (
    EnergyModels,
    description,
    energy_models,
    log_energy_model,
    predict_table,
    read_models,
    write_models,
)
from green_screen.space import Space
from green_screen.statistics.prediction import EnergyModel, forecast
from green_screen.statistics.regression import fit_energy_model

FAST = {"permutations": 0, "cv_repeats": 0, "trees": 0}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def campaign():
    return SimulatedCampaign(seed=3, n_runs=150, energy_source=names.SOURCE_ESTIMATE)


@pytest.fixture(scope="module")
def analyses(campaign):
    frame = campaign.frame()
    return [fit_energy_model(frame, response=r, **FAST) for r in ("epoch", "per_1k_images")]


def test_intervals_cover_new_runs_at_their_rate():
    rng = np.random.default_rng(99)
    covered = []
    for seed in range(8):
        campaign = SimulatedCampaign(seed=seed, n_runs=150)
        model = fit_energy_model(campaign.frame(), **FAST).model
        for _, config in dataclasses.replace(campaign, seed=seed + 1000, n_runs=25).design()[1:]:
            true_j = campaign.baseline_energy_j * campaign.ratio(config)
            found = model.predict(config)
            if found.outside:
                assert np.isnan(found.value)
                continue
            new_j = true_j * np.exp(rng.normal(0.0, campaign.noise))
            covered.append(found.low <= new_j <= found.high)
            assert found.value == pytest.approx(true_j, rel=0.2)
    assert len(covered) > 170
    # The rate varies between fits by 4.5 %: a standard error of 1.6 % over eight.
    assert 0.90 <= np.mean(covered) <= 0.99


def test_the_json_form_predicts_the_same(campaign, analyses):
    model = analyses[0].model
    again = EnergyModel.from_json(model.to_json())
    for _, config in campaign.design()[:20]:
        assert again.predict(config) == model.predict(config)
    assert again.context == {
        "model": "resnet50",
        "dataset": "synthetic",
        "image_size": "32",
        "samples": "",
        "machine": "Simulated GPU",
        "energy_source": names.SOURCE_ESTIMATE,
        "n_runs": "166",
    }
    with pytest.raises(ValueError, match="format 1 was expected"):
        EnergyModel.from_json('{"format": 0}')


def test_outside_the_range_of_the_data_is_said(analyses):
    model, baseline = analyses[0].model, Space.load().baseline
    assert model.predict(baseline).outside == ()
    found = model.predict(dataclasses.replace(baseline, batch_size=256))
    assert found.outside == ("batch_size=256 does not occur in the data (4, 32, 64, 128 do)",)
    assert np.isnan([found.value, found.low, found.high]).all()
    momentum = model.predict(dataclasses.replace(baseline, optimizer_momentum=0.7))
    assert momentum.outside[0].startswith("optimizer_momentum(RMSProp)=0.7")
    assert np.isnan(momentum.value)


def test_a_factor_that_never_varied_gives_no_number_for_another_level():
    frame = SimulatedCampaign(seed=3, n_runs=150).frame()
    only = frame[frame["effective_augmentation"] == "None"].reset_index(drop=True)
    model = fit_energy_model(only, **FAST).model
    assert model.predict(Space.load().baseline).outside == ()
    found = model.predict(dataclasses.replace(Space.load().baseline, augmentation="mixup"))
    assert found.outside == ("augmentation=mixup does not occur in the data (None do)",)
    assert np.isnan([found.value, found.low, found.high]).all()
    # Its one level is in the range of the data, any other is not.
    asked = pd.DataFrame([Space.load().baseline.as_params()] * 2).assign(
        augmentation=["None", "mixup"]
    )
    table = predict_table(
        EnergyModels(law=None, linear={"epoch": model}), asked, epochs=1, images=None
    )
    assert table["in_range"].tolist() == [True, False]
    assert table["energy_j"].notna().tolist() == [True, False]


def test_a_factor_without_a_term_is_named_with_the_number():
    baseline = Space.load().baseline
    model = fit_energy_model(SimulatedCampaign(seed=1, n_runs=30).frame(), **FAST).model
    assert "lr" in model.not_estimated and "batch_size" not in model.not_estimated
    assert json.loads(model.to_json())["not_estimated"] == list(model.not_estimated)
    by_lr = [model.predict(dataclasses.replace(baseline, lr=lr)) for lr in (0.01, 0.0008)]
    assert by_lr[0].value == by_lr[1].value
    for found in by_lr:
        assert any(text.startswith("the effect of lr was not estimated") for text in found.outside)
    # Momentum is a factor of the optimizers that use it alone.
    assert "optimizer_momentum(RMSProp)" in model.not_estimated
    adam = model.predict(dataclasses.replace(baseline, optimizer="Adam"))
    assert not any("momentum" in text for text in adam.outside)


def test_a_cell_that_was_never_seen_gives_no_number():
    frame = SimulatedCampaign(seed=1, n_runs=200).frame()
    empty = (frame["effective_batch_size"] == "4") & (frame["effective_precision"] == "float16")
    model = fit_energy_model(frame[~empty].reset_index(drop=True), **FAST).model
    found = model.predict(dataclasses.replace(Space.load().baseline, precision="float16"))
    assert np.isnan(found.value) and "lack combinations of levels" in found.outside[0]


def test_several_machines_are_averaged():
    frame = several(
        SimulatedCampaign(seed=1, n_runs=80, machine="A"),
        SimulatedCampaign(seed=2, n_runs=80, machine="B", machine_ratio=4.0),
    )
    found = fit_energy_model(frame, **FAST).model.predict(Space.load().baseline)
    assert found.value == pytest.approx(2.0 * 50_000, rel=0.05)  # geometric mean of 1 and 4


@pytest.mark.parametrize("name", ["campaign0", ""])  # runs without a campaign are one, too
def test_a_prediction_is_for_the_middle_of_a_campaign_of_average_level(name):
    twice = {"n_runs": 120, "drift": 1.44}
    frame = several(
        SimulatedCampaign(seed=1, **twice),
        SimulatedCampaign(seed=2, baseline_energy_j=4 * 50_000.0, **twice),
    )
    frame["campaign"] = frame["campaign"].replace("campaign0", name)
    model = fit_energy_model(frame, **FAST).model
    found = model.predict(Space.load().baseline)
    assert found.value == pytest.approx(2.0 * 1.2 * 50_000, rel=0.05)
    assert found.high / found.low < 1.2
    assert EnergyModel.from_json(model.to_json()).predict(Space.load().baseline) == found


def test_epochs_and_images(analyses):
    models = dict(read_models(write_models(energy_models(None, analyses))).linear)
    baseline = Space.load().baseline
    one, ten = (forecast(models, baseline, epochs=n) for n in (1, 10))
    assert ten.energy_j == pytest.approx(10 * one.energy_j)
    assert ten.high_j / ten.low_j == pytest.approx(one.high_j / one.low_j)
    images = forecast(models, baseline, epochs=1, images=45_000)
    assert images.energy_j == pytest.approx(50_000, rel=0.05)
    del models["per_1k_images"]
    with pytest.raises(ValueError, match="no model of per_1k_images"):
        forecast(models, baseline, epochs=1, images=1000)


def test_without_an_estimate_nothing_is_logged(campaign):
    nothing = fit_energy_model(campaign.frame().iloc[:3], **FAST)
    assert energy_models(None, [nothing]) is None


@pytest.fixture(scope="module")
def registered(analyses, tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("e", artifact_location=(folder / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment):
        mlflow.log_metrics({"final_energy_ratio": math.nan, "runs_analysed": 20})
        model_uri = log_energy_model(energy_models(None, analyses))
    yield uri, model_uri, folder
    mlflow.set_tracking_uri(before)


def test_the_figures_of_the_analysis_are_not_taken_for_the_models(registered):
    _, model_uri, _ = registered
    assert mlflow.get_logged_model(model_uri.removeprefix("models:/")).metrics is None


def test_the_registered_model_predicts_in_a_fresh_process(registered, tmp_path):
    uri, _, _ = registered
    code = (
        "import mlflow, json, sys; import pandas as pd\n"
        "model = mlflow.pyfunc.load_model('models:/green-screen-energy/1')\n"
        "row = pd.DataFrame([json.loads(sys.argv[1])])\n"
        "answer = model.predict(row, params={'epochs': 2}).to_json(orient='records')\n"
        "print(sys.modules['green_screen'].__file__, answer, sep='\\n')\n"
    )
    baseline = json.dumps(Space.load().baseline.as_params())
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, baseline],
        cwd=tmp_path,  # away from the package: the model brings its code along
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    package, answer = done.stdout.splitlines()[-2:]
    # Not this checkout, even where it is installed in the environment.
    assert package.endswith("/code/green_screen/__init__.py")
    (row,) = json.loads(answer)
    assert row["energy_j"] == pytest.approx(100_000, rel=0.05)
    assert row["energy_low_j"] < row["energy_j"] < row["energy_high_j"]
    assert row["energy_kwh"] == pytest.approx(row["energy_j"] / 3.6e6)
    assert row["in_range"] is True and row["outside"] == ""
    assert row["energy_source"] == names.SOURCE_ESTIMATE
    assert row["basis"] == "resnet50 on synthetic at 32 pixels, Simulated GPU, 166 runs"


def test_the_model_has_a_signature_pinned_requirements_and_no_pickle(registered):
    uri, model_uri, folder = registered
    info = mlflow.models.get_model_info(model_uri)
    assert [column.name for column in info.signature.inputs] == list(
        Space.load().baseline.as_params()
    )
    assert {param.name for param in info.signature.params} == {"epochs", "images"}
    (requirements,) = folder.rglob("requirements.txt")
    assert all("==" in line for line in requirements.read_text().split())
    assert not [*folder.rglob("*.pkl"), *folder.rglob("*.pickle"), *folder.rglob("*.joblib")]
    version = MlflowClient(uri).get_model_version(names.ENERGY_MODEL_NAME, "1")
    assert version.tags["dataset"] == "synthetic" and version.tags["n_runs"] == "166"
    assert version.tags["energy_source"] == names.SOURCE_ESTIMATE
    assert version.tags["responses"] == "epoch, per_1k_images"
    assert "resnet50 on synthetic at 32 pixels, Simulated GPU, 166 runs" in version.description
    assert "codecarbon_estimate (an estimate)" in version.description


def test_a_description_calls_only_estimates_so_and_names_what_is_missing():
    few = fit_energy_model(SimulatedCampaign(seed=1, n_runs=30).frame(), **FAST).model
    text = description(EnergyModels(law=None, linear={"epoch": few}))
    assert "nvml_counter" in text and "(an estimate)" not in text
    assert "Not estimated, so without effect on the prediction: " in text and "lr" in text


def test_the_entry_point_prints_joules_and_kilowatt_hours(registered, capsys):
    assert predict.main(["--batch_size", "128", "--epochs", "10"]) == 0
    printed = capsys.readouterr().out
    assert "batch_size=128" in printed
    assert "for resnet50 on synthetic at 32 pixels, Simulated GPU, 166 runs; " in printed
    assert "energies: codecarbon_estimate" in printed
    assert "10 epochs: 7." in printed and "e+04 J (estimate), 95 % interval" in printed
    assert "kWh (estimate), 95 % interval" in printed
    assert predict.main(["--images", "1000"]) == 0
    assert "1000 images: 11" in capsys.readouterr().out


def test_the_entry_point_refuses_and_warns(registered, capsys):
    assert predict.main(["--batch_size", "256"]) == 1
    printed = capsys.readouterr().out
    assert "what the data do not say: batch_size=256" in printed
    assert "no prediction" in printed and "256, " in printed
    assert predict.main(["--lr", "fast"]) == 1
    assert "lr must be a number, but got 'fast'" in capsys.readouterr().err
    assert predict.main(["--model_uri", "models:/no-such-model/1"]) == 1
    assert "no-such-model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        predict.main(["--epochs", "0"])
    assert "epochs must be at least 1" in capsys.readouterr().err


def test_logging_and_registering_say_nothing_to_a_terminal(registered, analyses, capfd):
    for _ in range(2):  # the first version of a name, and another one
        with mlflow.start_run(experiment_id=mlflow.get_experiment_by_name("e").experiment_id):
            models = energy_models(None, analyses)
            log_energy_model(models, registered_name="green-screen-quiet")
    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert len(mlflow.MlflowClient().search_model_versions("name = 'green-screen-quiet'")) == 2
