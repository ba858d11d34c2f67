"""The tables of a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.decision.final import (
    BASELINE,
    QUANTITIES,
    RECOMMENDED,
    Contrast,
    FinalComparison,
)
from green_screen.decision.recommendation import VARIED, Recommendation
from green_screen.decision.selection import Selection
from green_screen.decision.tradeoff import reaching
from green_screen.report.document import (
    MISSING,
    Column,
    Table,
    count,
    interval,
    number,
    numeric,
    p_value,
    percent,
)
from green_screen.report.figures import energy_unit
from green_screen.report.findings import Findings
from green_screen.space import FACTOR_NAMES
from green_screen.statistics.regression import EnergyAnalysis

MAX_ROWS = 200


def final_tables(final: FinalComparison) -> Iterator[Table]:
    """Yield a table for each two configurations that are compared; of one alone, its means."""
    for contrast in final.contrasts:
        yield _contrast_table(final, contrast)
    if len(final.roles) == 1:
        yield _means_table(final, final.roles[0])


def _contrast_table(final: FinalComparison, contrast: Contrast) -> Table:
    role, reference = contrast.role, contrast.reference
    rows: list[tuple[str, ...]] = []
    for metric, (label, unit) in QUANTITIES.items():
        estimate = contrast.ratios[metric]
        rows.append(
            (
                label,
                energy_unit(unit, final.source),
                str(estimate.pairs),
                number(contrast.means[metric][reference]),
                number(contrast.means[metric][role]),
                number(estimate.value),
                interval(estimate.low, estimate.high),
            )
        )
    accuracy, accuracies = contrast.accuracy_difference, contrast.means[names.TEST_ACCURACY]
    rows.append(
        (
            "test accuracy (difference)",
            "%",
            str(accuracy.pairs),
            number(100 * accuracies[reference]),
            number(100 * accuracies[role]),
            number(round(100 * accuracy.value, 2), 2),
            interval(100 * accuracy.low, 100 * accuracy.high, 2),
        )
    )
    which = f", {role} against {reference}" if len(final.contrasts) > 1 else ""
    return Table(
        caption=f"Final runs of {_epochs_of(final.runs)}{which}: means over the pairs of runs that "
        "count",
        columns=(
            Column("Quantity"),
            Column("Unit"),
            *numeric("Pairs", reference.capitalize(), role.capitalize()),
            *numeric("Ratio, or difference", "95 % interval"),
        ),
        rows=tuple(rows),
        marked=frozenset({list(QUANTITIES).index(final.energy_metric)}),
        # What follows from the other two.
        folded=(role, reference) == (RECOMMENDED, BASELINE) and len(final.contrasts) > 1,
    )


def _means_table(final: FinalComparison, role: str) -> Table:
    """Return the table of runs that there is nothing to compare with."""
    runs = final.of(role)
    valid = runs[runs["measurement_valid"].str.lower() != "false"]
    quantities = {m: (label, energy_unit(u, final.source)) for m, (label, u) in QUANTITIES.items()}
    values = {metric: valid[metric].dropna() for metric in quantities}
    values[names.TEST_ACCURACY] = 100 * runs[names.TEST_ACCURACY].dropna()
    quantities[names.TEST_ACCURACY] = ("test accuracy", "%")
    return Table(
        caption=f"Final runs of {_epochs_of(final.runs)} of the {role}, with which nothing is "
        "compared: means over the runs that count",
        columns=(Column("Quantity"), Column("Unit"), *numeric("Runs", "Mean")),
        rows=tuple(
            (label, unit, str(len(values[metric])), number(values[metric].mean()))
            for metric, (label, unit) in quantities.items()
            if len(values[metric])
        ),
    )


def _epochs_of(runs: pd.DataFrame) -> str:
    epochs = sorted(set(runs["epochs"].dropna().astype(int)))
    return " or ".join(count(number, "epoch") for number in epochs) or "unknown length"


def configuration_table(findings: Findings, selection: Selection) -> Table:
    """Return the table of the selected, and the recommended, configuration beside the baseline."""
    rows, marked = [], set()
    found = findings.recommendation
    base = findings.baseline.as_params()
    requested = selection.config.as_params()
    more = [] if found is None else [found.effective]
    for index, name in enumerate(FACTOR_NAMES):
        asked = [requested[name], selection.effective[name], *(levels[name] for levels in more)]
        rows.append((name, base[name], *asked))
        if base[name] != requested[name] or (more and more[0][name] != base[name]):
            marked.add(index)
    both = "" if found is None else " and the recommended"
    recommended = () if found is None else (Column("Recommended"),)
    return Table(
        caption=f"The selected{both} configuration; factors that differ from the baseline are "
        "emphasised",
        columns=(
            Column("Factor"),
            Column("Baseline"),
            Column("Selected"),
            Column("Executed"),
            *recommended,
        ),
        rows=tuple(rows),
        marked=frozenset(marked),
    )


def recommendation_table(findings: Findings, found: Recommendation) -> Table:
    """Return the table of what is predicted for the recommended configuration and the best run."""
    joules = energy_unit("kJ", findings.source)
    rows = [
        (
            "energy of the whole training",
            joules,
            *(
                f"{number(of['energy_j'] / 1000)} "
                f"({interval(of['energy_low_j'] / 1000, of['energy_high_j'] / 1000)})"
                for of in (found.best_run, found.predicted)
            ),
        )
    ]
    if np.isfinite(found.predicted["accuracy"]):
        rows.append(
            (
                "validation accuracy",
                "%",
                *(
                    f"{number(100 * of['accuracy'])} "
                    f"({interval(100 * of['accuracy_low'], 100 * of['accuracy_high'])})"
                    for of in (found.best_run, found.predicted)
                ),
            )
        )
    return Table(
        caption=f"What the law predicts for {count(found.epochs, 'epoch')}: one new run, with its "
        "95 % interval",
        columns=(
            Column("Quantity"),
            Column("Unit"),
            *numeric("Best run", "Recommended"),
        ),
        rows=tuple(rows),
    )


def predicted_table(findings: Findings, found: Recommendation) -> Table:
    """Return the table of the first ten predicted combinations."""
    shown = found.candidates.head(10)
    return Table(
        caption="The first ten by prediction, at the best run's levels of what does not enter the "
        "law",
        columns=(
            *(Column(factor) for factor in VARIED),
            Column("Energy", energy_unit("kJ", findings.source), numeric=True),
            Column("Validation accuracy", numeric=True),
            Column("Left out"),
        ),
        rows=tuple(
            (
                *(str(row[factor]) for factor in VARIED),
                number(row["energy_j"] / 1000),
                percent(row["accuracy"]),
                str(row["left_out"]) or "no",
            )
            for row in shown.to_dict("records")
        ),
        folded=True,
    )


def candidates_table(selection: Selection, source: str) -> Table:
    """Return the table of the first ten candidates."""
    rows = tuple(
        (
            str(rank),
            name,
            str(count),
            percent(accuracy),
            number(energy / 1000),
        )
        for rank, name, count, accuracy, energy in zip(
            *(
                selection.candidates.head(10)[column]
                for column in ("rank", "run_name", "n_runs", "val_accuracy", "energy_j")
            ),
            strict=True,
        )
    )
    return Table(
        caption="The first ten candidates by the rule",
        columns=(
            Column("Rank", numeric=True),
            Column("Run"),
            *numeric("Runs", "Validation accuracy"),
            Column("Energy", energy_unit("kJ", source), numeric=True),
        ),
        rows=rows,
        folded=True,
    )


def left_out(caption: str, excluded: pd.DataFrame) -> Table:
    """Return the table of why runs were left out, from their column ``reason``."""
    reasons = excluded["reason"].value_counts()
    return Table(
        caption=caption,
        columns=(Column("Reason"), Column("Runs", numeric=True)),
        rows=tuple((str(reason), str(n)) for reason, n in reasons.items()),
        folded=True,
    )


def no_target(findings: Findings) -> str:
    """Return why the energy to reach an accuracy is not known; empty if it is."""
    if not np.isfinite(findings.target_accuracy):
        return (
            "The energy to reach the baseline's accuracy is not known, because no run of the "
            "baseline that can be compared has both a validation accuracy and a known energy of "
            "the set-up. The option target_accuracy names another one."
        )
    if findings.to_accuracy["energy_j"].isna().all():
        return (
            f"No run has ended at a validation accuracy of {percent(findings.target_accuracy)} or "
            "above with the energy of every epoch up to there, so the energy to reach it is not "
            "known."
        )
    return ""


def to_accuracy(findings: Findings) -> Table | None:
    """Return the table of the runs that reached an accuracy with the least energy."""
    if no_target(findings):
        return None
    reached = findings.to_accuracy[findings.to_accuracy["energy_j"].notna()]
    accuracy = percent(findings.target_accuracy)
    kinds = findings.runs.set_index("run_id")["kind"].reindex(reached["run_id"]).to_numpy()
    places, is_baseline = np.arange(len(reached)), kinds == names.KIND_BASELINE
    shown = (places < 10) | (places == np.argmax(is_baseline))
    reached, is_baseline = reached[shown], is_baseline[shown]
    n_reaching = len(reaching(findings.runs, findings.target_accuracy))
    among = "the runs that end at or above it"
    if (n_read := len(findings.to_accuracy)) < n_reaching:
        among = (
            f"{n_read} of {n_reaching:,} runs that end at or above it, of the least energy in all"
        )
    baseline = (
        ", and the baseline, emphasised" if is_baseline.any() else "; none is of the baseline"
    )
    return Table(
        caption=f"Energy to reach a validation accuracy of {accuracy}, set-up included: the "
        f"first ten of {among}{baseline}",
        columns=(
            Column("Run"),
            Column("Energy", energy_unit("kJ", findings.source), numeric=True),
            Column("Epochs", numeric=True),
        ),
        rows=tuple(
            (str(name), number(energy_j / 1000), str(int(epoch) + 1))
            for name, energy_j, epoch in zip(
                reached["run_name"], reached["energy_j"], reached["epoch"], strict=True
            )
        ),
        marked=frozenset(np.flatnonzero(is_baseline).tolist()),
    )


def front_table(findings: Findings) -> Table:
    """Return the table of the Pareto front."""
    front = findings.front
    energy = energy_unit("kJ", findings.source)
    return Table(
        caption="The Pareto front, by rising energy of the whole training",
        columns=(
            Column("Run"),
            Column("Energy", energy, numeric=True),
            Column("Test accuracy", numeric=True),
        ),
        rows=tuple(
            (name, number(energy_j / 1000), percent(accuracy))
            for name, energy_j, accuracy in zip(
                front["run_name"],
                front[names.ENERGY_TOTAL_J],
                front[names.TEST_ACCURACY],
                strict=True,
            )
        ),
    )


def importance_table(analysis: EnergyAnalysis) -> Table:
    """Return the table of the forest's second opinion."""
    return Table(
        caption="A second opinion: permutation importance in a random forest",
        columns=(
            Column("Factor"),
            Column("Importance", "loss of R²", numeric=True),
            Column("Standard deviation", numeric=True),
        ),
        rows=tuple(
            (str(factor), number(importance, 2), number(sd, 2))
            for factor, importance, sd in analysis.importance.itertuples(index=False)
        ),
        folded=True,
    )


