"""The study's questions, each answered by contrasts of the energy law with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from reading import PLANNED, Block

from green_screen.report.document import interval, number
from green_screen.results.frame import EFFECTIVE
from green_screen.space import partition_percentages
from green_screen.statistics.coding import Matrix, sort_levels
from green_screen.statistics.law import LAW_FACTORS, Rows, common_task
from green_screen.statistics.law_analysis import LawAnalysis
from green_screen.statistics.law_effects import law_lines, marginal_ratios, rows_at
from green_screen.statistics.law_fit import LawFit
from green_screen.statistics.law_prediction import TrainingModel

XLA, QAT = "jit_compilation", "pre_quantization"
Levels = Mapping[str, str]


class NotYetError(ValueError):
    """The data do not tell something; the text says what is missing."""


class Figure(NamedTuple):
    """A number of an answer with its 95 % interval, and the used runs with the levels asked for."""

    at: str
    estimate: float
    ci_low: float
    ci_high: float
    unit: str
    n_runs: int

    def __str__(self) -> str:
        """Say it in words."""
        if self.unit == "ratio" and self.estimate < 2:
            ends = " to ".join(f"{100 * (end - 1):+.1f} %" for end in self[2:4])
            nothing = ", no difference shown" if self.ci_low <= 1 <= self.ci_high else ""
            return f"{self.at}: {100 * (self.estimate - 1):+.1f} % ({ends}){nothing}"
        unit = "times as much" if self.unit == "ratio" else self.unit
        return f"{self.at}: {number(self.estimate)} {unit} ({interval(self.ci_low, self.ci_high)})"


def figure(at: str, ends: Sequence[float], unit: str, n_runs: int) -> Figure:
    """Return the figure of an estimate and its ends."""
    estimate, low, high = ends
    return Figure(at, estimate, low, high, unit, n_runs)


class Answer(NamedTuple):
    """What the figures of an answer are of, and the figures; without any, why there is none."""

    what: str
    figures: Sequence[Figure]

    def __str__(self) -> str:
        """Say it in a sentence."""
        if not self.figures:
            return f"Not answered: {self.what}."
        return f"{self.what} {'; '.join(map(str, self.figures))}."


def answers(name: str, block: Block | None) -> dict[str, Answer]:
    """Return what a block answers to each question; ``None`` is a block without a run."""
    found = {}
    for question, answer in QUESTIONS.items():
        try:
            if block is None or isinstance(answer, str):
                raise NotYetError(answer if block else f"no run at {PLANNED[name]} pixels yet")
            found[question] = answer(block)
        except NotYetError as lacking:
            found[question] = Answer(str(lacking), ())
    return found


def answers_table(name: str, block: Block | None) -> pd.DataFrame:
    """Return ``questions.csv`` of a block: a row a figure, or one that says what is missing."""
    runs = block.progress if block else "none"
    rows = []
    for question, answer in answers(name, block).items():
        row = {"block": name, "runs": runs, "question": question}
        rows += [row | of._asdict() | {"answer": str(of)} for of in answer.figures]
        if not answer.figures:
            rows.append(row | {"answer": str(answer)})
    columns = ["block", "runs", "question", *Figure._fields, "answer"]
    return pd.DataFrame(rows, columns=columns)


def fitted(block: Block) -> tuple[LawAnalysis, LawFit, TrainingModel]:
    """Return the law of a block that describes it.

    Raises:
        NotYetError: It cannot be fitted, or the log-linear model describes the runs better.
    """
    law = block.law
    if law.fit is None or law.model is None:
        raise NotYetError(f"{block.progress}, and {'; '.join(law.statements)}")
    if law.choice.model == "log-linear":
        raise NotYetError(f"{block.progress}, which the law does not describe: {law.choice.why}")
    return law, law.fit, law.model


def _part(block: Block, name: str) -> LawFit:
    """Return the law of a part of a training."""
    laws = fitted(block)[2].laws
    if name not in laws:
        raise NotYetError(f"{block.progress}, too few of which tell {name}")
    return laws[name]


def _figures(
    block: Block, fit: LawFit, ats: Sequence[str], logs: Matrix, slopes: Matrix, unit: str, n: int
) -> list[Figure]:
    """Return figures whose logs change with the law's parameters by `slopes`."""
    half = fit.t(block.law.alpha) * fit.standard_error(slopes)
    ends = np.exp([logs, logs - half, logs + half]).T.tolist()
    return [figure(at, of, unit, n) for at, of in zip(ats, ends, strict=True)]


def _compared(
    block: Block, ats: Sequence[str], over: Sequence[Levels], under: Sequence[Levels]
) -> list[Figure]:
    """Return ratios of the energy of an image; levels that are not named are the baseline's."""
    law, fit, _ = fitted(block)
    n_runs, _ = (_needed(block, levels[0]) for levels in (over, under))
    rows = _rows(block, fit, [*over, *under])
    logs, slopes = (
        of.reshape(2, len(ats), -1) for of in (fit.log_energy(rows), fit.gradient(rows))
    )
    return _figures(
        block, fit, ats, (logs[0] - logs[1])[:, 0], slopes[0] - slopes[1], "ratio", n_runs
    )


