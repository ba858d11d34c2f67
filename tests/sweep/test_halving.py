"""Successive halving: who goes on, what it costs, and that a search goes on where it was ended."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from campaigns import children, small
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from green_screen import names, tracking
from green_screen.executors.local import LocalExecutor
from green_screen.options import OptionError, SweepOptions
from green_screen.space import Space
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.halving import best, rungs
from green_screen.sweep.status import read_status

RATES = [0.03, 0.3, 0.1, 1.0, 0.2, 0.2000001, 0.01, 0.02, 0.04]
# Of nine configurations three go on after an epoch, one after three and after nine.
TRAINED = {0.3: 27, 0.2: 3, 0.2000001: 3}


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(50, (2, 6, 17, 50)), (27, (1, 3, 9, 27)), (6, (1, 2, 6)), (2, (1, 2)), (1, (1,))],
)
def test_rungs_are_thirds_of_the_epochs(epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(epochs) == expected


def test_the_best_go_on_and_ties_and_gaps_are_settled_by_rule() -> None:
    accuracies = {0: 0.5, 1: math.nan, 2: 0.7, 3: 0.5, 4: 0.1}
    assert best(accuracies, 2) == [2, 0]
    assert best(accuracies, 9) == [2, 0, 3, 4]


@pytest.fixture
def options(tmp_path: Path) -> SweepOptions:
    """A campaign of nine learning rates, one after the other, the baseline again at its end."""
    levels: dict[str, object] = {
        name: [level] for name, level in Space.load().baseline.as_params().items()
    }
    path = tmp_path / "rates.yaml"
    path.write_text(yaml.safe_dump({"factors": levels | {"lr": RATES}}))
    return small(
        protocol="halving",
        epochs=27,
        config=str(path),
        design="grid",
        grid_factors="lr",
        baseline_every=9,
    )


def epochs_of(run: Run) -> list[int]:
    history = MlflowClient().get_metric_history(run.info.run_id, names.EPOCH_ENERGY_J)
    return sorted(point.step for point in history)


def check(parent_id: str) -> list[Run]:
    """The search came to what it comes to undisturbed; return its finished runs."""
    runs = [run for run in children(parent_id) if run.info.status == "FINISHED"]
    first = {float(run.data.params["lr"]): run for run in reversed(runs)}
    assert len(first) == 9
    for rate, run in first.items():
        trained = TRAINED.get(rate, 1)
        assert run.data.tags[names.TAG_EPOCHS_TRAINED] == str(trained)
        assert epochs_of(run) == list(range(trained))
        assert (names.TAG_PRUNED in run.data.tags) == (trained < 27)
        assert math.isnan(run.data.metrics[names.TEST_ACCURACY]) == (trained < 27)
    assert "diverged" in first[1.0].data.tags[names.TAG_PRUNED]
    assert "2 of 3, and 1 go on" in first[0.2000001].data.tags[names.TAG_PRUNED]
    parent = MlflowClient().get_run(parent_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics[names.RUNS_FINISHED] == len(runs)
    return runs


@pytest.mark.slow
def test_a_search_trains_in_full_what_is_good_enough(
    store: str, executor: LocalExecutor, options: SweepOptions
) -> None:
    parent_id = run_sweep(options, trainer="faulty_trainers:learn", executor=executor)
    runs = check(parent_id)
    repeated = [r for r in runs if "repeated" in r.data.tags.get(names.TAG_PRUNED, "")]
    assert len(repeated) == len(runs) - 9
    assert {run.data.tags[names.TAG_EPOCHS_TRAINED] for run in repeated} <= {"1"}

    parent = MlflowClient().get_run(parent_id)
    epochs = 27 + 2 * 3 + (len(runs) - 3)
    assert parent.data.metrics[names.SEARCH_ENERGY_J] == 10.0 * epochs + 5.0 * len(runs)
    full_j = 275.0 * len(runs)
    assert parent.data.metrics[names.SEARCH_FORECAST_FULL_J] == full_j
    status = read_status(None)
    assert status.complete
    assert status.energy.joules == parent.data.metrics[names.SEARCH_ENERGY_J]
    # What is complete is not resumed: another one is begun.
    assert run_sweep(options, trainer="faulty_trainers:learn", executor=executor) != parent_id


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_before_its_rung_is_decided(
    store: str,
    executor: LocalExecutor,
    options: SweepOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAULTY", "12")
    monkeypatch.setenv("FAULT", "kill_myself")
    parent_id = run_sweep(options, trainer="faulty_trainers:learn", executor=executor)
    (killed,) = [run for run in children(parent_id) if run.info.status != "FINISHED"]
    assert killed.info.status == "KILLED"
    check(parent_id)


@pytest.mark.slow
def test_a_run_that_failed_is_done_again_by_the_same_command(
    store: str,
    executor: LocalExecutor,
    options: SweepOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAULTY", "4")
    monkeypatch.setenv("FAULT", "refuse")
    parent_id = run_sweep(options, trainer="faulty_trainers:learn", executor=executor)
    (failed,) = [run for run in children(parent_id) if run.info.status != "FINISHED"]
    assert failed.info.status == "FAILED"
    assert not read_status(None).complete
    assert run_sweep(options, trainer="faulty_trainers:learn", executor=executor) == parent_id
    check(parent_id)


def test_what_a_search_cannot_do_is_refused() -> None:
    for changes in ({"executor": "ray"}, {"log_model": True}, {"design": "sequential"}):
        with pytest.raises(OptionError, match="protocol must be another one"):
            SweepOptions(protocol="halving", **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_that_waits_for_its_next_rung_is_not_done(
    store: str, executor: LocalExecutor, options: SweepOptions
) -> None:
    run_sweep(options, trainer="faulty_trainers:learn", executor=executor)
    (chosen,) = [
        r for r in children(read_status(None).parent.info.run_id) if "0.3" in r.info.run_name
    ]
    tracking.RunLogger(chosen.info.run_id).tags({names.TAG_EPOCHS_TRAINED: 3})
    status = read_status(None)
    assert not status.complete
    assert len(status.finished) == status.planned - 1
