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


def check_trainings(options: TrainOptions, configs: Sequence[TrainingConfig]) -> None:
    """Refuse trainings that could not be done.

    Args:
        options: What each of them takes.
        configs: Their effective configurations.

    Raises:
        OptionError: The country, the model or the data set cannot be used, or not with one of the
            configurations.
    """
    check_country(options.country)
    for internal in {config.internal for config in configs}:
        check_model(options.model, internal, image_size=options.image_size)
    check_dataset(options.dataset, samples=options.samples, configs=configs)


def check_country(country: str) -> None:
    """Refuse a country whose carbon intensity is not known.

    Raises:
        OptionError: CodeCarbon does not know the code.
    """
    try:
        emissions.check_country(country)
    except ValueError as error:
        raise OptionError(str(error)) from error
