"""What the entry points take: one dataclass each, the single definition of names and defaults.

The command line, MLproject (held to it by a test) and the Python API share these definitions.
Every option is checked here, before anything starts.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from green_screen import strict_yaml
from green_screen.space import FACTOR_NAMES, Space, SpaceError, TrainingConfig, canonical

T = TypeVar("T")


class OptionError(ValueError):
    """An option whose value cannot be used."""


def option(default: Any, help_text: str, choices: tuple[str, ...] | None = None) -> Any:
    """Return a dataclass field with a help text and, where they are few, its allowed values."""
    return field(default=default, metadata={"help": help_text, "choices": choices})


def require(condition: bool, name: str, value: object, must: str) -> None:
    """Raise :class:`OptionError` that names the option, the rule and the value."""
    if not condition:
        raise OptionError(f"{name} must be {must}, but got {value!r}")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What a training takes beside its ten factors."""

    dataset: str = option(
        "digits", "digits, cifar10, cifar100, synthetic, or a folder, .zip or .npz of images"
    )
    model: str = option("resnet50", "resnet50, resnet8 or convnext_tiny")
    epochs: int = option(50, "epochs to train")
    image_size: int = option(32, "height and width in pixels that images are resized to")
    samples: int | None = option(None, "use a stratified subset of so many images; None is all")
    seed: int = option(22, "seed of splits, initial weights, augmentation and shuffling")
    country: str = option("USA", "three-letter ISO country code, for the carbon intensity")
    config: str | None = option(None, "YAML file of factors and levels; None is the published one")
    min_window_s: float | None = option(
        None, "shortest steady window in seconds to trust; None is 5 on a GPU and 0 on a CPU"
    )
    log_model: bool = option(False, "log the trained model as an artifact of the run")
    trace: bool = option(True, "log the power, sampled ten times a second, as trace.parquet")
    protocol: str = option(
        "full",
        "full trains all epochs; screening measures steps once they are steady, forecasts the "
        "energy of the training, and has no accuracy",
        choices=("full", "screening"),
    )
    max_window_s: float = option(
        20.0, "for protocol=screening: most seconds that a steady window of steps takes"
    )
    checkpoint_every: int | None = option(
        10, "epochs between checkpoints, from which a run that was cut off goes on; 0 is none"
    )

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        require(bool(self.dataset), "dataset", self.dataset, "a name or a path")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.image_size >= 8, "image_size", self.image_size, "at least 8 pixels")
        require(self.samples is None or self.samples >= 10, "samples", self.samples, "at least 10")
        require(0 <= self.seed < 2**32, "seed", self.seed, "in [0, 2**32)")
        require(
            len(self.country) == 3 and self.country.isalpha() and self.country.isupper(),
            "country",
            self.country,
            "a three-letter ISO 3166-1 code in capitals, such as DEU",
        )
        require(
            self.min_window_s is None or 0 <= self.min_window_s < math.inf,
            "min_window_s",
            self.min_window_s,
            "at least 0 seconds and finite",
        )
        choices = self.__dataclass_fields__["protocol"].metadata["choices"]
        require(self.protocol in choices, "protocol", self.protocol, " or ".join(choices))
        require(
            0 < self.max_window_s < math.inf,
            "max_window_s",
            self.max_window_s,
            "more than 0 seconds and finite",
        )
        require(
            not (self.log_model and self.protocol == "screening"),
            "log_model",
            self.log_model,
            "false with protocol=screening, which trains no model to keep",
        )
        require(
            self.checkpoint_every is None or self.checkpoint_every >= 0,
            "checkpoint_every",
            self.checkpoint_every,
            "at least 0 epochs",
        )
        require_config(self.config)


def require_config(config: str | None) -> None:
    """Refuse a configuration file that does not exist; ``None`` is the published one."""
    require(config is None or Path(config).is_file(), "config", config, "an existing file")


