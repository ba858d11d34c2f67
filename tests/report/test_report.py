"""The report of rich and of poor campaigns: what it says, in a real browser and as PDF."""

from __future__ import annotations

import dataclasses
import re
import shutil
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from simulated_campaign import SimulatedCampaign
from simulated_findings import findings

from green_screen import names
from green_screen.decision.final import Contrast, compare
from green_screen.report.document import (
    Column,
    Document,
    Table,
    interval,
    number,
    numeric,
    p_value,
    percent,
    share,
    signed,
)
from green_screen.report.findings import Findings, headline
from green_screen.report.html import to_html
from green_screen.report.pdf import _FONT, _column_widths, _Pages, to_pdf
from green_screen.report.report import write_report
from green_screen.report.style import Rendered
from green_screen.report.tables import covariates_table
from green_screen.results.frame import EFFECTIVE, REQUESTED
from green_screen.space import FACTOR_NAMES

FIGURES = [
    "final",
    "law",
    "plane",
    "forest",
    "levels",
    "pareto",
    "configurations",
    "power",
    "curves",
    "drift",
    "fit",
]


@pytest.fixture(scope="module")
def rich() -> Findings:
    return findings(SimulatedCampaign(n_runs=100, noise=0.05, failed=(3,), diverged=(4,)))


@pytest.fixture(scope="module")
def poor() -> Findings:
    """Eight runs on a CPU, and one pair of final runs."""
    campaign = SimulatedCampaign(
        n_runs=8, baseline_every=100, energy_source=names.SOURCE_ESTIMATE, machine="none"
    )
    return findings(campaign, pairs=1)


@pytest.fixture(scope="module")
def page(rich: Findings) -> str:
    return to_html(write_report(rich))


def with_saving(found: Findings, **changes: Any) -> Findings:
    """Return findings with another comparison of the selected configuration with the baseline."""
    assert found.final is not None
    contrasts = (dataclasses.replace(saving(found), **changes),)
    return dataclasses.replace(found, final=dataclasses.replace(found.final, contrasts=contrasts))


def saving(found: Findings) -> Contrast:
    """Return the comparison of the selected configuration with the baseline."""
    assert found.final is not None and found.final.saving is not None
    return found.final.saving


def words(document: Document) -> str:
    return re.sub(r"\s+", " ", str(document))


def test_the_headline_comes_first_and_gives_both_intervals(rich: Findings, page: str) -> None:
    text = headline(rich)
    assert re.search(
        r"with 6\d % less energy than the baseline \(95 % interval \d\d % to \d\d %\)", text
    )
    assert re.search(r"at a test accuracy \d\.\d percentage points higher \(\+", text)
    assert page.index(text) < page.index("<main>")


def test_the_page_needs_nothing_else(page: str) -> None:
    assert "<script" not in page and "@import" not in page
    sources = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', page)
    assert sources and all(s.startswith(("data:image/svg+xml;base64,", "#")) for s in sources)


def test_text_from_runs_is_escaped(page: str) -> None:
    assert "a &lt;simulated&gt; campaign &amp; more" in page
    assert "<simulated>" not in page


def test_every_figure_is_there_with_an_alternative_text(page: str) -> None:
    for name in FIGURES:
        assert f'id="figure-{name}"' in page
    assert len(re.findall(r'<img src="data:image/svg[^"]+" alt="[^"]{30,}"', page)) == len(FIGURES)


def test_titles_name_what_was_analysed() -> None:
    figures = findings(SimulatedCampaign(n_runs=8), response="duration").figures
    label = "duration of the whole run"
    assert figures["configurations"].title == f"Configurations, sorted by {label}"
    assert figures["power"].title == f"Power of the runs with the least and the most {label}"
    for name in ("configurations", "power", "forest", "levels"):
        assert "energy" not in figures[name].title + figures[name].caption, name


