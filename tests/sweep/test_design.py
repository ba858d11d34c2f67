from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from green_screen import names
from green_screen.options import OptionError, SweepOptions
from green_screen.space import DEFAULT_CONFIG, FACTOR_NAMES, Space
from green_screen.sweep.association import (
    IntArray,
    condition_number,
    cramers_v,
    decouple,
    worst_association,
)
from green_screen.sweep.design import Plan, make_plan
from green_screen.sweep.quality import Quality, quality


def plan(**changes: object) -> Plan:
    settings: dict[str, object] = {"n_runs": 20, "baseline_every": 0} | changes
    options = SweepOptions(**settings)  # type: ignore[arg-type]
    return make_plan(Space.load(options.config), options)


def levels_of(plan: Plan) -> IntArray:
    """Level indices [runs, factors]."""
    space, runs = plan.space, plan.designed()
    return np.array([[space.levels[f].index(getattr(c, f)) for f in FACTOR_NAMES] for c in runs])


def of_plan(plan: Plan, *, effective: bool = False) -> Quality:
    return quality(plan.space, plan.designed(), effective=effective)


def configs(plan: Plan, kind: str = names.KIND_RUN) -> list[object]:
    return [run.config for run in plan.runs if run.kind == kind]


def test_a_longer_random_design_begins_with_the_shorter_one() -> None:
    assert configs(plan(n_runs=30))[:20] == configs(plan(n_runs=20))


def test_every_level_of_every_factor_comes_up_at_random() -> None:
    levels = levels_of(plan(n_runs=200))
    for column in levels.T:
        counts = np.bincount(column, minlength=4)
        # 50 expected; the standard deviation is 6.
        assert counts.min() > 25


@pytest.mark.parametrize("design", ["random", "balanced"])
def test_the_seed_decides(design: str) -> None:
    assert plan(design=design) == plan(design=design)
    assert configs(plan(design=design)) != configs(plan(design=design, seed=1))


