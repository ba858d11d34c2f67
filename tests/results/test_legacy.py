import math

import mlflow
import pytest
from legacy_runs import write_run, write_study

from entrypoints import import_runs as entry_point
from entrypoints import status
from green_screen import names
from green_screen.decision.selection import select
from green_screen.options import ImportOptions
from green_screen.results.importing import import_runs
from green_screen.results.legacy import read_folder, read_run
from green_screen.results.legacy_log import LegacyError
from green_screen.results.runs import read_epochs, read_runs
from green_screen.statistics.regression import fit_energy_model


def test_energy_is_the_trapezoid_of_power_over_time(tmp_path):
    run = read_run(write_run(tmp_path / "001"))
    # 10 s each: (100 + 200) / 2, (200 + 300) / 2, 300 and (300 + 120) / 2 watts.
    assert run.epochs[names.EPOCH_ENERGY_J].tolist() == [1500.0, 2500.0, 3000.0]
    assert run.metrics[names.ENERGY_TOTAL_J] == 1500 + 2500 + 3000 + 2100
    assert run.metrics[names.ENERGY_PER_EPOCH_J] == 2750.0
    assert run.metrics[names.WARMUP_ENERGY_J] == 1500 - 2750
    assert run.metrics[names.DURATION_S] == 40.0
    # The row `pre` is the machine waiting.
    assert run.metrics[names.IDLE_POWER_W] == 100.0
    assert run.metrics[names.START_TEMPERATURE_C] == 40.0
    assert run.metrics[names.ENERGY_PER_EPOCH_NET_J] == 2750.0 - 100 * 10
    assert run.metrics[names.TEST_ACCURACY] == 0.5
    assert math.isnan(run.metrics[names.ENERGY_PER_1K_IMAGES_J])
    assert math.isnan(run.metrics[names.SETUP_ENERGY_J])
    assert run.seed == 22 and run.model == "ResNet50" and not run.diverged


def test_dates_stray_spaces_and_numbers_off_the_levels_are_accepted(tmp_path):
    folder = write_run(tmp_path / "001", batch_size=48, seconds=[0, 30, 60, 90, 120])
    text = (folder / "parameters.yaml").read_text()
    text = text.replace("lr:", "'lr ':").replace("optimizer:", "' optimizer':")
    (folder / "parameters.yaml").write_text(text.replace("RMSProp", "'RMSProp '"))
    log = (folder / "logs.csv").read_text().replace("gpu_power_W", " gpu_power_W ")
    for second in (0, 30, 60, 90, 120):
        moment = f"2023-05-01 12:0{second // 60}:{second % 60:02}"
        log = log.replace(f",{second},", f",{moment},", 1)
    (folder / "logs.csv").write_text(log)
    run = read_run(folder)
    assert run.config.batch_size == 48 and run.config.optimizer == "RMSProp"
    assert run.metrics[names.DURATION_S] == 120.0
    assert run.epochs[names.EPOCH_ENERGY_J].tolist() == [4500.0, 7500.0, 9000.0]


def test_one_epoch_has_no_steady_state(tmp_path):
    run = read_run(write_run(tmp_path / "001", power=(100, 200, 120)))
    assert math.isnan(run.metrics[names.ENERGY_PER_EPOCH_J])
    assert run.metrics[names.ENERGY_TOTAL_J] == 1500 + 1600