def test_a_campaign_that_has_not_ended_says_so_first(rich: Findings) -> None:
    assert "Provisional" not in headline(rich)
    so_far = dataclasses.replace(rich, unfinished="69 of 111 planned runs have finished")
    # But for what is worse, as here.
    alarmed = headline(so_far).removeprefix(headline(rich).partition(" The selected")[0])
    assert alarmed.startswith(" Provisional: 69 of 111 planned runs have finished. The selected")


def test_screenings_are_not_told_as_whole_trainings(rich: Findings) -> None:
    screened = SimulatedCampaign(n_runs=30, seed=3, protocol="screening").frame()
    boards = [f"Board {i % 2}" for i in range(len(screened))]
    found = findings(SimulatedCampaign(n_runs=30, seed=3), frame=screened.assign(machine=boards))
    report = write_report(found)
    assert report.headline.count("screenings, which have no accuracy") == 1
    assert report.subtitle.startswith(
        "resnet50 on synthetic at 32 pixels, 5 epochs, of which a screening measures some steps"
    )
    text, whole = words(report), words(write_report(rich))
    assert "blocks of training steps are measured" in text
    for only_of_whole in (
        "the evaluation on the test part",
        "are those of a board that waits",
        "Runs that could not be on the front",
        "Epoch, median duration",
        "The energy to reach",
        "'Validation accuracy'",
        "'Whole training'",
    ):
        assert only_of_whole not in text, only_of_whole
        assert only_of_whole in whole or only_of_whole == "The energy to reach"
    assert "blocks of training steps" not in whole
    assert found.figures["drift"].caption.endswith("It ran on 2 boards, which differ too.")
    assert "which differ too" not in rich.figures["drift"].caption
    # The headline has said why nothing was selected.
    assert "result" not in [section.anchor for section in report.sections]


def test_a_run_that_was_done_again_is_not_missing(rich: Findings) -> None:
    text = words(write_report(rich))
    assert "1 of 111 runs did not finish. If that depends on the configuration" in text
    runs = rich.runs.copy()
    runs.loc[runs.index[4], "place"] = runs.loc[runs["status"] == "FAILED", "place"].iloc[0]
    text = words(write_report(dataclasses.replace(rich, runs=runs)))
    assert "1 of 111 runs did not finish, 1 of which were done again." in text
    assert "If that depends on the configuration" not in text


def test_the_limits_are_stated(rich: Findings) -> None:
    text = words(write_report(rich))
    assert "Not in the model, of 111 runs: 1, did not finish: FAILED" in text
    assert "The loss became not a number in 1 run" in text
    assert "Board sensors are accurate to about 5 %" in text
    assert "estimates by CodeCarbon, not measurements" not in text


def test_a_run_lost_in_native_code_is_named_with_what_the_library_said(rich: Findings) -> None:
    crash = "native crash: SIGABRT with precision=float16, batch_size=4; last printed: Check failed"
    runs = rich.runs.copy()
    assert "in native code" not in words(write_report(rich))
    runs.loc[runs["status"] == "FAILED", "failure"] = crash
    text = words(write_report(dataclasses.replace(rich, runs=runs)))
    assert (
        f"1 run ended in the middle in native code of a library, not in this project's ({crash})"
        in text
    )


def test_the_joules_of_a_conversion_are_said_to_be_a_waiting_boards(
    rich: Findings, poor: Findings
) -> None:
    said = "are those of a board that waits"
    assert said in words(write_report(rich))
    assert said not in words(write_report(poor))  # no board was measured
    without = rich.runs.assign(effective_internal="None")
    assert said not in words(write_report(dataclasses.replace(rich, runs=without)))


def test_a_poor_campaign_says_what_it_cannot_tell(poor: Findings) -> None:
    report = write_report(poor)
    text = words(report)
    assert "in one run each" in report.headline and "an estimated" in report.headline
    assert report.headline.endswith(
        "One pair of runs has no interval: the difference in energy and test accuracy may be noise."
    )
    assert report.lacking.startswith("No effect of a factor can be estimated from these runs: ")
    assert "too few for more than" in report.lacking
    assert report.lacking in re.sub(r"&#39;", "'", to_html(report))
    assert "noise and drift: cannot be estimated" in text
    assert "nan" not in to_html(report).split("base64")[0].lower()
    assert to_pdf(report).startswith(b"%PDF")


