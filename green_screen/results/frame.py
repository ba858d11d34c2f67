"""The table of runs that results are read into: its columns, and what is derived from them alone.

:mod:`green_screen.results.runs` fills it from the tracking server; whoever works on the table needs
no server.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import pandas as pd

from green_screen import names
from green_screen.space import FACTOR_NAMES, TrainingConfig

# Before a factor's name: its level as asked for, and as executed.
REQUESTED = "requested_"
EFFECTIVE = names.EFFECTIVE_PREFIX

CAMPAIGN_KINDS = (names.KIND_BASELINE, names.KIND_RUN, names.KIND_REPLICATE)


def configurations(runs: pd.DataFrame) -> pd.Series[str]:
    """Return a text per run that is equal for runs of the same effective configuration."""
    columns = (runs[EFFECTIVE + factor] for factor in FACTOR_NAMES)
    return functools.reduce(lambda joined, column: joined + " | " + column, columns)


def in_run_order(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs as they were made: the campaign that began first, by position, then the next.

    Run ids, by which campaigns are read, say nothing of time.
    """
    began = runs.groupby("campaign")["start_time"].transform("min")
    # By id too: of campaigns that began in the same millisecond the runs must not be mixed.
    ordered = runs.assign(began=began).sort_values(["began", "campaign", "position"])
    return ordered.drop(columns="began")


def config_of(levels: Mapping[str, str]) -> TrainingConfig:
    """Return the configuration that logged levels name, also levels that no space lists.

    Raises:
        ValueError: A number is not one.
    """
    momentum = levels["optimizer_momentum"]
    return TrainingConfig(
        preprocessing=levels["preprocessing"],
        augmentation=levels["augmentation"],
        precision=levels["precision"],
        batch_size=int(_number("batch_size", levels["batch_size"])),
        partitioning=levels["partitioning"],
        lr=_number("lr", levels["lr"]),
        lr_schedule=levels["lr_schedule"],
        optimizer_momentum=None if momentum == "None" else _number("optimizer_momentum", momentum),
        optimizer=levels["optimizer"],
        internal=levels["internal"],
    )


def _number(factor: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{factor} must be a number, but got {text!r}") from None
