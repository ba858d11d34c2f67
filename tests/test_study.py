"""The study's publication follows from its stores, and its answers from a known law are true."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path

import mlflow
import nbformat
import numpy as np
import pandas as pd
import pytest
from law_campaign import LAW, LawCampaign

from green_screen import names
from green_screen.registry.energy_service import energy_models, write_models
from green_screen.results.frame import EFFECTIVE
from green_screen.space import Space
from green_screen.statistics.law_effects import rows_at

STUDY = Path(__file__).parents[1] / "studies" / "h100-resnet50"
sys.path.insert(0, str(STUDY))

import answers  # noqa: E402
import documents  # noqa: E402
import evidence  # noqa: E402
import publish  # noqa: E402
import reading  # noqa: E402
import telling  # noqa: E402

XLA, QAT = {"internal": answers.XLA}, {"internal": answers.QAT}
FULL, MIXED = {"precision": "float32"}, {"precision": "global_policy_float16"}
CONTRASTS = {
    "Does mixed precision save energy without XLA?": (MIXED, FULL),
    "Does mixed precision save energy with XLA?": (MIXED | XLA, FULL | XLA),
    "What does XLA save in float32?": (FULL | XLA, FULL),
    "What does XLA save in mixed precision?": (MIXED | XLA, MIXED),
    "What does quantization-aware training cost?": (QAT, {}),
}
BATCHES = ("4", "32", "64", "128")


def simulated(campaign: LawCampaign, **changes: object) -> reading.Block:
    runs = campaign.frame()
    windows = {
        names.STEADY_WINDOW_S: 6.0,
        names.WINDOW_RESOLUTION_PERCENT: 1.6,
        names.WINDOW_ERROR_PERCENT: 0.5,
        reading.STEADY_POWER_W: 300.0,
    }
    block = reading.Block(name="pixels-224", planned=len(runs), runs=runs.assign(**windows))
    return dataclasses.replace(block, **changes)


def truth(campaign: LawCampaign, *configs: dict[str, str]) -> np.ndarray:
    """Return the true joules of an image at levels that differ from the baseline's."""
    baseline = Space.load().baseline.as_params()
    task = {"model": "", "dataset": "", "image_size": 224.0, "machine": "Simulated GPU"}
    return campaign.per_image(rows_at(task, [{**baseline, **config} for config in configs]))


@pytest.fixture(scope="module")
def campaign() -> LawCampaign:
    return LawCampaign(seed=1, noise=0.02)


@pytest.fixture(scope="module")
def block(campaign: LawCampaign) -> reading.Block:
    return simulated(campaign)


@pytest.fixture(scope="module")
def found(block: reading.Block) -> dict[str, answers.Answer]:
    return answers.answers("pixels-224", block)


@pytest.fixture(scope="module")
def blocks() -> dict[str, reading.Block | None]:
    """What the stores hold, analysed once."""
    return reading.read_blocks(STUDY)


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, blocks: dict[str, reading.Block | None]
) -> Path:
    """A copy of the study without what is written by it, published anew."""
    copy = tmp_path_factory.mktemp("study") / "copy"
    written = shutil.ignore_patterns("figures", "RESULTS.md", "runs.csv", "goals.csv", "__py*")
    shutil.copytree(STUDY, copy, ignore=written)
    publish.write(copy, blocks)
    return copy


def test_the_committed_files_are_what_the_stores_say(
    blocks: dict[str, reading.Block | None],
) -> None:
    assert publish.check(STUDY, blocks) == []