def test_what_has_nothing_to_show_is_not_there(poor: Findings, rich: Findings) -> None:
    # No model was fitted to eight runs.
    assert "trust" not in [section.anchor for section in write_report(poor).sections]
    assert "trust" in [section.anchor for section in write_report(rich).sections]
    nothing = findings(SimulatedCampaign(n_runs=5, failed=tuple(range(6))))
    for report in (write_report(poor), write_report(nothing)):
        for section in report.sections:
            assert section.blocks, section.title
            for block in section.blocks:
                assert not isinstance(block, Table) or block.rows, block.caption
                assert not isinstance(block, Rendered) or not block.reason, block.title
        page = to_html(report)
        for section in report.sections:
            assert f'href="#{section.anchor}"' in page
    assert not write_report(rich).lacking


def test_a_campaign_of_few_factors_is_silent_about_the_others() -> None:
    campaign = SimulatedCampaign(n_runs=40, energy_source=names.SOURCE_ESTIMATE, machine="none")
    runs = campaign.frame()
    varied = ("batch_size", "lr_schedule")
    for factor in FACTOR_NAMES:
        if factor not in varied:
            level = runs[REQUESTED + factor].iloc[0]
            runs = runs.assign(**{REQUESTED + factor: level, EFFECTIVE + factor: level})
    found = findings(campaign, frame=runs.assign(start_temperature_c=float("nan")))
    report = write_report(found)
    text = words(report)
    assert "It says nothing of what was the same in all runs: " in text and "precision=" in text
    assert not report.lacking
    for factor in ("precision", "augmentation", "lr"):
        assert f"{factor}: cannot be estimated" not in text
        assert any(s.startswith(f"{factor}: ") for s in found.analysis.statements)
    assert "start_temperature" not in text
    levels = found.figures["levels"].wide_svg.decode()
    assert "lr_schedule" in levels and "augmentation" not in levels


def test_estimates_are_called_estimates_everywhere(poor: Findings) -> None:
    report = write_report(poor)
    assert report.estimate.startswith("All energies in this report are estimates by CodeCarbon")
    tables = [b for s in report.sections for b in s.blocks if isinstance(b, Table)]
    for table in tables:
        for column in table.columns:
            assert column.unit not in ("J", "kJ", "kWh"), (table.caption, column)
        for row in table.rows:
            assert not {"J", "kJ", "kWh"} & set(row), (table.caption, row)
    assert "kWh (estimate)" in words(report)


def test_final_runs_on_other_hardware_are_labelled_by_their_own_source(rich: Findings) -> None:
    assert rich.final is not None
    runs = rich.final.runs.assign(energy_source=names.SOURCE_ESTIMATE, machine="a laptop")
    report = write_report(
        dataclasses.replace(rich, final=dataclasses.replace(rich.final, runs=runs))
    )
    assert "an estimated" in report.headline and report.estimate == ""
    assert "J, estimate" in words(report)
    assert "The final runs were made on a laptop, the campaign on Simulated GPU" in words(report)


def test_without_final_runs_the_headline_claims_no_saving(rich: Findings) -> None:
    text = headline(dataclasses.replace(rich, final=None))
    assert "was not compared with the baseline" in text and "less energy" not in text


def test_without_a_selection_the_reason_is_the_headline(rich: Findings) -> None:
    nothing = dataclasses.replace(rich, final=None, selection=None, problems=("all runs failed",))
    assert headline(nothing).endswith("No configuration could be selected: all runs failed.")
    assert "all runs failed" in to_html(write_report(nothing))


def test_a_campaign_of_failed_runs_gives_a_report() -> None:
    failed = findings(SimulatedCampaign(n_runs=5, failed=tuple(range(6))))
    report = write_report(failed)
    assert "No configuration could be selected" in report.headline
    assert to_html(report) and to_pdf(report)


