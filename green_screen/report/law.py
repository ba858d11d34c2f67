"""What the report says of the energy law: what a step costs and what an image costs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from green_screen.report.document import (
    Block,
    Column,
    Section,
    Table,
    Text,
    count,
    interval,
    number,
    numeric,
    p_value,
    percent,
)
from green_screen.report.findings import Findings
from green_screen.statistics.choice import CHOICE_RULE, HeldOut
from green_screen.statistics.law import CONTROLS
from green_screen.statistics.law_analysis import LawAnalysis
from green_screen.statistics.law_effects import law_lines


def law_section(findings: Findings) -> Section:
    """Return the section that carries the report: the figure, the ratios, the tests."""
    law = findings.law
    blocks: list[Block] = []
    if law.fit is not None:
        blocks += [Text(_what(law)), findings.figures["law"], _crossovers(law), _ratios(law)]
    blocks.append(_tests(law))
    if len(law.controls):
        blocks.append(Text(_controls_text(law), warning=len(law.violated) > 0))
    if law.fit is not None:
        blocks += [Text(_choice_text(law)), _side_by_side(law)]
    blocks.extend(Text(text) for text in _groups(law))
    return Section("law", "What a step costs and what an image costs", tuple(blocks))


def _what(law: LawAnalysis) -> str:
    assert law.fit is not None
    return (
        f"The {law.response.label} is taken apart into what launching a training step costs, "
        f"shared by the images of the batch, and what computing an image costs. Where the two "
        f"overlap, they do not add up: p is {number(law.fit.overlap, 2)} (1: no overlap; the "
        f"longer of them alone decides as it grows). Left of the mark on a line, launching costs "
        f"more than computing: a larger batch saves and a faster GPU changes little. Right of it "
        f"computing does, and a larger batch saves little. "
        f"One run lies {percent(law.fit.noise)} from the law (standard deviation)."
    )


def _crossovers(law: LawAnalysis) -> Table:
    assert law.fit is not None
    lines, crossings = law_lines(law.fit, law.runs, law.reference, law.alpha)
    rows = []
    for precision, internal, batch, low, high, _ in crossings.itertuples(index=False, name=None):
        line = lines[(lines["precision"] == precision) & (lines["internal"] == internal)]
        ends = line.iloc[[0, -1]]
        rows.append(
            (
                precision,
                internal,
                number(batch, 2),
                interval(low, high, 2),
                *(
                    f"{number(value)} ({interval(a, b)})"
                    for value, a, b in zip(ends["value"], ends["low"], ends["high"], strict=True)
                ),
            )
        )
    first, last = lines["batch_size"].min(), lines["batch_size"].max()
    beyond = (
        ""
        if crossings["batch_size"].between(first, last).all()
        else f"; batch sizes outside {first:.0f} to {last:.0f} were not run: the law is extended"
    )
    unit = f"{law.response.unit} a{'n' if law.response.per == 'image' else ''} {law.response.per}"
    return Table(
        caption="Where launching and computing cost the same, and the energy at both ends" + beyond,
        columns=(
            Column("Precision"),
            Column("Internal"),
            *numeric("Batch size", "95 % interval"),
            Column(f"At batch {first:.0f}", unit, numeric=True),
            Column(f"At batch {last:.0f}", unit, numeric=True),
        ),
        rows=tuple(rows),
    )


def _ratios(law: LawAnalysis) -> Table:
    batches = [part for part in law.ratios["part"].unique() if part not in ("step", "image")]
    batches.sort(key=int)
    rows = []
    for change, part in law.ratios.groupby("change", sort=False):
        known = {row["part"]: row for row in part.to_dict("records")}
        cells = (_ratio(known.get(name)) for name in ("step", "image", *batches))
        rows.append((str(change), *cells))
    base = ", ".join(f"{f}={law.reference[f]}" for f in ("precision", "internal", "optimizer"))
    return Table(
        caption=f"What each level does: ratios against {base}, augmentation="
        f"{law.reference['augmentation']}, with 95 % intervals",
        columns=(
            Column("Level"),
            *numeric("A step", "An image"),
            *(Column(f"Energy at batch {batch}", numeric=True) for batch in batches),
        ),
        rows=tuple(rows),
    )


def _ratio(row: dict[Hashable, Any] | None) -> str:
    if row is None:
        return "1, by the law"
    if not row["told"]:
        return "not told"
    return f"{number(row['ratio'])} ({interval(row['ci_low'], row['ci_high'])})"


def _tests(law: LawAnalysis) -> Table:
    rows: list[tuple[str, ...]] = []
    marked = set()
    for kind, table in (("", law.tests), ("negative control: ", law.controls)):
        for row in table.to_dict("records"):
            if row["finding"]:
                marked.add(len(rows))
            rows.append(
                (
                    f"{kind}{row['term']}",
                    number(row["df"], 2),
                    number(row["f"]),
                    p_value(row["p"]),
                    p_value(row["p_holm"]),
                    "a finding" if row["finding"] else "none",
                )
            )
    return Table(
        caption="Whole factors, by comparing the law with the law without them; negative controls "
        "are factors that cannot act on the energy of an image, a family of their own for Holm's "
        "correction",
        columns=(
            Column("Factor"),
            *numeric("df", "F", "p", "p, Holm"),
            Column("Shown to act"),
        ),
        rows=tuple(rows),
        marked=frozenset(marked),
    )


def _controls_text(law: LawAnalysis) -> str:
    if not len(law.violated):
        return (
            f"None of the {len(law.controls)} negative controls is shown to act on the energy of "
            "an image, as it must be."
        )
    return " ".join(
        f"{row['term']} cannot act on it ({CONTROLS[row['term']]}) and seems to."
        for row in law.violated.to_dict("records")
    )


def _choice_text(law: LawAnalysis) -> str:
    choice = law.choice
    described = {
        "law": "The energy law describes this campaign",
        "log-linear": "The log-linear model of the next section describes this campaign",
        None: "Which model describes this campaign cannot be decided",
    }[choice.model]
    return f"{described}: {choice.why}. The rule, stated before: {CHOICE_RULE}"


def _side_by_side(law: LawAnalysis) -> Table:
    found = {"energy law": law.choice.law, "log-linear model": law.choice.log_linear}
    rows = [(name, *_held_out(figures)) for name, figures in found.items() if figures is not None]
    return Table(
        caption=f"Both models on configurations that they had not seen (median of "
        f"{count(law.choice.repeats, 'repeat')}) of log {law.response.label}",
        columns=(
            Column("Model"),
            *numeric(
                "Parameters",
                "Runs predicted",
                "R²",
                "R², 95 % of the repeats",
                "Median error",
                "90 % of errors below",
                "Inside their interval",
            ),
        ),
        rows=tuple(rows),
    )


def _held_out(found: HeldOut) -> tuple[str, ...]:
    return (
        number(found.parameters, 2),
        percent(found.predicted, 0),
        f"{found.r2:.3f}",
        f"{found.r2_low:.3f} to {found.r2_high:.3f}",
        f"{found.median_ape_percent:.1f} %",
        f"{found.ape90_percent:.1f} %",
        percent(found.coverage, 0),
    )


def _groups(law: LawAnalysis) -> Iterator[str]:
    for row in law.groups.to_dict("records"):
        direction = "more" if row["percent"] > 0 else "less"
        size = count(row["n_configurations"], "configuration")
        yield (
            f"The law is off for a whole group: the {size} with {row['group']} take "
            f"{number(abs(row['percent']), 2)} % {direction} than it says."
        )
    if law.permutation is not None:
        check = law.permutation
        yield (
            f"On {check.permutations:,} permutations of the residuals the same rule finds "
            f"something in {percent(check.false_finding_rate)} ("
            f"{interval(100 * check.rate_low, 100 * check.rate_high, 2)} %); it should not be more "
            f"than {percent(law.alpha, 0)}."
        )
