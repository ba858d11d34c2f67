"""What the report of a campaign says: the result first, then the evidence, then its limits.

This module decides what is said and in which order; :mod:`~green_screen.report.html` and
:mod:`~green_screen.report.pdf` decide how it looks.
"""

from __future__ import annotations

import dataclasses
import math

from green_screen import names
from green_screen.decision.final import BASELINE, RECOMMENDED, SELECTED, Contrast, FinalComparison
from green_screen.decision.recommendation import RULE
from green_screen.decision.tradeoff import J_PER_KWH, front_candidates
from green_screen.report import evidence, tables
from green_screen.report.accuracy import accuracy_section
from green_screen.report.document import (
    Block,
    Document,
    Items,
    KeyFigure,
    KeyFigures,
    Section,
    Table,
    Text,
    count,
    interval,
    number,
    percent,
    share,
    signed,
)
from green_screen.report.figures import SOURCE_TEXT, amount
from green_screen.report.findings import NO_MEASUREMENT, Findings, changes_text, headline
from green_screen.report.law import law_section
from green_screen.report.style import Rendered
from green_screen.sweep.energies import energy


def write_report(findings: Findings) -> Document:
    """Return the report of a campaign: what it has to show, and in a sentence what it lacks."""
    sections = (
        _result(findings),
        law_section(findings),
        evidence.effects(findings),
        accuracy_section(findings),
        _trade_off(findings),
        evidence.runs_section(findings),
        evidence.trust(findings),
        evidence.measurement(findings),
        _limits(findings),
    )
    full = (_without_gaps(section) for section in sections)
    return Document(
        title=findings.campaign,
        subtitle=_subtitle(findings),
        headline=headline(findings),
        estimate=NO_MEASUREMENT.get(findings.source, ""),
        lacking=_lacking(findings),
        sections=tuple(section for section in full if section.blocks),
        footer=findings.how,
    )


def _without_gaps(section: Section) -> Section:
    """Return a section without figures and tables that have nothing to show."""
    blocks = tuple(
        block
        for block in section.blocks
        if not (isinstance(block, Rendered) and block.reason)
        and not (isinstance(block, Table) and not block.rows)
    )
    return dataclasses.replace(section, blocks=blocks)


def _lacking(findings: Findings) -> str:
    """Return the sentence on what the campaign should have shown; empty if it lacks nothing."""
    if len(findings.analysis.anova) or len(findings.law.tests):
        return ""
    why = "; ".join(findings.analysis.statements) or "no reason was recorded"
    return f"No effect of a factor can be estimated from these runs: {why}."


def _subtitle(findings: Findings) -> str:
    runs = findings.runs
    finished = int((runs["status"] == "FINISHED").sum())

    def values(column: str, none: str) -> str:
        return ", ".join(sorted(set(runs[column]) - {""})) or none

    epochs = " or ".join(f"{value:g}" for value in sorted(runs["epochs"].dropna().unique()))
    machines = dict.fromkeys(evidence.machine(tags) for tags in findings.hardware.values())
    source = SOURCE_TEXT.get(findings.source, "of unknown source")
    pixels = " or ".join(f"{value:g}" for value in sorted(runs["image_size"].dropna().unique()))
    screened = (
        ", of which a screening measures some steps and one validation" if findings.screened else ""
    )
    return (
        f"{values('model', 'A model that was not recorded')} on "
        f"{values('dataset', 'data that were not recorded')}"
        f"{pixels and f' at {pixels} pixels'}, "
        f"{epochs or 'an unknown number of'} epochs{screened}. "
        f"{count(len(runs), 'run')}, {finished:,} finished, "
        f"on {' and '.join(machines)}. Energies: {source}."
    )