def test_differences_are_said_as_they_are(rich: Findings) -> None:
    ratio, accuracy = saving(rich).energy_ratio, saving(rich).accuracy_difference
    nan = float("nan")

    def said(saved: float, points: float | None, pairs: int = 5, half: float = nan) -> str:
        energy = dataclasses.replace(
            ratio, value=1 - saved, low=1 - saved - half, high=1 - saved + half
        )
        gained = (
            dataclasses.replace(accuracy, value=nan, low=nan, high=nan, pairs=0)
            if points is None
            else dataclasses.replace(accuracy, value=points / 100, low=nan, high=nan, pairs=pairs)
        )
        of = saving(rich)
        ratios = {**of.ratios, of.energy_metric: energy}
        found = with_saving(rich, ratios=ratios, accuracy_difference=gained)
        assert "nan" not in to_html(write_report(found)).split("base64")[0].lower()
        return headline(found)

    once = "energy than the baseline in one run each"
    assert f"with 62 % less {once}, at the same test accuracy." in said(0.62, 0.0)
    assert f"62 % less {once}; test accuracy was not measured." in said(0.62, None)
    assert "the baseline in one run each, at a test accuracy 1.5 percentage" in said(0, 1.5)
    assert "trained with the same energy as the baseline" in said(0, 1.5)
    assert "accuracy less than 0.1 percentage points lower" in said(0.5, -0.01)
    assert "0.40 % less energy than the baseline (95 % interval 0.30 % to 0.50 %)" in said(
        0.004, None, half=0.001
    )


def test_energy_and_accuracy_have_each_an_interval_and_a_number_of_pairs(rich: Findings) -> None:
    assert rich.final is not None
    runs = rich.final.runs.copy()
    runs.loc[0, "measurement_valid"] = "false"
    one_short = dataclasses.replace(rich, final=compare(runs))
    text = words(write_report(one_short))
    assert re.search(r"Energy saved[^)]+95 % interval [\d.]+ to [\d.]+ %, 4 pairs", text)
    assert re.search(r"Test accuracy, diff[^)]+95 % interval [\d.]+ to [\d.]+, 5 pairs", text)
    assert re.search(r"\('test accuracy \(difference\)', '%', '5', '6\d.\d', '6\d.\d', ", text)
    assert "no interval" not in headline(one_short)
    runs.loc[runs["pair"] > 0, names.TEST_ACCURACY] = float("nan")
    one_accuracy = headline(dataclasses.replace(rich, final=compare(runs)))
    assert "(95 % interval" in one_accuracy
    assert one_accuracy.endswith("the difference in test accuracy may be noise.")
    runs.loc[runs["pair"] < 4, "measurement_valid"] = "false"
    runs[names.TEST_ACCURACY] = rich.final.runs[names.TEST_ACCURACY]
    one_energy = headline(dataclasses.replace(rich, final=compare(runs)))
    assert "baseline in one run each, at a test accuracy" in one_energy
    assert one_energy.endswith("the difference in energy may be noise.")


def test_more_energy_is_called_more(rich: Findings) -> None:
    of = saving(rich)
    for value, low, high, what in (
        (1.4, 1.3, 1.5, "40 % more energy than the baseline (95 % interval 30 % to 50 %)"),
        (0.97, 0.9, 1.05, "show no difference in energy"),
    ):
        estimate = dataclasses.replace(of.energy_ratio, value=value, low=low, high=high)
        ratios = {**of.ratios, of.energy_metric: estimate}
        assert what in headline(with_saving(rich, ratios=ratios))


def test_the_pdf_holds_the_same_sections(rich: Findings) -> None:
    report = write_report(rich)
    pdf = to_pdf(report)
    assert pdf.startswith(b"%PDF") and pdf.count(b"/Subtype /Image") >= len(FIGURES)
    titles = re.findall(rb"/Title \((.+)\)", pdf)
    assert [title.decode() for title in titles if title.decode() != report.title] == [
        section.title for section in report.sections
    ]


