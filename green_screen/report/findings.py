"""What an analysis found, and how it is said in a sentence."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from green_screen import names
from green_screen.decision.final import RECOMMENDED, SELECTED, Contrast, Estimate, FinalComparison
from green_screen.decision.recommendation import Recommendation
from green_screen.decision.selection import Selection, are_screenings
from green_screen.decision.tradeoff import Cost
from green_screen.report.document import interval, number, share, signed
from green_screen.report.style import Rendered
from green_screen.space import FACTOR_NAMES, TrainingConfig, canonical
from green_screen.statistics.accuracy import AccuracyAnalysis
from green_screen.statistics.law import CONTROLS
from green_screen.statistics.law_analysis import LawAnalysis
from green_screen.statistics.plane import level_plane
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
        accuracy: What the levels do to the test accuracy.
        baseline: The requested configuration that others are compared with.
        selection: The selected configuration; ``None`` if the rule selected none.
        recommendation: The recommended configuration; ``None`` if there is none.
        unrecommended: Why there is none.
        unfinished: How much of its plan has finished, in words, of a campaign that has not come to
            its end; empty for one that has.
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
    accuracy: AccuracyAnalysis
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
    recommendation: Recommendation | None = None
    unrecommended: str = ""
    unfinished: str = ""

    @property
    def told_by_law(self) -> bool:
        """Whether the law describes the energies, so that the log-linear model adds nothing."""
        by_law = self.law.choice.model == "law"
        return by_law and self.analysis.response.name in ("epoch", "per_1k_images")

    @property
    def screened(self) -> bool:
        """Whether all runs that finished are screenings: none was trained to its end."""
        return are_screenings(self.runs)

    @functools.cached_property
    def plane(self) -> pd.DataFrame:
        """What each level costs and what it does to the accuracy."""
        return level_plane(self.law, self.analysis.effects, self.accuracy, by_law=self.told_by_law)

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
    """Return the result in a few sentences, after what it is to be doubted for."""
    so_far = f"Provisional: {findings.unfinished}." if findings.unfinished else ""
    parts = (alarm(findings.law), so_far, _result(findings), _recommended(findings))
    return " ".join(filter(None, parts))


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
        label, moving = findings.moving
        found = f"Shown to move the {label} (Holm's correction): {', '.join(moving)}."
        why = "; ".join(findings.problems or ("no reason was recorded",))
        return f"{found if moving else ''} No configuration could be selected: {why}.".lstrip()
    if selection.config == findings.baseline:
        return (
            f"By {selection.objective}, no configuration of this campaign is better than the "
            "baseline."
        )
    saving = final.saving if final else None
    if saving is None or saving.energy_ratio.pairs == 0:
        compared = (
            "It was not compared with the baseline in runs of its own"
            if saving is None
            else "No pair of the final runs has energies that can be compared"
        )
        return (
            f"By {selection.objective}, the campaign's best configuration is "
            f"{difference_text(findings)}. {compared}, so by how much it is better is not known."
        )
    assert final is not None
    return _contrast_text(
        saving, "The selected configuration", "the baseline", _is_estimated(final)
    )


def _recommended(findings: Findings) -> str:
    """Return whether the recommendation beat the best run; empty without final runs of it."""
    final = findings.final
    found = final.recommended if final else None
    if final is None or found is None:
        return ""
    subject = "The recommended configuration, which no run had tried,"
    best = "the best run" if found.reference == SELECTED else "the best run, which is the baseline"
    if found.energy_ratio.pairs == 0:
        return f"{subject} has no final runs whose energies can be compared with those of {best}."
    return _contrast_text(found, subject, best, _is_estimated(final))


def _contrast_text(contrast: Contrast, subject: str, reference: str, estimated: bool) -> str:
    """Return what the final runs say of one configuration against another, in a sentence or two."""
    ratio, accuracy = contrast.energy_ratio, contrast.accuracy_difference
    energy = _energy_text(ratio.value, estimated)
    if not ratio.has_interval:
        return (
            f"{subject} trained with {energy} {reference} in one run each"
            f"{_accuracy_text(accuracy)}.{_without_interval(contrast)}"
        )
    if ratio.low <= 1 <= ratio.high:
        subject = subject[0].lower() + subject[1:]
        return (
            f"The final runs show no difference in energy between {subject} and "
            f"{reference}: the ratio is {number(ratio.value)} (95 % interval "
            f"{interval(ratio.low, ratio.high)}){_accuracy_text(accuracy)}."
            f"{_without_interval(contrast)}"
        )
    bounds = sorted((abs(1 - ratio.low), abs(1 - ratio.high)))
    return (
        f"{subject} trains with {energy} {reference} (95 % interval "
        f"{share(bounds[0])} to {share(bounds[1])}){_accuracy_text(accuracy)}."
        f"{_without_interval(contrast)}"
    )


def _is_estimated(final: FinalComparison) -> bool:
    return final.source in NO_MEASUREMENT


def _energy_text(ratio: float, estimated: bool) -> str:
    """Return what a ratio says, to go before the name of what it is compared with."""
    if ratio == 1:
        return f"the same {'estimated ' if estimated else ''}energy as"
    amount = f"{'an estimated ' if estimated else ''}{share(abs(1 - ratio))}"
    return f"{amount} {'less' if ratio < 1 else 'more'} energy than"


def difference_text(findings: Findings, role: str = SELECTED) -> str:
    """Return how the selected, or the recommended, configuration differs from the baseline."""
    chosen = findings.recommendation if role == RECOMMENDED else findings.selection
    if chosen is None:
        return "unknown"
    return changes_text(chosen.config, findings.baseline) or "the baseline itself"


def changes_text(config: TrainingConfig, base: TrainingConfig) -> str:
    """Return the levels in which a configuration differs from another."""
    return ", ".join(
        f"{name}={canonical(getattr(config, name))}"
        for name in FACTOR_NAMES
        if getattr(config, name) != getattr(base, name)
    )


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


def _without_interval(contrast: Contrast) -> str:
    """Return a sentence on what rests on one pair alone; nothing if all have an interval."""
    compared = {"energy": contrast.energy_ratio, "test accuracy": contrast.accuracy_difference}
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