@given(n_runs=st.integers(1, 130), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_a_balanced_design_has_each_level_equally_often(n_runs: int, seed: int) -> None:
    levels = levels_of(plan(design="balanced", n_runs=n_runs, seed=seed))
    assert levels.shape == (n_runs, 10)
    for column in levels.T:
        counts = np.bincount(column, minlength=4)
        assert counts.max() - counts.min() <= 1


def test_a_balanced_design_keeps_factors_apart_better_than_chance() -> None:
    for seed in (22, 1, 2):
        balanced = of_plan(plan(design="balanced", n_runs=100, seed=seed))
        random = of_plan(plan(design="random", n_runs=100, seed=seed))
        assert balanced.worst < 0.1
        assert random.worst > 0.2
        assert balanced.condition < 1.6 < random.condition


def test_what_is_executed_differs_from_what_is_requested() -> None:
    balanced = plan(design="balanced", n_runs=100)
    executed = of_plan(balanced, effective=True)
    # Half of the optimizers have no momentum: which do is known from it.
    assert executed.pair == "optimizer_momentum, optimizer"
    assert executed.worst > 0.5 > of_plan(balanced).worst
    # Within the optimizers that use it, its effect can still be told from theirs.
    assert 1.0 < executed.condition < 4.0


def test_a_design_that_lacks_levels_says_which() -> None:
    grid = of_plan(plan(design="grid", grid_factors="optimizer,optimizer_momentum"))
    assert grid.condition == pytest.approx(1.0)
    assert len(grid.constant) == 8
    assert "constant preprocessing, augmentation" in grid.text()
    few = of_plan(plan(n_runs=3))
    assert few.missing
    assert "condition number" not in few.text()
    assert f"never {few.missing[0]}" in few.text()
    assert of_plan(plan(n_runs=1)).text() == "no factor varies"
    grid = of_plan(plan(design="grid", grid_factors="precision,internal"), effective=True)
    assert not grid.missing
    lacking = plan(design="grid", grid_factors="precision").designed()[1:]
    text = quality(Space.load(), lacking).text()
    assert "for the levels that occur; never precision=" in text


def test_levels_of_uneven_number_are_balanced_too(tmp_path: Path) -> None:
    content = yaml.safe_load(DEFAULT_CONFIG.read_text())
    content["factors"]["lr"] = [0.1, 0.2, 0.3]
    content["factors"]["batch_size"] = [8]
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    levels = levels_of(plan(design="balanced", n_runs=12, config=str(config)))
    assert Counter(levels[:, FACTOR_NAMES.index("lr")]) == {0: 4, 1: 4, 2: 4}
    assert set(levels[:, FACTOR_NAMES.index("batch_size")]) == {0}


def test_a_grid_has_all_combinations_once_in_an_order_of_the_seed() -> None:
    first = plan(design="grid", grid_factors="lr,optimizer")
    found = [(c.lr, c.optimizer) for c in configs(first)]  # type: ignore[attr-defined]
    space = Space.load()
    combinations = list(itertools.product(space.levels["lr"], space.levels["optimizer"]))
    assert sorted(found) == sorted(combinations)
    assert found != combinations
    assert {c.precision for c in configs(first)} == {"float32"}  # type: ignore[attr-defined]
    other = plan(design="grid", grid_factors="lr,optimizer", seed=1)
    assert configs(other) != configs(first)


def test_the_baseline_comes_first_and_again_through_the_campaign() -> None:
    runs = plan(n_runs=25, baseline_every=10).runs
    assert [run.position for run in runs] == list(range(28))
    baselines = [run.position for run in runs if run.kind == names.KIND_BASELINE]
    assert baselines == [0, 11, 22]
    assert {run.config for run in runs if run.kind == names.KIND_BASELINE} == {
        Space.load().baseline
    }


def test_replicates_follow_what_they_repeat() -> None:
    runs = plan(n_runs=20, replicates=6, baseline_every=5).runs
    replicates = [run for run in runs if run.kind == names.KIND_REPLICATE]
    assert len({run.replicate_of for run in replicates}) == 6
    for run in replicates:
        assert run.replicate_of is not None
        assert run.replicate_of < run.position
        assert runs[run.replicate_of].kind == names.KIND_RUN
        assert runs[run.replicate_of].config == run.config
        assert run.name(Space.load().baseline).endswith(f"again ({run.replicate_of:03})")
    # They do not disturb the design itself.
    assert configs(plan(n_runs=20, replicates=6)) == configs(plan(n_runs=20))


def test_the_digest_tells_campaigns_apart() -> None:
    first = plan()
    assert first.digest({"epochs": "2"}) == plan().digest({"epochs": "2"})
    assert first.digest({"epochs": "2"}) != first.digest({"epochs": "3"})
    assert first.digest({}) != plan(seed=1).digest({})
    assert first.digest({}) != plan(baseline_every=10).digest({})


def test_the_design_as_a_table() -> None:
    lines = plan(n_runs=2).as_csv().splitlines()
    assert lines[0].split(",")[:3] == ["position", "kind", "replicate_of"]
    assert lines[1] == "0,baseline,,None,None,float32,4,60-20-20,0.01,constant,0.0,RMSProp,None"
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_runs": 0}, "n_runs must be at least 1, but got 0"),
        ({"design": "grid"}, "grid_factors must be given with design=grid"),
        ({"grid_factors": "lr"}, "grid_factors must be given with design=grid"),
        ({"design": "grid", "grid_factors": "lr,lr"}, "grid_factors must be different factors"),
        ({"design": "grid", "grid_factors": "speed"}, "grid_factors must be different factors"),
        ({"time_limit_s": 0.0}, "time_limit_s must be more than 0 seconds"),
        ({"max_failures": 0}, "max_failures must be at least 1"),
        ({"ray_address": "auto"}, "ray_address must be given with executor=ray alone"),
        ({"cooldown_band_c": -1.0}, "cooldown_band_c must be at least 0"),
    ],
)
def test_bad_options_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SweepOptions(**changes)  # type: ignore[arg-type]


def test_cramers_v_of_known_tables() -> None:
    same = np.array([0, 0, 1, 1, 2, 2])
    assert cramers_v(same, same) == pytest.approx(1.0)
    assert cramers_v(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == 0.0
    assert cramers_v(same, np.zeros(6, dtype=np.int64)) == 0.0
    # [[30, 10], [20, 40]]: chi2 = 100 (30 40 - 10 20)^2 / (40 60 50 50) = 16.67, V = 0.408.
    first = np.repeat([0, 0, 1, 1], [30, 10, 20, 40])
    second = np.repeat([0, 1, 0, 1], [30, 10, 20, 40])
    assert cramers_v(first, second) == pytest.approx(0.40825, abs=1e-5)


def test_the_condition_number_of_known_designs() -> None:
    full = np.array(list(itertools.product(range(4), range(4), range(2))))
    assert condition_number(full) == pytest.approx(1.0)
    aliased = np.column_stack([full[:, 0], full[:, 0]])
    assert condition_number(aliased) == float("inf")
    too_few = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 0], [3, 0, 1]])
    assert condition_number(too_few) == float("inf")


def test_exchanges_reach_an_orthogonal_array_where_it_is_easy() -> None:
    rng = np.random.default_rng(0)
    counts = (2, 2, 2)
    start = np.column_stack([rng.permutation(np.arange(8) % 2) for _ in counts])
    assert worst_association(decouple(start, counts, rng), ("a", "b", "c"))[0] == 0.0