def parse_value(name: str, annotation: Any, text: str) -> Any:
    """Turn the text of an option into the type of its annotation; ``None`` where it allows that.

    Raises:
        OptionError: The text is not of that type.
    """
    kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else ()
    if type(None) in kinds:
        if text in ("", "None"):
            return None
        (annotation,) = (kind for kind in kinds if kind is not type(None))
    if annotation is bool:
        require(text.lower() in ("true", "false"), name, text, "true or false")
        return text.lower() == "true"
    # Numbers as they look, where Python's own int() also knows 1_000, and float() also nan.
    read = {int: strict_yaml.integer, float: strict_yaml.number}.get(annotation, annotation)
    try:
        return read(text)
    except ValueError:
        raise OptionError(f"{name} must be {annotation.__name__}, but got {text!r}") from None


def defaults(cls: type[Any]) -> dict[str, str]:
    """Return option -> default in the form that MLproject states and ``mlflow run`` passes."""
    return _texts({f.name: f.default for f in dataclasses.fields(cls)})


def option_params(options: Any) -> dict[str, str]:
    """Return option -> value in the form that ``mlflow run`` logs, to be logged as parameters."""
    return _texts(dataclasses.asdict(options))


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {
        name: str(value).lower() if isinstance(value, bool) else canonical(value)
        for name, value in values.items()
    }


def factor_defaults() -> dict[str, str]:
    """Return factor -> level of the published baseline, as MLproject states them."""
    return Space.load().baseline.as_params()


