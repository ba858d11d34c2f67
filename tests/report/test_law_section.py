"""What the report says of the energy law, and when it says that a campaign cannot be trusted."""

from __future__ import annotations

import dataclasses
import re

import pytest
from law_campaign import LawCampaign
from simulated_campaign import SimulatedCampaign
from simulated_findings import findings

from green_screen import names
from green_screen.analysis import summary
from green_screen.analysis.analyze import Analyzed
from green_screen.decision.final import RECOMMENDED, compare
from green_screen.report.accuracy import accuracy_section
from green_screen.report.document import KeyFigures, Table, Text
from green_screen.report.findings import Findings, headline
from green_screen.report.html import to_html
from green_screen.report.law import law_section
from green_screen.report.report import write_report
from green_screen.statistics.regression import fit_energy_model


def found(**options: object) -> Findings:
    """Return the findings of a campaign that a law governs, and of three rounds of final runs."""
    campaign = LawCampaign(seed=5, n_runs=60, **options)  # type: ignore[arg-type]
    return findings(
        SimulatedCampaign(seed=5, n_runs=60), frame=campaign.frame(), pairs=3, recommending=True
    )


@pytest.fixture(scope="module")
def sound() -> Findings:
    """Return the findings of a campaign without a fault."""
    return found()


def test_a_violated_control_is_in_the_first_paragraph() -> None:
    caught = found(violated={"internal=post_quantization": 1.25})
    text = headline(caught)
    assert text.startswith("This campaign cannot be trusted: ")
    assert "internal=post_quantization by 1.2" in text
    assert text in to_html(write_report(caught)).replace("&#39;", "'")
    (tests,) = [
        block
        for block in law_section(caught).blocks
        if isinstance(block, Table) and block.columns[0].name == "Factor"
    ]
    row = next(r for r in tests.rows if r[0] == "negative control: post_quantization")
    assert row[-1] == "a finding"


def test_a_sound_campaign_is_not_doubted_and_tells_both_costs(sound: Findings) -> None:
    assert "cannot be trusted" not in headline(sound)
    section = law_section(sound)
    texts = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert "The energy law describes this campaign" in texts
    assert "None of the 6 negative controls" in texts
    ratios = next(
        block
        for block in section.blocks
        if isinstance(block, Table) and block.caption.startswith("What each level does")
    )
    by_level = {row[0]: row for row in ratios.rows}
    assert by_level["optimizer=AdamW"][2] == "1, by the law"
    assert "internal=post_quantization" not in by_level
    assert sound.figures["law"].png


def test_energies_are_told_once_by_the_model_that_describes_them(sound: Findings) -> None:
    assert sound.told_by_law
    sections = {section.anchor: section for section in write_report(sound).sections}
    assert "effects" not in sections
    (table,) = [block for block in sections["trust"].blocks if isinstance(block, Table)]
    assert [row[0] for row in table.rows] == ["Noise of the baseline", "Drift over the campaign"]
    label, moving = sound.moving
    assert label == "training energy per image" and "precision" in moving
    # Of another response the law says nothing.
    other = dataclasses.replace(
        sound, analysis=fit_energy_model(sound.runs, response="duration", permutations=0, trees=0)
    )
    assert not other.told_by_law
    sections = {section.anchor: section for section in write_report(other).sections}
    assert "effects" in sections and len(sections["trust"].blocks) > 1
    assert other.moving[0] == "duration of the whole run"


def test_the_other_models_statements_are_called_its_own(sound: Findings) -> None:
    analysis = dataclasses.replace(sound.analysis, statements=("cross-validation: none",))
    text = str(write_report(dataclasses.replace(sound, analysis=analysis)))
    assert "'the log-linear model, cross-validation: none'" in text


def test_crossovers_beyond_the_batches_that_were_run_are_called_extended(sound: Findings) -> None:
    (table,) = [
        block
        for block in law_section(sound).blocks
        if isinstance(block, Table) and block.caption.startswith("Where launching and computing")
    ]
    crossings = [float(row[2].replace(",", "")) for row in table.rows]
    assert any(not 4 <= batch <= 128 for batch in crossings)
    assert table.caption.endswith("batch sizes outside 4 to 128 were not run: the law is extended")


def test_one_batch_size_has_controls_and_no_law() -> None:
    frame = LawCampaign(seed=3, n_runs=90, violated={"lr=0.01": 1.3}).frame()
    one = frame.assign(effective_batch_size="32", requested_batch_size="32")
    batch = frame["effective_batch_size"]
    # As if all had run at one batch: what is left is the campaign's other factors.
    means = frame.groupby(batch)["energy_per_1k_images_j"].transform("median")
    one["energy_per_1k_images_j"] = frame["energy_per_1k_images_j"] / means
    law = findings(SimulatedCampaign(seed=3, n_runs=90), frame=one, pairs=0).law
    assert law.fit is None
    assert "one batch size" in " ".join(law.statements)
    assert "lr" in set(law.controls["term"])


