"""The energy law: what a training step costs for being launched, and what each image in it costs.

    E per image = ((a / B)^p + b^p)^(1/p)

B is the batch size, a the joules (or seconds) of launching a step, b those of computing an image.
The host launches while the board computes: p says how much the two overlap (1: not at all, they
add up; large: the longer one hides the other). Levels of the factors multiply a, b or both, by the
mechanisms of :data:`EFFECTS`, which are fixed here, before any data; :data:`CONTROLS` are the
factors that have no mechanism and are tested all the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from green_screen.results.frame import EFFECTIVE
from green_screen.statistics.coding import Matrix

Part = Literal["step", "image"]
BOTH: tuple[Part, Part] = ("step", "image")
HALF = ("float16", "global_policy_float16")

# Prior of log(p - 1): p is 1.5, or with 95 % between 1.1 and 3. Where runs of both regimes and of
# what lies between them are few, it holds p; otherwise the runs decide.
OVERLAP_CENTER, OVERLAP_SPREAD = float(np.log(0.5)), 0.7
# The batch at which launching and computing cost the same lies between 0.1 and 13,000.
CROSSOVER_CENTER, CROSSOVER_SPREAD = float(np.log(32)), 3.0
# Other data or hardware: a factor of 7 either way. A board's sensor: 5 %. Drift: 2 %.
TASK_SPREAD, BOARD_SPREAD, DRIFT_SPREAD = 2.0, 0.05, 0.02


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """A ratio by which levels multiply the launching of a step, the computing of an image, or both.

    Attributes:
        name: For tables.
        levels: Factor -> the levels at which it acts; several factors are an interaction.
        parts: What it multiplies.
        why: The mechanism.
        spread: Standard deviation of the log of the ratio before any data. It is weak: it only
            decides where the runs say nothing.
    """

    name: str
    levels: Mapping[str, tuple[str, ...]]
    parts: tuple[Part, ...]
    why: str
    spread: float = 1.0

    def acts(self, levels: Mapping[str, pd.Series[str]]) -> Matrix:
        """Return 1 for each run that it acts on and 0 for the others."""
        acting = [levels[factor].isin(at).to_numpy() for factor, at in self.levels.items()]
        return np.asarray(np.logical_and.reduce(acting), dtype=np.float64)


_UPDATE = "the update is some kernels a variable, whatever the batch"
_BATCH_OPS = "operations on the whole batch, a few kernels each"

# Ratios are against float32, internal None, SGD and augmentation None.
EFFECTS: tuple[Effect, ...] = (
    Effect(
        name="half precision",
        levels={"precision": HALF},
        parts=BOTH,
        why="casts are kernels of their own; half the bytes, and tensor cores",
    ),
    Effect(
        name="float16 beside mixed",
        levels={"precision": ("float16",)},
        parts=BOTH,
        why="no casts of the variables and no scaling of the loss: little",
        spread=0.1,
    ),
    Effect(
        name="float64",
        levels={"precision": ("float64",)},
        parts=BOTH,
        why="other kernels, twice the bytes, and units that are fewer",
    ),
    Effect(
        name="pre_quantization",
        levels={"internal": ("pre_quantization",)},
        parts=BOTH,
        why="kernels that imitate quantization, and their arithmetic",
    ),
    Effect(
        name="jit_compilation",
        levels={"internal": ("jit_compilation",)},
        parts=BOTH,
        why="kernels are fused: fewer launches, fewer bytes to and from memory",
    ),
    Effect(
        name="half precision x jit_compilation",
        levels={"precision": HALF, "internal": ("jit_compilation",)},
        parts=BOTH,
        why="casts disappear in fused kernels, so half precision pays with XLA",
    ),
    *(
        Effect(name=level, levels={"optimizer": (level,)}, parts=("step",), why=_UPDATE, spread=0.3)
        for level in ("RMSProp", "Adam", "AdamW")
    ),
    *(
        Effect(
            name=level,
            levels={"augmentation": (level,)},
            parts=("step",),
            why=_BATCH_OPS,
            spread=0.05,
        )
        for level in ("random", "mixup", "cutmix")
    ),
)
LAW_FACTORS = ("precision", "internal", "optimizer", "augmentation")

# What cannot act on the energy of an image, and why. `internal` stands for post_quantization alone.
CONTROLS: dict[str, str] = {
    "preprocessing": "pixels are scaled on the host, one multiplication each, whatever the kind",
    "lr": "a number in the same kernels",
    "lr_schedule": "one number a step",
    "optimizer_momentum": "a number in the same kernels, within the optimizers that use it",
    "partitioning": "it changes how many images there are, not what one costs",
    "post_quantization": "it converts after the training, which runs as without it",
}


@dataclass(frozen=True)
class Rows:
    """Runs as rows of the law.

    Attributes:
        step: Runs x parameters of log a, the first column 1.
        image: Runs x parameters of log b, the first column 1.
        common: Runs x parameters of what multiplies the whole: boards, drift, controls.
        log_batch: Log of the batch size.
    """

    step: Matrix
    image: Matrix
    common: Matrix
    log_batch: Matrix

    def at(self, rows: Matrix) -> Rows:
        """Return some of the rows."""
        return Rows(self.step[rows], self.image[rows], self.common[rows], self.log_batch[rows])


@dataclass(frozen=True)
class LawDesign:
    """Which parameters the law has for a set of runs, and how a run becomes a row.

    Attributes:
        step: Effects on launching.
        image: Effects on computing.
        tasks: Tasks (model, data, size, hardware) that occur; each but the first has a ratio on
            launching and one on computing.
        boards: Boards that occur; with several each has a ratio to their average.
        drifts: Campaign -> first and last position; run order has a drift in each.
        controls: Further columns of the frame's factors, ``factor=level``, that multiply the whole.
        launching: Whether launching is part of the law; only a test takes it out.
    """

    step: tuple[Effect, ...]
    image: tuple[Effect, ...]
    tasks: tuple[str, ...] = ()
    boards: tuple[str, ...] = ()
    drifts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    launching: bool = True

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Numbers of parameters of launching, computing, and of what multiplies both."""
        tasks = len(self.tasks[1:])
        common = len(self.boards) + len(self.drifts) + len(self.controls)
        step = 1 + len(self.step) + tasks if self.launching else 0
        return step, 1 + len(self.image) + tasks, common

    def names(self) -> list[str]:
        """Return a name for each parameter, in the order of :meth:`prior`."""
        tasks = [f"task {task}" for task in self.tasks[1:]]
        step = ["a", *(e.name for e in self.step), *tasks] if self.launching else []
        image = ["b", *(e.name for e in self.image), *tasks]
        return [
            *(f"step: {name}" for name in step),
            *(f"image: {name}" for name in image),
            "overlap",
            *(f"board {board}" for board in self.boards),
            *(f"drift {campaign}" for campaign in self.drifts),
            *self.controls,
        ]

    def prior(self, level: float) -> tuple[Matrix, Matrix]:
        """Return centre and spread of each parameter; `level` is the mean log response.

        The spread of log b is that of nothing known, 1000; log a follows from it by the crossover.
        """
        task = [TASK_SPREAD] * len(self.tasks[1:])
        step = [1e3, *(e.spread for e in self.step), *task] if self.launching else []
        image = [1e3, *(e.spread for e in self.image), *task]
        common = [BOARD_SPREAD] * len(self.boards) + [DRIFT_SPREAD] * len(self.drifts)
        spread = np.array([*step, *image, OVERLAP_SPREAD, *common, *[1e3] * len(self.controls)])
        center = np.zeros(len(spread))
        if self.launching:
            center[0] = level + CROSSOVER_CENTER
        center[len(step)] = level
        center[len(step) + len(image)] = OVERLAP_CENTER
        return center, spread

    def rows(self, runs: pd.DataFrame) -> Rows:
        """Return the rows of `runs`; unknown tasks, boards and positions count as the average."""
        levels = {factor: runs[EFFECTIVE + factor] for factor in LAW_FACTORS}
        one = np.ones((len(runs), 1))
        tasks = np.zeros((len(runs), 0))
        if self.tasks:
            tasks = _indicators(task_of(runs), self.tasks[1:])

        def part(effects: tuple[Effect, ...]) -> Matrix:
            return np.hstack([one, *(e.acts(levels)[:, None] for e in effects), tasks])

        boards = _indicators(runs["machine"], self.boards)
        known = boards.sum(axis=1, keepdims=True) > 0
        boards = np.where(known, boards - 1.0 / max(len(self.boards), 1), 0.0)
        drifts = [
            np.where(
                runs["campaign"] == campaign,
                np.nan_to_num((runs["position"].astype(float) - first) / (last - first) - 0.5),
                0.0,
            )[:, None]
            for campaign, (first, last) in self.drifts.items()
        ]
        controls = [_control(runs, name)[:, None] for name in self.controls]
        batch = np.log(runs[EFFECTIVE + "batch_size"].astype(float).to_numpy())
        step = part(self.step) if self.launching else np.zeros((len(runs), 0))
        return Rows(step, part(self.image), np.hstack([boards, *drifts, *controls]), batch)


