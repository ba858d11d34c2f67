"""A trainer for final runs that logs known figures instead of training, for quick tests."""

from __future__ import annotations

import math
from pathlib import Path

import mlflow
import numpy as np
from simulated_campaign import SimulatedCampaign

from green_screen import names
from green_screen.options import TrainOptions, option_params
from green_screen.space import TrainingConfig, resolve
from green_screen.tracking import RunLogger


def train(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log what a run of the simulated campaign would, with noise of 3 % by the seed."""
    campaign = SimulatedCampaign()
    rng = np.random.default_rng([options.seed, len(repr(config))])
    epoch_j = campaign.baseline_energy_j * campaign.ratio(config) * math.exp(rng.normal(0.0, 0.03))
    effective = resolve(config).effective
    run.params(
        config.as_params()
        | {names.EFFECTIVE_PREFIX + name: level for name, level in effective.as_params().items()}
        | option_params(options)
    )
    run.metrics(campaign._metrics(effective, epoch_j, 0.6 + rng.normal(0.0, 0.01), rng))
    run.tags(
        {
            names.TAG_ENERGY_SOURCE: campaign.energy_source,
            names.TAG_MEASUREMENT_VALID: "true",
            "gpu_name": campaign.machine,
        }
    )
    if options.log_model:
        code = Path(__file__).with_name("constant_model.py")
        mlflow.pyfunc.log_model(name="model", python_model=str(code), pip_requirements=[])


def fail(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Fail as a training that cannot be done."""
    raise RuntimeError("no memory for this")
