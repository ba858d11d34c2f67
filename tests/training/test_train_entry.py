import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from entrypoints.train import main
from green_screen import names

TINY = ["--dataset", "synthetic", "--model", "resnet8", "--image_size", "8", "--samples", "60"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    yield tmp_path
    mlflow.set_tracking_uri(before)


def runs():
    return mlflow.search_runs(experiment_names=[names.EXPERIMENT], output_format="list")


def test_a_training_is_one_finished_run(store, capsys):
    levels = ["--batch_size", "32", "--optimizer", "SGD", "--lr", "1.5e-4"]
    assert main([*TINY, *levels, "--epochs", "2"]) == 0
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags[names.TAG_KIND] == names.KIND_TRAIN
    assert run.data.params["lr"] == "0.00015"
    assert run.info.run_id in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lr", "0.5"], "lr=0.5 is not a level"),
        (["--dataset", "nowhere"], "digits"),
        (["--model", "resnet51"], "resnet50, resnet8, convnext_tiny"),
        (["--model", "convnext_tiny", "--internal", "pre_quantization"], "resnet50 or resnet8"),
        (["--country", "XXX"], "a three-letter code that CodeCarbon knows"),
        (["--samples", "60", "--batch_size", "128"], "number of training images, 36, but got 128"),
    ],
)
def test_a_bad_request_ends_with_status_2_and_starts_no_run(store, capsys, arguments, said):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
    assert not (store / "mlflow.db").exists()


def test_a_run_left_over_from_another_training_is_not_written_into(store, capsys, monkeypatch):
    levels = ["--batch_size", "32", "--optimizer", "SGD", "--epochs", "1"]
    assert main([*TINY, *levels]) == 0
    (before,) = runs()
    monkeypatch.setenv("MLFLOW_RUN_ID", before.info.run_id)
    assert main([*TINY, *levels, "--lr", "0.0008"]) == 2
    assert "must be a run that is under way (this one is FINISHED: unset it)" in (
        capsys.readouterr().err
    )
    (after,) = runs()
    assert after.to_dictionary() == before.to_dictionary()


def test_help_needs_no_tensorflow():
    code = (
        "import sys, contextlib\n"
        "from entrypoints.train import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