def _result(findings: Findings) -> Section:
    blocks: list[Block] = []
    final, selection = findings.final, findings.selection
    if final is not None and any(c.energy_ratio.pairs for c in final.contrasts):
        blocks.append(_key_figures(final))
        blocks.append(findings.figures["final"])
    if final is not None:
        blocks.extend(tables.final_tables(final))
    if final is not None and findings.finals_reused:
        blocks.append(
            Text(
                f"{findings.finals_reused} of {count(len(final.runs), 'final run')} were made by "
                "an earlier analysis of the same configurations and used again."
            )
        )
    # Without a selection the headline says why.
    problems = findings.problems if selection is not None else ()
    unwell = (*(final.statements if final else ()), *problems)
    blocks.extend(Text(statement, warning=True) for statement in unwell)
    if selection is not None:
        blocks.append(tables.configuration_table(findings, selection))
        blocks.append(Text(f"The rule that selected it: {selection.rule}."))
        blocks.append(tables.candidates_table(selection, findings.source))
        if len(selection.excluded):
            blocks.append(tables.left_out("Runs that could not be selected", selection.excluded))
        blocks.extend(_recommendation(findings))
    return Section("result", "Result", tuple(blocks))


def _recommendation(findings: Findings) -> list[Block]:
    found, selection = findings.recommendation, findings.selection
    if found is None or selection is None:
        why = findings.unrecommended
        return [Text(f"There is no recommendation: {why}.")] if why else []
    saved = 1 - found.predicted["energy_j"] / found.best_run["energy_j"]
    less = f"{share(abs(saved))} {'less' if saved > 0 else 'more'}"
    kept = ""
    if findings.final is not None and RECOMMENDED in findings.final.roles:
        kept = (
            f" By the final runs the {findings.final.kept} configuration is kept: the recommended "
            "one is if the whole interval of its energy lies below the best run's, at a test "
            "accuracy that is not shown to be lower, and else the best run."
        )
    return [
        Text(
            f"Recommended, and never run: the best run with "
            f"{changes_text(found.config, selection.config)}. The law predicts that it takes "
            f"{less} energy. It is the best of {found.n_predicted:,} configurations by their "
            f"predictions, and the best of many flatters itself; final runs do not.{kept}"
        ),
        tables.recommendation_table(findings, found),
        Text(f"The rule that recommends it: {RULE}"),
        tables.predicted_table(findings, found),
    ]


def _key_figures(final: FinalComparison) -> KeyFigures:
    figures: list[KeyFigure] = []
    for contrast in (final.saving, final.recommended):
        if contrast is not None and contrast.energy_ratio.pairs:
            figures.extend(_of_contrast(contrast, final.source in NO_MEASUREMENT))
    return KeyFigures(tuple(figures))


def _of_contrast(contrast: Contrast, estimated: bool) -> list[KeyFigure]:
    role, reference = contrast.role, contrast.reference
    ratio, accuracy = contrast.energy_ratio, contrast.accuracy_difference
    means = contrast.means[contrast.energy_metric]
    accuracies = contrast.means[names.TEST_ACCURACY]
    estimate = ", estimate" if estimated else ""
    none = "one pair of runs: no interval"
    measured = accuracy.pairs > 0
    # Without a word: the selected one against the baseline.
    which = "" if role == SELECTED else f" against {reference}"
    saved = (
        f"95 % interval {interval(100 * (1 - ratio.high), 100 * (1 - ratio.low))} %, "
        f"{ratio.pairs} pairs"
    )
    gained = (
        f"95 % interval {interval(100 * accuracy.low, 100 * accuracy.high, 2)}, "
        f"{accuracy.pairs} pairs"
    )
    return [
        KeyFigure(
            share(1 - ratio.value),
            f"Energy saved{which and f', {role}{which}'}{estimate}",
            saved if ratio.has_interval else none,
        ),
        KeyFigure(
            f"{signed(100 * accuracy.value)} points" if measured else "not measured",
            f"Test accuracy, difference{which and f', {role}{which}'}",
            gained if accuracy.has_interval else none if measured else "",
        ),
        KeyFigure(
            percent(accuracies[role]),
            f"Test accuracy, {role}",
            f"{reference} {percent(accuracies[reference])}",
        ),
        KeyFigure(
            energy(means[role]),
            f"Training energy, {role}{estimate}",
            f"{reference} {energy(means[reference])}",
        ),
    ]


