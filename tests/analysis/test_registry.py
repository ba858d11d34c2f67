"""Registering, the gate, promotion, idempotence and rollback, on a real sqlite store."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from entrypoints import promote as promote_entry
from green_screen import names
from green_screen.analysis import registry
from green_screen.analysis.promotion import gate, promote
from green_screen.analysis.registry import ModelCard, RegistryError
from green_screen.options import OptionError, PromoteOptions

CARD = ModelCard(
    test_accuracy=0.60,
    energy_per_epoch_j=500.0,
    emissions_kg_co2eq=0.01,
    energy_source=names.SOURCE_COUNTER,
    measurement_valid=True,
    invalid_reason="",
    campaign="a campaign",
    campaign_run_id="c" * 32,
    source_run_id="",
    dataset="digits sha256:aa",
    hardware="NVIDIA H200",
    final_runs=5,
)

MODEL = Path(__file__).with_name("constant_model.py")


@pytest.fixture()
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield MlflowClient()
    mlflow.set_tracking_uri(before)


def trained(card: ModelCard = CARD, **changes: object) -> int:
    """Log a model in a run of its own, register it with the card and return its version."""
    with mlflow.start_run() as run:
        mlflow.pyfunc.log_model(name="model", python_model=str(MODEL), pip_requirements=[])
    card = dataclasses.replace(card, source_run_id=run.info.run_id, **changes)
    version = registry.register(run.info.run_id, description="A model.", tags=card.as_tags())
    return int(version.version)


def alias(client: MlflowClient, name: str) -> int:
    return int(client.get_model_version_by_alias(names.MODEL_NAME, name).version)


def test_a_card_survives_its_tags() -> None:
    card = dataclasses.replace(CARD, measurement_valid=False, invalid_reason="too short")
    assert ModelCard.from_tags(card.as_tags()) == card


def test_register_sets_tags_description_and_challenger_once(store: MlflowClient) -> None:
    number = trained()
    version = store.get_model_version_by_alias(names.MODEL_NAME, names.CHALLENGER)
    assert int(version.version) == number
    assert ModelCard.from_tags(version.tags).energy_per_epoch_j == 500.0
    assert version.description == "A model."
    again = registry.register(version.run_id, description="Better words.", tags=CARD.as_tags())
    assert int(again.version) == number and again.description == "Better words."
    assert len(store.search_model_versions(f"name = '{names.MODEL_NAME}'")) == 1


def test_a_run_without_a_model_is_refused(store: MlflowClient) -> None:
    with mlflow.start_run() as run:
        pass
    with pytest.raises(RegistryError, match="log_model=true"):
        registry.register(run.info.run_id, description="", tags={})


def test_the_first_valid_model_becomes_champion_and_again_changes_nothing(
    store: MlflowClient,
) -> None:
    number = trained()
    first = promote(PromoteOptions())
    assert first.accepted and alias(store, names.CHAMPION) == number
    tags = store.get_model_version(names.MODEL_NAME, str(number)).tags
    second = promote(PromoteOptions())
    assert second.accepted and "already" in second.reason
    assert store.get_model_version(names.MODEL_NAME, str(number)).tags == tags
    assert tags[names.VERSION_DECISION].startswith("promoted: there is no champion yet")


def test_a_worse_model_is_refused_with_the_figures_and_the_reason_is_logged(
    store: MlflowClient,
) -> None:
    good = trained()
    promote(PromoteOptions())
    bad = trained(energy_per_epoch_j=501.0)
    decision = promote(PromoteOptions())
    assert not decision.accepted and decision.champion == good
    assert "501 J per epoch is above the champion's 500 J" in decision.reason
    assert alias(store, names.CHAMPION) == good
    tag = store.get_model_version(names.MODEL_NAME, str(bad)).tags[names.VERSION_DECISION]
    assert tag == f"refused: {decision.reason}"
    experiment = store.get_experiment_by_name(names.EXPERIMENT).experiment_id
    runs = store.search_runs([experiment], f"tags.`{names.TAG_KIND}` = '{names.KIND_PROMOTION}'")
    assert runs[0].data.tags[names.VERSION_DECISION] == tag
    linked = store.get_run(runs[0].info.run_id).inputs.model_inputs
    assert {model.model_id for model in linked} == {
        registry.logged_model_id(store.get_model_version(names.MODEL_NAME, str(v)).run_id)
        for v in (good, bad)
    }


def test_rollback_to_a_former_champion_and_no_silent_return(store: MlflowClient) -> None:
    old = trained()
    promote(PromoteOptions())
    new = trained(energy_per_epoch_j=400.0)
    assert promote(PromoteOptions()).accepted and alias(store, names.CHAMPION) == new

    back = promote(PromoteOptions(version=old))
    assert back.accepted and "rollback" in back.reason and alias(store, names.CHAMPION) == old
    again = promote(PromoteOptions())
    assert not again.accepted and "rolled back" in again.reason
    assert alias(store, names.CHAMPION) == old
    assert promote(PromoteOptions(version=new)).accepted and alias(store, names.CHAMPION) == new
    assert names.VERSION_ROLLED_BACK not in store.get_model_version(names.MODEL_NAME, str(new)).tags


def test_naming_a_version_that_was_never_champion_does_not_evade_the_gate(
    store: MlflowClient,
) -> None:
    good = trained()
    promote(PromoteOptions())
    bad = trained(energy_per_epoch_j=900.0)
    assert not promote(PromoteOptions(version=bad)).accepted
    assert alias(store, names.CHAMPION) == good


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"test_accuracy": 0.595}, None),  # within the margin
        ({"test_accuracy": 0.58}, "test accuracy 0.5800 is below"),
        ({"test_accuracy": float("nan")}, "test accuracy is missing"),
        ({"energy_per_epoch_j": float("nan")}, "energy is missing"),
        ({"measurement_valid": False, "invalid_reason": "window of 2 s"}, "window of 2 s"),
        ({"energy_source": names.SOURCE_ESTIMATE}, "energies cannot be compared"),
        ({"hardware": "NVIDIA A100"}, "energies cannot be compared"),
        ({"dataset": "cifar10 sha256:bb"}, "accuracies cannot be compared"),
    ],
)
def test_the_gate(changes: dict[str, object], words: str | None) -> None:
    against = gate(dataclasses.replace(CARD, **changes), CARD, accuracy_margin=0.01)
    if words is None:
        assert against == []
    else:
        assert words in "; ".join(against)


def test_a_champion_without_figures_lets_nothing_pass() -> None:
    unknown = dataclasses.replace(CARD, energy_per_epoch_j=float("nan"))
    assert gate(CARD, unknown, accuracy_margin=0.01)


def test_the_entry_point_says_what_is_missing(
    store: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote_entry.main([]) == 1
    assert "no model 'green-screen-resnet50' with the alias 'challenger'" in capsys.readouterr().err
    number = trained()
    assert promote_entry.main([]) == 0
    assert f"version {number}: champion" in capsys.readouterr().out
    assert promote_entry.main(["--version", "99"]) == 1
    assert f"has no version 99; there are {number}" in capsys.readouterr().err
    trained(energy_per_epoch_j=600.0)
    assert promote_entry.main([]) == 1
    assert f"the champion is still version {number}" in capsys.readouterr().out


def test_options_are_checked() -> None:
    with pytest.raises(OptionError, match="accuracy_margin must be at least 0"):
        PromoteOptions(accuracy_margin=-0.1)
    with pytest.raises(SystemExit):
        promote_entry.main(["--version", "first"])
