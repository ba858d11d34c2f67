"""The experiment's commands are the same by ``green-screen`` and by MLproject's entry points."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from green_screen.command.experiment import COMMANDS
from green_screen.command.extras import MODULES
from green_screen.command.main import main

ROOT = Path(__file__).parents[2]
End = tuple[int, str, str]


def by_green_screen(name: str, *words: str) -> End:
    ended = CliRunner().invoke(main, [name, *words], prog_name="green-screen")
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, ended.stdout, ended.stderr


@pytest.fixture
def by_entry_point(capsys: pytest.CaptureFixture[str]) -> Callable[..., End]:
    def call(name: str, *words: str) -> End:
        entry = importlib.import_module(f"entrypoints.{COMMANDS[name].module or name}")
        try:
            status = entry.main(list(words))
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    return call


def last_line(text: str) -> str:
    """What was said, without the name by which the program was called."""
    return re.sub(r"^\S+( \S+)?: error: ", "", text.splitlines()[-1])


REFUSED = [
    ("train", ["--epochs", "0"], 2, "epochs must be at least 1, but got 0"),
    ("train", ["--lr", "0.5"], 2, "train: lr=0.5 is not a level"),
    ("sweep", ["--design", "grid"], 2, "grid_factors must be given with design=grid"),
    ("status", ["--sweep", "none"], 2, "status: "),
    ("status", ["--executor", "ray"], 2, "unrecognized arguments: --executor ray"),
    ("analyze", ["--sweep", "none"], 1, "analyze: "),
    ("promote", ["--name", "none"], 1, "promote: "),
    ("predict", ["--model_uri", "models:/none/1"], 1, "predict: "),
    ("import", ["--folder", "nowhere"], 2, "folder must be an existing folder, but got 'nowhere'"),
    ("import", ["--folder", "."], 1, "import: "),
]


@pytest.mark.parametrize(("name", "words", "status", "said"), REFUSED)
def test_a_refusal_is_the_same_both_ways(
    name: str,
    words: list[str],
    status: int,
    said: str,
    store: str,
    by_entry_point: Callable[..., End],
) -> None:
    one, other = by_green_screen(name, *words), by_entry_point(name, *words)
    assert one[:2] == other[:2] == (status, "")
    assert last_line(one[2]) == last_line(other[2])
    assert last_line(one[2]).startswith(said)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_the_same_options_both_ways(
    name: str, by_entry_point: Callable[..., End]
) -> None:
    (status, one, _), (_, other, _) = by_green_screen(name, "--help"), by_entry_point(name, "-h")
    assert status == 0 and one.startswith(f"usage: green-screen {name} ")
    assert one.split("\n\n", 1)[1] == other.split("\n\n", 1)[1]
    assert COMMANDS[name].text in one
    assert COMMANDS[name].text in CliRunner().invoke(main, ["--help"]).output


def test_help_and_the_meter_import_nothing_of_the_experiment() -> None:
    code = (
        "import contextlib, sys\n"
        "from green_screen.command.main import main\n"
        f"for words in ('measure', 'true'), *[(name, '--help') for name in {[*COMMANDS]}]:\n"
        "    with contextlib.suppress(SystemExit): main(words)\n"
        "sys.exit(' '.join({'mlflow', 'scipy', 'tensorflow'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_extra_is_named_in_a_sentence(
    name: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = COMMANDS[name].extra
    lacking = MODULES[extra][-1]
    monkeypatch.setitem(sys.modules, lacking, None)
    words = ["--folder", str(tmp_path)] if name == "import" else []
    status, out, err = by_green_screen(name, *words)
    assert (status, out) == (1, "")
    assert err.startswith(f"{name} needs {lacking}, which is not installed: pip install ")
    assert err.count("\n") == 1 and f'"green-screen[{extra}]"' in err


def test_final_runs_are_refused_where_nothing_can_be_trained(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    status, _, err = by_green_screen("analyze")
    assert status == 2 and "final_repeats must be 0 where nothing can be trained, but got 5" in err
    without = by_green_screen("analyze", "--final_repeats", "0")
    assert without[0] == 1 and "no campaign was found" in without[2]