def break_file(folder, file, old, new):
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "logs.csv").unlink(), "logs.csv is missing"),
        (lambda f: (f / "parameters.yaml").unlink(), "parameters.yaml is missing"),
        (lambda f: (f / "parameters.yaml").write_text("a list"), "must hold a mapping"),
        (lambda f: (f / "parameters.yaml").write_text("a: [1"), "while parsing"),
        (lambda f: break_file(f, "parameters.yaml", "lr:", "rate:"), "lacks the factors lr"),
        (
            lambda f: break_file(f, "parameters.yaml", "RMSProp", "LAMB"),
            "optimizer: unknown level 'LAMB'",
        ),
        (lambda f: break_file(f, "parameters.yaml", "batch_size: 4", "batch_size: many"), "many"),
        (lambda f: break_file(f, "logs.csv", "gpu_power_W", "watts"), "lacks the columns"),
        (lambda f: break_file(f, "logs.csv", "post", "9"), "a row pre, one row an epoch"),
        (lambda f: break_file(f, "logs.csv", "\n1,", "\n5,"), "epochs must count up"),
        (
            lambda f: break_file(f, "logs.csv", ",300,", ",,"),
            "line 4: gpu_power_W must be a number, but is ''",
        ),
        (lambda f: break_file(f, "logs.csv", ",20.0,", ",5.0,"), "time must increase"),
        (lambda f: (f / "logs.csv").write_text(""), "logs.csv is empty"),
    ],
)
def test_a_broken_folder_is_skipped_with_its_reason(tmp_path, damage, reason):
    write_run(tmp_path / "001")
    damage(write_run(tmp_path / "002"))
    write_run(tmp_path / "003")
    found = read_folder(tmp_path)
    assert [run.folder for run in found.runs] == ["001", "003"]
    assert list(found.skipped) == ["002"] and reason in found.skipped["002"]


def write_times(folder, times, **settings):
    """Write a run whose times are these texts."""
    write_run(folder, power=(100, 200, 300, 120)[: len(times)], **settings)
    path = folder / "logs.csv"
    lines = path.read_text().splitlines()
    for row, time in enumerate(times, start=1):
        mark, _, rest = lines[row].split(",", 2)
        lines[row] = f'{mark},"{time}",{rest}'
    path.write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(
    "times",
    [
        ("0", "10", "20.0", "3e1"),
        ("1700000000.25", "1700000010.25", "1700000020.25", "1700000030.25"),
        (
            "2026-04-11 23:59:50",
            "2026-04-12 00:00:00",
            "2026-04-12T00:00:10",
            "2026-04-12T00:00:20",
        ),
        (
            "2026-04-11T23:59:50.5Z",
            "2026-04-12T00:00:00.500+00:00",
            "2026-04-12T02:00:10,5+02:00",
            "2026-04-11T17:00:20.500000-0700",
        ),
    ],
)
def test_times_are_seconds_or_iso_8601(tmp_path, times):
    run = read_run(write_times(tmp_path / "001", times))
    assert run.epochs[names.EPOCH_TIME_S].tolist() == [10.0, 10.0]
    assert run.metrics[names.DURATION_S] == 30.0
    assert run.metrics[names.ENERGY_TOTAL_J] == 1500 + 2500 + 2100


@pytest.mark.parametrize(
    ("times", "line", "reason"),
    [
        # Ten seconds apart, or 29 days.
        (("11/04/2026 23:59:50", "12/04/2026 00:00:10", "12/04/2026 00:00:20"), 2, "in seconds"),
        (("2026-04-11 23:59:50", "12/04/2026 00:00:00", "12/04/2026 00:00:10"), 3, "is not ISO"),
        (("11.04.2026 23:59", "11.04.2026 23:60", "12.04.2026 00:00"), 2, "in seconds"),
        (("2026-04-11", "2026-04-12", "2026-04-13"), 2, "in seconds"),
        (("20260411T235950", "20260412T000000", "20260412T000010"), 2, "in seconds"),
        (("20260411235950", "20260412000000", "20260412000010"), 2, "too large for seconds"),
        (("1700000000000", "1700000010000", "1700000020000"), 2, "too large for seconds"),
        (("0", "10", "2026-04-12 00:00:10"), 4, "is not in seconds"),
        (("2026-04-11 23:59:50", "10", "20"), 3, "is not ISO 8601"),
        (("2026-04-11 23:59:50", "2026-04-12 00:00:00Z", "2026-04-12 00:00:10Z"), 3, "offset"),
        (("2026-04-11 23:59:50", "2026-04-12 24:00:00", "2026-04-13 00:00:10"), 3, "no date"),
        (("2026-02-29 23:59:50", "2026-03-01 00:00:00", "2026-03-01 00:00:10"), 2, "no date"),
        (("0", "1_0", "20"), 3, "in seconds"),
        (("0", "", "20"), 3, "in seconds"),
        (("0", "inf", "20"), 3, "in seconds"),
        (("0:00", "0:10", "0:20"), 2, "in seconds"),
        (("0", "10", "10"), 4, "must increase"),
        (
            ("2026-04-11T23:59:50+02:00", "2026-04-11T22:00:00Z", "2026-04-11T21:59:59Z"),
            4,
            "increase",
        ),
    ],
)
def test_a_time_of_another_form_is_refused_with_its_row(tmp_path, times, line, reason):
    write_times(tmp_path / "001", times)
    (why,) = read_folder(tmp_path).skipped.values()
    assert why.startswith(f"logs.csv, line {line}: time ") and reason in why


