"""Campaigns with known effects: the truth that the analysis must find, in memory or in a store."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from green_screen import names
from green_screen.options import TrainOptions, option_params
from green_screen.results import runs as runs_module
from green_screen.space import Space, TrainingConfig, resolve

# Ratios against the baseline's level; factors and levels left out have no effect.
KNOWN_EFFECTS: dict[str, dict[str, float]] = {
    "batch_size": {"32": 0.30, "64": 0.20, "128": 0.15},
    "precision": {"float64": 1.8, "float16": 1.05, "global_policy_float16": 0.9},
    "internal": {"pre_quantization": 3.0, "jit_compilation": 0.6},
    "augmentation": {"mixup": 1.1, "cutmix": 1.1, "random": 1.2},
    "partitioning": {"70-15-15": 1.1, "80-10-10": 1.2, "90-5-5": 1.3},
}


@dataclass(frozen=True, kw_only=True)
class SimulatedCampaign:
    """A random design whose energies follow known multiplicative effects and log-normal noise.

    ``momentum`` holds effects of momentum within an optimizer, ``batch_internal`` further ratios of
    cells (batch size, internal); both are exact truths of the model that the analysis fits.
    """

    seed: int = 0
    n_runs: int = 100
    baseline_every: int = 10
    epochs: int = 5
    noise: float = 0.03
    drift: float = 1.0
    start_ms: int = 1_700_000_000_000
    baseline_energy_j: float = 50_000.0
    effects: dict[str, dict[str, float]] = field(default_factory=lambda: KNOWN_EFFECTS)
    momentum: dict[tuple[str, str], float] = field(default_factory=dict)
    batch_internal: dict[tuple[str, str], float] = field(default_factory=dict)
    machine: str = "Simulated GPU"
    machine_ratio: float = 1.0
    dataset: str = "synthetic"
    energy_source: str = names.SOURCE_COUNTER
    invalid: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    diverged: tuple[int, ...] = ()
    protocol: str = "full"

    def design(self) -> list[tuple[str, TrainingConfig]]:
        """Return kind and requested configuration of each position."""
        space = Space.load()
        rng = np.random.default_rng(self.seed)
        placed = [(names.KIND_BASELINE, space.baseline)]
        for i in range(self.n_runs):
            levels = {name: rng.choice(len(values)) for name, values in space.levels.items()}
            chosen = {name: space.levels[name][j] for name, j in levels.items()}
            placed.append((names.KIND_RUN, space.parse(chosen)))
            if (i + 1) % self.baseline_every == 0:
                placed.append((names.KIND_BASELINE, space.baseline))
        return placed

    def ratio(self, config: TrainingConfig) -> float:
        """Return the true energy per epoch of a requested configuration over the baseline's."""
        effective = resolve(config).effective.as_params()
        ratio = math.prod(
            self.effects.get(factor, {}).get(level, 1.0) for factor, level in effective.items()
        )
        pair = (effective["optimizer"], effective["optimizer_momentum"])
        cell = (effective["batch_size"], effective["internal"])
        return ratio * self.momentum.get(pair, 1.0) * self.batch_internal.get(cell, 1.0)

    def runs(self, campaign: str = "simulated") -> list[Run]:
        """Return the finished runs as MLflow entities, without a store."""
        rng = np.random.default_rng([self.seed, 1])
        placed = self.design()
        return [
            self._run(i, kind, config, i / (len(placed) - 1), campaign, rng)
            for i, (kind, config) in enumerate(placed)
        ]

    def frame(self, campaign: str = "simulated") -> pd.DataFrame:
        """Return what ``read_runs`` would return."""
        return runs_module.to_frame(self.runs(campaign))

    def epoch_metrics(self, run: Run) -> list[Metric]:
        """Return the run's metrics of every epoch."""
        energy = run.data.metrics.get(names.ENERGY_PER_EPOCH_J, math.nan)
        final = run.data.metrics
        found = []
        for epoch in range(self.epochs):
            # From the start's value to the run's, which is that of the last epoch.
            share = (1 - math.exp(-3 * (epoch + 1) / self.epochs)) / (1 - math.exp(-3))
            first = final.get(names.WARMUP_ENERGY_J, 0.0) if epoch == 0 else 0.0
            values = {
                names.LOSS: 4.6 + (final[names.LOSS] - 4.6) * share,
                names.ACCURACY: final[names.ACCURACY] * share,
                names.VAL_LOSS: 4.6 + (final[names.VAL_LOSS] - 4.6) * share,
                names.VAL_ACCURACY: final[names.VAL_ACCURACY] * share,
                names.EPOCH_TIME_S: final[names.EPOCH_TIME_S],
                names.EPOCH_ENERGY_J: energy + first,
                names.GPU_POWER_MEAN_W: final[names.GPU_POWER_MEAN_W],
                names.GPU_POWER_MAX_W: final[names.GPU_POWER_MEAN_W] + 30.0,
                names.GPU_TEMPERATURE_C: 40.0 + (final[names.GPU_TEMPERATURE_C] - 40.0) * share,
            }
            found += [Metric(key, value, 0, epoch) for key, value in values.items()]
        return found

    def write(self, client: MlflowClient, experiment_id: str, name: str = "simulated") -> str:
        """Write the campaign into a store, in bulk, and return the parent's run id."""
        parent = client.create_run(
            experiment_id,
            tags={names.TAG_KIND: names.KIND_SWEEP},
            run_name=name,
        ).info.run_id
        params = {"n_runs": self.n_runs, "seed": self.seed, "epochs": self.epochs}
        client.log_batch(parent, params=[Param(k, str(v)) for k, v in params.items()])
        for run in self.runs(parent):
            tags = dict(run.data.tags)
            made = client.create_run(
                experiment_id, start_time=run.info.start_time, tags=tags
            ).info.run_id
            finals = [Metric(k, v, 0, 0) for k, v in run.data.metrics.items()]
            trained = run.data.metrics and self.protocol == "full"
            history = self.epoch_metrics(run) if trained else []
            last = {metric.key for metric in history}
            metrics = history + [m for m in finals if m.key not in last]
            parameters = [Param(k, v) for k, v in run.data.params.items()]
            for start in range(0, max(len(metrics), 1), 1000):
                client.log_batch(
                    made, metrics[start : start + 1000], parameters if start == 0 else ()
                )
            client.set_terminated(made, run.info.status, run.info.end_time)
        client.set_terminated(parent, "FINISHED")
        return parent

    def _run(
        self,
        position: int,
        kind: str,
        config: TrainingConfig,
        progress: float,
        campaign: str,
        rng: np.random.Generator,
    ) -> Run:
        resolved = resolve(config)
        run_name = kind if kind == names.KIND_BASELINE else f"{position:03d} {config.batch_size}"
        epoch_j = (
            self.baseline_energy_j
            * self.machine_ratio
            * self.ratio(config)
            * self.drift**progress
            * math.exp(rng.normal(0.0, self.noise))
        )
        accuracy = 0.2 + 0.5 / (1 + math.exp(rng.normal(0.0, 1.0)))
        metrics = self._metrics(resolved.effective, epoch_j, accuracy, rng)
        if self.protocol == "screening":
            metrics = _of_a_screening(metrics)
        status = "FAILED" if position in self.failed else "FINISHED"
        if status == "FAILED":
            metrics = {}
        params = config.as_params()
        effective = resolved.effective.as_params()
        params |= {names.EFFECTIVE_PREFIX + name: level for name, level in effective.items()}
        params |= option_params(
            TrainOptions(dataset=self.dataset, epochs=self.epochs, protocol=self.protocol)
        )
        tags = {
            MLFLOW_RUN_NAME: run_name,
            MLFLOW_PARENT_RUN_ID: campaign,
            names.TAG_KIND: kind,
            names.TAG_POSITION: str(position),
            names.TAG_ENERGY_SOURCE: self.energy_source,
            names.TAG_MEASUREMENT_VALID: str(position not in self.invalid).lower(),
            names.TAG_INCOMPLETE: "false",
            "gpu_name": self.machine,
        }
        if position in self.invalid:
            tags[names.TAG_INVALID_REASON] = "shared GPU"
        if position in self.diverged:
            tags[names.TAG_DIVERGED] = "true"
        start = self.start_ms + position * 600_000
        return _entity(run_name, status, start, metrics, params, tags, position)

    def _metrics(
        self, effective: TrainingConfig, epoch_j: float, accuracy: float, rng: np.random.Generator
    ) -> dict[str, float]:
        warmup = 2_000.0 + 6_000.0 * (effective.internal == "jit_compilation")
        # As in a real run, only one that converts has the metric.
        converts = effective.internal == "post_quantization"
        conversion = {names.CONVERSION_ENERGY_J: 1_500.0} if converts else {}
        setup = 500.0 * math.exp(rng.normal(0.0, 0.05))
        total = setup + warmup + sum(conversion.values()) + 100.0 + epoch_j * self.epochs
        # The partitioning acts on an epoch by the images that it has, not on what one costs.
        share = self.effects.get("partitioning", {}).get(effective.partitioning, 1.0)
        images = 45_000 * share
        return {
            names.ENERGY_PER_EPOCH_J: epoch_j,
            names.ENERGY_PER_EPOCH_NET_J: epoch_j * 0.5,
            names.ENERGY_PER_1K_IMAGES_J: epoch_j / images * 1000,
            names.ENERGY_PER_1K_IMAGES_NET_J: epoch_j / images * 500,
            names.SETUP_ENERGY_J: setup,
            names.WARMUP_ENERGY_J: warmup,
            **conversion,
            names.EVALUATION_ENERGY_J: 100.0,
            names.N_TRAIN_IMAGES: images,
            names.N_VALIDATION_IMAGES: 10_000.0,
            names.CHANCE_ACCURACY: 0.01,
            names.ENERGY_TOTAL_J: total,
            names.ENERGY_TOTAL_NET_J: total * 0.5,
            names.DURATION_S: total / 150.0,
            names.EMISSIONS_TOTAL_KG_CO2EQ: total / 3.6e6 * 0.369,
            names.IDLE_POWER_W: 80.0,
            names.START_TEMPERATURE_C: 40.0 + rng.normal(0.0, 2.0),
            names.N_PARAMETERS: 23_792_612.0,
            names.TEST_ACCURACY: accuracy + rng.normal(0.0, 0.01),
            names.TEST_LOSS: 2.0,
            names.VAL_ACCURACY: accuracy,
            names.VAL_LOSS: 2.0,
            names.ACCURACY: accuracy * 1.1,
            names.LOSS: 1.8,
            names.EPOCH_TIME_S: epoch_j / 150.0,
            names.IMAGES_PER_S: images / (epoch_j / 150.0),
            names.GPU_POWER_MEAN_W: 150.0,
            names.GPU_TEMPERATURE_C: 50.0,
        }


