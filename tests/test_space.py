"""Factors, levels and the rules from requested to effective."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
import yaml

from green_screen.space import (
    DEFAULT_CONFIG,
    FACTOR_NAMES,
    Space,
    SpaceError,
    TrainingConfig,
    canonical,
    partition_percentages,
    resolve,
)

PUBLISHED = {
    "preprocessing": ("None", "standardization", "robust_scaling", "minmax"),
    "augmentation": ("None", "random", "mixup", "cutmix"),
    "precision": ("float16", "float32", "float64", "global_policy_float16"),
    "batch_size": (4, 32, 64, 128),
    "partitioning": ("60-20-20", "70-15-15", "80-10-10", "90-5-5"),
    "lr": (0.01, 0.00015, 0.0008, 0.00625),
    "lr_schedule": ("constant", "exponential", "polynomial", "cosine"),
    "optimizer_momentum": (0.0, 0.5, 0.9, 0.99),
    "optimizer": ("RMSProp", "SGD", "Adam", "AdamW"),
    "internal": ("None", "pre_quantization", "post_quantization", "jit_compilation"),
}


def edited(tmp_path: Path, **changes: object) -> Path:
    content = yaml.safe_load(DEFAULT_CONFIG.read_text())
    for key, value in changes.items():
        if value is None:
            del content["factors"][key]
        else:
            content["factors"][key] = value
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def config(**levels: object) -> TrainingConfig:
    return Space.load().parse(levels)


def test_the_published_space_holds_exactly_the_forty_levels() -> None:
    assert dict(Space.load().levels) == PUBLISHED


def test_the_baseline_is_the_first_level_of_each_with_float32() -> None:
    first = {name: levels[0] for name, levels in PUBLISHED.items()}
    assert dataclasses.asdict(Space.load().baseline) == {**first, "precision": "float32"}


def test_every_level_parses_from_its_canonical_text() -> None:
    for factor, levels in PUBLISHED.items():
        for level in levels:
            assert getattr(config(**{factor: canonical(level)}), factor) == level


@pytest.mark.parametrize(
    ("text", "value"), [("1e-2", 0.01), ("0.010", 0.01), ("8e-4", 0.0008), (" 0.01", 0.01)]
)
def test_another_spelling_of_a_number_is_the_same_level(text: str, value: float) -> None:
    assert config(lr=text).lr == value
    assert config(lr=text).as_params()["lr"] == canonical(value)


@pytest.mark.parametrize(
    ("factor", "value", "named"),
    [
        ("precision", "bfloat16", "float32"),
        ("lr", "0.5", "0.00015"),
        ("lr", "fast", "positive"),
        ("lr", "nan", "positive"),
        ("batch_size", "0", "positive integer"),
        ("batch_size", "16", "4, 32, 64, 128"),
        ("optimizer_momentum", "1.0", "below 1"),
        ("partitioning", "50-50-0", "60-20-20"),
        ("internal", "prune", "jit_compilation"),
    ],
)
def test_an_unknown_level_is_refused_with_the_value_and_the_allowed_ones(
    factor: str, value: str, named: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        config(**{factor: value})
    message = str(caught.value)
    assert factor in message
    assert value in message
    assert named in message


def test_an_unknown_factor_is_refused() -> None:
    with pytest.raises(SpaceError, match="weight_decay"):
        config(weight_decay="0.1")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": None}, "missing factors .'lr'"),
        ({"dropout": [0.1]}, "unknown factors .'dropout'"),
        ({"lr": []}, "lr must be a list"),
        ({"lr": [0.1, 0.1]}, "lr names a level twice"),
        ({"optimizer": ["LAMB"]}, "LAMB"),
        ({"batch_size": [2.5]}, "2.5"),
        ({"precision": ["float64"]}, "float32 is not a level"),
    ],
)
def test_a_config_that_no_run_could_execute_is_refused(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(SpaceError, match=named):
        Space.load(edited(tmp_path, **changes))


@pytest.mark.parametrize("text", ["[1, 2", "- a\n- b", "", "factors: 3", "!!python/name:os.system"])
def test_a_malformed_config_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SpaceError):
        Space.load(path)


def test_a_config_with_other_keys_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(DEFAULT_CONFIG.read_text() + "levels: {}\n")
    with pytest.raises(SpaceError, match=r"`factors` and `baseline` alone.*\['levels'\]"):
        Space.load(path)


@pytest.mark.parametrize("augmentation", ["mixup", "cutmix"])
def test_mixing_needs_two_images(augmentation: str) -> None:
    requested = dataclasses.replace(Space.load().baseline, augmentation=augmentation, batch_size=1)
    with pytest.raises(SpaceError, match=f"{augmentation}.*batch_size must be at least 2, but got"):
        resolve(requested)


def test_an_edited_config_changes_levels_and_baseline(tmp_path: Path) -> None:
    space = Space.load(edited(tmp_path, batch_size=[256, 512]))
    assert space.baseline.batch_size == 256
    assert space.parse({"batch_size": "512"}).batch_size == 512
    with pytest.raises(SpaceError, match="256, 512"):
        space.parse({"batch_size": "32"})


def test_partition_percentages() -> None:
    assert partition_percentages("70-15-15") == (70, 15, 15)
    for bad in ("70-15", "70-15-16", "a-b-c", "100-0-0", "-10-60-50", ""):
        with pytest.raises(SpaceError):
            partition_percentages(bad)


def all_combinations() -> list[TrainingConfig]:
    varied = ("precision", "optimizer_momentum", "optimizer", "internal")
    levels = Space.load().levels
    return [
        config(**dict(zip(varied, combination, strict=True)))
        for combination in itertools.product(*(levels[name] for name in varied))
    ]


def test_the_rules_hold_for_every_combination() -> None:
    for requested in all_combinations():
        resolved = resolve(requested, platform="linux")
        effective = resolved.effective
        if requested.precision == "global_policy_float16":
            assert effective.internal != "pre_quantization"
        elif requested.internal == "pre_quantization":
            assert effective.precision == "float32"
        else:
            assert effective.precision == requested.precision
        applies = requested.optimizer in ("SGD", "RMSProp")
        assert effective.optimizer_momentum == (requested.optimizer_momentum if applies else None)


def test_every_change_has_a_rule_with_a_reason_and_there_is_no_other_rule() -> None:
    for requested in all_combinations():
        resolved = resolve(requested, platform="linux")
        before, after = requested.as_params(), resolved.effective.as_params()
        changed = {name for name in FACTOR_NAMES if before[name] != after[name]}
        assert {rule.factor for rule in resolved.rules} == changed
        assert all(rule.reason and rule.requested != rule.effective for rule in resolved.rules)


def test_resolving_is_idempotent() -> None:
    for requested in all_combinations():
        effective = resolve(requested).effective
        assert resolve(effective).effective == effective


def test_xla_is_off_on_macos_only() -> None:
    requested = config(internal="jit_compilation")
    assert resolve(requested, platform="darwin").effective.internal == "None"
    assert resolve(requested, platform="linux").effective.internal == "jit_compilation"