def parse_options(
    cls: type[T],
    argv: Sequence[str] | None,
    description: str,
    factors: bool = False,
    prog: str | None = None,
) -> tuple[T, dict[str, str]]:
    """Parse a command line into an options dataclass and, if asked, the ten factors' texts.

    Args:
        cls: The dataclass that defines the options.
        argv: Arguments without the program's name; ``None`` is ``sys.argv[1:]``.
        description: What the entry point does, for ``--help``.
        factors: Whether the entry point takes the ten factors too.
        prog: How it was called, for help and refusals; ``None`` is the name of the program's file.

    Returns:
        The options, and factor -> text of the factors that were given: those left out take the
        baseline's level of the configuration in use. A bad value ends the process with exit status
        2 and a message that names it.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    try:
        published = factor_defaults() if factors else {}
    except SpaceError as error:  # its user may edit the published file
        parser.error(str(error))
    for name, default in published.items():
        parser.add_argument(
            f"--{name}", help=f"level (default: the baseline's in config; published: {default})"
        )
    hints = typing.get_type_hints(cls)
    for name, default in defaults(cls).items():
        metadata = cls.__dataclass_fields__[name].metadata  # type: ignore[attr-defined]
        what = metadata.get("help", "").replace("%", "%%")  # argparse formats it
        parser.add_argument(
            f"--{name}",
            default=default,
            choices=metadata.get("choices"),
            help=f"{what} (default: {default})",
        )
    texts = vars(parser.parse_args(argv))
    given = {name: texts.pop(name) for name in FACTOR_NAMES if name in texts}
    factor_texts = {name: text for name, text in given.items() if text is not None}
    try:
        values = {name: parse_value(name, hints[name], text) for name, text in texts.items()}
        return cls(**values), factor_texts
    except (OptionError, SpaceError) as error:
        parser.error(str(error))


def read_config(options: TrainOptions, factor_texts: dict[str, str]) -> TrainingConfig:
    """Return the requested configuration that the factors' texts name in the options' space.

    Raises:
        SpaceError: A text is no level of its factor there.
    """
    return Space.load(options.config).parse(factor_texts)


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrainOptions):
    """What a campaign takes beside what each of its trainings takes."""

    protocol: str = option(
        "full",
        "full trains all epochs; screening measures steps once they are steady, forecasts the "
        "energy of the training, and has no accuracy; halving trains all configurations for a few "
        "epochs, the third with the best validation accuracy for more, and so on",
        choices=("full", "screening", "halving"),
    )
    n_runs: int = option(100, "configurations of a random or balanced design")
    design: str = option(
        "random",
        "how configurations are chosen: random; balanced (each level equally often, factors hardly "
        "associated); grid (all combinations of grid_factors); sequential (what tells most of the "
        "energy law comes first)",
        choices=("random", "balanced", "grid", "sequential"),
    )
    until: float | None = option(
        None,
        "for design=sequential: end once the 95 % interval of the energy, for nine configurations "
        "in ten, reaches at most so far from it, as a fraction such as 0.05; None does all n_runs",
    )
    grid_factors: str | None = option(
        None, "factors of design=grid, joined by commas; the others stay at the baseline"
    )
    baseline_every: int = option(
        10, "the baseline runs first and again after every so many runs; 0 is first alone"
    )
    replicates: int = option(0, "configurations, chosen by the seed, that are run a second time")
    resume: str | None = option(
        None,
        "parent run to complete; None is the same command's unfinished campaign if there is one, "
        "and new never resumes",
    )
    max_failures: int | None = option(None, "failed runs that end the campaign; None is no limit")
    time_limit_s: float | None = option(None, "seconds a run may take; None is no limit")
    executor: str = option(
        "local", "this host's GPUs or CPU, or a Ray cluster", choices=("local", "ray")
    )
    ray_address: str | None = option(
        None, "address of the Ray cluster's head; None is the cluster that this host is part of"
    )
    cooldown_band_c: float = option(
        5.0, "a run starts when its GPU is at most so many degrees above its first run's start"
    )
    cooldown_band_w: float = option(
        10.0, "... and its idle power at most so many watts above its first run's start"
    )
    cooldown_timeout_s: float = option(
        300.0, "seconds after which a run starts anyway; 0 is no cool-down"
    )

    def __post_init__(self) -> None:
        """Refuse values that no campaign could use."""
        super().__post_init__()
        for name, least in (("n_runs", 1), ("baseline_every", 0), ("replicates", 0)):
            value = getattr(self, name)
            require(value >= least, name, value, f"at least {least}")
        for name in ("cooldown_band_c", "cooldown_band_w", "cooldown_timeout_s"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(
            self.max_failures is None or self.max_failures >= 1,
            "max_failures",
            self.max_failures,
            "at least 1",
        )
        require(
            self.time_limit_s is None or self.time_limit_s > 0,
            "time_limit_s",
            self.time_limit_s,
            "more than 0 seconds",
        )
        require(
            self.until is None or (self.design == "sequential" and 0 < self.until < 1),
            "until",
            self.until,
            "a fraction between 0 and 1, with design=sequential alone",
        )
        grid = self.grid_factors.split(",") if self.grid_factors else []
        require(
            bool(grid) == (self.design == "grid"),
            "grid_factors",
            self.grid_factors,
            "given with design=grid and with no other design",
        )
        require(
            set(grid) <= set(FACTOR_NAMES) and len(set(grid)) == len(grid),
            "grid_factors",
            self.grid_factors,
            f"different factors out of {', '.join(FACTOR_NAMES)}",
        )
        require(
            self.protocol != "halving"
            or (self.executor == "local" and self.design != "sequential" and not self.log_model),
            "protocol",
            self.protocol,
            "another one with executor=ray (checkpoints are on the host that wrote them), with "
            "design=sequential (which learns of energies alone) and with log_model=true",
        )
        require(
            self.ray_address is None or self.executor == "ray",
            "ray_address",
            self.ray_address,
            "given with executor=ray alone",
        )


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """What the state of a campaign takes."""

    sweep: str | None = option(None, "id or name of the campaign's parent run; None is the latest")


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions:
    """What the analysis of a campaign takes."""

    sweep: str | None = option(
        None,
        "id or name of the campaign's parent run, or several joined by commas; None is the latest, "
        "or every one that experiment and filter leave",
    )
    experiment: str | None = option(None, "experiment to look in; None is all of them")
    filter: str | None = option(
        None, "MLflow search filter that the runs must meet too, such as params.batch_size = '64'"
    )
    objective: str = option(
        "efficiency",
        "rule that selects the configuration, on validation data",
        choices=("efficiency", "accuracy", "energy", "budget"),
    )
    energy_budget_j: float | None = option(
        None, "for objective=budget: the most joules that a training may take"
    )
    min_accuracy: float = option(
        0.0, "validation accuracy, as a fraction, below which nothing is selected"
    )
    response: str = option(
        "epoch",
        "the energy that is modelled",
        choices=("epoch", "total", "system", "per_1k_images", "net", "duration"),
    )
    coding: str = option(
        "sum", "how levels become columns of the model", choices=("sum", "treatment")
    )
    target_accuracy: float | None = option(
        None,
        "validation accuracy, as a fraction, for the energy to reach it; None is the baseline's "
        "after its last epoch",
    )
    final_epochs: int | None = option(None, "epochs of each final run; None is the campaign's")
    final_repeats: int = option(
        5, "rounds of final runs: baseline, selected and, if any, recommended; 0 is none at all"
    )
    country: str | None = option(
        None, "three-letter ISO country code, for the carbon intensity; None is the campaign's"
    )
    price_per_kwh: float = option(0.30, "price of electricity for the campaign's cost")
    currency: str = option("EUR", "currency of price_per_kwh")

    def __post_init__(self) -> None:
        """Refuse values that no analysis could use."""
        require(
            (self.energy_budget_j is not None) == (self.objective == "budget"),
            "energy_budget_j",
            self.energy_budget_j,
            "given with objective=budget and with no other objective",
        )
        require(
            self.energy_budget_j is None or self.energy_budget_j > 0,
            "energy_budget_j",
            self.energy_budget_j,
            "more than 0 J",
        )
        require(0 <= self.min_accuracy < 1, "min_accuracy", self.min_accuracy, "in [0, 1)")
        require(
            self.target_accuracy is None or 0 < self.target_accuracy <= 1,
            "target_accuracy",
            self.target_accuracy,
            "above 0 and at most 1",
        )
        require(
            self.final_epochs is None or self.final_epochs >= 1,
            "final_epochs",
            self.final_epochs,
            "at least 1",
        )
        require(self.final_repeats >= 0, "final_repeats", self.final_repeats, "at least 0")
        require(self.price_per_kwh >= 0, "price_per_kwh", self.price_per_kwh, "at least 0")
        require(
            self.country is None or (len(self.country) == 3 and self.country.isupper()),
            "country",
            self.country,
            "a three-letter ISO 3166-1 code in capitals, such as DEU",
        )


@dataclass(frozen=True, kw_only=True)
class PromoteOptions:
    """What the promotion of a registered model takes."""

    name: str = option("green-screen-resnet50", "registered model")
    version: int | None = option(
        None, "version to promote, such as a former champion; None is the challenger"
    )
    accuracy_margin: float = option(
        0.01, "how much lower its test accuracy may be than the champion's, as a fraction"
    )

    def __post_init__(self) -> None:
        """Refuse values that no promotion could use."""
        require(self.version is None or self.version >= 1, "version", self.version, "at least 1")
        require(
            0 <= self.accuracy_margin < 1,
            "accuracy_margin",
            self.accuracy_margin,
            "at least 0 and below 1",
        )


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What a prediction of energy takes beside the ten factors."""

    model_uri: str = option(
        "models:/green-screen-energy/latest", "registered energy model, by MLflow's URI"
    )
    epochs: int = option(50, "epochs to predict for")
    images: int | None = option(
        None, "images to train on instead, without validation; None predicts for the epochs"
    )
    explain: bool = option(
        False, "split the energy into launching, computing, validation, warm-up and set-up"
    )
    config: str | None = option(
        None, "YAML file of factors and levels, for its baseline; None is the published one"
    )

    def __post_init__(self) -> None:
        """Refuse numbers that no training could have."""
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.images is None or self.images >= 1, "images", self.images, "at least 1")
        require_config(self.config)


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What the import of runs made elsewhere takes."""

    folder: str = option("", "folder that holds one folder a run, each with its two files")
    name: str | None = option(None, "name of the campaign; None is the folder's name")
    machine: str | None = option(None, "what the runs were made on; None is unknown")
    dataset: str | None = option(None, "the data set they were trained on; None is unknown")

    def __post_init__(self) -> None:
        """Refuse a folder that does not exist."""
        require(
            bool(self.folder) and Path(self.folder).is_dir(),
            "folder",
            self.folder,
            "an existing folder",
        )