def _of_a_screening(metrics: dict[str, float]) -> dict[str, float]:
    """Return what a screening logs of the same training: no accuracy, no total, a forecast."""
    total_j, seconds = metrics[names.ENERGY_TOTAL_J], metrics[names.DURATION_S]
    lacking = (names.ENERGY_TOTAL_J, names.ENERGY_TOTAL_NET_J, names.DURATION_S)
    lacking += (names.EMISSIONS_TOTAL_KG_CO2EQ, names.TEST_ACCURACY, names.VAL_ACCURACY)
    never = (names.TEST_LOSS, names.VAL_LOSS, names.LOSS, names.ACCURACY, names.EPOCH_TIME_S)
    never += (names.IMAGES_PER_S, names.GPU_POWER_MEAN_W, names.GPU_TEMPERATURE_C)
    never += (names.CONVERSION_ENERGY_J, names.EVALUATION_ENERGY_J)
    return {
        **{name: value for name, value in metrics.items() if name not in never},
        **dict.fromkeys(lacking, math.nan),
        names.SCREENING_ENERGY_J: 3_000.0,
        names.SCREENING_S: 20.0,
        names.FORECAST_ENERGY_J: total_j,
        names.FORECAST_ENERGY_LOW_J: 0.97 * total_j,
        names.FORECAST_ENERGY_HIGH_J: 1.03 * total_j,
        names.FORECAST_S: seconds,
    }


