"""Campaigns that a known energy law governs, as tables of runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from simulated_campaign import SimulatedCampaign

from benchmarks.law_calibration import RATIOS
from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.space import partition_percentages
from green_screen.statistics.law import LawDesign, launching_share, law_design, log_energy

# About as on an H100 at 224 pixels; effects left out are 1.
LAW: dict[str, float] = {"step: a": 2.0, **RATIOS}
# Nothing acts but the batch.
NULL_LAW = {name: LAW[name] for name in ("step: a", "image: b", "overlap")}

# Percentage points; levels left out do nothing.
ACCURACY = {
    "batch_size=64": -2.0,
    "batch_size=128": -4.0,
    "precision=float16": -1.5,
    "augmentation=random": 3.0,
    "lr=0.00015": -8.0,
    "optimizer=AdamW": 2.0,
}
CHANCE = 0.1

_IMAGES = 50_000
_POWER_W = {"training": 300.0, "validation": 250.0}


@dataclass(frozen=True, kw_only=True)
class LawCampaign:
    """A random design whose energies follow an energy law with log-normal noise.

    Attributes:
        seed: Of the design and the noise.
        n_runs: Without the baselines.
        noise: Standard deviation of the log of a run's energies, shared by all of its figures.
        law: Parameter -> its value, as in :data:`LAW`.
        violated: ``factor=level`` -> a ratio on everything, of what should not act.
        boards: Board -> its ratio; runs are dealt to them in turn.
        accuracy: ``factor=level`` -> percentage points of accuracy above 60 %.
        diverging: ``factor=level`` of two factors; runs that have both diverge.
    """

    seed: int = 0
    n_runs: int = 100
    noise: float = 0.03
    law: dict[str, float] = field(default_factory=lambda: LAW)
    violated: dict[str, float] = field(default_factory=dict)
    boards: dict[str, float] = field(default_factory=lambda: {"Simulated GPU": 1.0})
    accuracy: dict[str, float] = field(default_factory=lambda: ACCURACY)
    diverging: tuple[str, ...] = ("precision=float16", "optimizer=Adam")
    epochs: int = 5

    def frame(self, campaign: str = "simulated") -> pd.DataFrame:
        """Return what ``read_runs`` would return."""
        design = SimulatedCampaign(seed=self.seed, n_runs=self.n_runs, epochs=self.epochs)
        runs = design.frame(campaign)
        rng = np.random.default_rng([self.seed, 2])
        boards = list(self.boards)
        runs["machine"] = [boards[i % len(boards)] for i in range(len(runs))]
        factor = np.exp(rng.normal(0.0, self.noise, len(runs)))
        factor *= runs["machine"].map(self.boards).to_numpy()
        for name, ratio in self.violated.items():
            factor *= np.where(_having(runs, name), ratio, 1.0)
        training = self.per_image(runs) * factor
        # The forward pass alone: a third of the joules, and a third of the launches.
        validation = self.per_image(runs, forward=True) * factor / 3.0
        shares = runs[EFFECTIVE + "partitioning"].map(partition_percentages)
        n_train = shares.map(lambda parts: parts[0] * _IMAGES / 100).astype(float)
        n_validation = shares.map(lambda parts: parts[1] * _IMAGES / 100).astype(float)
        epoch = training * n_train + validation * n_validation
        xla = (runs[EFFECTIVE + "internal"] == "jit_compilation").to_numpy()
        warmup = np.where(xla, 8_000.0, 2_000.0) * factor
        n_test = shares.map(lambda parts: parts[2] * _IMAGES / 100).astype(float)
        # An integer model is tested on the processor, one image at a time.
        integer = runs[EFFECTIVE + "internal"] == "post_quantization"
        evaluation = np.where(integer, 8.0 * factor, validation) * n_test
        once = runs[names.SETUP_ENERGY_J] + warmup + runs[names.CONVERSION_ENERGY_J].fillna(0.0)
        total = once + evaluation + self.epochs * epoch
        accuracy = self.true_accuracy(runs) + rng.normal(0.0, 0.005, len(runs))
        diverged = np.logical_and.reduce([_having(runs, name) for name in self.diverging])
        accuracy = np.where(diverged, CHANCE, accuracy)
        return runs.assign(
            **{
                names.ENERGY_PER_1K_IMAGES_J: training * 1e3,
                names.STEADY_IMAGES_PER_S: _POWER_W["training"] / training,
                names.VALIDATION_ENERGY_PER_1K_IMAGES_J: validation * 1e3,
                names.STEADY_VALIDATION_IMAGES_PER_S: _POWER_W["validation"] / validation,
                names.N_TRAIN_IMAGES: n_train,
                names.N_VALIDATION_IMAGES: n_validation,
                names.ENERGY_PER_EPOCH_J: epoch,
                names.EVALUATION_ENERGY_J: evaluation,
                names.WARMUP_ENERGY_J: warmup,
                names.WARMUP_S: warmup / 120.0,
                names.SETUP_S: runs[names.SETUP_ENERGY_J] / 100.0,
                names.CHANCE_ACCURACY: CHANCE,
                names.VAL_ACCURACY: accuracy,
                names.TEST_ACCURACY: accuracy + rng.normal(0.0, 0.005, len(runs)),
                "diverged": diverged,
                names.ENERGY_TOTAL_J: total,
                names.DURATION_S: total / 280.0,
                names.EMISSIONS_TOTAL_KG_CO2EQ: total / 3.6e6 * 0.4,
            }
        )

    def true_accuracy(self, runs: pd.DataFrame) -> np.ndarray:
        """Return the accuracy that each run has without noise, if it does not diverge."""
        points = [np.where(_having(runs, name), of, 0.0) for name, of in self.accuracy.items()]
        return 0.6 + np.sum(points, axis=0) / 100.0

    def per_image(self, runs: pd.DataFrame, *, forward: bool = False) -> np.ndarray:
        """Return the true joules per image of each run, on the average board."""
        design = law_design(runs, ("precision", "internal")) if forward else law_design(runs)
        theta, common = self.theta(design)
        theta[common:] = 0.0
        return np.exp(log_energy(theta, design, design.rows(runs)))

    def shares(self, runs: pd.DataFrame) -> np.ndarray:
        """Return the true share of launching of each run."""
        design = law_design(runs)
        return launching_share(self.theta(design)[0], design, design.rows(runs))

    def theta(self, design: LawDesign) -> tuple[np.ndarray, int]:
        """Return the true parameters, and where those of boards and drifts begin."""
        step, image, _ = design.sizes
        found = [np.log(self.law.get(name, 1.0)) for name in design.names()]
        return np.array(found), step + image + 1


def _having(runs: pd.DataFrame, name: str) -> np.ndarray:
    """Return which runs have the level that ``factor=level`` names."""
    factor, _, level = name.partition("=")
    return (runs[EFFECTIVE + factor] == level).to_numpy()