def test_the_headline_says_whether_the_recommended_one_beat_the_best_run(sound: Findings) -> None:
    assert re.search(
        r"The recommended configuration, which no run had tried, trains with \d\d % less energy "
        r"than the best run \(95 % interval \d\d % to \d\d %\)",
        headline(sound),
    )
    assert sound.final is not None and sound.recommendation is not None
    runs = sound.final.runs.copy()
    slow = runs["role"] == RECOMMENDED
    runs.loc[slow, names.ENERGY_TOTAL_J] *= 2
    worse = headline(dataclasses.replace(sound, final=compare(runs)))
    assert re.search(r"which no run had tried, trains with \d\d % more energy than the best", worse)
    runs.loc[slow, names.ENERGY_TOTAL_J] *= 0.4 / 0.28 / 2
    same = headline(dataclasses.replace(sound, final=compare(runs)))
    assert (
        "The final runs show no difference in energy between the recommended configuration, which "
        "no run had tried, and the best run"
    ) in same
    runs.loc[slow, "status"] = "FAILED"
    failed = headline(dataclasses.replace(sound, final=compare(runs)))
    assert "has no final runs whose energies can be compared with those of the best run" in failed


def test_the_report_compares_three_and_says_what_was_predicted(sound: Findings) -> None:
    result = next(s for s in write_report(sound).sections if s.anchor == "result")
    tables = {block.caption: block for block in result.blocks if isinstance(block, Table)}
    finals = [caption for caption in tables if caption.startswith("Final runs")]
    assert [re.search(r", (.+ against .+):", caption)[1] for caption in finals] == [
        "selected against baseline",
        "recommended against selected",
        "recommended against baseline",
    ]
    (figures,) = (block for block in result.blocks if isinstance(block, KeyFigures))
    assert len(figures.figures) == 8
    asked = next(t for caption, t in tables.items() if caption.startswith("The selected and the"))
    assert [column.name for column in asked.columns][-2:] == ["Executed", "Recommended"]
    predicted = next(t for caption, t in tables.items() if caption.startswith("What the law"))
    assert [row[0] for row in predicted.rows] == [
        "energy of the whole training",
        "validation accuracy",
    ]
    text = " ".join(block.text for block in result.blocks if isinstance(block, Text))
    assert "Recommended, and never run: the best run with " in text
    assert "By the final runs the recommended configuration is kept" in text
    assert sound.recommendation is not None
    none = dataclasses.replace(sound, recommendation=None, unrecommended="of no use")
    assert "There is no recommendation: of no use." in str(write_report(none))


def test_the_summary_names_the_recommended_one_or_says_why_there_is_none(sound: Findings) -> None:
    def said(found: Findings) -> str:
        lines = summary.lines(
            Analyzed(run_id="r", findings=found, report="r", model=None, predicts=False)
        )
        return " ".join(" ".join(lines).split())

    assert re.search(
        r"recommended, never run before: .*batch_size=.*; predicted [\d,]+ J", said(sound)
    )
    assert "recommended against selected: means over the pairs" in said(sound)
    assert "recommended against baseline" not in said(sound)
    estimated = sound.analysis.runs.assign(energy_source=names.SOURCE_ESTIMATE)
    analysis = dataclasses.replace(sound.analysis, runs=estimated)
    assert " J (estimate), " in said(dataclasses.replace(sound, analysis=analysis))
    none = dataclasses.replace(sound, recommendation=None, unrecommended="of no use")
    assert "there is no recommendation: of no use" in said(none)


def test_what_levels_cost_in_accuracy_is_told_or_why_it_cannot_be(sound: Findings) -> None:
    section = accuracy_section(sound)
    assert sound.figures["plane"].png
    plane, diverged = (block for block in section.blocks if isinstance(block, Table))
    rows = {(row[0], row[1]): row for row in plane.rows}
    assert len(rows) == len(sound.plane)
    assert rows["lr", "0.00015"][2] == "1, by the law"
    assert rows["batch_size", "128"][-1].startswith("paid for")
    assert {row[1] for row in diverged.rows} >= {"float16", "Adam"}
    short = dataclasses.replace(sound.accuracy, model=None, why="the training was too short")
    (text, *_) = accuracy_section(dataclasses.replace(sound, accuracy=short)).blocks
    assert text == Text(
        "What a level costs in accuracy cannot be said: the training was too short."
    )
