"""Registering, the gate, promotion, idempotence and rollback, on a real sqlite store."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from simulated_findings import comparison

from entrypoints import analyze as analyze_entry
from entrypoints import promote as promote_entry
from green_screen import names, tracking
from green_screen.decision.final import SELECTED
from green_screen.options import OptionError, PromoteOptions
from green_screen.registry import registry
from green_screen.registry.promotion import gate, promote
from green_screen.registry.registration import model_card
from green_screen.registry.registry import ModelCard, RegistryError

CARD = ModelCard(
    model="resnet50",
    epochs=50,
    partitioning="60-20-20",
    test_accuracy=0.60,
    energy_per_1k_images_j=10.0,
    energy_per_epoch_j=500.0,
    emissions_kg_co2eq=0.01,
    energy_source=names.SOURCE_COUNTER,
    measurement_valid=True,
    invalid_reason="",
    diverged=False,
    campaign="a campaign",
    campaign_run_id="c" * 32,
    source_run_id="",
    dataset="digits sha256:aa",
    hardware="NVIDIA H200",
    final_runs=5,
)

MODEL = Path(__file__).parents[1] / "support" / "constant_model.py"


@pytest.fixture
def store(store: str) -> MlflowClient:
    return MlflowClient(store)


def trained(card: ModelCard = CARD, **changes: object) -> int:
    """Log a model in a run of its own, register it with the card and return its version."""
    with mlflow.start_run() as run:
        mlflow.pyfunc.log_model(name="model", python_model=str(MODEL), pip_requirements=[])
    card = dataclasses.replace(card, source_run_id=run.info.run_id, **changes)
    version = registry.register(
        run.info.run_id,
        description="A model.",
        tags=card.as_tags(),
        name=registry.model_name(card.model),
    )
    return int(version.version)


def alias(client: MlflowClient, alias: str, name: str = names.MODEL_NAME) -> int:
    return int(client.get_model_version_by_alias(name, alias).version)


def test_a_card_survives_its_tags() -> None:
    card = dataclasses.replace(
        CARD, measurement_valid=False, invalid_reason="too short", diverged=True
    )
    assert ModelCard.from_tags(card.as_tags()) == card


def test_register_sets_tags_description_and_challenger_once(store: MlflowClient) -> None:
    number = trained()
    version = store.get_model_version_by_alias(names.MODEL_NAME, names.CHALLENGER)
    assert int(version.version) == number
    assert ModelCard.from_tags(version.tags).energy_per_epoch_j == 500.0
    assert version.description == "A model."
    again = registry.register(
        version.run_id, description="Better words.", tags=CARD.as_tags(), name=names.MODEL_NAME
    )
    assert int(again.version) == number and again.description == "Better words."
    assert len(store.search_model_versions(f"name = '{names.MODEL_NAME}'")) == 1


def test_analyses_that_register_one_run_at_once_make_one_version(store: MlflowClient) -> None:
    with mlflow.start_run() as run:
        mlflow.pyfunc.log_model(name="model", python_model=str(MODEL), pip_requirements=[])
    run_id, n_analyses, n_names = run.info.run_id, 3, 8
    together = threading.Barrier(n_analyses)

    def register_all(_: int) -> list[str]:
        versions = []
        for i in range(n_names):
            together.wait(60)
            version = registry.register(
                run_id, description="A model.", tags=CARD.as_tags(), name=f"name-{i}"
            )
            versions.append(str(version.version))
        return versions

    with ThreadPoolExecutor(n_analyses) as pool:
        found = list(pool.map(register_all, range(n_analyses)))
    assert found == [found[0]] * n_analyses
    for i in range(n_names):
        (version,) = store.search_model_versions(f"name = 'name-{i}'")
        assert version.version == int(found[0][i])
        assert alias(store, names.CHALLENGER, name=f"name-{i}") == int(found[0][i])


def test_the_data_of_a_version_do_not_depend_on_the_run_that_kept_its_model(
    store: MlflowClient,
) -> None:
    final = comparison(pairs=2)
    ids = []
    for number, pair in enumerate(final.runs["pair"]):
        with mlflow.start_run() as run:
            mlflow.log_param("dataset", "synthetic")
            if number:  # the first one failed before it had its data
                mlflow.log_param("dataset_sha256", f"seed {pair} drew it")
        ids.append(run.info.run_id)
    final = dataclasses.replace(final, runs=final.runs.assign(run_id=ids))
    campaign = SimpleNamespace(campaign="a campaign", campaign_run_id="c" * 32)
    cards = [model_card(campaign, final, SELECTED, run_id) for run_id in (ids[1], ids[3])]
    assert [card.dataset for card in cards] == ["synthetic seed 0 drew"] * 2


def test_a_run_without_a_model_is_refused(store: MlflowClient) -> None:
    with mlflow.start_run() as run:
        pass
    with pytest.raises(RegistryError, match="log_model=true"):
        registry.register(run.info.run_id, description="", tags={}, name=names.MODEL_NAME)


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
    bad = trained(energy_per_1k_images_j=10.1)
    decision = promote(PromoteOptions())
    assert not decision.accepted and decision.champion == good
    assert "10.1 J per 1,000 images is above the champion's 10 J" in decision.reason
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
    new = trained(energy_per_1k_images_j=8.0)
    assert promote(PromoteOptions()).accepted and alias(store, names.CHAMPION) == new

    back = promote(PromoteOptions(version=old))
    assert back.accepted and "rollback" in back.reason and alias(store, names.CHAMPION) == old
    again = promote(PromoteOptions())
    assert not again.accepted and "rolled back" in again.reason
    assert alias(store, names.CHAMPION) == old
    assert promote(PromoteOptions(version=new)).accepted and alias(store, names.CHAMPION) == new
    assert names.VERSION_ROLLED_BACK not in store.get_model_version(names.MODEL_NAME, str(new)).tags


def test_rollback_where_the_champion_was_taken_away(store: MlflowClient) -> None:
    old = trained()
    promote(PromoteOptions())
    store.delete_registered_model_alias(names.MODEL_NAME, names.CHAMPION)
    back = promote(PromoteOptions(version=old))
    assert back.reason == "rollback: it was the champion before, and there is none now"
    assert alias(store, names.CHAMPION) == old


def test_the_record_says_nothing_that_has_not_come_about(
    store: MlflowClient, tmp_path: Path
) -> None:
    number = trained()
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute(
            "CREATE TRIGGER no BEFORE INSERT ON registered_model_aliases "
            "WHEN NEW.alias = 'champion' BEGIN SELECT RAISE(ABORT, 'no champions here'); END"
        )
    with pytest.raises(MlflowException, match="no champions here"):
        promote(PromoteOptions())
    version = store.get_model_version(names.MODEL_NAME, str(number))
    assert names.CHAMPION not in version.aliases
    assert not {names.VERSION_DECISION, names.VERSION_PROMOTED_AT} & set(version.tags)
    (run,) = tracking.search_runs(None, f"tags.`{names.TAG_KIND}` = '{names.KIND_PROMOTION}'")
    assert run.info.status == "FAILED" and names.VERSION_DECISION not in run.data.tags


def test_naming_a_version_that_was_never_champion_does_not_evade_the_gate(
    store: MlflowClient,
) -> None:
    good = trained()
    promote(PromoteOptions())
    bad = trained(energy_per_1k_images_j=18.0)
    assert not promote(PromoteOptions(version=bad)).accepted
    assert alias(store, names.CHAMPION) == good


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"test_accuracy": 0.595}, None),  # within the margin
        ({"test_accuracy": 0.58}, "test accuracy 0.5800 is below"),
        ({"test_accuracy": float("nan")}, "test accuracy is missing"),
        ({"energy_per_1k_images_j": float("nan")}, "energy per 1,000 images is missing"),
        ({"energy_per_1k_images_j": 10.1}, "10.1 J per 1,000 images is above"),
        # An epoch of another partitioning is other work: only the energy for the images counts.
        ({"energy_per_epoch_j": 700.0, "partitioning": "90-5-5"}, None),
        ({"model": "resnet8"}, "resnet8 here, resnet50 for the champion"),
        ({"diverged": True}, "its training diverged"),
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
    unknown = dataclasses.replace(CARD, energy_per_1k_images_j=float("nan"))
    assert gate(CARD, unknown, accuracy_margin=0.01)


def test_the_entry_point_says_what_is_missing(
    store: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote_entry.main([]) == 1
    assert "no model 'green-screen-resnet50' with the alias 'challenger'" in capsys.readouterr().err
    trained(model="resnet8")
    assert promote_entry.main([]) == 1
    assert "another registered model (green-screen-resnet8)" in capsys.readouterr().err
    number = trained()
    assert promote_entry.main([]) == 0
    assert f"version {number}: champion" in capsys.readouterr().out
    assert promote_entry.main(["--version", "99"]) == 1
    assert f"has no version 99; there are {number}" in capsys.readouterr().err
    trained(energy_per_1k_images_j=12.0)
    assert promote_entry.main([]) == 1
    assert f"the champion is still version {number}" in capsys.readouterr().out


def test_a_server_that_is_away_costs_a_line_and_no_traceback(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GREEN_SCREEN_PATIENCE_S", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:9")  # the port of a service that discards
    for name, entry in (("promote", promote_entry), ("analyze", analyze_entry)):
        assert entry.main([]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith(f"{name}: the tracking server 'http://127.0.0.1:9' has not answered")


def test_options_are_checked() -> None:
    with pytest.raises(OptionError, match="accuracy_margin must be at least 0"):
        PromoteOptions(accuracy_margin=-0.1)
    with pytest.raises(SystemExit):
        promote_entry.main(["--version", "first"])
