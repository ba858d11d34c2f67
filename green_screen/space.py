"""The experiment's space: factors, levels, and the configurations made of them.

One configuration exists in two forms. The *requested* one is what the design or the user asked for;
the *effective* one is what is executed after the rules in :func:`resolve`. Both are logged, and the
analysis works on the effective one, because energy follows what ran and not what was asked.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from green_screen import strict_yaml

Level = str | int | float

DEFAULT_CONFIG = Path(__file__).with_name("config.yaml")


class SpaceError(ValueError):
    """A factor, a level or a combination that the experiment does not have."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One level for each of the ten factors.

    Attributes:
        preprocessing: How pixel values are scaled, with statistics of the training part.
        augmentation: How training images are changed, on whole batches.
        precision: The Keras dtype policy; ``global_policy_float16`` is ``mixed_float16``.
        batch_size: Images a step.
        partitioning: Percent of train-validation-test.
        lr: Initial learning rate.
        lr_schedule: How the learning rate decays over the whole training.
        optimizer_momentum: Momentum of SGD and RMSProp; ``None`` where it does not apply.
        optimizer: The optimizer's name.
        internal: Quantization before or after training, XLA, or ``"None"``.
    """

    preprocessing: str
    augmentation: str
    precision: str
    batch_size: int
    partitioning: str
    lr: float
    lr_schedule: str
    optimizer_momentum: float | None
    optimizer: str
    internal: str

    def as_params(self) -> dict[str, str]:
        """Return factor -> canonical string, the only form in which levels are logged."""
        return {name: canonical(getattr(self, name)) for name in FACTOR_NAMES}


FACTOR_NAMES: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(TrainingConfig))

# What the code implements, for the factors whose levels are names.
IMPLEMENTED: dict[str, tuple[str, ...]] = {
    "preprocessing": ("None", "standardization", "robust_scaling", "minmax"),
    "augmentation": ("None", "random", "mixup", "cutmix"),
    "precision": ("float16", "float32", "float64", "global_policy_float16"),
    "lr_schedule": ("constant", "exponential", "polynomial", "cosine"),
    "optimizer": ("RMSProp", "SGD", "Adam", "AdamW"),
    "internal": ("None", "pre_quantization", "post_quantization", "jit_compilation"),
}

# Optimizers with a momentum term that `optimizer_momentum` sets.
MOMENTUM_OPTIMIZERS = ("RMSProp", "SGD")

# Augmentations that mix an image with another one of its batch.
MIXING = ("mixup", "cutmix")


def canonical(value: Level | None) -> str:
    """Return the one string form of a level: ``1e-3`` and ``0.001`` are the same parameter."""
    return repr(value) if isinstance(value, float) else str(value)


def partition_percentages(partitioning: str) -> tuple[int, int, int]:
    """Return the percentages of train, validation and test.

    Raises:
        SpaceError: The text is not three positive integers joined by ``-`` that sum to 100.
    """
    if re.fullmatch(r"[1-9][0-9]?(-[1-9][0-9]?){2}", partitioning):
        train, validation, test = (int(part) for part in partitioning.split("-"))
        if train + validation + test == 100:
            return train, validation, test
    raise SpaceError(
        f"partitioning must be three positive percentages that sum to 100, such as 60-20-20, "
        f"but got {partitioning!r}"
    )


def _integer(factor: str, value: Any) -> int:
    try:
        number = strict_yaml.integer(str(value))
    except ValueError:
        number = 0
    if number < 1:
        raise SpaceError(f"{factor} must be a positive integer, but got {value!r}")
    return number


def _number(factor: str, value: Any, accepts: Callable[[float], bool], what: str) -> float:
    try:
        number = strict_yaml.number(str(value))
    except ValueError:
        number = float("nan")
    if not accepts(number):
        raise SpaceError(f"{factor} must be {what}, but got {value!r}")
    return number


def parse_level(factor: str, value: Any) -> Level:
    """Return `value` in the factor's type.

    Raises:
        SpaceError: The code could not execute it.
    """
    if value is None:
        raise SpaceError(f"{factor} must have a level, but got null: the level is written None")
    if factor in IMPLEMENTED:
        if str(value) not in IMPLEMENTED[factor]:
            raise SpaceError(
                f"{factor}: unknown level {value!r}; implemented are "
                f"{', '.join(IMPLEMENTED[factor])}"
            )
        return str(value)
    if factor == "batch_size":
        return _integer(factor, value)
    if factor == "lr":
        return _number(factor, value, lambda x: 0 < x < float("inf"), "a positive number")
    if factor == "optimizer_momentum":
        return _number(factor, value, lambda x: 0 <= x < 1, "at least 0 and below 1")
    partition_percentages(str(value))
    return str(value)


@dataclass(frozen=True)
class Space:
    """The factors with their levels, and the baseline.

    Attributes:
        levels: Factor -> its levels, in the order of the file.
        baseline: The configuration that the others are compared with.
    """

    levels: Mapping[str, tuple[Level, ...]]
    baseline: TrainingConfig

    @classmethod
    def load(cls, path: str | Path | None = None) -> Space:
        """Read a space from a YAML file; without a path, the published one.

        Raises:
            SpaceError: The file is missing, malformed, or names something the code does not have.
        """
        source = Path(path) if path else DEFAULT_CONFIG
        try:
            content = strict_yaml.read(source)
        except (OSError, strict_yaml.YamlError) as error:
            raise SpaceError(f"config {str(source)!r} cannot be read: {error}") from error
        factors = content.get("factors") if isinstance(content, dict) else None
        if not isinstance(factors, dict):
            raise SpaceError(f"config {str(source)!r} must hold a mapping `factors`")
        others = [key for key in content if key not in ("factors", "baseline")]
        if others:
            raise SpaceError(
                f"config {str(source)!r} must hold `factors` and `baseline` alone, but also holds "
                f"{others}"
            )
        unknown = [name for name in factors if name not in FACTOR_NAMES]
        missing = [name for name in FACTOR_NAMES if name not in factors]
        if unknown or missing:
            raise SpaceError(
                f"config {str(source)!r}: unknown factors {unknown}, missing factors {missing}; "
                f"the factors are {', '.join(FACTOR_NAMES)}"
            )
        levels: dict[str, tuple[Level, ...]] = {}
        for name in FACTOR_NAMES:
            values = factors[name]
            if not isinstance(values, list) or not values:
                raise SpaceError(f"{name} must be a list of at least one level, but got {values!r}")
            parsed = tuple(parse_level(name, value) for value in values)
            if len(set(parsed)) != len(parsed):
                raise SpaceError(f"{name} names a level twice: {values!r}")
            levels[name] = parsed
        overrides = content.get("baseline", {})
        if not isinstance(overrides, dict):
            raise SpaceError(f"baseline must map factors to levels, but got {overrides!r}")
        first = {name: values[0] for name, values in levels.items()}
        return cls(levels=levels, baseline=_parse(levels, {**first, **overrides}))

    def parse(self, values: Mapping[str, Any]) -> TrainingConfig:
        """Return the configuration that `values` names; factors left out take the baseline's level.

        Raises:
            SpaceError: An unknown factor, or a value that is not a level of its factor.
        """
        start = {name: getattr(self.baseline, name) for name in FACTOR_NAMES}
        return _parse(self.levels, {**start, **values})


def _parse(levels: Mapping[str, tuple[Level, ...]], values: Mapping[str, Any]) -> TrainingConfig:
    unknown = [name for name in values if name not in FACTOR_NAMES]
    if unknown:
        raise SpaceError(f"unknown factors {unknown}; the factors are {', '.join(FACTOR_NAMES)}")
    parsed: dict[str, Any] = {}
    for name in FACTOR_NAMES:
        level = parse_level(name, values[name])
        if level not in levels[name]:
            allowed = ", ".join(canonical(value) for value in levels[name])
            raise SpaceError(
                f"{name}={canonical(level)} is not a level of this experiment; "
                f"allowed are {allowed}"
            )
        parsed[name] = level
    return TrainingConfig(**parsed)


@dataclass(frozen=True)
class Rule:
    """Why an effective configuration differs from the requested one."""

    factor: str
    requested: str
    effective: str
    reason: str


@dataclass(frozen=True)
class Resolved:
    """A requested configuration, what is executed instead, and why."""

    requested: TrainingConfig
    effective: TrainingConfig
    rules: tuple[Rule, ...]


def resolve(requested: TrainingConfig, platform: str = sys.platform) -> Resolved:
    """Turn a requested configuration into the one that is executed.

    This is the only place with such rules. They are applied in order: a rule sees the effect of
    those before it.

    Raises:
        SpaceError: The levels cannot be combined.
    """
    if requested.augmentation in MIXING and requested.batch_size < 2:
        raise SpaceError(
            f"augmentation={requested.augmentation} mixes pairs of images: batch_size must be at "
            f"least 2, but got {requested.batch_size}"
        )
    effective = requested
    rules: list[Rule] = []

    def apply(factor: str, value: Level | None, reason: str) -> None:
        nonlocal effective
        before = canonical(getattr(effective, factor))
        if before == canonical(value):
            return
        changes: dict[str, Any] = {factor: value}
        effective = dataclasses.replace(effective, **changes)
        rules.append(Rule(factor, before, canonical(value), reason))

    if effective.precision == "global_policy_float16" and effective.internal == "pre_quantization":
        apply(
            "internal",
            "None",
            "quantization-aware training cannot run under the mixed_float16 policy: "
            "tensorflow-model-optimization computes in float32 only",
        )
    if effective.internal == "pre_quantization":
        apply(
            "precision",
            "float32",
            "tensorflow-model-optimization inserts float32 quantizers and refuses other dtypes",
        )
    if effective.internal == "jit_compilation" and platform == "darwin":
        apply("internal", "None", "TensorFlow for macOS has no XLA compiler for its devices")
    if effective.optimizer not in MOMENTUM_OPTIMIZERS:
        apply(
            "optimizer_momentum",
            None,
            f"{effective.optimizer} has its own moment decay rates; momentum applies to "
            f"{' and '.join(MOMENTUM_OPTIMIZERS)} alone",
        )
    return Resolved(requested=requested, effective=effective, rules=tuple(rules))