def law_design(runs: pd.DataFrame, factors: Collection[str] = LAW_FACTORS) -> LawDesign:
    """Return the law's parameters for these runs: the effects whose levels occur among them.

    Args:
        runs: The usable runs.
        factors: Those that can act on the response.
    """
    levels = {factor: runs[EFFECTIVE + factor] for factor in LAW_FACTORS}
    occurring = [e for e in EFFECTS if set(e.levels) <= set(factors) and e.acts(levels).any()]
    tasks = tuple(task_of(runs).value_counts(sort=True).index)
    boards = tuple(sorted(set(runs["machine"])))
    spans = runs.groupby("campaign")["position"].agg(["min", "max"])
    return LawDesign(
        step=tuple(e for e in occurring if "step" in e.parts),
        image=tuple(e for e in occurring if "image" in e.parts),
        tasks=tasks if len(tasks) > 1 else (),
        boards=boards if len(boards) > 1 else (),
        drifts={
            str(campaign): (float(first), float(last))
            for campaign, first, last in spans.itertuples()
            if last > first
        },
    )


def level_design(runs: pd.DataFrame, factors: Collection[str]) -> LawDesign:
    """Return a law without launching: every effect multiplies what is left.

    That of what is paid once, and of campaigns at one batch size.
    """
    whole = law_design(runs, factors)
    effects = tuple(dict.fromkeys((*whole.image, *whole.step)))
    return dataclasses.replace(whole, step=(), image=effects, launching=False)