def anova_table(analysis: EnergyAnalysis) -> Table:
    """Return the analysis of variance."""
    table = analysis.anova.reset_index(drop=True)
    return Table(
        caption="Analysis of variance, Type II; findings are emphasised",
        columns=(
            Column("Term"),
            *numeric("df", "F", "p", "p, Holm", "Partial η²", "Partial ω²"),
        ),
        rows=tuple(
            (
                str(row["term"]),
                str(row["df"]),
                number(row["f"]),
                p_value(row["p"]),
                p_value(row["p_holm"]),
                number(row["partial_eta_sq"], 2),
                number(row["partial_omega_sq"], 2),
            )
            for _, row in table.iterrows()
        ),
        marked=frozenset(table.index[table["finding"].astype(bool)]),
    )


def effects_table(caption: str, table: pd.DataFrame) -> Table:
    """Return a table of ratios, without the references' own rows."""
    shown = table[~table["is_reference"].astype(bool)]
    return Table(
        caption=f"{caption}: ratio to the reference level",
        columns=(
            Column("Factor"),
            Column("Level"),
            Column("Reference"),
            *numeric("Ratio", "95 % interval", "Runs"),
        ),
        rows=tuple(
            (
                f"{row['factor']} ({row['within']})" if row["within"] else str(row["factor"]),
                str(row["level"]),
                str(row["reference"]),
                number(row["ratio"]),
                interval(row["ci_low"], row["ci_high"]),
                str(row["n_runs"]),
            )
            for _, row in shown.iterrows()
        ),
        folded=True,
    )


