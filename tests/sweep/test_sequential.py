from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from campaigns import children, small, summary
from law_campaign import LawCampaign
from mlflow.tracking import MlflowClient

from benchmarks import sequential_design
from benchmarks.law_calibration import REGIMES
from green_screen import names
from green_screen.executors.executor import CampaignError
from green_screen.executors.local import LocalExecutor
from green_screen.options import OptionError, SweepOptions
from green_screen.space import Space
from green_screen.sweep.campaign import run_sweep
from green_screen.sweep.design import Plan, make_plan
from green_screen.sweep.sequential import Sequencer

QUICK = str(Path(names.__file__).with_name("quick.yaml"))
LAW = "law_trainer:train"


def plan(**changes: object) -> Plan:
    settings: dict[str, object] = {"design": "sequential", "n_runs": 40} | changes
    options = SweepOptions(**settings)  # type: ignore[arg-type]
    return make_plan(Space.load(options.config), options)


def test_a_longer_plan_begins_with_the_shorter_one() -> None:
    assert plan(n_runs=60).designed()[:40] == plan(n_runs=40).designed()
    assert plan(n_runs=60).designed() != plan(n_runs=60, seed=1).designed()


def test_batches_at_which_launching_or_computing_decides_come_first() -> None:
    first = plan().designed()
    # Of four batch sizes the outer ones tell most, as the ends of a line do; of levels all.
    assert sum(config.batch_size in (4, 128) for config in first) > 30
    for factor in ("precision", "internal", "optimizer", "augmentation"):
        levels = {getattr(config, factor) for config in first}
        assert levels == set(Space.load().levels[factor])


def test_baselines_and_replicates_keep_their_places() -> None:
    campaign = plan(n_runs=12, baseline_every=4, replicates=2)
    sequencer, waiting, order = Sequencer(campaign), list(range(len(campaign.runs))), list[int]()
    while waiting:
        position = sequencer.next(waiting)
        waiting.remove(position)
        order.append(position)
    made = [campaign.runs[position] for position in order]
    assert [run.kind for run in made] == [run.kind for run in campaign.runs]
    for run in made:
        if run.replicate_of is not None:
            assert order.index(run.replicate_of) < order.index(run.position)


@pytest.mark.slow
@pytest.mark.parametrize("regime", REGIMES)
def test_it_knows_the_law_after_fewer_runs_and_its_intervals_hold(
    regime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequential_design, "WIDTHS", (0.10,))
    found = {
        design: [next(sequential_design.stops(design, seed, REGIMES[regime])) for seed in range(3)]
        for design in ("sequential", "random")
    }
    runs = {design: np.mean([n for _, n, _ in stops]) for design, stops in found.items()}
    assert runs["sequential"] < runs["random"]
    assert np.mean([held for _, _, held in found["sequential"]]) > 0.85


def test_what_cannot_be_fitted_leaves_the_plan_as_it_is() -> None:
    campaign = plan()
    sequencer = Sequencer(campaign)
    few = LawCampaign(n_runs=3).frame()
    sequencer.learn(few.head(3))
    sequencer.learn(few.assign(measurement_valid="false"))
    assert sequencer.half_width == math.inf and sequencer.fit is None
    assert sequencer.next(range(len(campaign.runs))) == 0
    waiting = range(1, len(campaign.runs))
    assert sequencer.next(waiting) == 1


@pytest.mark.parametrize("until", [0.0, 1.0, -0.1, math.nan])
def test_until_is_a_fraction(until: float) -> None:
    with pytest.raises(OptionError, match="until must be a fraction between 0 and 1"):
        SweepOptions(design="sequential", until=until)


def test_until_is_for_a_sequential_design() -> None:
    with pytest.raises(OptionError, match="with design=sequential alone"):
        SweepOptions(design="balanced", until=0.05)


def options(**changes: object) -> SweepOptions:
    return small(
        design="sequential", config=QUICK, n_runs=40, epochs=1, baseline_every=10, **changes
    )


def order(parent_id: str) -> list[str]:
    """Return the positions of the finished runs in the order in which they were started."""
    finished = [run for run in children(parent_id) if run.info.status == "FINISHED"]
    made = sorted(finished, key=lambda run: run.info.start_time)
    return [run.data.tags[names.TAG_POSITION] for run in made]


@pytest.mark.slow
def test_it_ends_when_enough_is_known_and_goes_on_as_it_would_have(
    store: str, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    enough = options(until=0.055)
    whole = run_sweep(enough, trainer=LAW, executor=executor)
    parent = MlflowClient().get_run(whole)
    n_runs = len(children(whole))
    assert 19 <= n_runs < 40
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics[names.LAW_HALF_WIDTH_PERCENT] <= 5.5
    assert parent.data.tags[names.TAG_RUNS_PLANNED] == str(n_runs)
    assert parent.data.metrics[names.RUNS_FINISHED] == n_runs == len(summary(whole))

    # What is complete is not resumed: the same command begins anew, here until a run fails.
    (Path(store.removeprefix("sqlite:///")).parent / "runs").unlink()
    monkeypatch.setenv("FAULTY", "18")
    with pytest.raises(CampaignError, match="17 of 45 runs finished, 1 failed: stopped"):
        run_sweep(dataclasses.replace(enough, max_failures=1), trainer=LAW, executor=executor)
    resumed = run_sweep(enough, trainer=LAW, executor=executor)
    assert resumed != whole
    assert order(resumed) == order(whole)