def test_a_pdf_of_a_given_date_says_what_made_it_and_nothing_of_the_moment(poor: Findings) -> None:
    report, made = write_report(poor), datetime(2026, 11, 27, tzinfo=timezone.utc)
    pdf = to_pdf(report, made)
    assert pdf == to_pdf(report, made)
    assert b"/CreationDate (D:20261127000000Z)" in pdf
    assert f"/Subject ({report.footer})".encode() in pdf


def test_the_pdf_breaks_no_level_in_the_middle() -> None:
    level = "precision=global_policy_float16, internal=jit_compilation"
    columns = (Column("Level"), *numeric(*(f"Energy at batch {batch}" for batch in range(6))))
    widths = _column_widths(Table("Ratios", columns, ((level, *6 * ["0.741 (0.657 to 0.836)"]),)))
    pdf = _Pages("a report")
    pdf.set_font(_FONT, "", 7)
    word = pdf.get_string_width(level.split()[0]) + 2 * pdf.c_margin
    assert word < pdf.epw * widths[0] / sum(widths)


def test_only_long_tables_are_left_out_of_the_pdf(rich: Findings) -> None:
    tables = {
        block.caption: block
        for section in write_report(rich).sections
        for block in section.blocks
        if isinstance(block, Table)
    }
    assert [caption for caption, table in tables.items() if table.long] == [
        "All runs by energy per epoch"
    ]
    assert sum(table.folded for table in tables.values()) >= 6


def test_what_is_computed_is_shown(rich: Findings) -> None:
    text = words(write_report(rich))
    for what in (
        "Skewness, excess kurtosis",
        "Strongest term, permuted p",
        "Partial η²",
        "Covariates: ratio of the response",
        "Runs that could not be selected",
        "Runs that could not be on the front",
        "Final runs of 5 epochs: means over the pairs of runs that count",
        "Made by a test.",
    ):
        assert what in text, what
    assert re.search(r"repeats \d\.\d+ to \d\.\d+; 0\.\d+ with batch size alone", text)
    assert re.search(r"last over first, by 1 slope; interval [\d.]+ to [\d.]+, p 0\.\d+", text)


def test_the_run_order_of_one_of_several_campaigns_has_a_short_name(rich: Findings) -> None:
    covariates = rich.analysis.covariates.assign(covariate=["run_order", f"run_order({'ab' * 16})"])
    table = covariates_table(dataclasses.replace(rich.analysis, covariates=covariates))
    assert [row[0] for row in table.rows] == ["run_order", "run_order (abababab)"]


def test_the_energy_to_an_accuracy_is_shown_or_its_absence_explained(rich: Findings) -> None:
    best = rich.to_accuracy.iloc[0]
    report = write_report(rich)
    (table,) = (
        block
        for section in report.sections
        for block in section.blocks
        if isinstance(block, Table) and "Energy to reach a validation accuracy" in block.caption
    )
    assert table.rows[0] == (
        best["run_name"],
        number(best["energy_j"] / 1000),
        str(int(best["epoch"]) + 1),
    )
    (marked,) = table.marked
    assert marked >= 10 or len(table.rows) == 10
    assert table.rows[marked][0] == "baseline"
    said = "the first ten of the runs that end at or above it, and the baseline, emphasised"
    assert table.caption.endswith(said)
    # The histories of all would be too many to read.
    cut = dataclasses.replace(rich, to_accuracy=rich.to_accuracy.head(marked))
    said = f"first ten of {marked} of {len(rich.to_accuracy)} runs that end at or above it, of the"
    assert said in words(write_report(cut))
    assert "of the least energy in all; none is of the baseline" in words(write_report(cut))
    none = dataclasses.replace(rich, to_accuracy=rich.to_accuracy.iloc[:0])
    assert "Energy to reach a validation accuracy" not in words(write_report(none))
    assert "No run has ended at a validation accuracy of" in words(write_report(none))
    unknown = dataclasses.replace(rich, target_accuracy=float("nan"))
    assert "The option target_accuracy names another one" in words(write_report(unknown))


