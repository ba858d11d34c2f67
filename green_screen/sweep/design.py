"""Which configurations a campaign runs, and in which order.

Everything follows from the space and the seed, so that the same command gives the same campaign.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from green_screen import names
from green_screen.options import SweepOptions, require
from green_screen.space import FACTOR_NAMES, Level, Space, TrainingConfig
from green_screen.sweep.association import IntArray, decouple

# A name that is cut for want of room keeps what moves energy.
_MOVERS = ("batch_size", "internal", "precision", "optimizer")
# Configurations that those of a sequential design are chosen from.
_CANDIDATES = 1024
_NAMED_FIRST = (*_MOVERS, *(factor for factor in FACTOR_NAMES if factor not in _MOVERS))


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One place of a campaign.

    Attributes:
        position: Its place in the order, from 0.
        kind: ``names.KIND_BASELINE``, ``KIND_RUN`` or ``KIND_REPLICATE``.
        config: The requested configuration.
        replicate_of: Position of the run that a replicate repeats.
    """

    position: int
    kind: str
    config: TrainingConfig
    replicate_of: int | None = None

    def name(self, baseline: TrainingConfig) -> str:
        """Return a run name that says what differs from the baseline."""
        levels, its_levels = self.config.as_params(), baseline.as_params()
        different = [
            f"{factor}={levels[factor]}"
            for factor in _NAMED_FIRST
            if levels[factor] != its_levels[factor]
        ]
        what = " ".join(different) or "baseline"
        again = f" again ({self.replicate_of:03})" if self.replicate_of is not None else ""
        return f"{self.position:03} {what}{again}"


@dataclass(frozen=True)
class Plan:
    """All runs of a campaign, in their order."""

    space: Space
    runs: tuple[PlannedRun, ...]

    def digest(self, circumstances: Mapping[str, str]) -> str:
        """Return a hash of the runs and of what else makes two campaigns the same."""
        content = {
            "runs": [(run.kind, run.replicate_of, run.config.as_params()) for run in self.runs],
            "circumstances": dict(circumstances),
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_csv(self) -> str:
        """Return the runs as text, one line each."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["position", "kind", "replicate_of", *FACTOR_NAMES])
        for run in self.runs:
            again = "" if run.replicate_of is None else run.replicate_of
            writer.writerow([run.position, run.kind, again, *run.config.as_params().values()])
        return out.getvalue()

    def designed(self) -> list[TrainingConfig]:
        """Return the requested configurations, without baselines and replicates."""
        return [run.config for run in self.runs if run.kind == names.KIND_RUN]


def make_plan(space: Space, options: SweepOptions) -> Plan:
    """Return the campaign that the options ask for.

    Raises:
        OptionError: More replicates than configurations.
    """
    rng = np.random.default_rng(options.seed)
    match options.design:
        case "balanced":
            configs = _balanced(space, options.n_runs, rng)
        case "grid":
            assert options.grid_factors is not None
            configs = _grid(space, options.grid_factors.split(","), rng)
        case "sequential":
            # What it takes to know the law is imported for this design alone.
            from green_screen.sweep.sequential import informative

            candidates = _random(space, max(_CANDIDATES, 2 * options.n_runs), rng)
            configs = informative(candidates, space.baseline, options.n_runs)
        case _:
            configs = _random(space, options.n_runs, rng)
    require(
        options.replicates <= len(configs),
        "replicates",
        options.replicates,
        f"at most the {len(configs)} configurations",
    )
    return Plan(space, _order(space, configs, options, rng))


def _config(space: Space, indices: Sequence[int] | IntArray) -> TrainingConfig:
    values: dict[str, Any] = {
        factor: space.levels[factor][int(index)]
        for factor, index in zip(FACTOR_NAMES, indices, strict=True)
    }
    return TrainingConfig(**values)


def _counts(space: Space) -> tuple[int, ...]:
    return tuple(len(space.levels[factor]) for factor in FACTOR_NAMES)


def _random(space: Space, n_runs: int, rng: np.random.Generator) -> list[TrainingConfig]:
    """Draw every level independently; a longer campaign begins with the shorter one's runs."""
    return [_config(space, rng.integers(0, _counts(space))) for _ in range(n_runs)]


def _balanced(space: Space, n_runs: int, rng: np.random.Generator) -> list[TrainingConfig]:
    """Give every level of a factor equally often (counts differ by one at most), factors apart."""
    counts = _counts(space)
    columns = [rng.permutation(np.arange(n_runs) % count) for count in counts]
    levels = decouple(np.column_stack(columns), counts, rng)
    return [_config(space, row) for row in levels]


def _grid(space: Space, factors: Sequence[str], rng: np.random.Generator) -> list[TrainingConfig]:
    """Return all combinations of the factors' levels, the others at the baseline, shuffled."""
    combinations: list[tuple[Level, ...]] = list(
        itertools.product(*(space.levels[factor] for factor in factors))
    )
    return [
        space.parse(dict(zip(factors, combinations[index], strict=True)))
        for index in rng.permutation(len(combinations))
    ]


def _order(
    space: Space, configs: list[TrainingConfig], options: SweepOptions, rng: np.random.Generator
) -> tuple[PlannedRun, ...]:
    """Put replicates at random places after what they repeat, and baselines at regular ones."""
    order = list(range(len(configs)))
    for index in rng.choice(len(configs), size=options.replicates, replace=False):
        after = order.index(int(index)) + 1
        order.insert(int(rng.integers(after, len(order) + 1)), int(index))
    runs: list[PlannedRun] = []
    first: dict[int, int] = {}

    def add(kind: str, config: TrainingConfig, replicate_of: int | None = None) -> None:
        runs.append(
            PlannedRun(position=len(runs), kind=kind, config=config, replicate_of=replicate_of)
        )

    add(names.KIND_BASELINE, space.baseline)
    for done, index in enumerate(order, start=1):
        if index in first:
            add(names.KIND_REPLICATE, configs[index], first[index])
        else:
            first[index] = len(runs)
            add(names.KIND_RUN, configs[index])
        if options.baseline_every and done % options.baseline_every == 0:
            add(names.KIND_BASELINE, space.baseline)
    return tuple(runs)
