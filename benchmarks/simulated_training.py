"""A training that only sleeps and logs, with the volume of a real one.

It stands in for :func:`green_screen.training.run.train` where the campaign itself is measured or
tested: the same parameters, per-epoch metrics, final metrics, tags and artifacts, no TensorFlow.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from green_screen import names
from green_screen.options import TrainOptions
from green_screen.space import TrainingConfig, resolve
from green_screen.tracking import RunLogger

TRAIN = "benchmarks.simulated_training:train"
EPOCH_S = 0.05

EPOCH_METRICS = (
    names.LOSS,
    names.ACCURACY,
    names.VAL_LOSS,
    names.VAL_ACCURACY,
    names.EPOCH_TIME_S,
    names.TRAIN_TIME_S,
    names.IMAGES_PER_S,
    names.LEARNING_RATE,
    names.EPOCH_ENERGY_J,
    names.TRAIN_ENERGY_J,
    names.VALIDATION_ENERGY_J,
    names.GPU_POWER_MEAN_W,
    names.GPU_POWER_MAX_W,
    names.GPU_ENERGY_J,
    names.GPU_TEMPERATURE_C,
    names.GPU_UTILIZATION_PERCENT,
    names.CODECARBON_CPU_KWH,
    names.CODECARBON_GPU_KWH,
    names.CODECARBON_RAM_KWH,
    names.EMISSIONS_KG_CO2EQ,
)
FINAL_METRICS = (
    names.TEST_ACCURACY,
    names.TEST_LOSS,
    names.N_PARAMETERS,
    names.ENERGY_PER_EPOCH_J,
    names.ENERGY_PER_EPOCH_NET_J,
    names.ENERGY_PER_1K_IMAGES_J,
    names.ENERGY_PER_1K_IMAGES_NET_J,
    names.SETUP_ENERGY_J,
    names.WARMUP_ENERGY_J,
    names.CONVERSION_ENERGY_J,
    names.EVALUATION_ENERGY_J,
    names.ENERGY_TOTAL_J,
    names.ENERGY_TOTAL_NET_J,
    names.DURATION_S,
    names.EMISSIONS_TOTAL_KG_CO2EQ,
    names.IDLE_POWER_W,
)


def epoch_metrics(epoch: int) -> dict[str, float]:
    """Return made-up values that differ by metric and epoch, so that a lost one is noticed."""
    return {name: 1000.0 * epoch + index for index, name in enumerate(EPOCH_METRICS)}


def train(config: TrainingConfig, options: TrainOptions, run: RunLogger) -> None:
    """Log what a training of ``options.epochs`` epochs logs, :data:`EPOCH_S` seconds an epoch."""
    resolved = resolve(config)
    effective = resolved.effective.as_params()
    run.params(
        config.as_params()
        | {names.EFFECTIVE_PREFIX + name: level for name, level in effective.items()}
    )
    run.tags({names.TAG_ENERGY_SOURCE: names.SOURCE_ESTIMATE, names.TAG_MEASUREMENT_VALID: "true"})
    rows = []
    for epoch in range(options.epochs):
        time.sleep(EPOCH_S)
        metrics = epoch_metrics(epoch)
        run.metrics(metrics, step=epoch)
        rows.append(",".join(map(str, [epoch, *metrics.values()])))
    run.metrics({name: float(index) for index, name in enumerate(FINAL_METRICS)})
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder) / names.LOGS_CSV
        logs.write_text("\n".join([",".join(["epoch", *EPOCH_METRICS]), *rows]), encoding="utf-8")
        run.artifact(logs)