@pytest.mark.parametrize("power", ["-5", "0", "250000", "2000.5", "nan", "inf", "300 W", "1_00"])
def test_a_power_that_cannot_be_is_refused_with_its_row(tmp_path, power):
    break_file(write_run(tmp_path / "001"), "logs.csv", ",300,", f",{power},")
    (why,) = read_folder(tmp_path).skipped.values()
    assert why.startswith("logs.csv, line 4: gpu_power_W must be ") and power in why


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        # Counted as a training that diverged, or left out without a word.
        ("logs.csv", "\n1,20.0,0.6666666666666666,", "\n1,20.0,,", "line 4: loss is missing"),
        ("logs.csv", "\n1,20.0,0.6666666666666666,", "\n1,20.0,0.67?,", "line 4: loss must be"),
        ("logs.csv", ",0.5,", ",50.0,", "line 3: accuracy must be a fraction"),
        ("logs.csv", ",40,0\n", ",40,0,9\n", "line 2: 10 cells under 9 columns"),
        ("logs.csv", "val_loss", "loss", "lacks the columns val_loss"),
        ("logs.csv", "gpu_temp_C", "gpu_power_W", "the column gpu_power_W twice"),
        ("parameters.yaml", "test_accuracy: 0.5", "test_accuracy: 51", "must be a fraction"),
        ("parameters.yaml", "test_accuracy: 0.5", "test_accuracy: 51 %", "must be a number"),
        ("parameters.yaml", "seed: 22", "seed: 022", "line 13: '022' is a YAML int"),
        ("parameters.yaml", "seed: 22", "seed: 22.5", "'22.5' is no decimal integer"),
        ("parameters.yaml", "seed: 22", "seed: 22\nlr: 0.01", "lr is given twice"),
        ("parameters.yaml", "batch_size: 4", "batch_size: 48.5", "positive integer, but got 48.5"),
        ("parameters.yaml", "batch_size: 4", "batch_size: 0x10", "'0x10' is a YAML int"),
        ("parameters.yaml", "lr: 0.01", "lr: -0.01", "lr must be a positive number"),
        ("parameters.yaml", "60-20-20", "60/20/20", "partitioning must be three"),
    ],
)
def test_a_value_that_cannot_be_is_refused(tmp_path, file, old, new, reason):
    break_file(write_run(tmp_path / "001"), file, old, new)
    assert reason in read_folder(tmp_path).skipped["001"]


@pytest.mark.parametrize("file", ["logs.csv", "parameters.yaml"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "cp037"])
def test_files_of_other_encodings_are_refused(tmp_path, file, encoding):
    path = write_run(tmp_path / "001") / file
    path.write_bytes(path.read_text().encode(encoding))
    assert read_folder(tmp_path).skipped["001"].startswith(file)


def test_files_of_windows_are_read(tmp_path):
    folder = write_run(tmp_path / "001")
    before = read_run(folder)
    for file in ("logs.csv", "parameters.yaml"):
        text = (folder / file).read_text().replace("\n", "\r\n")
        (folder / file).write_bytes(text.encode("utf-8-sig"))
    assert read_run(folder).metrics == pytest.approx(before.metrics, nan_ok=True)


