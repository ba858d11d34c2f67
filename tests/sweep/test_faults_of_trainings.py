"""A training that is ended on its way, for real: it goes on, and comes to the same numbers."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import yaml
from campaigns import children, small
from mlflow.entities import Run

from green_screen import names, tracking
from green_screen.executors.local import LocalExecutor
from green_screen.space import Space
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.status import read_status

TRAINER = "preempted_trainers:preempted"
EPOCHS = 4
EPOCH_FIGURES = (names.LOSS, names.VAL_ACCURACY, names.EPOCH_ENERGY_J, names.EPOCH_TIME_S)


@pytest.fixture
def one_configuration(tmp_path: Path) -> str:
    """A file of a single configuration: a campaign's two runs are the same training."""
    levels = Space.load().parse({"batch_size": 32, "optimizer": "SGD"}).as_params()
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({"factors": {name: [level] for name, level in levels.items()}}))
    return str(path)


def history(run: Run, metric: str) -> list[float]:
    return tracking.metric_values(run.info.run_id, metric)


@pytest.mark.parametrize(
    ("places", "goes_on_at"),
    [
        (["in_setup"], None),
        (["in_an_epoch"], 2),
        (["by_sigterm"], 2),
        (["in_writing_a_checkpoint"], 1),
        (["in_evaluation"], 4),
        (["in_an_epoch", "in_setup", "in_evaluation"], 4),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_a_training_that_is_ended_goes_on(
    store: str,
    executor: LocalExecutor,
    monkeypatch: pytest.MonkeyPatch,
    one_configuration: str,
    places: list[str],
    goes_on_at: int | None,
) -> None:
    options = small(
        n_runs=1,
        epochs=EPOCHS,
        config=one_configuration,
        dataset="synthetic",
        model="resnet8",
        image_size=8,
        samples=60,
        checkpoint_every=1,
    )
    # The first run is ended; the second is the same training undisturbed; then the first again.
    ends = {number: place for number, place in zip((1, 3, 4), places, strict=False)}
    monkeypatch.setenv("ENDS", json.dumps(ends))
    parent_id = run_sweep(options, trainer=TRAINER, executor=executor)
    for _ in places:
        assert run_sweep(options, trainer=TRAINER, executor=executor) == parent_id

    *ended, whole, undisturbed = children(parent_id)
    assert [run.info.status for run in ended] == ["KILLED"] * len(places)
    assert whole.info.status == undisturbed.info.status == "FINISHED"
    for metric in EPOCH_FIGURES:
        assert len(history(whole, metric)) == EPOCHS
    for metric in (names.LOSS, names.VAL_LOSS):
        assert history(whole, metric) == history(undisturbed, metric)
    assert whole.data.metrics[names.TEST_LOSS] == undisturbed.data.metrics[names.TEST_LOSS]

    metrics = whole.data.metrics
    assert metrics.get(names.CONTINUED_FROM_EPOCH) == goes_on_at
    continued = [run for run, place in zip(ended, places, strict=True) if place != "in_setup"]
    if goes_on_at is not None:
        assert metrics[names.PARTS] == 1 + len(continued)
        assert metrics[names.GAP_S] > 0
        assert math.isfinite(metrics[names.ENERGY_LOST_J])
        assert whole.data.tags[names.TAG_CONTINUES] == ", ".join(
            run.info.run_id for run in continued
        )
        # What was logged of the epochs before its checkpoint stands in the run that was ended too.
        first = continued[0]
        kept = history(first, names.EPOCH_ENERGY_J)
        assert (
            history(whole, names.EPOCH_ENERGY_J)[: min(len(kept), goes_on_at)]
            == (kept[: min(len(kept), goes_on_at)])
        )
    if "in_an_epoch" in places or "by_sigterm" in places:
        assert metrics[names.ENERGY_LOST_J] > 0
    assert metrics[names.ENERGY_TOTAL_J] > sum(history(whole, names.EPOCH_ENERGY_J))
    assert metrics[names.RUN_OVERHEAD_S] > 0
    # The processes that were ended before they could note anything are unknown, and no others.
    assert read_status(None).energy.n_unknown == places.count("in_setup")
    assert not list((tracking.spool_root() / "checkpoints").iterdir())


def test_a_search_that_is_ended_comes_to_the_numbers_of_full_training(
    store: str,
    executor: LocalExecutor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    levels = Space.load().parse({"batch_size": 32, "optimizer": "SGD"}).as_params()
    path = tmp_path / "rates.yaml"
    rates = {"lr": [0.01, 0.001, 0.0001]}
    path.write_text(
        yaml.safe_dump({"factors": {name: [level] for name, level in levels.items()} | rates})
    )
    options = small(
        epochs=EPOCHS,
        config=str(path),
        design="grid",
        grid_factors="lr",
        dataset="synthetic",
        model="resnet8",
        image_size=8,
        samples=60,
        checkpoint_every=0,
    )
    monkeypatch.setenv("ENDS", "{}")
    full = children(run_sweep(options, trainer=TRAINER, executor=executor))
    (tmp_path / "runs").unlink()
    # Four runs of an epoch, one of two, and then it is ended in its last rung, twice.
    monkeypatch.setenv("ENDS", json.dumps({"6": "in_an_epoch", "7": "in_evaluation"}))
    search = dataclasses.replace(options, protocol="halving")
    parent_id = run_sweep(search, trainer=TRAINER, executor=executor)
    assert not read_status(None).complete
    assert run_sweep(search, trainer=TRAINER, executor=executor) == parent_id
    assert read_status(None).complete

    runs = [run for run in children(parent_id) if run.info.status == "FINISHED"]
    (chosen,) = [run for run in runs if names.TAG_PRUNED not in run.data.tags]
    position = int(chosen.data.tags[names.TAG_POSITION])
    for run, whole in zip(runs, full, strict=True):
        trained = int(run.data.tags[names.TAG_EPOCHS_TRAINED])
        assert trained == (EPOCHS if run is chosen else 1)
        for metric in (names.LOSS, names.VAL_LOSS):
            assert history(run, metric) == history(whole, metric)[:trained]
        if run is not chosen:
            metrics = run.data.metrics
            assert metrics[names.TRAINED_ENERGY_J] > history(run, names.EPOCH_ENERGY_J)[0] > 0
            assert math.isnan(metrics[names.ENERGY_TOTAL_J])
            tag = names.MISSING_PREFIX + names.ENERGY_TOTAL_J
            assert run.data.tags[tag] == "1 of 4 epochs are trained"
    metrics, whole = chosen.data.metrics, full[position]
    assert metrics[names.TEST_LOSS] == whole.data.metrics[names.TEST_LOSS]
    assert names.MISSING_PREFIX + names.TEST_ACCURACY not in chosen.data.tags
    assert names.MISSING_PREFIX + names.ENERGY_TOTAL_J not in chosen.data.tags
    assert metrics[names.ENERGY_TOTAL_J] > sum(history(chosen, names.EPOCH_ENERGY_J))
    assert metrics[names.STEADY_EPOCHS] + metrics[names.UNSTEADY_EPOCHS] == EPOCHS
    assert metrics[names.ENERGY_LOST_J] > 0
    assert not list((tracking.spool_root() / "checkpoints").iterdir())
