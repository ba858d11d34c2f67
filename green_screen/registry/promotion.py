"""Promotion of a registered model to champion: the gate, the decision, and the way back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timezone

from mlflow.entities import LoggedModelInput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from green_screen import names, tracking
from green_screen.options import PromoteOptions, option_params
from green_screen.registry.registry import (
    ABSENT,
    ModelCard,
    RegistryError,
    by_alias,
    logged_model_id,
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a promotion came to.

    Attributes:
        version: The version that was judged.
        champion: The version that is the champion afterwards; ``None`` if there is none.
        accepted: Whether the judged version is the champion afterwards.
        reason: Why.
    """

    version: int
    champion: int | None
    accepted: bool
    reason: str


def gate(challenger: ModelCard, champion: ModelCard | None, accuracy_margin: float) -> list[str]:
    """Return why `challenger` must not replace `champion`; an empty list lets it pass.

    Args:
        challenger: The version that is judged.
        champion: The version in use; ``None`` if there is none: then a training that did not
            diverge, a valid measurement, an accuracy and an energy are all that is asked.
        accuracy_margin: How much lower the test accuracy may be, as a fraction.
    """
    against: list[str] = []
    if challenger.diverged:
        against.append("its training diverged: the loss became not a number")
    if not challenger.measurement_valid:
        why = challenger.invalid_reason or "no reason was recorded"
        against.append(f"its energy measurement is not valid: {why}")
    if math.isnan(challenger.test_accuracy):
        against.append("its test accuracy is missing")
    if math.isnan(challenger.energy_per_1k_images_j):
        against.append("its training energy per 1,000 images is missing")
    if champion is None or against:
        return against

    for what, mine, its in (
        ("figures of different architectures", challenger.model, champion.model),
        ("accuracies", challenger.dataset, champion.dataset),
        ("energies", challenger.energy_source, champion.energy_source),
        ("energies", challenger.hardware, champion.hardware),
    ):
        if mine != its:
            against.append(
                f"{what} cannot be compared: {mine or 'unknown'} here, "
                f"{its or 'unknown'} for the champion"
            )
    # `not >=` and `not <=`: a champion's missing figure must not let a challenger pass.
    if not challenger.test_accuracy >= champion.test_accuracy - accuracy_margin:
        against.append(
            f"its test accuracy {challenger.test_accuracy:.4f} is below the champion's "
            f"{champion.test_accuracy:.4f} by more than the margin {accuracy_margin:g}"
        )
    if not challenger.energy_per_1k_images_j <= champion.energy_per_1k_images_j:
        against.append(
            f"its training energy {challenger.energy_per_1k_images_j:.4g} J per 1,000 images is "
            f"above the champion's {champion.energy_per_1k_images_j:.4g} J"
        )
    return against


def promote(options: PromoteOptions) -> Decision:
    """Make a version the champion if the gate lets it pass, and log why or why not.

    The decision is a run of its own (kind ``promotion``) and a tag of the version. Repeating it
    changes nothing. Naming a former champion by its version is a rollback: it passes without
    comparison, and the version it replaces is not promoted again unless it is named.

    Raises:
        RegistryError: There is no such model or version.
        StoreUnavailableError: The tracking server stayed away.
    """
    tracking.check_store()
    client = MlflowClient()
    version = tracking.patiently(lambda: _find(client, options))
    champion = by_alias(options.name, names.CHAMPION)
    title = f"promote {options.name} version {version.version}"
    tags, params = {names.TAG_KIND: names.KIND_PROMOTION}, option_params(options)
    with tracking.open_run(run_name=title, tags=tags, params=params) as run:
        # A run that `mlflow run` made has a name that says nothing.
        tracking.patiently(lambda: client.update_run(run.run_id, name=title))
        decision, rolled_back = _decide(version, champion, options)
        _link(client, run.run_id, version, champion)
        if not _same(version, champion):  # else its tag goes on saying why it was promoted
            replaced = champion if rolled_back else None
            tracking.patiently(lambda: _carry_out(client, decision, version, replaced))
        # Last, so that the run says nothing that has not come about.
        run.tags(
            {
                names.VERSION_DECISION: _verdict(decision),
                names.TAG_MODEL_VERSION: f"{options.name}/{version.version}",
            }
        )
    return decision


