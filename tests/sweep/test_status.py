from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from campaigns import by_status, small
from mlflow.tracking import MlflowClient

from entrypoints import status as entry
from green_screen import names, tracking
from green_screen.executors.local import LocalExecutor
from green_screen.options import OptionError
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.status import read_status


@pytest.fixture
def campaign(store: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> str:
    """A campaign of four runs whose run at position 1 failed."""
    monkeypatch.setenv("FAULT", "refuse")
    return run_sweep(small(), trainer="faulty_trainers:strike", executor=executor)


def test_the_state_of_a_campaign(campaign: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = read_status(campaign)
    assert (status.planned, len(status.finished), len(status.failed)) == (4, 3, 1)
    assert not status.complete
    assert (status.energy.joules, status.energy.n_unknown) == (60.0, 1)
    assert status.left_s > 0
    assert entry.main([]) == 0
    output = capsys.readouterr().out
    assert f"campaign {campaign}" in output
    assert "3 of 4 runs finished, 0 under way, 1 missing (1 of them failed so far)" in output
    assert "energy so far: at least 60 J (estimated, 1 run unknown)" in output
    assert "ValueError: this configuration cannot be trained" in output
    assert f"--resume {campaign}" in output


def test_a_campaign_under_way(campaign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {names.TAG_KIND: "run", names.TAG_POSITION: 1}
    tracking.create_child(campaign, "001 once more", tags, tracking.ensure_experiment())
    MlflowClient().update_run(campaign, status="RUNNING")
    # A campaign is found in whichever experiment it is.
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    status = read_status(None)
    assert (len(status.finished), len(status.under_way), len(status.failed)) == (3, 1, 0)
    assert "under way: 001 once more" in status.text()
    assert "--resume" not in status.text()


def test_the_state_by_name_and_the_latest_of_it(campaign: str, executor: LocalExecutor) -> None:
    options = small(resume="new")
    later = run_sweep(options, trainer="faulty_trainers:quick", executor=executor)
    name = MlflowClient().get_run(campaign).info.run_name
    assert read_status(name).parent.info.run_id == later
    assert read_status(campaign).parent.info.run_id == campaign
    assert read_status(None).complete
    assert by_status(later, "FINISHED") == [0, 1, 2, 3]


def test_an_unknown_campaign(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError, match="sweep must be the id or name of a campaign"):
        read_status("nothing")
    assert entry.main(["--sweep", "nothing"]) == 2
    assert "got 'nothing'; the latest are: none" in capsys.readouterr().err


def test_looking_creates_nothing(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OptionError, match="the latest are: none"):
        read_status(None)
    assert MlflowClient().get_experiment_by_name(names.EXPERIMENT) is None
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'another.db'}")
    assert entry.main([]) == 2
    assert "MLFLOW_TRACKING_URI must be a store that exists" in capsys.readouterr().err
    assert not (tmp_path / "another.db").exists()
