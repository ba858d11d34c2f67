"""The pilot campaign on H100s, as a table of runs, where its files are at hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from green_screen import names
from green_screen.results.frame import EFFECTIVE
from green_screen.results.runs import to_frame

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "pilot-h100"


def pilot() -> pd.DataFrame:
    """Return the finished runs with what their steady epochs took.

    Medians, because a single epoch can be held up. The first epoch of each fit is not steady, so
    neither the first epoch nor the first further one counts; the code of that day had counted the
    latter.
    """
    runs = pd.read_csv(FOLDER / "runs.csv", dtype=str, keep_default_na=False)
    runs = runs[runs["status"] == "FINISHED"].reset_index(drop=True)
    epochs = pd.read_csv(FOLDER / "epochs.csv")
    steady = epochs[epochs["index"] >= 1].groupby(["campaign", "position"])["joules"].median()
    parts = runs["effective_partitioning"].str.split("-", expand=True).astype(float) / 100
    samples = runs["samples"].astype(float)
    batch = runs["effective_batch_size"].astype(float)
    levels = runs[[column for column in runs if column.startswith(EFFECTIVE)]]
    frame = pd.DataFrame(index=runs.index, columns=to_frame([]).columns)
    frame[list(levels)] = levels
    board = runs["board"].map(lambda number: f"GPU-{number}")
    return frame.assign(
        run_id=runs["campaign"] + "-" + runs["position"],
        run_name=runs["position"],
        campaign=runs["campaign"],
        kind=runs["kind"],
        status="FINISHED",
        measurement_valid="true",
        energy_source=names.SOURCE_COUNTER,
        diverged=runs["diverged"] == "True",
        position=runs["position"].astype(float),
        machine="NVIDIA H100 80GB HBM3 " + board + runs["image_size"],
        start_time=pd.Timestamp("2026-11-25", tz="UTC"),
        model="resnet50",
        dataset="cifar10",
        image_size=runs["image_size"].astype(float),
        samples=samples,
        # What does not fill a batch is not trained.
        n_train_images=(samples * parts[0]).round() // batch * batch,
        n_validation_images=(samples * parts[1]).round(),
        epochs=2.0,
        val_accuracy=pd.to_numeric(runs["val_accuracy"]),
        test_accuracy=pd.to_numeric(runs["test_accuracy"]),
        chance_accuracy=0.1,  # ten classes, of which each part has as many images
        energy_per_epoch_j=[
            steady[campaign, int(position)]
            for campaign, position in zip(runs["campaign"], runs["position"], strict=True)
        ],
    ).infer_objects()