def _decide(
    version: ModelVersion, champion: ModelVersion | None, options: PromoteOptions
) -> tuple[Decision, bool]:
    """Return the decision, and whether it is a rollback."""
    number = int(version.version)
    current = int(champion.version) if champion else None

    def refused(reason: str) -> tuple[Decision, bool]:
        return Decision(version=number, champion=current, accepted=False, reason=reason), False

    def accepted(reason: str, rollback: bool = False) -> tuple[Decision, bool]:
        return Decision(version=number, champion=number, accepted=True, reason=reason), rollback

    if _same(version, champion):
        return accepted("it is the champion already")
    if options.version is not None and names.VERSION_PROMOTED_AT in version.tags:
        since = f"before version {current}" if current else "before, and there is none now"
        return accepted(f"rollback: it was the champion {since}", rollback=True)
    if names.VERSION_ROLLED_BACK in version.tags:
        return refused(
            f"it was rolled back ({version.tags[names.VERSION_ROLLED_BACK]}); "
            f"name it with version={number} to promote it again"
        )
    card = ModelCard.from_tags(version.tags)
    other = ModelCard.from_tags(champion.tags) if champion else None
    against = gate(card, other, options.accuracy_margin)
    if against:
        return refused("; ".join(against))
    if other is None:
        return accepted("there is no champion yet and its measurement is valid")
    return accepted(
        f"test accuracy {card.test_accuracy:.4f} against {other.test_accuracy:.4f} "
        f"(margin {options.accuracy_margin:g}), training energy "
        f"{card.energy_per_1k_images_j:.4g} against {other.energy_per_1k_images_j:.4g} J per 1,000 "
        "images, measurement valid"
    )


def _find(client: MlflowClient, options: PromoteOptions) -> ModelVersion:
    if options.version is None:
        version = by_alias(options.name, names.CHALLENGER)
        if version is None:
            raise RegistryError(
                f"there is no model {options.name!r} with the alias {names.CHALLENGER!r}: "
                "run analyze with final_repeats of at least 1 first, or give the name of another "
                f"registered model ({_names(client)})"
            )
        return version
    try:
        return client.get_model_version(options.name, str(options.version))
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        known = client.search_model_versions(f"name = '{options.name}'")
        numbers = ", ".join(sorted((str(v.version) for v in known), key=int)) or "none"
        raise RegistryError(
            f"model {options.name!r} has no version {options.version}; there are {numbers}"
        ) from None


def _names(client: MlflowClient) -> str:
    """Return the registered models that have a challenger."""
    found = client.search_registered_models(f"name LIKE '{names.MODEL_PREFIX}%'")
    return ", ".join(m.name for m in found if names.CHALLENGER in m.aliases) or "there is none"


def _same(version: ModelVersion, other: ModelVersion | None) -> bool:
    return other is not None and str(version.version) == str(other.version)


def _verdict(decision: Decision) -> str:
    return f"{'promoted' if decision.accepted else 'refused'}: {decision.reason}"


def _link(
    client: MlflowClient, run_id: str, version: ModelVersion, champion: ModelVersion | None
) -> None:
    """Make the compared models inputs of the run, so that the UI links them."""
    runs = dict.fromkeys(v.run_id for v in (version, champion) if v and v.run_id)
    models = [LoggedModelInput(logged_model_id(run)) for run in runs]
    tracking.patiently(lambda: client.log_inputs(run_id, models=models))


def _carry_out(
    client: MlflowClient,
    decision: Decision,
    version: ModelVersion,
    rolled_back: ModelVersion | None,
) -> None:
    """Move the alias if the version was accepted, then write down what was decided."""
    if decision.accepted:
        _move_champion(client, version, rolled_back)
    _tag(client, version, names.VERSION_DECISION, _verdict(decision))


def _move_champion(
    client: MlflowClient, version: ModelVersion, rolled_back: ModelVersion | None
) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    name, number = version.name, str(version.version)
    tracking.in_spite_of_others(
        lambda: client.set_registered_model_alias(name, names.CHAMPION, number)
    )
    _tag(client, version, names.VERSION_PROMOTED_AT, now)
    if names.VERSION_ROLLED_BACK in version.tags:
        client.delete_model_version_tag(name, number, names.VERSION_ROLLED_BACK)
    if rolled_back is not None:
        _tag(client, rolled_back, names.VERSION_ROLLED_BACK, f"to version {number} at {now}")


def _tag(client: MlflowClient, version: ModelVersion, key: str, value: str) -> None:
    number = str(version.version)
    tracking.in_spite_of_others(
        lambda: client.set_model_version_tag(version.name, number, key, value)
    )