def _rows(block: Block, fit: LawFit, configs: Sequence[Levels]) -> Rows:
    law = block.law
    levels = [{**law.reference, **config} for config in configs]
    return fit.design.rows(rows_at(common_task(law.runs), levels))


def _needed(block: Block, levels: Levels) -> int:
    """Return how many runs have the levels but for the batch size, which the law spans; not 0."""
    trained = block.law.runs.replace({EFFECTIVE + "internal": {"post_quantization": "None"}})
    named = {EFFECTIVE + f: level for f, level in levels.items() if f != "batch_size"}
    if n_runs := int((trained[list(named)] == pd.Series(named)).all(axis=1).sum()):
        return n_runs
    raise NotYetError(f"no run with {_text(levels)} among {block.progress}")


def _text(levels: Levels) -> str:
    return ", ".join(f"{factor}={level}" for factor, level in levels.items())


def _batches(block: Block) -> tuple[list[str], list[Levels]]:
    """Return each batch size that was run, as text and as level."""
    sizes = sort_levels("batch_size", set(fitted(block)[0].runs[EFFECTIVE + "batch_size"]))
    return [f"batch {size}" for size in sizes], [{"batch_size": size} for size in sizes]


def _contrast(what: str, over: Levels, under: Levels) -> Callable[[Block], Answer]:
    def answer(block: Block) -> Answer:
        ats, sizes = _batches(block)
        levels = ([{**of, **size} for size in sizes] for of in (over, under))
        return Answer(f"{what}. Energy per image at", _compared(block, ats, *levels))

    return answer


def _image(block: Block) -> Answer:
    fit, (ats, sizes) = _part(block, "training_j"), _batches(block)
    rows, n_runs = _rows(block, fit, sizes), len(block.law.runs)
    logs = fit.log_energy(rows) + np.log(1000)
    figures = _figures(block, fit, ats, logs, fit.gradient(rows), "J", n_runs)
    return Answer("The baseline's other levels take, per 1,000 images, at", figures)


def _payback(block: Block) -> Answer:
    """After how many epochs the joules saved are those of compiling.

    Errors of training and validation are added, as in the prediction of a training; that of the
    start is independent of them. Propagation of first order (JCGM 100:2008, 5.1.2).
    """
    law, fit, model = fitted(block)
    n_runs = _needed(block, {"precision": "float32", "internal": XLA})
    shares = partition_percentages(law.reference["partitioning"])
    trained, validated, _ = (model.images * share / 100 for share in shares)

    def saved(part: str, size: Levels, times: float) -> Matrix:
        of = _part(block, part)
        rows = _rows(block, of, [size, {**size, "internal": XLA}])
        joules = times * np.exp(of.log_energy(rows))
        slopes = joules[:, None] * of.gradient(rows)
        return np.array([joules[0] - joules[1], of.standard_error(slopes[:1] - slopes[1:])[0]])

    found, never = [], []
    for at, size in zip(*_batches(block), strict=True):
        start, start_error = np.array([-1, 1]) * saved("warmup_j", size, 1.0)
        epoch, error = saved("training_j", size, trained) + saved("validation_j", size, validated)
        t = max(fit.t(law.alpha), _part(block, "warmup_j").t(law.alpha))
        if epoch > t * error and start > t * start_error:
            half = t * np.hypot(start_error / start, error / epoch)
            ends = start / epoch * np.exp([0.0, -half, half])
            found.append(figure(at, ends.tolist(), "epochs", n_runs))
        else:
            never.append(at)
    if not found:
        raise NotYetError(f"{block.progress} do not show that XLA saves more than compiling takes")
    shown = f" (not shown at {', '.join(never)})" if never else ""
    images = f"{trained:,.0f} training and {validated:,.0f} validation images"
    return Answer(f"In float32, with epochs of {images}, XLA is paid back{shown} at", found)


def _factor(factor: str) -> Callable[[Block], Answer]:
    def answer(block: Block) -> Answer:
        law, fit, _ = fitted(block)
        ratios = marginal_ratios(fit, law.runs, law.reference, law.alpha)
        figures = [
            figure(level, ends, "ratio", _needed(block, {factor: level}))
            for of, level, *ends in ratios.itertuples(index=False, name=None)
            if of == factor
        ]
        what = f"Energy per image against {law.reference[factor]}, other levels averaged:"
        return Answer(what if figures else f"{block.progress}, all with one {factor}", figures)

    return answer


def _controls(block: Block) -> Answer:
    law = block.law
    table = law.controls[["level", "ratio", "ci_low", "ci_high"]]
    rows = table.itertuples(index=False, name=None)
    figures = [figure(level, ends, "ratio", len(law.runs)) for level, *ends in rows]
    found = ", ".join(law.violated["term"]) or "none"
    what = f"Findings after Holm's correction: {found}. By itself, the level of each farthest off:"
    return Answer(what if figures else f"{block.progress} are too few to test them", figures)


