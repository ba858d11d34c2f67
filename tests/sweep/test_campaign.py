from __future__ import annotations

import tempfile
from pathlib import Path

import mlflow
import pytest
from campaigns import STRIKE, assert_complete, by_status, children, small, summary, sweep_parents
from mlflow.tracking import MlflowClient
from waiting import until

from green_screen import names, tracking
from green_screen.executors.executor import CampaignError
from green_screen.executors.local import LocalExecutor
from green_screen.options import OptionError
from green_screen.space import FACTOR_NAMES
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.summary import Summary

QUICK = "faulty_trainers:quick"


def test_a_campaign_is_one_parent_with_its_runs(store: str, executor: LocalExecutor) -> None:
    options = small(n_runs=4, baseline_every=2, replicates=1)
    parent_id = run_sweep(options, trainer=QUICK, executor=executor)

    assert_complete(parent_id, options)
    parent = MlflowClient().get_run(parent_id)
    assert parent.data.tags[names.TAG_KIND] == names.KIND_SWEEP
    assert parent.data.params["n_runs"] == "4"
    assert parent.data.params["seed"] == "22"
    assert parent.data.params["design"] == "random"
    assert parent.data.metrics[names.RUNS_FINISHED] == 8
    assert parent.data.metrics[names.DESIGN_WORST_ASSOCIATION] <= 1
    runs = children(parent_id)
    kinds = [run.data.tags[names.TAG_KIND] for run in runs]
    assert kinds.count("baseline") == 3
    assert kinds.count("run") == 4
    (replicate,) = [run for run in runs if run.data.tags[names.TAG_KIND] == "replicate"]
    repeated = runs[int(replicate.data.tags[names.TAG_REPLICATE_OF])]
    assert repeated.data.tags[names.TAG_KIND] == "run"
    for factor in FACTOR_NAMES:
        assert replicate.data.params[factor] == repeated.data.params[factor]
    assert runs[0].info.run_name == "000 baseline"
    different = [f for f in FACTOR_NAMES if runs[1].data.params[f] != runs[0].data.params[f]]
    said = runs[1].info.run_name.split()[1:]
    assert sorted(said) == sorted(f"{f}={runs[1].data.params[f]}" for f in different)
    assert len({run.data.tags["pid"] for run in runs}) == 8
    rows = summary(parent_id)
    assert [row["run_id"] for row in rows] == [run.info.run_id for run in runs]
    assert {row["status"] for row in rows} == {"FINISHED"}
    assert rows[1]["lr"] == runs[1].data.params["lr"]
    assert float(rows[1]["run_overhead_s"]) > 0


def test_the_same_seed_gives_the_same_campaign(store: str, executor: LocalExecutor) -> None:
    first = run_sweep(small(resume="new"), trainer=QUICK, executor=executor)
    second = run_sweep(small(resume="new"), trainer=QUICK, executor=executor)
    other = run_sweep(small(resume="new", seed=1), trainer=QUICK, executor=executor)

    def levels(parent_id: str) -> list[list[str]]:
        return [[run.data.params[f] for f in FACTOR_NAMES] for run in children(parent_id)]

    assert first != second
    assert levels(first) == levels(second)
    assert levels(first) != levels(other)


def test_a_failed_run_is_recorded_and_the_campaign_goes_on(
    store: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "refuse")
    parent_id = run_sweep(small(), trainer=STRIKE, executor=executor)

    assert by_status(parent_id, "FINISHED") == [0, 2, 3]
    (failed,) = [run for run in children(parent_id) if run.info.status == "FAILED"]
    assert failed.data.tags[names.TAG_FAILURE] == (
        "ValueError: this configuration cannot be trained"
    )
    parent = MlflowClient().get_run(parent_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics[names.RUNS_FINISHED] == 3
    assert parent.data.metrics[names.RUNS_FAILED] == 1
    assert [row["status"] for row in summary(parent_id)].count("FAILED") == 1
    output = mlflow.artifacts.load_text(f"{failed.info.artifact_uri}/{names.OUTPUT_TXT}")
    assert "Traceback" in output


def test_a_campaign_without_a_finished_run_fails(store: str, executor: LocalExecutor) -> None:
    with pytest.raises(CampaignError, match="0 of 4 runs finished, 4 failed"):
        run_sweep(small(), trainer="faulty_trainers:always_refuse", executor=executor)
    (parent,) = sweep_parents()
    assert parent.info.status == "FAILED"
    assert by_status(parent.info.run_id, "FAILED") == [0, 1, 2, 3]


def test_the_table_of_runs_is_written_as_soon_as_it_can_be(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracking.open_run() as run:
        table, ended = Summary(run), tracking.read_run(run.run_id)
        with monkeypatch.context() as patch:
            # As a full disk, which has no place for the file either.
            patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
            table.add(ended)
        assert not MlflowClient().list_artifacts(run.run_id)
        until(lambda: (table.write_if_due(), bool(MlflowClient().list_artifacts(run.run_id)))[1])
        # Another run ends so soon after that the table is not written again at once.
        another = tracking.create_child(run.run_id, "another", {}, ended.info.experiment_id)
        table.add(tracking.read_run(another))
        until(lambda: (table.write_if_due(), len(summary(run.run_id)) == 2)[1])
        # One that has gone on stands in it once.
        table.add(ended)
        table.write()
        assert len(summary(run.run_id)) == 2


def test_max_failures_ends_a_campaign_early(store: str, executor: LocalExecutor) -> None:
    options = small(max_failures=2)
    with pytest.raises(CampaignError, match="stopped at max_failures=2"):
        run_sweep(options, trainer="faulty_trainers:always_refuse", executor=executor)
    (parent,) = sweep_parents()
    assert by_status(parent.info.run_id, "FAILED") == [0, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "no-such-data"}, "no-such-data"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"replicates": 4}, "replicates must be at most the 3 configurations, but got 4"),
        ({"resume": "0" * 32}, "resume must be a campaign's run id"),
    ],
)
def test_bad_options_start_nothing(
    store: str, executor: LocalExecutor, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        run_sweep(small(**changes), executor=executor)
    assert MlflowClient().search_runs(["0", "1"]) == []