def null_campaign(seed: int, **options: Any) -> SimulatedCampaign:
    """Return a campaign in which no factor has any effect."""
    return SimulatedCampaign(seed=seed, effects={}, **options)


def several(*campaigns: SimulatedCampaign) -> pd.DataFrame:
    """Return the runs of several campaigns as one table."""
    frames = [campaign.frame(f"campaign{i}") for i, campaign in enumerate(campaigns)]
    return pd.concat(frames, ignore_index=True)


def with_changes(campaign: SimulatedCampaign, **changes: Any) -> SimulatedCampaign:
    """Return a copy with some fields changed."""
    return dataclasses.replace(campaign, **changes)


def _entity(
    run_name: str,
    status: str,
    start_ms: int,
    metrics: dict[str, float],
    params: dict[str, str],
    tags: dict[str, str],
    position: int,
) -> Run:
    run_id = hashlib.md5(f"{tags[MLFLOW_PARENT_RUN_ID]} {position}".encode()).hexdigest()
    info = RunInfo(
        run_id=run_id,
        experiment_id="0",
        user_id="",
        status=status,
        start_time=start_ms,
        end_time=start_ms + 500_000,
        lifecycle_stage="active",
        run_name=run_name,
    )
    data = RunData(
        metrics=[Metric(k, v, 0, 0) for k, v in metrics.items()],
        params=[Param(k, v) for k, v in params.items()],
        tags=[RunTag(k, v) for k, v in tags.items()],
    )
    return Run(info, data)
