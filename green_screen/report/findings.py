"""What an analysis found, and how it is said in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from green_screen import names
from green_screen.decision.final import Estimate, FinalComparison
from green_screen.decision.selection import Selection
from green_screen.decision.tradeoff import Cost
from green_screen.report.document import interval, number, share, signed
from green_screen.report.style import Rendered
from green_screen.space import FACTOR_NAMES, TrainingConfig, canonical
from green_screen.statistics.law import CONTROLS
from green_screen.statistics.law_analysis import LawAnalysis
from green_screen.statistics.regression import EnergyAnalysis

NO_MEASUREMENT = {
    names.SOURCE_ESTIMATE: (
        "All energies in this report are estimates by CodeCarbon, not measurements: there was no "
        "NVIDIA GPU with an energy counter. They follow the duration of a run and an assumed "
        "power of the processor and the memory."
    ),
    names.SOURCE_SAMPLED: (
        "The energies in this report are integrals of one power reading an epoch, made elsewhere: "
        "what happened between two readings is not in them."
    ),
}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that a report is written from.

    Attributes:
        campaign: Name of the campaign; of several, all of them.
        campaign_run_id: Its parent run; of several, joined by commas.
        runs: All runs of the campaign, rows of :func:`green_screen.results.runs.read_runs`.
        hardware: Machine, as in `runs` -> tags of a run that say what it ran on.
        analysis: The log-linear model.
        law: The energy law, its tests and negative controls.
        baseline: The requested configuration that others are compared with.
        selection: The selected configuration; ``None`` if the rule selected none.
        final: The final comparison; ``None`` if there was none.
        problems: Why a selection or a final comparison is missing.
        front: The Pareto front, rows of `runs`.
        target_accuracy: Validation accuracy of `to_accuracy`, as a fraction; NaN if there is none.
        to_accuracy: Energy to reach it, rows of
            :func:`green_screen.decision.tradeoff.energy_to_accuracy`.
        cost: What the whole campaign cost.
        finals_reused: How many of the final runs an earlier analysis had made.
        figures: Name -> figure.
        how: What made the report: versions, date, options.
    """

    campaign: str
    campaign_run_id: str
    runs: pd.DataFrame
    hardware: Mapping[str, Mapping[str, str]]
    analysis: EnergyAnalysis
    law: LawAnalysis
    baseline: TrainingConfig
    selection: Selection | None
    final: FinalComparison | None
    problems: tuple[str, ...]
    front: pd.DataFrame
    target_accuracy: float
    to_accuracy: pd.DataFrame
    cost: Cost
    finals_reused: int = 0
    figures: Mapping[str, Rendered] = field(default_factory=dict)
    how: str = ""

    @property
    def told_by_law(self) -> bool:
        """Whether the law describes the energies, so that the log-linear model adds nothing."""
        by_law = self.law.choice.model == "law"
        return by_law and self.analysis.response.name in ("epoch", "per_1k_images")

    @property
    def moving(self) -> tuple[str, tuple[str, ...]]:
        """What is shown to be moved, and by which terms."""
        if self.told_by_law:
            tests = self.law.tests
            found = tests.loc[tests["finding"].astype(bool), "term"]
            return self.law.response.label, tuple(found)
        return self.analysis.response.label, tuple(self.analysis.findings)

    @property
    def source(self) -> str:
        """How the energies were obtained, a value of ``names.TAG_ENERGY_SOURCE``.

        That of the runs analysed, which is one; that of most runs if none could be.
        """
        runs = self.analysis.runs if len(self.analysis.runs) else self.runs
        counts = runs["energy_source"].replace("", float("nan")).mode()
        return str(counts.iloc[0]) if len(counts) else ""


def headline(findings: Findings) -> str:
    """Return the result in a sentence or two, after the alarm of a negative control."""
    return " ".join(filter(None, (alarm(findings.law), _result(findings))))


def alarm(law: LawAnalysis) -> str:
    """Return why the campaign cannot be trusted, if a negative control is a finding."""
    if not len(law.violated):
        return ""
    seen = "; ".join(
        f"{row['level']} by {number(row['ratio'])} ({interval(row['ci_low'], row['ci_high'])}), "
        f"although {CONTROLS[row['term']]}"
        for row in law.violated.to_dict("records")
    )
    return (
        f"This campaign cannot be trusted: what cannot act on the energy of an image seems to "
        f"({seen}). Either epochs were measured that are not steady, or boards, order or another "
        f"load went with the level, or the law lacks a mechanism."
    )