def test_a_changed_number_is_told_and_rounding_is_not(
    folder: Path,
    blocks: dict[str, reading.Block | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(publish, "read_blocks", lambda _: blocks)
    monkeypatch.setattr(publish, "check_documents", lambda _: [])
    table = folder / "tables" / "goals.csv"
    made = table.read_text("utf-8")
    goals = pd.read_csv(table)
    place = int(np.flatnonzero(goals["unit"] == "R2")[0])
    r2 = goals["value"][place]
    rounded, changed = (made.replace(f"{r2:.6g}", f"{r2 * of:.7g}", 1) for of in (1.00001, 1.01))
    assert rounded != made
    assert not list(publish.differences("tables/goals.csv", rounded, made))
    try:
        table.write_text(changed, "utf-8")
        assert publish.main(["--check"], folder) == 1
    finally:
        table.write_text(made, "utf-8")
    told = f"tables/goals.csv, line {place + 2}: committed '{r2 * 1.01:.7g}', from the stores"
    assert capsys.readouterr().err.startswith(told)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documents of the stores alone, made anew; what a notebook is executed with in its place.

    A kernel takes longer to start than the analysis: tests/analysis/test_notebooks.py has them.
    """
    copy = tmp_path_factory.mktemp("documents")
    for archive in STUDY.glob("pixels-*.tar.xz"):
        shutil.copy(archive, copy)

    def execute(notebook: Path, workdir: Path, output: Path, about: dict[str, str]) -> None:
        ours = {key: of for key, of in os.environ.items() if key.startswith(documents.SETTINGS)}
        output.write_text(json.dumps({"workdir": str(workdir), **about, **ours}))

    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        mlflow.set_tracking_uri(theirs := f"sqlite:///{copy}/of-the-user.db")
        patch.setenv("MLFLOW_RUN_ID", "of the user")
        patch.setenv("GREEN_SCREEN_SWEEP", "of the user")
        patch.setattr(documents, "execute", execute)
        try:
            documents.write_documents(copy)
            assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == theirs
        finally:
            mlflow.set_tracking_uri(before)
    return copy


def test_documents_are_made_in_copies_of_the_stores_alone(reported: Path) -> None:
    archives = sorted(STUDY.glob("pixels-*.tar.xz"))
    assert sorted(path.name for path in reported.iterdir()) == sorted(
        [*(archive.name for archive in archives), "reports"]
    )
    for archive in archives:
        assert (reported / archive.name).read_bytes() == archive.read_bytes()
        into = reported / "reports" / reading.store_name(archive)
        assert len(list(into.iterdir())) == 2 + len(documents.NOTEBOOKS)
        for notebook in documents.NOTEBOOKS:
            told = json.loads((into / notebook.name).read_text())
            assert "of the user" not in told.values() and "MLFLOW_RUN_ID" not in told
            assert told["MLFLOW_TRACKING_URI"] == f"sqlite:///{told['workdir']}/mlflow.db"
            assert told["GREEN_SCREEN_SPOOL"].startswith(told["workdir"])
            assert told["store"].startswith(archive.name)
            assert not Path(told["workdir"]).exists()


def test_the_committed_documents_are_what_the_stores_say(
    reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {archive.name: reported / page for page, archive in documents.pages(STUDY)}
    monkeypatch.setattr(publish, "made_html", lambda archive: made[archive.name].read_text())
    assert publish.check_documents(STUDY) == []
    # Each file that is changed or lacking is told.
    shutil.copytree(STUDY, tmp_path / "copy")
    into = tmp_path / "copy" / "reports" / "pixels-32"
    page = (into / "report.html").read_text("utf-8")
    joules = re.findall(r"<td class=\"n\">(\d\.\d+) \(", page)[0]
    changed = page.replace(f">{joules} (", f">{float(joules) + 1:.3f} (", 1)
    (into / "report.html").write_text(changed, "utf-8")
    pdf = (into / "report.pdf").read_bytes()
    (into / "report.pdf").write_bytes(pdf.replace(b"SHA-256", b"SHA-255"))
    first, second = (into / notebook.name for notebook in documents.NOTEBOOKS)
    source = nbformat.read(second, as_version=4)
    source.cells[0].source += " More."
    nbformat.write(source, second)
    first.unlink()
    found = publish.check_documents(tmp_path / "copy")
    assert [line.partition(" ")[0] for line in found] == [
        "reports/pixels-32/report.pdf",
        f"reports/pixels-32/{first.name}",
        f"reports/pixels-32/{second.name}",
        "reports/pixels-32/report.html,",
    ]
    assert f'class="n">{float(joules) + 1:.3f} (' in found[-1]


def test_the_executed_notebook_shows_the_model_that_describes_the_block(
    blocks: dict[str, reading.Block | None],
) -> None:
    for name, block in blocks.items():
        if block is None:
            continue
        notebook = STUDY / "reports" / name / documents.NOTEBOOKS[1].name
        text, model = notebook.read_text("utf-8"), block.law.choice.model
        assert f"described by: {model or 'neither model'}, " in text
        assert ("Training energy per image against batch size" in text) is (model == "law")
        assert ("Effect of each level on the energy per epoch" in text) is (model != "law")


def test_documents_are_small_and_tell_nothing_of_the_machine() -> None:
    found = [path for path in (STUDY / "reports").rglob("*") if path.is_file()]
    assert len(found) == 4 * len(list(STUDY.glob("pixels-*.tar.xz")))
    for path in found:
        assert path.stat().st_size < 2_000_000
        text = documents.without_images(path.read_bytes().decode("utf-8", "ignore"))
        if path.suffix == ".ipynb":
            text = re.sub(r'"image/png": "[^"]*"', "", text)
        for ours in (str(Path.home()), str(Path.cwd()), tempfile.gettempdir() + "/", "0x7f"):
            assert path.suffix == ".pdf" or ours not in text, (path, ours)


def test_counts_and_words_are_compared_exactly() -> None:
    for old, new in (("39 of 111 runs", "40 of 111 runs"), ("met so far", "not met so far")):
        assert list(publish.differences("RESULTS.md", old, new))
    assert list(publish.differences("RESULTS.md", "a line", "a line\nand another"))
    assert not list(publish.differences("RESULTS.md", "+2.9 % (1,694)", "+3.0 % (1,695)"))


def test_every_run_of_the_store_has_its_row(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(folder / "pixels-32.tar.xz") as packed:
        packed.extract("pixels-32/mlflow.db", tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "pixels-32" / "mlflow.db") as store:
        stored = dict(
            store.execute(
                "select t.run_uuid, r.status from tags t join runs r on r.run_uuid = t.run_uuid "
                "where t.key = 'green_screen.kind' and t.value in ('run', 'baseline')"
            )
        )
        joules = dict(
            store.execute(
                "select run_uuid, value from latest_metrics where key = 'energy_per_1k_images_j'"
            )
        )
        n_blocks = store.execute(
            "select count(*) from metrics where key in ('block_s', 'validation_block_s')"
        ).fetchone()[0]
    runs = pd.read_csv(folder / "tables" / "runs.csv").set_index("run_id")
    runs = runs[runs["block"] == "pixels-32"]
    assert runs["status"].to_dict() == stored
    measured = runs["energy_per_1k_images_j"].dropna()
    assert measured.to_dict() == pytest.approx(joules, rel=1e-5)
    # What did not finish is listed with its cause, and left out.
    others = runs[runs["status"] != "FINISHED"]
    assert others["failure"].notna().all()
    assert others["left_out"].str.startswith("did not finish").all()
    blocks = pd.read_csv(folder / "tables" / "blocks.csv")
    assert (blocks["block"] == "pixels-32").sum() == n_blocks


def test_the_dictionary_and_the_tables_agree(folder: Path) -> None:
    dictionary = reading.read_dictionary(folder)
    assert (dictionary[["meaning", "missing"]] != "").all().all()
    for path in (folder / "tables").glob("*.csv"):
        entries = dictionary.loc[dictionary["table"] == path.stem, "column"]
        assert list(pd.read_csv(path, nrows=0)) == list(entries)


def test_a_column_or_a_metric_without_an_entry_is_refused(
    tmp_path: Path, blocks: dict[str, reading.Block | None]
) -> None:
    dictionary = reading.read_dictionary(STUDY)
    (tmp_path / "tables").mkdir()
    for gone, message in (("ci_low", "ci_low"), ("warmup_s", "metric warmup_s")):
        kept = dictionary[dictionary["column"] != gone]
        kept.to_csv(tmp_path / "tables" / "data_dictionary.csv", index=False)
        with pytest.raises(reading.DictionaryError, match=message):
            publish.tables(tmp_path, blocks)


def test_intervals_of_contrasts_hold_the_true_ratios(
    campaign: LawCampaign, found: dict[str, answers.Answer]
) -> None:
    held = []
    for question, (over, under) in CONTRASTS.items():
        assert [figure.at for figure in found[question].figures] == [f"batch {b}" for b in BATCHES]
        for figure, batch in zip(found[question].figures, BATCHES, strict=True):
            size = {"batch_size": batch}
            one, other = truth(campaign, over | size, under | size)
            assert figure.estimate == pytest.approx(one / other, rel=0.1)
            held.append(figure.ci_low <= one / other <= figure.ci_high)
    assert np.mean(held) >= 0.9
    # As the law has it: half precision costs energy where launching decides, and saves it with XLA.
    without, with_xla = (found[question].figures for question in list(CONTRASTS)[:2])
    assert without[0].ci_low > 1 > without[-1].ci_high
    assert with_xla[-1].ci_high < without[-1].ci_low


def test_xla_is_paid_back_after_the_true_number_of_epochs(
    campaign: LawCampaign, found: dict[str, answers.Answer]
) -> None:
    # The joules of an epoch of 30,000 and 10,000 images (60-20-20), a validated one a third.
    for figure, batch in zip(
        found["When has XLA paid its compilation back?"].figures, BATCHES, strict=True
    ):
        levels = [{"batch_size": batch}, {"batch_size": batch} | XLA]
        saved = -np.diff(truth(campaign, *levels))[0] * (30_000 + 10_000 / 3)
        assert figure.ci_low <= 6_000 / saved <= figure.ci_high
        assert figure.unit == "epochs"


def test_host_and_board(campaign: LawCampaign, found: dict[str, answers.Answer]) -> None:
    plain = found["Where is the host the limit?"].figures[0]
    assert plain.ci_low <= LAW["step: a"] / LAW["image: b"] <= plain.ci_high
    for figure in found["How much power does the board draw?"].figures:
        assert figure.ci_low <= 300 <= figure.ci_high
    speeds = 300 / truth(campaign, *({"batch_size": batch} for batch in BATCHES))
    for figure, true in zip(found["How fast is it?"].figures, speeds, strict=True):
        assert figure.ci_low <= true <= figure.ci_high
    faster = found["What would a faster GPU change, at most?"].figures
    assert faster[0].estimate > 0.5 > 0.1 > faster[-1].estimate


def test_a_limit_beyond_the_batches_that_were_run_is_called_an_extension(
    found: dict[str, answers.Answer],
) -> None:
    question, said = "Where is the host the limit?", "the law is extended beyond batch 128, the "
    assert said not in str(found[question])
    slow = simulated(LawCampaign(seed=1, noise=0.02, law=LAW | {"step: a": 100 * LAW["step: a"]}))
    answer = answers.answers("pixels-224", slow)[question]
    assert min(figure.estimate for figure in answer.figures) > 128
    assert said in str(answer)


def test_the_best_configuration_is_one_that_was_run(
    block: reading.Block, campaign: LawCampaign, found: dict[str, answers.Answer]
) -> None:
    (figure,) = found[answers.BEST].figures
    levels = dict(part.split("=") for part in figure.at.split(", "))
    one, other = truth(campaign, levels, {})
    assert figure.ci_low <= one / other <= figure.ci_high
    runs = block.runs.replace({EFFECTIVE + "internal": {"post_quantization": "None"}})
    assert (runs[[EFFECTIVE + f for f in levels]] == list(levels.values())).all(axis=1).any()


@pytest.mark.parametrize("n_runs", [0, 12])
def test_too_few_runs_say_so_and_give_no_number(block: reading.Block, n_runs: int) -> None:
    few = dataclasses.replace(block, runs=block.runs.iloc[:n_runs]) if n_runs else None
    table = answers.answers_table("pixels-224", few)
    assert len(table) == len(answers.QUESTIONS)
    assert table["estimate"].isna().all()
    why = "too few for" if n_runs else "no run at 224 pixels yet"
    assert table.loc[table["question"] == answers.BEST, "answer"].str.contains(why).all()
    goals = evidence.goals_table("pixels-224", few).set_index("goal")["status"]
    assert goals["the law predicts configurations left out"] == "not yet measured"


def test_levels_that_were_never_run_together_are_named(block: reading.Block) -> None:
    half = block.runs[EFFECTIVE + "precision"] == MIXED["precision"]
    xla = block.runs[EFFECTIVE + "internal"] == answers.XLA
    found = answers.answers("pixels-224", dataclasses.replace(block, runs=block.runs[~half | ~xla]))
    lacking = found["Does mixed precision save energy with XLA?"]
    assert not lacking.figures
    assert "no run with precision=global_policy_float16, internal=jit_comp" in str(lacking)
    assert found["What does XLA save in float32?"].figures


def test_a_negative_control_that_acts_fails_its_goal_and_is_told_on_top() -> None:
    block = simulated(LawCampaign(seed=8, violated={"partitioning=90-5-5": 0.85}))
    goals = evidence.goals_table("pixels-224", block).set_index("goal")["status"]
    assert goals["no negative control is a finding"] == "not met"
    blocks = {"pixels-224": block}
    tables = {
        "goals": evidence.goals_table("pixels-224", block),
        "uncertainty": evidence.uncertainty_table("pixels-224", block),
    }
    head = telling.page(blocks, tables).partition("## ")[0]
    assert "Not to be trusted: partitioning cannot act on energy and seems to" in head


def test_goals_of_a_campaign_that_the_law_governs(block: reading.Block) -> None:
    goals = evidence.goals_table("pixels-224", block).set_index("goal")
    for goal in (
        "every planned run has finished",
        "every level was run and its measurement is valid",
        "the law predicts configurations left out",
        "no negative control is a finding",
        "there is no drift beside the boards",
    ):
        assert goals.loc[goal, "status"] == "met", goals.loc[goal]
    assert goals.loc["the law predicts new configurations", "status"] == "not yet measured"
    # A run that failed is a result, one that was cut off is not.
    for status, complete in (("FAILED", True), ("KILLED", False)):
        runs = block.runs.assign(status=["FINISHED"] * (len(block.runs) - 1) + [status])
        assert dataclasses.replace(block, runs=runs).complete is complete
    unfinished = dataclasses.replace(block, planned=len(block.runs) + 1)
    states = evidence.goals_table("pixels-224", unfinished)["status"]
    assert set(states) <= {"met so far", "not met so far", "not yet measured"}


def test_predictions_made_before_are_scored_on_new_runs(
    block: reading.Block, tmp_path: Path
) -> None:
    unfinished = dataclasses.replace(block, planned=len(block.runs) + 1)
    assert "not complete" in publish.freeze(tmp_path, "pixels-224", unfinished)
    assert publish.freeze(tmp_path, "pixels-224", block) == ""
    assert "is there" in publish.freeze(tmp_path, "pixels-224", block)
    text = (tmp_path / "energy-model-pixels-224.json").read_text("utf-8")
    assert text == write_models(energy_models(block.law, ()))
    new = LawCampaign(seed=99, n_runs=24, noise=0.02).frame("later")
    later = dataclasses.replace(block, name="new-pixels-224", runs=new)
    scored = dataclasses.replace(block, coefficients=text, new=later)
    goals = evidence.goals_table("pixels-224", scored).set_index("goal")
    assert goals.loc["the law predicts new configurations", "status"] == "met"
    assert goals.loc["its intervals hold new runs", "value"] >= 85
    worse = new.assign(**{names.ENERGY_PER_1K_IMAGES_J: 1.2 * new[names.ENERGY_PER_1K_IMAGES_J]})
    dearer = dataclasses.replace(scored, new=dataclasses.replace(later, runs=worse))
    errors, inside = evidence.prospective(dearer)
    assert np.median(errors) == pytest.approx(100 / 6, abs=3)
    assert not inside.any()


def test_the_uncertainty_budget_adds_up(block: reading.Block) -> None:
    table = evidence.uncertainty_table("pixels-224", block).set_index("component")
    one, ratio = table["one_run_percent"], table["ratio_percent"]
    assert one["board sensor"] == pytest.approx(5 / np.sqrt(3))
    assert ratio["board sensor"] == 0
    counted = table.index[table["counted"] == "yes"]
    assert set(counted) == {"board sensor", "replicates", "drift"}
    for column in (one, ratio):
        assert column["combined"] == pytest.approx(np.sqrt((column[counted] ** 2).sum()))
        assert column["expanded, k = 2"] == 2 * column["combined"]
    # Noise of 2 % is between what is known and what it was made of.
    assert 1 < one["replicates"] < 3.5
    # Without replicates what they would hold is counted by itself.
    alone = dataclasses.replace(block, runs=block.runs[block.runs["kind"] != names.KIND_BASELINE])
    table = evidence.uncertainty_table("pixels-224", alone).set_index("component")
    assert table.loc["counter resolution", "one_run_percent"] == pytest.approx(1.6 / np.sqrt(6))
    assert (table["counted"] == "yes").sum() == 5


def test_the_crate_lists_every_file_and_refers_to_nothing_unknown(folder: Path) -> None:
    content = json.loads((folder / telling.CRATE).read_text("utf-8"))
    graph = {entity["@id"]: entity for entity in content["@graph"]}
    assert len(graph) == len(content["@graph"])
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    parts = {part["@id"] for part in graph["./"]["hasPart"]}
    assert parts == {name for name in there if "__pycache__" not in name} - {telling.CRATE}

    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            inside = set().union(*map(references, value.values())) if value else set()
            return inside | ({value["@id"]} if set(value) == {"@id"} else set())
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    known = set(graph) | {"https://w3id.org/ro/crate/1.1"}
    assert references(content["@graph"]) <= known
    boards = [entity for entity in graph.values() if entity["@type"] == "IndividualProduct"]
    runs = pd.read_csv(folder / "tables" / "runs.csv")
    assert {board["serialNumber"] for board in boards} == set(runs["board"].dropna())


def test_figures_have_a_mark_for_every_used_run(block: reading.Block, folder: Path) -> None:
    drawn = {path.name for path in (folder / "figures").iterdir()}
    names_ = ("joules-per-1000-images", "law-pixels-32")
    assert drawn >= {f"{name}.{form}" for name in names_ for form in ("png", "svg")}
    (axes,) = telling._marks({"224 pixels": block.law.runs}, 7.6).axes
    marks = np.concatenate([line.get_ydata() for line in axes.lines])
    assert sorted(marks) == sorted(block.law.runs[names.ENERGY_PER_1K_IMAGES_J])
