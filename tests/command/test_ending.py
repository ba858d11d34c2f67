"""Every command ends in one way: a status, and a line where it did not do its work."""

from __future__ import annotations

import signal
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from green_screen import tracking
from green_screen.command.ending import ended
from green_screen.options import OptionError
from green_screen.space import SpaceError


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OptionError("lr must be"), 2, "lr must be"),
        (SpaceError("no such level"), 2, "no such level"),
        (LookupError("none finished"), 1, "none finished"),
        (MlflowException("it has been deleted"), 1, "it has been deleted"),
        (tracking.StoreUnavailableError("away"), 1, "away"),
        (tracking.RefusedError("refused"), 1, "refused"),
        (tracking.Interrupted(signal.SIGTERM), 143, "ended by SIGTERM; try again"),
        (KeyboardInterrupt(), 130, "ended by SIGINT while no run was under way"),
    ],
)
def test_an_end_that_is_explained(
    error: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        raise error

    assert ended("work", run, LookupError, deliver=False, advice="; try again") == status
    assert capsys.readouterr().err == f"work: {said}\n"


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    def run() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ended("work", run, deliver=False)


def test_what_was_left_behind_is_delivered_before_the_work(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREEN_SCREEN_SPOOL", str(tmp_path / "spool"))
    run_id = mlflow.MlflowClient().create_run(tracking.ensure_experiment()).info.run_id
    left = tmp_path / "spool" / run_id
    left.mkdir(parents=True)
    (left / "records.jsonl").write_text(
        f'{{"op": "store", "uri": "{store}"}}\n{{"op": "tags", "tags": {{"left": "behind"}}}}\n'
    )

    def run() -> int:
        return int(tracking.read_run(run_id).data.tags["left"] != "behind")

    assert ended("work", run) == 0
