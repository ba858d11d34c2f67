"""The parts of a report that an expert doubts first: effects, fit, measurement and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from green_screen import names
from green_screen.decision.selection import are_screenings
from green_screen.report import tables
from green_screen.report.document import (
    NOT_RECORDED,
    Block,
    Column,
    Section,
    Table,
    Text,
    count,
    number,
)
from green_screen.report.findings import Findings
from green_screen.results.frame import REQUESTED
from green_screen.space import FACTOR_NAMES

HOW_MEASURED = {
    names.SOURCE_COUNTER: (
        "Energy is that of the GPU board, read from NVML's energy counter "
        "(nvmlDeviceGetTotalEnergyConsumption) at both ends of each window after the device had "
        "finished its work, and checked against the integral of sampled power. The processor and "
        "the memory are not in it."
    ),
    names.SOURCE_POWER: (
        "Energy is that of the GPU board, the integral of sampled NVML power by the trapezoid "
        "rule, because this board has no energy counter. The processor and the memory are not in "
        "it."
    ),
    names.SOURCE_ESTIMATE: (
        "There was no GPU to measure. Energy is CodeCarbon's estimate for the processor (its "
        "rated power and load, or RAPL where it may be read) and the memory (a constant power per "
        "module)."
    ),
    names.SOURCE_SAMPLED: (
        "Energy is the integral, by the trapezoid rule, of one power reading an epoch. The runs "
        "were made elsewhere and imported."
    ),
}


_ALONE = "Each run is a process of its own. "
_THE_PARTS = (
    "The energy per epoch is the mean over the steady epochs, "
    "training and validation; the first epoch's excess over them (tracing, compilation, "
    "autotuning) is the warm-up. The energy of the whole training goes from loading the data to "
    "the evaluation on the test part."
)
_OF_A_SCREENING = (
    "Of a screening, blocks of training steps are measured until they are steady and well enough "
    "known, then a validation. The energy per epoch is what an epoch of such steps and one "
    "validation takes; no run was trained to its end, so there is no accuracy and no energy of a "
    "whole training. The energy before the first steady block beyond that of steady ones is the "
    "warm-up."
)
_A_WAITING_BOARD = (
    "The conversion to integers (internal=post_quantization) and the test of the integer model run "
    "on the processor. Their joules, which are in the energy of the whole training, are those of a "
    "board that waits; what the processor takes meanwhile is not in them."
)
_THE_IMPORTED_PARTS = (
    "The energy per epoch is the mean over all epochs but the first, whose excess over them is the "
    "warm-up. The energy of the whole training is the sum over all epochs: loading the data and "
    "the evaluation are not in it."
)


def machine(hardware: Mapping[str, str]) -> str:
    """Return what the runs ran on, from the tags of a run."""
    gpu = hardware.get(names.TAG_GPU_NAME, "")
    if gpu and gpu != "none":
        return gpu
    return hardware.get(names.TAG_CPU_NAME) or "hardware that was not recorded"


def effects(findings: Findings) -> Section:
    """Return the section on what moves the energy; empty where the law has told it."""
    if findings.told_by_law:
        return Section("effects", "What moves the energy", ())
    analysis, figures = findings.analysis, findings.figures
    label = analysis.response.label
    blocks: list[Block] = []
    if analysis.findings:
        blocks.append(
            Text(
                f"Of {int(analysis.anova['p_holm'].notna().sum())} hypotheses stated before, these "
                f"move the {label} (Type II test, Holm's correction, level {analysis.alpha:g}): "
                f"{', '.join(analysis.findings)}."
            )
        )
    elif len(analysis.anova):
        blocks.append(
            Text(f"None of the factors is shown to move the {label} after Holm's correction.")
        )
    blocks.append(figures["forest"])
    blocks.append(tables.anova_table(analysis))
    blocks.append(tables.effects_table("The effect of each level", analysis.effects))
    blocks.append(tables.covariates_table(analysis))
    blocks.append(tables.effects_table("Effects at each batch size", analysis.simple_effects))
    blocks.append(figures["levels"])
    return Section("effects", "What moves the energy", tuple(blocks))


def runs_section(findings: Findings) -> Section:
    """Return the section with the runs themselves."""
    shown = ("configurations", "power", "trace", "curves", "drift")
    return Section(
        "runs",
        "The runs",
        (*(findings.figures[name] for name in shown), tables.runs_table(findings)),
    )


def trust(findings: Findings) -> Section:
    """Return the section on how far the model can be believed."""
    analysis = findings.analysis
    rows = tuple(tables.noise_rows(analysis))
    caption = "What the repeated baseline says"
    more: tuple[Block, ...] = ()
    if not findings.told_by_law:
        rows = (*tables.model_rows(analysis), *rows, *tables.permutation_rows(analysis))
        caption = f"The model of log {analysis.response.label}, in sample and held out"
        more = (findings.figures["fit"], tables.importance_table(analysis))
    columns = (Column("Check"), Column("Value", numeric=True), Column("Meaning"))
    return Section(
        "trust", "How far to trust it", (Table(caption=caption, columns=columns, rows=rows), *more)
    )


def measurement(findings: Findings) -> Section:
    """Return the section on how the energies came about."""
    source = findings.source
    imported = source == names.SOURCE_SAMPLED
    machines = _machines(findings)
    columns = [_facts(tags, runs) for tags, runs in machines]
    on_a_board = source in (names.SOURCE_COUNTER, names.SOURCE_POWER)
    # A screening converts nothing.
    whole = findings.runs[findings.runs[names.ENERGY_TOTAL_J].notna()]
    converted = (whole["effective_internal"] == "post_quantization").any()
    parts = _OF_A_SCREENING if findings.screened else _THE_PARTS
    return Section(
        "measurement",
        "How it was measured",
        (
            Text(HOW_MEASURED.get(source, "How the energies were obtained was not recorded.")),
            Text(_THE_IMPORTED_PARTS if imported else _ALONE + parts),
            *([Text(_A_WAITING_BOARD)] if on_a_board and converted else []),
            Table(
                caption="What it was measured on",
                columns=(Column("What"), *(Column(machine(tags)) for tags, _ in machines)),
                rows=tuple(
                    (name, *(facts.get(name, "none") for facts in columns))
                    for name in dict.fromkeys(name for facts in columns for name in facts)
                ),
            ),
        ),
    )


def _machines(findings: Findings) -> list[tuple[Mapping[str, str], pd.DataFrame]]:
    """Return the tags of each kind of machine and the finished runs on it: equal boards are one."""
    finished = findings.runs[findings.runs["status"] == "FINISHED"]
    kinds: dict[tuple[str, ...], tuple[Mapping[str, str], list[str]]] = {}
    for name, tags in findings.hardware.items():
        key = machine(tags), *_facts(tags, finished.iloc[:0]).values()
        kinds.setdefault(key, (tags, []))[1].append(name)
    return [(tags, finished[finished["machine"].isin(on)]) for tags, on in kinds.values()]


def _facts(tags: Mapping[str, str], runs: pd.DataFrame) -> dict[str, str]:
    """Return what is known of a kind of machine and of the runs on it."""

    def recorded(*keys: str) -> str:
        return ", ".join(tags[key] for key in keys if tags.get(key)) or NOT_RECORDED

    has_gpu = tags.get(names.TAG_GPU_NAME) != "none"
    gpu = {"Driver": recorded("gpu_driver")}
    gpu["CUDA, cuDNN"] = recorded("cuda_version", "cudnn_version")
    return {
        **(gpu if has_gpu else {}),
        "Processor": recorded(names.TAG_CPU_NAME),
        "Operating system": recorded("operating_system"),
        "TensorFlow": recorded("tensorflow_version"),
        "XLA flags": recorded(names.TAG_XLA_FLAGS),
        "Variables that change the execution": recorded(names.TAG_EXECUTION_SETTINGS),
        "Boards" if has_gpu else "Machines": str(max(runs["machine"].nunique(), 1)),
        "Runs finished": f"{len(runs):,}",
        "With a valid measurement": _valid(runs),
        "Idle power, mean": _with_unit(runs[names.IDLE_POWER_W].mean(), "W"),
        "Start temperature, lowest": _with_unit(runs[names.START_TEMPERATURE_C].min(), "°C"),
        "Start temperature, highest": _with_unit(runs[names.START_TEMPERATURE_C].max(), "°C"),
        # A screening has no epoch.
        **(
            {}
            if are_screenings(runs)
            else {"Epoch, median duration": _with_unit(runs[names.EPOCH_TIME_S].median(), "s")}
        ),
    }


def limits(findings: Findings) -> Iterator[str]:
    """Yield what a reader must know before relying on the result."""
    runs, analysis = findings.runs, findings.analysis
    if findings.source == names.SOURCE_SAMPLED:
        yield (
            "One power reading an epoch is a small sample of it: an epoch's energy is as uncertain "
            "as the power varies within it, and boards' sensors are off by about 5 % beside that."
        )
    elif findings.source == names.SOURCE_ESTIMATE:
        yield (
            "Energies are estimates. A configuration that is faster counts as cheaper, whatever "
            "power it drew; the ranking is one of time more than of energy."
        )
    elif findings.source in (names.SOURCE_COUNTER, names.SOURCE_POWER):
        yield (
            "Board sensors are accurate to about 5 %, the same way for every run on one board: "
            "ratios hold on one board; joules of different boards compare less well."
        )
    final = findings.final
    # A run that failed early has not said where it was.
    elsewhere = final is not None and set(final.runs["machine"]) - set(runs["machine"]) - {""}
    if final is not None and elsewhere:
        yield (
            f"The final runs were made on {_names(final.runs['machine'])}, the campaign on "
            f"{_names(runs['machine'])}: what was selected on one was compared on the other."
        )
    yield "It holds for this hardware, model and data set; nothing here says it holds elsewhere."
    if held := held_constant(runs):
        levels = ", ".join(f"{factor}={level}" for factor, level in held.items())
        yield f"It says nothing of what was the same in all runs: {levels}."
    yield "Cooling, power supply and the making of the hardware are not counted."
    yield from _not_finished(runs)
    yield from _crashes(runs)
    diverged = int(runs["diverged"].sum())
    if diverged:
        yield (
            f"The loss became not a number in {count(diverged, 'run')}. The energy of such a run "
            "counts, because it was spent; it is never selected."
        )
    for reason, n_runs in analysis.exclusions.itertuples(index=False):
        yield f"Not in the model, of {count(analysis.n_read, 'run')}: {n_runs}, {reason}."
    yield f"The rule for leaving out runs: {analysis.exclusion_rule}"
    if len(analysis.effects):
        yield (
            "The intervals of single levels are not adjusted for their number: of twenty that have "
            "no effect, about one will exclude 1. The tests of whole factors are adjusted."
        )


def untold(findings: Findings) -> Iterator[str]:
    """Yield what the runs cannot tell although the campaign asked for it."""
    held = held_constant(findings.runs)
    # Where the law describes the energies, nothing else is shown of the other model.
    whose = "the log-linear model, " if findings.told_by_law else ""
    of_law = ((statement, "") for statement in findings.law.statements)
    for statement, of in (*of_law, *((text, whose) for text in findings.analysis.statements)):
        subject = statement.partition(":")[0].partition("(")[0]
        without_gpu = subject == "start_temperature" and findings.source == names.SOURCE_ESTIMATE
        if subject not in held and not without_gpu:
            yield of + statement
    # Screenings have no accuracy, whatever the target.
    if not findings.screened and (why := tables.no_target(findings)):
        yield why


def held_constant(runs: pd.DataFrame) -> dict[str, str]:
    """Return the factors of which the campaign asked for one level alone -> that level."""
    return {
        factor: str(runs[REQUESTED + factor].iloc[0])
        for factor in FACTOR_NAMES
        if runs[REQUESTED + factor].nunique() == 1
    }


def _not_finished(runs: pd.DataFrame) -> Iterator[str]:
    """Yield how many runs did not finish, and how many of them were done again."""
    finished = runs["status"] == "FINISHED"
    if finished.all():
        return
    places = pd.MultiIndex.from_frame(runs[["campaign", "place"]])
    again = int((~finished & runs["place"].ne("") & places.isin(places[finished])).sum())
    failed = int((~finished).sum())
    done = f", {again:,} of which were done again" if again else ""
    unfair = " If that depends on the configuration, what is left is not a fair sample."
    doubt = unfair if again < failed else ""
    yield f"{failed:,} of {len(runs):,} runs did not finish{done}.{doubt}"


def _crashes(runs: pd.DataFrame) -> Iterator[str]:
    """Yield which configurations a library has ended, each with what it said."""
    failures = runs["failure"]
    crashed = failures[failures.str.startswith(names.NATIVE_CRASH)]
    for reason, n_runs in crashed.value_counts().items():
        yield (
            f"{count(int(n_runs), 'run')} ended in the middle in native code of a library, not in "
            f"this project's ({reason}): such a configuration may have no energy here."
        )


def _names(values: pd.Series[str]) -> str:
    return ", ".join(sorted(set(values) - {""})) or "unknown hardware"


def _valid(runs: pd.DataFrame) -> str:
    stated = runs["measurement_valid"].str.lower()
    if not stated.isin(["true", "false"]).any():
        return NOT_RECORDED
    return f"{(stated == 'true').sum():,}"


def _with_unit(value: float, unit: str) -> str:
    return f"{number(value)} {unit}" if np.isfinite(value) else NOT_RECORDED
