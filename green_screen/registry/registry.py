"""The model registry: what a version says of itself, and how a trained model becomes one.

Two aliases tell what a version is for: ``challenger`` is the latest one registered, ``champion``
the one in use (:mod:`green_screen.registry.promotion`). Versions carry their figures as tags, so a
decision can be checked later from the registry alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from green_screen import names, tracking

# How a registry says that a name, a version or an alias does not exist.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class RegistryError(RuntimeError):
    """The registry lacks what was asked of it."""


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """The figures that a registered version carries, as tags.

    Attributes:
        model: Its architecture.
        epochs: How long it was trained.
        partitioning: How the data were split, as executed.
        test_accuracy: Mean over the final runs, as a fraction.
        energy_per_1k_images_j: Mean training energy per 1,000 images over the final runs, in
            joules: unlike that of an epoch it is of the same work however the data are split.
        energy_per_epoch_j: Mean over the final runs, in joules.
        emissions_kg_co2eq: Mean of a whole training, in kg CO2-equivalent; an estimate.
        energy_source: How the energy was obtained (``names.TAG_ENERGY_SOURCE``).
        measurement_valid: Whether every final run's measurement was valid.
        invalid_reason: Why not; empty if it was.
        diverged: Whether the loss of any final run became not a number.
        campaign: Name of the campaign that the configuration was selected from.
        campaign_run_id: Parent run of that campaign.
        source_run_id: The run that trained the model.
        dataset: Name of the data set and its digest: accuracies compare on the same data alone.
        hardware: What it was measured on: energies compare on the same hardware alone.
        final_runs: How many runs the means are over.
    """

    model: str
    epochs: int
    partitioning: str
    test_accuracy: float
    energy_per_1k_images_j: float
    energy_per_epoch_j: float
    emissions_kg_co2eq: float
    energy_source: str
    measurement_valid: bool
    invalid_reason: str
    diverged: bool
    campaign: str
    campaign_run_id: str
    source_run_id: str
    dataset: str
    hardware: str
    final_runs: int

    def as_tags(self) -> dict[str, str]:
        """Return the tags of a model version; :meth:`from_tags` reads them back."""
        return {
            names.VERSION_MODEL: self.model,
            names.VERSION_EPOCHS: str(self.epochs),
            names.VERSION_PARTITIONING: self.partitioning,
            names.TEST_ACCURACY: repr(self.test_accuracy),
            names.ENERGY_PER_1K_IMAGES_J: repr(self.energy_per_1k_images_j),
            names.ENERGY_PER_EPOCH_J: repr(self.energy_per_epoch_j),
            names.EMISSIONS_TOTAL_KG_CO2EQ: repr(self.emissions_kg_co2eq),
            names.TAG_ENERGY_SOURCE: self.energy_source,
            names.TAG_MEASUREMENT_VALID: str(self.measurement_valid).lower(),
            names.TAG_INVALID_REASON: self.invalid_reason,
            names.TAG_DIVERGED: str(self.diverged).lower(),
            names.VERSION_CAMPAIGN: self.campaign,
            names.VERSION_CAMPAIGN_RUN: self.campaign_run_id,
            names.VERSION_SOURCE_RUN: self.source_run_id,
            names.VERSION_DATASET: self.dataset,
            names.VERSION_HARDWARE: self.hardware,
            names.VERSION_FINAL_RUNS: str(self.final_runs),
        }

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> ModelCard:
        """Read a version's tags; a figure that is not there is NaN, a text empty."""
        return cls(
            model=tags.get(names.VERSION_MODEL, ""),
            epochs=int(tags.get(names.VERSION_EPOCHS, "0")),
            partitioning=tags.get(names.VERSION_PARTITIONING, ""),
            test_accuracy=float(tags.get(names.TEST_ACCURACY, "nan")),
            energy_per_1k_images_j=float(tags.get(names.ENERGY_PER_1K_IMAGES_J, "nan")),
            energy_per_epoch_j=float(tags.get(names.ENERGY_PER_EPOCH_J, "nan")),
            emissions_kg_co2eq=float(tags.get(names.EMISSIONS_TOTAL_KG_CO2EQ, "nan")),
            energy_source=tags.get(names.TAG_ENERGY_SOURCE, ""),
            measurement_valid=tags.get(names.TAG_MEASUREMENT_VALID) == "true",
            invalid_reason=tags.get(names.TAG_INVALID_REASON, ""),
            diverged=tags.get(names.TAG_DIVERGED) == "true",
            campaign=tags.get(names.VERSION_CAMPAIGN, ""),
            campaign_run_id=tags.get(names.VERSION_CAMPAIGN_RUN, ""),
            source_run_id=tags.get(names.VERSION_SOURCE_RUN, ""),
            dataset=tags.get(names.VERSION_DATASET, ""),
            hardware=tags.get(names.VERSION_HARDWARE, ""),
            final_runs=int(tags.get(names.VERSION_FINAL_RUNS, "0")),
        )


def model_name(architecture: str) -> str:
    """Return the name under which models of an architecture are registered."""
    return names.MODEL_PREFIX + architecture


def by_alias(name: str, alias: str) -> ModelVersion | None:
    """Return the version of a model that has an alias; ``None`` if there is none."""

    def find() -> ModelVersion | None:
        try:
            return MlflowClient().get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code not in ABSENT:
                raise
            return None

    return tracking.patiently(find)


def logged_model_id(run_id: str) -> str:
    """Return the id of the model that the run `run_id` logged, its latest if there are several.

    Raises:
        RegistryError: The run logged no model.
    """
    outputs = tracking.read_run(run_id).outputs
    models = outputs.model_outputs if outputs else []
    if not models:
        raise RegistryError(f"run {run_id} has no logged model: train it with log_model=true")
    return str(models[-1].model_id)


def register(
    run_id: str,
    *,
    description: str,
    tags: Mapping[str, str],
    name: str,
) -> ModelVersion:
    """Register the model that a run logged and make it the challenger.

    A run is registered once: a second call returns the version that is there, with the new
    description and tags.

    Raises:
        RegistryError: The run logged no model.
        StoreUnavailableError: The tracking server stayed away.
    """
    model_id = logged_model_id(run_id)
    # As a whole: what was done before the server went away is found again.
    return tracking.patiently(lambda: _register(run_id, model_id, description, tags, name))


def _register(
    run_id: str, model_id: str, description: str, tags: Mapping[str, str], name: str
) -> ModelVersion:
    client = MlflowClient()
    ensure_registered_model(client, name)
    version = _of_run(client, name, run_id)
    if version is None:
        made = client.create_model_version(
            name, f"models:/{model_id}", run_id=run_id, model_id=model_id
        )
        # If another analysis has registered the run in between, its version is the earlier one.
        version = _of_run(client, name, run_id) or made
        if version.version != made.version:
            client.delete_model_version(name, made.version)
    for key, value in tags.items():
        tracking.in_spite_of_others(
            functools.partial(client.set_model_version_tag, name, version.version, key, value)
        )
    client.update_model_version(name, version.version, description)
    tracking.in_spite_of_others(
        lambda: client.set_registered_model_alias(name, names.CHALLENGER, version.version)
    )
    return client.get_model_version(name, version.version)


def _of_run(client: MlflowClient, name: str, run_id: str) -> ModelVersion | None:
    """Return the version that a run's model is registered as, the earliest if there are several."""
    known = client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'")
    return min(known, key=lambda version: int(version.version), default=None)


def ensure_registered_model(client: MlflowClient, name: str) -> None:
    """Make a registered model unless there is one of the name."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
