import mlflow
import pytest
from PIL import Image

from entrypoints import sweep
from entrypoints.train import main
from green_screen import names, space

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
    assert repr(after.to_dictionary()) == repr(before.to_dictionary())  # NaN is not itself


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes, a class by a link, and what is no image."""
    for name, value in (("cat", 0), ("dog", 90), ("../elsewhere", 180)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (8, 8), (value, 10 * i, 0)).save(
                tmp_path / "pictures" / name / f"{i}.png"
            )
    (tmp_path / "pictures" / "fox").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pictures" / "dog" / "notes.txt").write_text("brown")
    return tmp_path / "pictures"


def test_what_of_the_data_is_left_out_is_printed_and_logged(store, pictures, capsys):
    arguments = ["--dataset", str(pictures), "--model", "resnet8", "--image_size", "8"]
    assert main([*arguments, "--batch_size", "4", "--optimizer", "SGD", "--epochs", "1"]) == 0
    left_out = f"left out of {str(pictures)!r}: 1 .txt"
    assert left_out in capsys.readouterr().out.splitlines()
    (run,) = runs()
    assert run.data.tags[names.TAG_DATASET_LEFT_OUT] == left_out
    assert run.data.metrics[names.N_TRAIN_IMAGES] == 12  # of 24 images, 60 %, in whole batches
    assert run.data.metrics[names.CHANCE_ACCURACY] == 0.4  # 5 are validated, 2 at most of a class
    assert run.data.tags[names.TAG_EXECUTION_SETTINGS]


def small_sweep(arguments):
    """Ask for a campaign of small batches."""
    return sweep.main(["--design", "grid", "--grid_factors", "lr", *arguments])


@pytest.mark.parametrize("entry_point", [main, small_sweep])
def test_a_broken_image_is_named_before_anything_starts(store, pictures, capsys, entry_point):
    (pictures / "cat" / "3.png").write_bytes(b"broken")
    assert entry_point(["--dataset", str(pictures), "--image_size", "8"]) == 2
    assert "1 of 24 images" in capsys.readouterr().err
    assert not mlflow.search_runs(search_all_experiments=True, output_format="list")


@pytest.mark.parametrize("entry_point", [main, small_sweep])
def test_a_class_too_small_is_named_before_anything_starts(store, pictures, capsys, entry_point):
    for i in range(6):
        (pictures / "cat" / f"{i}.png").unlink()
    assert entry_point(["--dataset", str(pictures), "--image_size", "8"]) == 2
    assert "class 0 of the data set has 2" in capsys.readouterr().err


def test_a_published_configuration_that_its_user_broke_is_refused(store, monkeypatch, capsys):
    (store / "config.yaml").write_text("factors: {lr: [0.1], lr: [0.2]}")
    monkeypatch.setattr(space, "DEFAULT_CONFIG", store / "config.yaml")
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "lr is given twice" in capsys.readouterr().err