def _best(block: Block) -> Answer:
    """Of the configurations that were run, the one of the least energy by the law."""
    law, fit, _ = fitted(block)
    columns = [EFFECTIVE + factor for factor in ("batch_size", *LAW_FACTORS)]
    run = law.runs[columns].replace({EFFECTIVE + "internal": {"post_quantization": "None"}})
    configs = [dict(zip(("batch_size", *LAW_FACTORS), row, strict=True)) for row in run.to_numpy()]
    best = configs[int(np.argmin(fit.log_energy(_rows(block, fit, configs))))]
    at = _text({f: v for f, v in best.items() if v != law.reference[f]})
    what = "The least energy per image by the law of what was run, against the baseline's:"
    return Answer(what, _compared(block, [at], [best], [{}]))


def _crossover(block: Block) -> Answer:
    law = block.law
    crossings = law_lines(_part(block, "training_s"), law.runs, law.reference, law.alpha)[1]
    figures = []
    for precision, internal, *ends in crossings.drop(columns="value").itertuples(index=False):
        levels = {"precision": precision, "internal": internal}
        if precision == law.reference["precision"] and internal != QAT:
            figures.append(figure(_text(levels), ends, "images", _needed(block, levels)))
    largest = max(int(size["batch_size"]) for size in _batches(block)[1])
    beyond = f" (the law is extended beyond batch {largest}, the largest that was run)"
    extended = beyond if any(of.estimate > largest for of in figures) else ""
    return Answer(
        f"Launching a step takes longer than computing it at batches below this{extended}, with",
        figures,
    )


def _speed(block: Block) -> Answer:
    fit, (ats, sizes) = _part(block, "training_s"), _batches(block)
    rows, n_runs = _rows(block, fit, sizes), len(block.law.runs)
    logs, slopes = -fit.log_energy(rows), fit.gradient(rows)
    figures = _figures(block, fit, ats, logs, slopes, "images/s", n_runs)
    return Answer("The baseline's other levels train at", figures)


def _power(block: Block) -> Answer:
    """Joules over seconds of an image; the errors of the two count as independent."""
    ats, sizes = _batches(block)
    logs, halves = [], []
    for fit in (_part(block, "training_j"), _part(block, "training_s")):
        rows = _rows(block, fit, sizes)
        logs.append(fit.log_energy(rows))
        halves.append(fit.half_width(rows, block.law.alpha, new_run=False))
    log, half = logs[0] - logs[1], np.hypot(*halves)
    ends = np.exp([log, log - half, log + half]).T.tolist()
    what = f"The baseline's other levels draw, of {number(block.power_limit_w)} W, at"
    n_runs = len(block.law.runs)
    return Answer(what, [figure(at, of, "W", n_runs) for at, of in zip(ats, ends, strict=True)])


def _faster(block: Block) -> Answer:
    """The time of an image of which computing takes none, over that of one as it is."""
    fit, (ats, sizes) = _part(block, "training_s"), _batches(block)
    rows, n_runs = _rows(block, fit, sizes), len(block.law.runs)
    launch, slopes = fit.log_step(rows)
    logs = launch - rows.log_batch - fit.log_energy(rows)
    slopes = slopes - fit.gradient(rows)
    figures = _figures(block, fit, ats, logs, slopes, "ratio", n_runs)
    return Answer("A GPU that computes in no time would change the time of an image at", figures)


BEST = "What does the best configuration save?"
_XLA, _NONE = {"internal": XLA}, {"internal": "None"}
_FULL = {"precision": "float32"} | _NONE
_HALF = {"precision": "global_policy_float16"} | _NONE
# What a screening can never answer has its reason in place of a function.
QUESTIONS: dict[str, Callable[[Block], Answer] | str] = {
    "What does an image cost?": _image,
    "Does mixed precision save energy without XLA?": _contrast(
        "Mixed float16 against float32", _HALF, _FULL
    ),
    "Does mixed precision save energy with XLA?": _contrast(
        "Mixed float16 with XLA against float32 with XLA", _HALF | _XLA, _FULL | _XLA
    ),
    "What does XLA save in float32?": _contrast("XLA against none", _FULL | _XLA, _FULL),
    "What does XLA save in mixed precision?": _contrast("XLA against none", _HALF | _XLA, _HALF),
    "When has XLA paid its compilation back?": _payback,
    "What does quantization-aware training cost?": _contrast(
        "Against training without it", {"internal": QAT}, _NONE
    ),
    "What does quantization afterwards cost to make?": (
        "a screening converts nothing, so that the conversion is not measured here"
    ),
    "What does the optimizer cost?": _factor("optimizer"),
    "What does augmentation cost?": _factor("augmentation"),
    "Do schedule, partitioning and the other negative controls cost anything?": _controls,
    BEST: _best,
    "At what accuracy?": "a screening has no accuracy",
    "Where is the host the limit?": _crossover,
    "How fast is it?": _speed,
    "How much power does the board draw?": _power,
    "What would a faster GPU change, at most?": _faster,
}
