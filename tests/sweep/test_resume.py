from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest
from campaigns import STRIKE, assert_complete, by_status, children, small, summary, sweep_parents
from mlflow.tracking import MlflowClient
from waiting import until

from green_screen import names, tracking
from green_screen.executors.local import LocalExecutor
from green_screen.options import OptionError
from green_screen.sweep import campaign, resume
from green_screen.sweep.campaign import run_sweep

QUICK = "faulty_trainers:quick"


@pytest.fixture
def incomplete(store: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> str:
    """A campaign whose run at position 1 failed."""
    monkeypatch.setenv("FAULT", "refuse")
    return run_sweep(small(), trainer=STRIKE, executor=executor)


@pytest.mark.parametrize("named", [True, False])
def test_resume_does_exactly_what_is_missing(
    incomplete: str, executor: LocalExecutor, named: bool
) -> None:
    before = {run.info.run_id for run in children(incomplete)}
    options = small(resume=incomplete) if named else small()
    assert run_sweep(options, trainer=STRIKE, executor=executor) == incomplete

    assert_complete(incomplete, small())
    (new,) = [run for run in children(incomplete) if run.info.run_id not in before]
    assert new.data.tags[names.TAG_POSITION] == "1"
    assert by_status(incomplete, "FAILED") == [1]
    assert len(sweep_parents()) == 1


def test_a_complete_campaign_is_not_resumed(store: str, executor: LocalExecutor) -> None:
    first = run_sweep(small(), trainer=QUICK, executor=executor)
    assert run_sweep(small(), trainer=QUICK, executor=executor) != first
    assert run_sweep(small(resume=first), trainer=QUICK, executor=executor) == first
    assert len(children(first)) == 4


def test_a_campaign_from_which_a_run_was_deleted_is_completed_and_not_begun_anew(
    store: str, executor: LocalExecutor
) -> None:
    first = run_sweep(small(), trainer=QUICK, executor=executor)
    (gone,) = [run for run in children(first) if run.data.tags[names.TAG_POSITION] == "2"]
    MlflowClient().delete_run(gone.info.run_id)
    assert run_sweep(small(), trainer=QUICK, executor=executor) == first
    assert_complete(first, small())
    assert len(sweep_parents()) == 1


def test_a_deleted_campaign_is_not_resumed(store: str, executor: LocalExecutor) -> None:
    first = run_sweep(small(), trainer=QUICK, executor=executor)
    MlflowClient().delete_run(first)
    with pytest.raises(OptionError, match="a campaign that has not been deleted"):
        run_sweep(small(resume=first), trainer=QUICK, executor=executor)


def test_a_run_left_over_in_the_environment_is_not_marked(
    incomplete: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tracking.create_child(None, "an old one", {}, tracking.ensure_experiment())
    MlflowClient().set_terminated(made)
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with pytest.raises(OptionError, match="MLFLOW_RUN_ID must be a run that is under way"):
        run_sweep(small(), trainer=STRIKE, executor=executor)
    assert names.TAG_KIND not in MlflowClient().get_run(made).data.tags


def test_a_resume_makes_good_the_note_that_a_killed_parent_did_not_take(
    store: str, executor: LocalExecutor
) -> None:
    client = MlflowClient()
    first = run_sweep(small(), trainer=QUICK, executor=executor)
    # As if the parent had been killed between the end of its last run and its note of it.
    client.log_metric(first, names.RUNS_FINISHED, 3)
    client.log_text(first, "position\n", names.RUNS_SUMMARY_CSV)
    client.update_run(first, status="KILLED")

    assert run_sweep(small(), trainer=QUICK, executor=executor) == first
    assert client.get_run(first).data.metrics[names.RUNS_FINISHED] == 4
    assert len(summary(first)) == 4
    assert len(children(first)) == 4
    assert run_sweep(small(), trainer=QUICK, executor=executor) != first


@pytest.mark.parametrize("resumed", [True, False])
def test_of_two_processes_with_the_same_command_one_is_refused(
    store: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    # Both have looked at the store before either of them is known there.
    trainer = STRIKE if resumed else QUICK
    if resumed:
        monkeypatch.setenv("FAULT", "refuse")
        run_sweep(small(), trainer=trainer, executor=executor)
    design = campaign.find_design(small(), trainer)
    assert (design.parent is not None) == resumed
    key = design.parent.info.run_id if resumed else f"{design.experiment_id}-{design.digest}"
    with (
        resume.alone(key),
        pytest.raises(OptionError, match="is being run by another process"),
    ):
        run_sweep(small(), trainer=trainer, executor=executor)
    tracking.use_store("sqlite:///another.db")  # which may have an experiment of the same number
    with resume.alone(key):
        tracking.use_store(store)
        assert_complete(run_sweep(small(), trainer=trainer, executor=executor), small())


def test_a_dead_process_that_nobody_has_waited_for_runs_no_campaign() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(process.pid).create_time()
    assert resume._alive(process.pid, started)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert not resume._alive(process.pid, started)
    process.wait()


def test_resume_takes_the_options_of_the_campaign(
    store: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULT", "refuse")
    options = small(seed=5, epochs=3, design="balanced")
    parent_id = run_sweep(options, trainer=STRIKE, executor=executor)
    defaults = {"n_runs": 100, "epochs": 50}
    run_sweep(small(resume=parent_id, **defaults), trainer=STRIKE, executor=executor)
    assert_complete(parent_id, options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 7}, "epochs must be 2, as in the campaign that is resumed"),
        ({"design": "balanced"}, "design must be 'random', as in the campaign"),
    ],
)
def test_resume_refuses_other_options(
    incomplete: str, executor: LocalExecutor, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        run_sweep(small(resume=incomplete, **changes), trainer=STRIKE, executor=executor)


def test_resume_refuses_another_design(incomplete: str, executor: LocalExecutor) -> None:
    with pytest.raises(OptionError, match="resume must be a campaign of the same design"):
        run_sweep(small(resume=incomplete), trainer=QUICK, executor=executor)


def test_a_run_that_nobody_ends_is_killed_and_done_again(
    incomplete: str, executor: LocalExecutor
) -> None:
    # It was killed when it had just been given its board.
    tags = {names.TAG_KIND: "run", names.TAG_POSITION: 1, names.TAG_BOARD: "GPU-1"}
    stale = tracking.create_child(incomplete, "stale", tags, tracking.ensure_experiment())
    run_sweep(small(), trainer=STRIKE, executor=executor)
    assert_complete(incomplete, small())
    parent = MlflowClient().get_run(incomplete)
    assert parent.data.metrics[names.RUNS_FINISHED] == 4
    assert parent.data.metrics[names.RUNS_FAILED] == 2
    run = MlflowClient().get_run(stale)
    assert run.info.status == "KILLED"
    assert run.data.tags[names.TAG_FAILURE] == "cut off with its campaign"


def test_what_a_campaign_leaves_under_way_is_ended_with_it(
    incomplete: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As when a signal comes between the creation of a run and its job.
    created = campaign.tracking.create_child

    def interrupted(*args: object, **kwargs: object) -> str:
        created(*args, **kwargs)  # type: ignore[arg-type]
        raise tracking.Interrupted(signal.SIGTERM)

    monkeypatch.setattr(campaign.tracking, "create_child", interrupted)
    with pytest.raises(tracking.Interrupted):
        run_sweep(small(), trainer=STRIKE, executor=executor)
    assert by_status(incomplete, "KILLED") == [1]
    assert by_status(incomplete, "RUNNING") == []
    assert MlflowClient().get_run(incomplete).info.status == "KILLED"


def test_a_campaign_of_another_host_is_taken_over_only_by_name(
    incomplete: str, executor: LocalExecutor
) -> None:
    client = MlflowClient()
    client.update_run(incomplete, status="RUNNING")
    client.set_tag(incomplete, names.TAG_OWNER, "another-host:4:1700000000")
    with pytest.raises(OptionError, match="if host another-host no longer runs"):
        run_sweep(small(), trainer=STRIKE, executor=executor)
    run_sweep(small(resume=incomplete), trainer=STRIKE, executor=executor)
    assert_complete(incomplete, small())


def test_under_mlflow_run_the_run_that_was_made_for_it_is_marked(
    incomplete: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tracking.create_child(None, "by mlflow run", {}, tracking.ensure_experiment())
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    assert run_sweep(small(), trainer=STRIKE, executor=executor) == incomplete
    tags = MlflowClient().get_run(made).data.tags
    assert tags[names.TAG_KIND] == names.KIND_RESUME
    assert tags[names.TAG_RESUMED] == incomplete
    assert len(sweep_parents()) == 1


def test_resume_finds_out_by_one_query(
    incomplete: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = []
    search = MlflowClient.search_runs

    def counted(self: MlflowClient, *args: object, **kwargs: object) -> object:
        queries.append(args)
        return search(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "search_runs", counted)
    run_sweep(small(resume=incomplete), trainer=STRIKE, executor=executor)
    assert len(queries) == 1
