"""What an analysis found, and how it is said in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from green_screen import names
from green_screen.analysis.document import interval, number, percent
from green_screen.analysis.final import Estimate, FinalComparison
from green_screen.analysis.regression import EnergyAnalysis
from green_screen.analysis.selection import Selection
from green_screen.analysis.style import Rendered
from green_screen.analysis.tradeoff import Cost
from green_screen.space import FACTOR_NAMES, TrainingConfig, canonical

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
        campaign: Name of the campaign.
        campaign_run_id: Its parent run.
        runs: All runs of the campaign, rows of :func:`green_screen.analysis.runs.read_runs`.
        hardware: Tags of one of the runs that say what it ran on.
        analysis: The fitted model.
        baseline: The requested configuration that others are compared with; ``None`` if no run
            of the baseline was found.
        selection: The selected configuration; ``None`` if the rule selected none.
        final: The final comparison; ``None`` if there was none.
        problems: Why a selection or a final comparison is missing.
        front: The Pareto front, rows of `runs`.
        break_even: Rows of :func:`green_screen.analysis.tradeoff.break_even`.
        cost: What the whole campaign cost.
        figures: Name -> figure.
        how: What made the report: versions, date, options.
    """

    campaign: str
    campaign_run_id: str
    runs: pd.DataFrame
    hardware: Mapping[str, str]
    analysis: EnergyAnalysis
    baseline: TrainingConfig | None
    selection: Selection | None
    final: FinalComparison | None
    problems: tuple[str, ...]
    front: pd.DataFrame
    break_even: pd.DataFrame
    cost: Cost
    figures: Mapping[str, Rendered] = field(default_factory=dict)
    how: str = ""

    @property
    def source(self) -> str:
        """How the energies of most runs were obtained, a value of ``names.TAG_ENERGY_SOURCE``."""
        counts = self.runs["energy_source"].replace("", float("nan")).mode()
        return str(counts.iloc[0]) if len(counts) else ""


def headline(findings: Findings) -> str:
    """Return the result in a sentence or two."""
    final, selection = findings.final, findings.selection
    if selection is None:
        return "No configuration could be selected from this campaign: " + "; ".join(
            findings.problems or ("no reason was recorded",)
        )
    if selection.config == findings.baseline:
        return (
            f"By {selection.objective}, no configuration of this campaign is better than the "
            "baseline: there is nothing to save."
        )
    if final is None or final.energy_ratio.pairs == 0:
        return (
            f"By {selection.objective}, the campaign's best configuration is "
            f"{difference_text(findings)}. It was not compared with the baseline in runs of its "
            "own, so by how much it is better is not known."
        )
    ratio, accuracy = final.energy_ratio, final.accuracy_difference
    estimated = "an estimated " if final.source in NO_MEASUREMENT else ""
    saved = 1 - ratio.value
    energy = f"{estimated}{percent(abs(saved), 0)} {'less' if saved >= 0 else 'more'} energy"
    if not ratio.has_interval:
        return (
            f"In one run each, the selected configuration trained with {energy} than the "
            f"baseline{_accuracy_text(accuracy)}. One pair of runs has no interval: the difference "
            "may be noise."
        )
    if ratio.low <= 1 <= ratio.high:
        return (
            "The final runs show no difference in energy between the selected configuration and "
            f"the baseline: the ratio is {number(ratio.value)} (95 % interval "
            f"{interval(ratio.low, ratio.high)}){_accuracy_text(accuracy)}."
        )
    bounds = sorted((abs(1 - ratio.low), abs(1 - ratio.high)))
    return (
        f"The selected configuration trains with {energy} than the baseline (95 % interval "
        f"{percent(bounds[0], 0)} to {percent(bounds[1], 0)}){_accuracy_text(accuracy)}."
    )


def difference_text(findings: Findings) -> str:
    """Return how the selected configuration differs from the baseline."""
    if findings.selection is None or findings.baseline is None:
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
    points = 100 * difference.value
    bounds = f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    if difference.has_interval and difference.low <= 0 <= difference.high:
        return f"; no difference in test accuracy is shown ({points:+.1f} points, {bounds})"
    word = "higher" if points > 0 else "lower"
    more = f" ({bounds})" if difference.has_interval else ""
    return f", at a test accuracy {abs(points):.1f} percentage points {word}{more}"