def _result(findings: Findings) -> str:
    final, selection = findings.final, findings.selection
    if selection is None:
        return "No configuration could be selected from this campaign: " + "; ".join(
            findings.problems or ("no reason was recorded",)
        )
    if selection.config == findings.baseline:
        return (
            f"By {selection.objective}, no configuration of this campaign is better than the "
            "baseline."
        )
    if final is None or final.energy_ratio.pairs == 0:
        compared = (
            "It was not compared with the baseline in runs of its own"
            if final is None
            else "No pair of the final runs has energies that can be compared"
        )
        return (
            f"By {selection.objective}, the campaign's best configuration is "
            f"{difference_text(findings)}. {compared}, so by how much it is better is not known."
        )
    ratio, accuracy = final.energy_ratio, final.accuracy_difference
    energy = _energy_text(ratio.value, estimated=final.source in NO_MEASUREMENT)
    if not ratio.has_interval:
        return (
            f"The selected configuration trained with {energy} baseline in one run each"
            f"{_accuracy_text(accuracy)}.{_without_interval(final)}"
        )
    if ratio.low <= 1 <= ratio.high:
        return (
            "The final runs show no difference in energy between the selected configuration and "
            f"the baseline: the ratio is {number(ratio.value)} (95 % interval "
            f"{interval(ratio.low, ratio.high)}){_accuracy_text(accuracy)}."
            f"{_without_interval(final)}"
        )
    bounds = sorted((abs(1 - ratio.low), abs(1 - ratio.high)))
    return (
        f"The selected configuration trains with {energy} baseline (95 % interval "
        f"{share(bounds[0])} to {share(bounds[1])}){_accuracy_text(accuracy)}."
        f"{_without_interval(final)}"
    )


def _energy_text(ratio: float, estimated: bool) -> str:
    """Return what a ratio says, to go before the name of what it is compared with."""
    if ratio == 1:
        return f"the same {'estimated ' if estimated else ''}energy as the"
    amount = f"{'an estimated ' if estimated else ''}{share(abs(1 - ratio))}"
    return f"{amount} {'less' if ratio < 1 else 'more'} energy than the"


def difference_text(findings: Findings) -> str:
    """Return how the selected configuration differs from the baseline."""
    if findings.selection is None:
        return "unknown"
    config, base = findings.selection.config, findings.baseline
    changed = [
        f"{name}={canonical(getattr(config, name))}"
        for name in FACTOR_NAMES
        if getattr(config, name) != getattr(base, name)
    ]
    return ", ".join(changed) or "the baseline itself"


def _accuracy_text(difference: Estimate) -> str:
    """Return the end of a sentence on the difference of test accuracies."""
    if difference.pairs == 0:
        return "; test accuracy was not measured"
    points = 100 * difference.value
    bounds = f"{signed(100 * difference.low)} to {signed(100 * difference.high)}"
    if difference.has_interval and difference.low <= 0 <= difference.high:
        return f"; no difference in test accuracy is shown ({signed(points)} points, {bounds})"
    if points == 0:
        return ", at the same test accuracy"
    word = "higher" if points > 0 else "lower"
    more = f" ({bounds})" if difference.has_interval else ""
    return f", at a test accuracy {_points(points)} percentage points {word}{more}"


def _without_interval(final: FinalComparison) -> str:
    """Return a sentence on what rests on one pair alone; nothing if all have an interval."""
    compared = {"energy": final.energy_ratio, "test accuracy": final.accuracy_difference}
    lacking = [what for what, e in compared.items() if e.pairs and not e.has_interval]
    if not lacking:
        return ""
    return (
        f" One pair of runs has no interval: the difference in {' and '.join(lacking)} may be "
        "noise."
    )


def _points(points: float) -> str:
    """Return a size of a difference that is not 0."""
    return "less than 0.1" if abs(points) < 0.05 else f"{abs(points):.1f}"