def covariates_table(analysis: EnergyAnalysis) -> Table:
    """Return the table of what is in the model beside the factors."""
    return Table(
        caption="Covariates: ratio of the response at the highest value to that at the lowest",
        columns=(
            Column("Covariate"),
            *numeric("Span", "Ratio", "95 % interval", "p"),
        ),
        rows=tuple(
            (
                _short_id(row["covariate"]),
                number(row["span"]),
                number(row["ratio"]),
                interval(row["ci_low"], row["ci_high"]),
                p_value(row["p"]),
            )
            for _, row in analysis.covariates.iterrows()
        ),
        folded=True,
    )


def _short_id(covariate: str) -> str:
    """Return a covariate's name with the first eight characters of the campaign it is of."""
    name, nested, campaign = covariate.partition("(")
    return f"{name} ({campaign.removesuffix(')')[:8]})" if nested else name


def runs_table(findings: Findings) -> Table:
    """Return all runs by the response, or the first of them."""
    runs, response, source = findings.runs, findings.analysis.response, findings.source
    ordered = runs.sort_values(response.metric, kind="stable")
    shown = ordered.head(MAX_ROWS)
    cut = f", the first {MAX_ROWS} of {len(runs)}" if len(runs) > MAX_ROWS else ""
    table = Table(
        caption=f"All runs by {response.label}{cut}",
        columns=(
            Column("Run"),
            Column("Kind"),
            Column("Status"),
            Column(response.label.capitalize(), energy_unit(response.unit, source), numeric=True),
            Column("Whole training", energy_unit("kJ", source), numeric=True),
            Column("Duration", "s", numeric=True),
            Column("Validation accuracy", numeric=True),
        ),
        rows=tuple(
            (
                row["run_name"],
                row["kind"],
                row["status"] + (", diverged" if row["diverged"] else ""),
                number(row[response.metric]),
                number(row[names.ENERGY_TOTAL_J] / 1000),
                number(row[names.DURATION_S]),
                percent(row[names.VAL_ACCURACY]),
            )
            for _, row in shown.iterrows()
        ),
        folded=True,
        long=True,
    )
    return _without_unknown(table)


