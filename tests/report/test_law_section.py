"""What the report says of the energy law, and when it says that a campaign cannot be trusted."""

from __future__ import annotations

import dataclasses

import pytest
from law_campaign import LawCampaign
from simulated_campaign import SimulatedCampaign
from simulated_findings import findings

from green_screen.report.document import Table, Text
from green_screen.report.findings import Findings, headline
from green_screen.report.html import to_html
from green_screen.report.law import law_section
from green_screen.report.report import write_report
from green_screen.statistics.regression import fit_energy_model


def found(**options: object) -> Findings:
    """Return the findings of a campaign that a law governs."""
    campaign = LawCampaign(seed=3, n_runs=60, **options)  # type: ignore[arg-type]
    return findings(SimulatedCampaign(seed=3, n_runs=60), frame=campaign.frame(), pairs=2)


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