def task_of(runs: pd.DataFrame) -> pd.Series[str]:
    """Return a text per run: what was trained, on what, on which kind of hardware."""
    columns = ["model", "dataset", "image_size", "machine"]
    known = runs[columns].drop_duplicates()
    texts = {key: _task_text(*key) for key in known.astype(str).itertuples(index=False, name=None)}
    keys = zip(*(runs[column].astype(str) for column in columns), strict=True)
    return pd.Series([texts[key] for key in keys], index=runs.index, dtype="str")


def common_task(runs: pd.DataFrame) -> dict[str, Any]:
    """Return what most runs trained, with the hardware and not one of its boards.

    Columns ``model, dataset, image_size, machine`` of a run.
    """
    columns = ["model", "dataset", "image_size", "machine"]
    whole = runs[columns].assign(machine=runs["machine"].map(hardware_of))
    counts = whole.groupby(columns, dropna=False, sort=False).size()
    most = counts.index[int(np.argmax(counts.to_numpy()))]
    return dict(zip(columns, most, strict=True))


def hardware_of(machine: str) -> str:
    """Return the kind of hardware, without the identity of a board."""
    return re.sub(r"\s*GPU-[0-9a-fA-F-]+$", "", machine)


def _task_text(model: str, dataset: str, image_size: str, machine: str) -> str:
    size = "" if image_size in ("nan", "None") else f"{float(image_size):g} px"
    return ", ".join(filter(None, (model, dataset, size, hardware_of(machine))))


def split(theta: Matrix, design: LawDesign) -> tuple[Matrix, Matrix, float, Matrix]:
    """Return the parameters of launching, of computing, p, and those of what multiplies both."""
    step, image, _ = design.sizes
    overlap = 1.0 + float(np.exp(np.clip(theta[step + image], -30, 5)))
    return theta[:step], theta[step : step + image], overlap, theta[step + image + 1 :]


def log_energy(theta: Matrix, design: LawDesign, rows: Rows) -> Matrix:
    """Return the log of the response per image of each row."""
    launch, compute, p, common = _logs(theta, design, rows)
    return np.asarray(np.logaddexp(p * launch, p * compute) / p + common)


def launching_share(theta: Matrix, design: LawDesign, rows: Rows) -> Matrix:
    """Return for each row the share of launching, (a/B)^p over the sum: 0.5 at the crossover."""
    launch, compute, p, _ = _logs(theta, design, rows)
    return np.asarray(np.exp(p * launch - np.logaddexp(p * launch, p * compute)))


def jacobian(theta: Matrix, design: LawDesign, rows: Rows) -> Matrix:
    """Return the derivatives of :func:`log_energy`, rows x parameters."""
    launch, compute, p, _ = _logs(theta, design, rows)
    total = np.logaddexp(p * launch, p * compute)
    share = np.exp(p * launch - total)
    # Without launching its log is minus infinity, its share 0, and p has no meaning.
    mixed = np.where(share > 0, share * np.nan_to_num(launch, neginf=0.0), 0.0)
    by_p = (mixed + (1 - share) * compute) / p - total / p**2
    overlap = (p - 1.0) * by_p
    return np.hstack(
        [
            share[:, None] * rows.step,
            (1 - share)[:, None] * rows.image,
            overlap[:, None],
            rows.common,
        ]
    )


def _logs(theta: Matrix, design: LawDesign, rows: Rows) -> tuple[Matrix, Matrix, float, Matrix]:
    step, image, p, common = split(theta, design)
    launch = rows.step @ step - rows.log_batch
    if not design.launching:
        launch = np.full(len(rows.log_batch), -np.inf)
    return launch, rows.image @ image, p, rows.common @ common


def _indicators(values: pd.Series[str], levels: tuple[str, ...]) -> Matrix:
    return np.asarray(values.to_numpy()[:, None] == np.array(levels, dtype=object)[None, :], float)


def _control(runs: pd.DataFrame, name: str) -> Matrix:
    """Return the column of ``factor=level``, or of ``optimizer_momentum(optimizer)=level``."""
    factor, _, level = name.partition("=")
    factor, _, nest = factor.partition("(")
    acting = runs[EFFECTIVE + factor] == level
    if nest:
        acting &= runs[EFFECTIVE + "optimizer"] == nest.removesuffix(")")
    return np.asarray(acting, dtype=np.float64)
