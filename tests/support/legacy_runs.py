"""Runs as another program wrote them: a log of power readings and a file of parameters each."""

import dataclasses

import numpy as np
import yaml
from simulated_campaign import SimulatedCampaign

from green_screen.space import Space

HEADER = "epoch,time,loss,accuracy,val_loss,val_accuracy,gpu_power_W,gpu_temp_C,gpu_util_%"


def write_run(folder, config=None, *, power=(100, 200, 300, 300, 120), seconds=None, **parameters):
    """Write a run with one power reading a row: pre, the epochs, post."""
    folder.mkdir(parents=True)
    config = config or Space.load().baseline
    n_epochs = len(power) - 2
    seconds = seconds or [10.0 * i for i in range(len(power))]
    marks = ["pre", *range(n_epochs), "post"]
    lines = [HEADER]
    for i, (mark, at, watts) in enumerate(zip(marks, seconds, power, strict=True)):
        learning = (
            f"{2.0 / (i + 1)},{1 - 1 / (i + 1)},{2.5 / (i + 1)},{0.9 - 0.8 / (i + 1)}"
            if 0 < i <= n_epochs
            else ",,,"
        )
        lines.append(f"{mark},{at},{learning},{watts},{40 + i},{i}")
    (folder / "logs.csv").write_text("\n".join(lines) + "\n")
    levels = {key: value for key, value in dataclasses.asdict(config).items()}
    content = levels | {"model": "ResNet50", "seed": 22, "n_parameters": 23_792_612}
    content |= {"test_accuracy": 0.5} | parameters
    (folder / "parameters.yaml").write_text(yaml.safe_dump(content))
    return folder


def write_study(folder, epochs=None, changed=None):
    """Write 64 runs whose power obeys known ratios, with 3 % of noise.

    Args:
        folder: Where.
        epochs: Run -> epochs, where not 4.
        changed: Run -> parameters that its configuration has not.
    """
    rng = np.random.default_rng(0)
    campaign = SimulatedCampaign(seed=1, n_runs=60, baseline_every=20)
    for i, (_, config) in enumerate(campaign.design()):
        watts = 150 * campaign.ratio(config) * np.exp(rng.normal(0, 0.03))
        power = [80, *[watts] * (epochs or {}).get(i, 4), 90]
        parameters = {"test_accuracy": 0.4} | (changed or {}).get(i, {})
        write_run(folder / f"{i:03}", config, power=power, **parameters)
    return folder
