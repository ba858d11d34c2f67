"""A logged training in the forms that others ask for."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import mlflow
import pytest
import yaml
from click.testing import CliRunner, Result
from mlflow.tracking import MlflowClient
from referencing import Registry, Resource

from green_screen import names
from green_screen.command.main import main
from green_screen.report.exports import FORMS

SCHEMAS = Path(__file__).parents[3] / "shared" / "data" / "boamps"
MEASURED = {
    names.ENERGY_TOTAL_J: 7.2e5,
    names.DURATION_S: 3600.0,
    names.ENERGY_PER_1K_IMAGES_J: 350.0,
    names.TEST_ACCURACY: 0.875,
    names.N_PARAMETERS: 23.6e6,
    names.N_TRAIN_IMAGES: 7200.0,
}
TAGS = {
    names.TAG_ENERGY_SOURCE: names.SOURCE_COUNTER,
    names.TAG_GPU_NAME: "NVIDIA H100 80GB HBM3",
    names.TAG_CPU_NAME: "A processor",
    names.TAG_CPU_CORES: "16",
    names.TAG_MEMORY_GIB: "128.0",
    names.TAG_OPERATING_SYSTEM: "Linux",
    names.TAG_TENSORFLOW_VERSION: "2.15.1",
}


def training(
    metrics: dict[str, float] = MEASURED, tags: dict[str, str] = TAGS, **params: str
) -> str:
    with mlflow.start_run(run_name="a training") as run:
        mlflow.log_params(
            {"model": "resnet50", "dataset": "cifar10", "epochs": "10", "country": "DEU"}
            | {"effective_optimizer": "SGD", "effective_precision": "float16"}
            | params
        )
        mlflow.log_metrics(metrics)
        mlflow.set_tags(tags)
    return str(run.info.run_id)


def little_known() -> str:
    """A run of which its energy alone is known: one that was made elsewhere and imported."""
    with mlflow.start_run() as run:
        mlflow.log_metric(names.ENERGY_TOTAL_J, 100.0)
        imported = {names.TAG_IMPORTED: "001", names.TAG_ENERGY_SOURCE: names.SOURCE_SAMPLED}
        mlflow.set_tags(imported)
    return str(run.info.run_id)


def export(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments])


def exported(form: str, *arguments: str) -> str:
    ended = export("--format", form, *arguments)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_the_model_card_has_the_emissions_in_grams_and_their_source(store: str) -> None:
    card = exported("model-card", training(), "--carbon-intensity", "400")
    head = yaml.safe_load(card.split("---")[1])["co2_eq_emissions"]
    assert head["emissions"] == pytest.approx(0.2 * 400)
    assert head["hardware_used"] == "1 x NVIDIA H100 80GB HBM3"
    assert "measured" in head["source"] and head["geographical_location"] == "DEU"
    assert "| emissions | 80.0 g CO2eq | estimated |" in card
    assert "| test accuracy | 87.5 % | measured |" in card


def test_the_score_is_the_standards_formula_and_every_term_says_where_it_is_from(
    store: str,
) -> None:
    given = ("--pue", "1.2", "--carbon-intensity", "400", "--embodied", "150", "--lifetime", "4")
    found = json.loads(exported("sci", training(), *given))
    hours = 4 * 365.25 * 24
    assert found["sci_g_co2eq_per_training"] == pytest.approx(0.2 * 1.2 * 400 + 150_000 / hours)
    assert "modelled" in found["terms"]["M_g_co2eq"]["how"]
    assert "measured" in found["terms"]["E_kwh"]["how"]
    without = json.loads(exported("sci", training()))
    assert without["terms"]["M_g_co2eq"] == {
        "value": 0.0,
        "how": "not counted: no embodied emissions were given",
    }
    assert "sourced" in without["terms"]["I_g_co2eq_per_kwh"]["how"]


def test_boamps_accepts_what_is_written(store: str) -> None:
    if not SCHEMAS.is_dir():
        pytest.skip("the schemas of BoAmps are not here")
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in SCHEMAS.glob("*.json")]
    registry: Registry = Registry().with_resources(
        (content["id"], Resource.from_contents(content)) for content in contents
    )
    (report,) = [content for content in contents if content["id"].endswith("report_schema.json")]
    validator = jsonschema.validators.validator_for(report)(report, registry=registry)
    estimate = {**TAGS, names.TAG_GPU_NAME: "none", names.TAG_ENERGY_SOURCE: names.SOURCE_ESTIMATE}
    scant = {names.ENERGY_TOTAL_J: 100.0}
    runs = (training(), training(tags=estimate), training(metrics=scant), little_known())
    for run_id in runs:
        content = json.loads(exported("boamps", run_id))
        validator.validate(content)
        assert "NaN" not in json.dumps(content)
    assert content["measures"][0]["powerConsumption"] == pytest.approx(100 / 3.6e6)
    assert "environment" not in content and "system" not in content
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**content, "measures": "none"})


def test_the_paragraph_for_annex_xi_calls_an_estimate_an_estimate(store: str) -> None:
    text = exported("annex-xi", training())
    assert "energy consumption was measured: 0.2 kWh" in text and "3600.0 s" in text
    estimate = {**TAGS, names.TAG_ENERGY_SOURCE: names.SOURCE_ESTIMATE, names.TAG_GPU_NAME: "none"}
    text = exported("annex-xi", training(tags=estimate))
    assert "energy consumption was estimated" in text and "codecarbon_estimate" in text
    doubted = {**TAGS, names.TAG_INVALID_REASON: "another process used the GPU"}
    assert "in doubt: another process" in exported("annex-xi", training(tags=doubted))


def test_a_registered_model_leads_to_the_run_of_its_network(store: str) -> None:
    run_id = training()
    client = MlflowClient()
    client.create_registered_model("net")
    client.create_model_version("net", source=f"runs:/{run_id}/model", run_id=run_id)
    client.set_registered_model_alias("net", "champion", "1")
    for uri in ("models:/net/1", "models:/net@champion", f"runs:/{run_id}/model"):
        assert json.loads(exported("sci", uri))["run_id"] == run_id


def test_what_is_not_known_is_left_out(store: str) -> None:
    run_id = little_known()
    texts = {form: exported(form, run_id) for form in FORMS}
    for form, text in texts.items():
        for word in ("unknown", "nan", "NaN", "None", "1 x", " 0 ", " on .", "''", '""'):
            assert word not in text, (form, word)
        assert "one reading of the GPU's power an epoch" in text
    assert "co2_eq_emissions" not in yaml.safe_load(texts["model-card"].split("---")[1])
    assert "sci_g_co2eq_per_training" not in json.loads(texts["sci"])
    assert "beginning" not in texts["annex-xi"]
    head = exported("model-card", run_id, "--carbon-intensity", "400").split("---")[1]
    assert set(yaml.safe_load(head)["co2_eq_emissions"]) == {"emissions", "source", "training_type"}


def test_a_processors_measured_energy_is_called_so(store: str) -> None:
    counter = {**TAGS, names.TAG_GPU_NAME: "none", names.TAG_ENERGY_SOURCE: names.SOURCE_RAPL}
    run_id = training(tags=counter)
    assert "energy consumption was measured" in exported("annex-xi", run_id)
    assert json.loads(exported("sci", run_id))["boundary"].startswith("the CPU, and memory")
    (measure,) = json.loads(exported("boamps", run_id))["measures"]
    assert (measure["measurementMethod"], measure["cpuTrackingMode"]) == ("rapl", "rapl")


def test_what_cannot_be_exported_is_said_in_a_line(store: str) -> None:
    nothing = training(metrics={names.TEST_ACCURACY: 0.5})
    for argument, said in (
        ("models:/none/1", "none"),
        ("somewhere", "must be a run id"),
        (nothing, f"has no {names.ENERGY_TOTAL_J}"),
    ):
        ended = export("--format", "sci", argument)
        assert ended.exit_code == 1, ended.output
        assert said in ended.stderr and "Traceback" not in ended.output
    assert export("--format", "sci", training(), "--pue", "0.5").exit_code == 2
    assert export("--format", "something", training()).exit_code == 2


def test_the_command_and_the_module_name_the_same_forms() -> None:
    from green_screen.command.export import _FORMS

    assert tuple(FORMS) == _FORMS