def _trade_off(findings: Findings) -> Section:
    blocks: list[Block] = [findings.figures["pareto"]]
    blocks.append(tables.front_table(findings))
    excluded = front_candidates(findings.runs).excluded
    # Screenings are not left out of a front: they have none.
    if len(excluded) and not findings.screened:
        blocks.append(tables.left_out("Runs that could not be on the front", excluded))
    if reached := tables.to_accuracy(findings):
        blocks.append(reached)
    cost = findings.cost
    # Of several sources, an estimate is what the sum must be called.
    of_estimates = names.SOURCE_ESTIMATE in cost.sources
    source = names.SOURCE_ESTIMATE if of_estimates else findings.source
    unknown = count(cost.n_missing, "run")
    missing = f" The energy of {unknown} is not known and not in it." if cost.n_missing else ""
    blocks.append(
        Text(
            f"The campaign took {amount(cost.energy_kwh, 'kWh', source)} in "
            f"{count(cost.n_runs, 'run')}: "
            f"{number(cost.emissions_kg_co2eq)} kg CO2eq with the electricity of {cost.country} "
            f"({number(cost.intensity_g_per_kwh)} g CO2eq per kWh, a yearly mean, so an estimate) "
            f"and {number(cost.money)} {cost.currency} at {number(cost.price_per_kwh)} "
            f"{cost.currency} per kWh.{missing}"
        )
    )
    if math.isfinite(cost.full_kwh):
        blocks.append(
            Text(
                f"The search by halving took {amount(cost.search_kwh, 'kWh', source)} of it; full "
                "training of all its runs would have taken "
                f"{amount(cost.full_kwh, 'kWh', source)}, a forecast by the energy of their steady "
                "epochs."
            )
        )
    blocks.extend(_saving_text(findings))
    return Section("trade-off", "What energy buys", tuple(blocks))


def _saving_text(findings: Findings) -> list[Block]:
    final = findings.final
    kept = final.between(final.kept, BASELINE) if final else None
    if final is None or kept is None or not kept.energy_ratio.value < 1:
        return []
    means = kept.means[kept.energy_metric]
    saved_kwh = 1000 * (means[BASELINE] - means[kept.role]) / J_PER_KWH
    cost = findings.cost
    return [
        Text(
            f"A thousand trainings like the final runs of the {kept.role} configuration would save "
            f"{amount(saved_kwh, 'kWh', final.source)}, "
            f"{number(saved_kwh * cost.intensity_g_per_kwh / 1000)} kg CO2eq and "
            f"{number(saved_kwh * cost.price_per_kwh)} {cost.currency}."
        )
    ]


def _limits(findings: Findings) -> Section:
    items = list(evidence.limits(findings))
    if findings.selection is not None:
        mine, its = findings.selection.config.partitioning, findings.baseline.partitioning
        if mine != its:
            items.append(
                f"The selected configuration splits the data {mine}, the baseline {its}: their "
                "test accuracies are measured on different numbers of images, and an epoch of one "
                "is not the same work as an epoch of the other (energy per 1,000 images is)."
            )
    if findings.selection is not None and findings.final is None:
        items.append(
            "The selected configuration is the best of many by noisy figures, so these flatter it. "
            "Only final runs, made after the selection, are free of that."
        )
    blocks: list[Block] = [Items(tuple(items))]
    if untold := tuple(evidence.untold(findings)):
        blocks.append(Text("What these runs cannot tell:"))
        blocks.append(Items(untold))
    return Section("limits", "What is wrong with it", tuple(blocks))