def _without_unknown(table: Table) -> Table:
    """Return a table without the columns of which no row knows anything."""
    known = [
        index
        for index in range(len(table.columns))
        if any(row[index] != MISSING for row in table.rows)
    ]
    return dataclasses.replace(
        table,
        columns=tuple(table.columns[index] for index in known),
        rows=tuple(tuple(row[index] for index in known) for row in table.rows),
    )


def model_rows(analysis: EnergyAnalysis) -> Iterator[tuple[str, str, str]]:
    """Yield check, value and meaning of what says how good the log-linear model is."""
    fit, held_out = analysis.diagnostics, analysis.cross_validation
    if fit is not None:
        yield "Runs, parameters", f"{fit.n_runs}, {fit.n_parameters}", "in the model"
        yield "R², adjusted", number(fit.r2_adjusted), f"in sample; {number(fit.r2)} unadjusted"
        yield "Residual spread", f"{number(fit.residual_sd_percent)} %", "of a run around the model"
        condition = number(fit.condition_number) if fit.condition_number < np.inf else "infinite"
        yield "Condition number", condition, "above 30: terms hard to tell apart"
        yield "Shapiro-Wilk p", p_value(fit.shapiro_p), "small: residuals are not normal"
        yield (
            "Skewness, excess kurtosis",
            f"{number(fit.skewness, 2)}, {number(fit.excess_kurtosis, 2)}",
            "of the residuals; 0 and 0 if normal",
        )
        yield "Breusch-Pagan p", p_value(fit.breusch_pagan_p), "small: spread depends on the levels"
        yield "Durbin-Watson", number(fit.durbin_watson), "2: neighbours in time are unrelated"
        yield "Largest Cook's distance", number(fit.max_cooks_distance), "influence of one run"
        yield "Lack of fit p", p_value(fit.lack_of_fit_p), "small: terms are missing"
    if held_out is not None:
        yield (
            "R², held out",
            number(held_out.r2),
            f"{held_out.repeats} x {held_out.folds}-fold by configuration, repeats "
            f"{interval(held_out.r2_low, held_out.r2_high)}; "
            f"{number(held_out.r2_batch_size)} with batch size alone",
        )
        yield "Skill", number(held_out.skill), "share of batch size's error that the rest removes"
        yield (
            "Median absolute error",
            f"{number(held_out.median_ape_percent)} %",
            "of held-out predictions",
        )
        yield (
            "Coverage of 95 % intervals",
            percent(held_out.coverage),
            f"upper over lower end {number(held_out.interval_ratio)}, median",
        )


def noise_rows(analysis: EnergyAnalysis) -> Iterator[tuple[str, str, str]]:
    """Yield check, value and meaning of what the repeated baseline says."""
    if (noise := analysis.noise) is not None:
        yield (
            "Noise of the baseline",
            f"{number(noise.noise_percent)} %",
            f"{noise.n_replicates} runs; interval "
            f"{interval(noise.noise_low_percent, noise.noise_high_percent)} %",
        )
        yield (
            "Drift over the campaign",
            number(noise.drift_ratio),
            f"last over first, by {count(noise.n_drifts, 'slope')}; interval "
            f"{interval(noise.drift_low, noise.drift_high)}, p {p_value(noise.drift_p)}"
            f"{': none is shown' if noise.drift_p > analysis.alpha else ''}",
        )


def permutation_rows(analysis: EnergyAnalysis) -> Iterator[tuple[str, str, str]]:
    """Yield check, value and meaning of the check of the whole rule."""
    if (check := analysis.permutation) is not None:
        yield (
            "False findings, permuted",
            percent(check.false_finding_rate),
            f"of {check.permutations} campaigns without any effect; at most "
            f"{percent(analysis.alpha)} is meant, interval {percent(check.rate_low)} to "
            f"{percent(check.rate_high)}",
        )
        yield (
            "Strongest term, permuted p",
            p_value(check.p),
            "share of those campaigns with a term at least as strong as the strongest here",
        )
