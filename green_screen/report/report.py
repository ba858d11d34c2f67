"""What the report of a campaign says: the result first, then the evidence, then its limits.

This module decides what is said and in which order; :mod:`~green_screen.report.html` and
:mod:`~green_screen.report.pdf` decide how it looks.
"""

from __future__ import annotations

import dataclasses

from green_screen import names
from green_screen.decision.final import BASELINE, SELECTED, FinalComparison
from green_screen.decision.tradeoff import J_PER_KWH, front_candidates
from green_screen.report import evidence, tables
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
from green_screen.report.findings import NO_MEASUREMENT, Findings, headline
from green_screen.report.law import law_section
from green_screen.report.style import Rendered
from green_screen.sweep.energies import energy


def write_report(findings: Findings) -> Document:
    """Return the report of a campaign: what it has to show, and in a sentence what it lacks."""
    sections = (
        _result(findings),
        law_section(findings),
        evidence.effects(findings),
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
    return (
        f"{values('model', 'A model that was not recorded')} on "
        f"{values('dataset', 'data that were not recorded')}, "
        f"{epochs or 'an unknown number of'} epochs. "
        f"{count(len(runs), 'run')}, {finished:,} finished, "
        f"on {' and '.join(machines)}. Energies: {source}."
    )


def _result(findings: Findings) -> Section:
    blocks: list[Block] = []
    final, selection = findings.final, findings.selection
    if final is not None and final.energy_ratio.pairs:
        blocks.append(_key_figures(final))
        blocks.append(findings.figures["final"])
        blocks.append(tables.final_table(final))
    if final is not None and findings.finals_reused:
        blocks.append(
            Text(
                f"{findings.finals_reused} of {count(len(final.runs), 'final run')} were made by "
                "an earlier analysis of the same configurations and used again."
            )
        )
    unwell = (*(final.statements if final else ()), *findings.problems)
    blocks.extend(Text(statement, warning=True) for statement in unwell)
    if selection is not None:
        blocks.append(tables.configuration_table(findings, selection))
        blocks.append(Text(f"The rule that selected it: {selection.rule}."))
        blocks.append(tables.candidates_table(selection, findings.source))
        if len(selection.excluded):
            blocks.append(tables.left_out("Runs that could not be selected", selection.excluded))
    return Section("result", "Result", tuple(blocks))


def _key_figures(final: FinalComparison) -> KeyFigures:
    ratio, accuracy = final.energy_ratio, final.accuracy_difference
    means = final.means[final.energy_metric]
    accuracies = final.means[names.TEST_ACCURACY]
    estimate = ", estimate" if final.source in NO_MEASUREMENT else ""
    none = "one pair of runs: no interval"
    measured = accuracy.pairs > 0
    saved = (
        f"95 % interval {interval(100 * (1 - ratio.high), 100 * (1 - ratio.low))} %, "
        f"{ratio.pairs} pairs"
    )
    gained = (
        f"95 % interval {interval(100 * accuracy.low, 100 * accuracy.high, 2)}, "
        f"{accuracy.pairs} pairs"
    )
    return KeyFigures(
        (
            KeyFigure(
                share(1 - ratio.value),
                f"Energy saved{estimate}",
                saved if ratio.has_interval else none,
            ),
            KeyFigure(
                f"{signed(100 * accuracy.value)} points" if measured else "not measured",
                "Test accuracy, difference",
                gained if accuracy.has_interval else none if measured else "",
            ),
            KeyFigure(
                percent(accuracies[SELECTED]),
                "Test accuracy, selected",
                f"baseline {percent(accuracies[BASELINE])}",
            ),
            KeyFigure(
                energy(means[SELECTED]),
                f"Training energy, selected{estimate}",
                f"baseline {energy(means[BASELINE])}",
            ),
        )
    )


def _trade_off(findings: Findings) -> Section:
    blocks: list[Block] = [findings.figures["pareto"]]
    blocks.append(tables.front_table(findings))
    excluded = front_candidates(findings.runs).excluded
    if len(excluded):
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
    blocks.extend(_saving_text(findings))
    return Section("trade-off", "What energy buys", tuple(blocks))


def _saving_text(findings: Findings) -> list[Block]:
    final = findings.final
    if final is None or not final.energy_ratio.pairs or not final.energy_ratio.value < 1:
        return []
    means = final.means[final.energy_metric]
    saved_j = means[BASELINE] - means[SELECTED]
    saved_kwh = 1000 * saved_j / J_PER_KWH
    cost = findings.cost
    return [
        Text(
            f"A thousand trainings like the final runs would save "
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
