"""Whether trainings can be done as they are asked for: checked before anything starts.

Needs no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence

from green_screen.data.data import check_dataset
from green_screen.network.model import check_model
from green_screen.options import OptionError, TrainOptions
from green_screen.power import emissions
from green_screen.space import TrainingConfig
from green_screen.training.settings import check_flags, check_settings


def check_trainings(options: TrainOptions, configs: Sequence[TrainingConfig]) -> str:
    """Refuse trainings that could not be done.

    What each of them does itself in its first seconds is tried out too: to decode every image, and
    to compile with the flags that are set.

    Args:
        options: What each of them takes.
        configs: Their effective configurations.

    Returns:
        What of the data set is left out, counted and named; empty if nothing.

    Raises:
        OptionError: The settings of this process or of Keras, the country, the model or the data
            set cannot be used, or not with one of the configurations.
    """
    check_flags()
    for internal in {config.internal for config in configs}:
        check_training(options, internal)
    return check_dataset(
        options.dataset, samples=options.samples, seed=options.seed, configs=configs
    )


def check_training(options: TrainOptions, internal: str) -> None:
    """Refuse a training for what can be told of it without its data set.

    Args:
        options: What it takes.
        internal: The internal optimization of its effective configuration.

    Raises:
        OptionError: As :func:`check_trainings`.
    """
    check_settings()
    check_country(options.country)
    check_model(options.model, internal, image_size=options.image_size)


def check_country(country: str) -> None:
    """Refuse a country whose carbon intensity is not known.

    Raises:
        OptionError: CodeCarbon does not know the code.
    """
    try:
        emissions.check_country(country)
    except ValueError as error:
        raise OptionError(str(error)) from error
