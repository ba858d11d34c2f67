"""What the report says of accuracies: what a level costs there, and how many runs diverged."""

from __future__ import annotations

import numpy as np

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
    percent,
    signed,
)
from green_screen.report.findings import Findings
from green_screen.statistics.accuracy import LEARNT_RULE


def accuracy_section(findings: Findings) -> Section:
    """Return the section on what levels cost in accuracy, or why that cannot be said."""
    found = findings.accuracy
    blocks: list[Block] = []
    if found.why:
        blocks.append(Text(f"What a level costs in accuracy cannot be said: {found.why}."))
    elif len(findings.plane):
        blocks += [Text(_what(findings)), findings.figures["plane"], _plane_table(findings)]
    if found.n_diverged:
        blocks.append(_diverged(findings))
    return Section("accuracy", "What it costs in accuracy", tuple(blocks))


def _what(findings: Findings) -> str:
    found = findings.accuracy
    others = (
        f"{count(found.n_diverged, 'run')} diverged and "
        f"{found.n_runs - found.n_diverged - found.n_learnt} did not learn. "
    )
    energies = (
        "Ratios of energy are the law's, on an image; what does not enter the law has the ratio 1."
        if findings.told_by_law
        else "Ratios of energy are the log-linear model's, on the "
        f"{findings.analysis.response.label}."
    )
    return (
        f"Test accuracies of the {found.n_learnt} of {count(found.n_runs, 'run')} that learnt, by "
        f"the main effects of the levels; {others}One run lies {number(found.spread_points)} "
        f"points from this model (standard deviation): what levels do together is in that. "
        f"{energies} Intervals are for one level each and not adjusted for their number. "
        f"{LEARNT_RULE}"
    )


def _plane_table(findings: Findings) -> Table:
    rows = []
    for row in findings.plane.to_dict("records"):
        within = f" ({row['within'].removeprefix('optimizer=')})" if row["within"] else ""
        by_law = np.isclose(row["ratio_low"], row["ratio_high"])
        ratio = (
            "1, by the law"
            if by_law
            else f"{number(row['ratio'])} ({interval(row['ratio_low'], row['ratio_high'])})"
        )
        points = (
            f"{signed(row['points'])} ({signed(row['points_low'])} to {signed(row['points_high'])})"
        )
        rows.append((f"{row['factor']}{within}", row["level"], ratio, points, row["verdict"]))
    return Table(
        caption="What each level costs and does to the test accuracy, against the baseline's level",
        columns=(
            Column("Factor"),
            Column("Level"),
            Column("Energy, ratio", numeric=True),
            Column("Accuracy", "points", numeric=True),
            Column("What it is"),
        ),
        rows=tuple(rows),
        folded=True,
    )


def _diverged(findings: Findings) -> Table:
    shares = findings.accuracy.diverged
    shown = shares[shares["n_diverged"] > 0].sort_values("share", ascending=False, kind="stable")
    return Table(
        caption=f"Levels of the {count(findings.accuracy.n_diverged, 'run')} that diverged, with "
        "Wilson's interval; other factors differ between these runs",
        columns=(
            Column("Factor"),
            Column("Level"),
            *numeric("Diverged", "Runs", "Share", "95 % interval"),
        ),
        rows=tuple(
            (
                str(row["factor"]),
                str(row["level"]),
                str(row["n_diverged"]),
                str(row["n_runs"]),
                percent(row["share"], 0),
                f"{percent(row['ci_low'], 0)} to {percent(row['ci_high'], 0)}",
            )
            for row in shown.to_dict("records")
        ),
        folded=True,
    )