def test_imported_runs_are_not_described_as_our_own() -> None:
    campaign = SimulatedCampaign(n_runs=8, energy_source=names.SOURCE_SAMPLED, machine="")
    found = findings(campaign, pairs=0)
    runs = found.runs.assign(measurement_valid="", dataset="", idle_power_w=float("nan"))
    text = words(write_report(dataclasses.replace(found, runs=runs)))
    assert "One power reading an epoch is a small sample" in text
    assert "on data that were not recorded" in text and "hardware that was not recorded" in text
    assert "('With a valid measurement', 'not recorded')" in text
    assert "('Idle power, mean', 'not recorded')" in text
    assert "a process of its own" not in text


def test_machines_are_told_apart_and_equal_boards_are_one(rich: Findings) -> None:
    runs = rich.runs.assign(machine=[f"A board {i % 2}" for i in range(len(rich.runs))])
    runs.loc[runs.index[::3], "machine"] = "B"
    hardware = {
        "A board 0": {"gpu_name": "A"},
        "A board 1": {"gpu_name": "A"},
        "B": {"gpu_name": "B"},
    }
    report = write_report(dataclasses.replace(rich, runs=runs, hardware=hardware))
    assert "on A and B." in report.subtitle
    assert "('Boards', '2', '1')" in words(report)


def test_final_runs_made_before_are_called_so(rich: Findings) -> None:
    report = write_report(dataclasses.replace(rich, finals_reused=4))
    assert "4 of 10 final runs were made by an earlier analysis" in words(report)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.0, "1,234,567"),
        (0.012345, "0.0123"),
        (0.0, "0"),
        (float("nan"), "n/a"),
        (12.0, "12.0"),
        (1.7e16, "17,000,000,000,000,000"),
        (1.2345e-8, "0.000000012"),
        (-3e-15, "> -0.000000001"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_other_texts() -> None:
    assert interval(0.5, float("nan")) == "n/a"
    assert percent(0.1234) == "12.3 %"
    # The difference of two accuracies that are equal but for their float32.
    assert [signed(x) for x in (-2.2e-5, 0.0, 0.04, -0.06, 5.3)] == [
        "+0.0",
        "+0.0",
        "+0.0",
        "-0.1",
        "+5.3",
    ]
    assert [share(f) for f in (0.62, 0.04, 0.004, 1e-6, 0.0, 0.996)] == [
        "62 %",
        "4.0 %",
        "0.40 %",
        "less than 0.01 %",
        "0 %",
        "99.60 %",
    ]
    assert p_value(1e-9) == "< 0.001"


CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        yield driver
        driver.quit()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("which", ["rich", "poor"])
def test_in_a_browser(
    browser: Any, which: str, width: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    report = write_report(request.getfixturevalue(which))
    path = tmp_path / "report.html"
    path.write_text(to_html(report), encoding="utf-8")
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())

    images = browser.find_elements("css selector", "figure img")
    assert len(images) == (11 if which == "rich" else 6)
    for image in images:
        assert int(image.get_property("naturalWidth")) > 0
        assert image.rect["width"] <= width
    # The narrow drawing is shown on a narrow screen.
    natural = {int(image.get_property("naturalWidth")) for image in images}
    assert max(natural) < 500 if width == 400 else min(natural) > 500

    script = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scroll, client = browser.execute_script(script)
    assert scroll <= client, f"the page is {scroll} px wide in a window of {client} px"
    assert browser.get_log("browser") == []
    small = browser.execute_script(
        "return [...document.querySelectorAll('p, li, td, th, dd, dt, figcaption')]"
        ".filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).length"
    )
    assert small == 0, "text below 12 px"
    headline_bottom = browser.find_element("css selector", ".headline").rect
    assert headline_bottom["y"] + headline_bottom["height"] < 900, "the headline is not in view"


def test_what_a_search_saved_is_told(rich):
    cost = dataclasses.replace(rich.cost, search_kwh=1.5, full_kwh=12.0)
    text = words(write_report(dataclasses.replace(rich, cost=cost)))
    assert "The search by halving took 1.50 kWh" in text
    assert "full training of all its runs would have taken 12.0 kWh" in text
    assert "halving" not in words(write_report(rich))
