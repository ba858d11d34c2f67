"""What the analysis registers: the model that is kept, with its figures."""

from __future__ import annotations

from mlflow.entities.model_registry import ModelVersion

from green_screen import names, tracking
from green_screen.decision.final import RECOMMENDED, FinalComparison
from green_screen.registry import registry
from green_screen.registry.registry import ModelCard
from green_screen.report.document import count, number, percent
from green_screen.report.evidence import machine
from green_screen.report.figures import SOURCE_TEXT
from green_screen.report.findings import Findings, difference_text, headline


def register(findings: Findings, role: str, run_id: str) -> ModelVersion:
    """Register the model that the final run `run_id` logged as challenger; return its version.

    Its figures are means over the finished final runs of its configuration.

    Args:
        findings: What the analysis found.
        role: Of the configuration in the final runs.
        run_id: The final run.
    """
    assert findings.final is not None
    card = model_card(findings, findings.final, role, run_id)
    return registry.register(
        run_id,
        description=description(findings, role, card),
        tags=card.as_tags(),
        name=registry.model_name(card.model),
    )


def model_card(findings: Findings, final: FinalComparison, role: str, run_id: str) -> ModelCard:
    """Return the figures that the registered version carries."""
    runs = final.of(role)
    run = tracking.read_run(run_id)
    params = run.data.params
    invalid = runs[runs["measurement_valid"].str.lower() == "false"]

    def mean(metric: str) -> float:
        # A mean of those that have it would be of other runs than it says.
        return float(runs[metric].mean(skipna=False))

    return ModelCard(
        model=params.get("model", ""),
        epochs=int(params.get("epochs", "0")),
        partitioning=params.get(names.EFFECTIVE_PREFIX + "partitioning", ""),
        test_accuracy=mean(names.TEST_ACCURACY),
        energy_per_1k_images_j=mean(names.ENERGY_PER_1K_IMAGES_J),
        energy_per_epoch_j=mean(names.ENERGY_PER_EPOCH_J),
        emissions_kg_co2eq=mean(names.EMISSIONS_TOTAL_KG_CO2EQ),
        energy_source=", ".join(sorted(set(runs["energy_source"]))),
        measurement_valid=invalid.empty,
        invalid_reason="; ".join(sorted(set(invalid["invalid_reason"]) - {""})),
        diverged=bool(runs["diverged"].any()),
        campaign=findings.campaign,
        campaign_run_id=findings.campaign_run_id,
        source_run_id=run_id,
        dataset=f"{params.get('dataset', '')} {_dataset_digest(final)}".strip(),
        hardware=machine(run.data.tags),
        final_runs=len(runs),
    )


def _dataset_digest(final: FinalComparison) -> str:
    """Return the digest of the data as the first pair drew them; empty if no run logged one.

    What is drawn depends on the seed, and so on the pair: by the data of whichever run came to keep
    its model, two versions of the same data could not be compared.
    """
    for run_id in final.runs.sort_values("pair", kind="stable")["run_id"]:
        if digest := tracking.read_run(run_id).data.params.get("dataset_sha256"):
            return str(digest)[:12]
    return ""


def description(findings: Findings, role: str, card: ModelCard) -> str:
    """Return the version's description, in Markdown, made from the data."""
    recommended = findings.recommendation if role == RECOMMENDED else None
    kept = recommended or findings.selection
    assert kept is not None
    executed = "\n".join(f"- {factor}: {level}" for factor, level in kept.effective.items())
    return (
        f"{headline(findings)}\n\n"
        f"The {role} configuration: {card.model}, trained for {count(card.epochs, 'epoch')} on "
        f"{card.dataset} "
        f"(split {card.partitioning}) with {card.hardware}. Means over "
        f"{count(card.final_runs, 'final run')}: test accuracy {percent(card.test_accuracy)}, "
        f"{number(card.energy_per_1k_images_j)} J per 1,000 images and "
        f"{number(card.energy_per_epoch_j)} J per epoch "
        f"({SOURCE_TEXT.get(card.energy_source, card.energy_source)}), "
        f"{number(card.emissions_kg_co2eq)} kg CO2eq for the training (estimate).\n\n"
        f"Against the baseline: {difference_text(findings, role)}.\n\n"
        f"What was executed:\n\n{executed}\n\n"
        "Input: raw uint8 images [n, height, width, 3]; preprocessing is part of the model. "
        "Output: a probability for each class.\n"
    )