def test_what_a_board_did_not_tell_is_missing(tmp_path):
    folder = write_run(tmp_path / "001")
    break_file(folder, "logs.csv", ",42,2\n", ",[Not Supported],\n")
    temperatures = read_run(folder).epochs[names.GPU_TEMPERATURE_C].tolist()
    assert temperatures[0] == 41 and math.isnan(temperatures[1])


@pytest.fixture
def store(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return store


def test_an_imported_campaign_is_analysed_unchanged(tmp_path, store):
    source = write_study(tmp_path / "study", epochs={7: 100}, changed={9: {"batch_size": 48}})
    (source / "notes").mkdir()

    imported = import_runs(
        ImportOptions(folder=str(source), name="the study", machine="A100", dataset="cifar100")
    )
    assert imported.n_runs == 64 and "notes" in imported.skipped
    runs = read_runs(sweep="the study")
    assert set(runs["campaign"]) == {imported.run_id}
    assert len(runs) == 64
    assert (runs["energy_source"] == names.SOURCE_SAMPLED).all()
    assert (runs["machine"] == "A100").all() and (runs["dataset"] == "cifar100").all()
    assert (runs["status"] == "FINISHED").all()
    assert runs["kind"].value_counts()[names.KIND_BASELINE] == 4
    assert runs.loc[7, "epochs"] == 100 and runs.loc[9, "effective_batch_size"] == "48"
    adam = runs["effective_optimizer"].isin(["Adam", "AdamW"])
    assert (runs.loc[adam, "effective_optimizer_momentum"] == "None").all()
    assert (runs.loc[adam, "requested_optimizer_momentum"] != "None").any()

    analysis = fit_energy_model(runs, permutations=0, cv_repeats=0, trees=0)
    assert "batch_size" in analysis.findings
    assert len(analysis.runs) == 64
    assert select(runs, "efficiency").run_id in set(runs["run_id"])
    epochs = read_epochs([runs.loc[7, "run_id"]])
    assert len(epochs) == 100
    tags = mlflow.MlflowClient().get_run(runs.loc[0, "run_id"]).data.tags
    assert "training images" in tags[names.MISSING_PREFIX + names.ENERGY_PER_1K_IMAGES_J]
    # Whether a measurement is valid was not recorded: said, not assumed, and no reason to leave it.
    assert (runs["measurement_valid"] == "").all()
    assert "disturbed the measurement" in tags[names.MISSING_PREFIX + names.TAG_MEASUREMENT_VALID]


def test_a_diverged_run_is_kept_and_tagged(tmp_path, store):
    write_run(tmp_path / "study" / "001")
    break_file(
        tmp_path / "study" / "001", "logs.csv", "\n1,20.0,0.6666666666666666", "\n1,20.0,nan"
    )
    import_runs(ImportOptions(folder=str(tmp_path / "study")))
    runs = read_runs(sweep="study")
    assert list(runs["diverged"]) == [True]


def test_nothing_to_import_is_an_error_and_leaves_no_run(tmp_path, store, capsys):
    (tmp_path / "empty" / "001").mkdir(parents=True)
    with pytest.raises(LegacyError, match="holds no complete run .001: parameters.yaml is missing"):
        import_runs(ImportOptions(folder=str(tmp_path / "empty")))
    assert entry_point.main(["--folder", str(tmp_path / "empty")]) == 1
    assert "no complete run" in capsys.readouterr().err
    assert mlflow.search_runs(search_all_experiments=True).empty
    with pytest.raises(SystemExit):
        entry_point.main(["--folder", str(tmp_path / "absent")])
    assert "folder must be an existing folder" in capsys.readouterr().err


def test_the_entry_point_says_what_it_did(tmp_path, store, capsys):
    write_run(tmp_path / "study" / "001")
    (tmp_path / "study" / "002").mkdir()
    assert entry_point.main(["--folder", str(tmp_path / "study")]) == 0
    printed = capsys.readouterr()
    assert "1 runs imported, 1 skipped" in printed.out
    assert "skipped 002: parameters.yaml is missing" in printed.err
    assert read_runs(sweep="study")["campaign"].iloc[0] in printed.out
    assert status.main([]) == 0
    assert "1 of 1 runs finished" in capsys.readouterr().out
