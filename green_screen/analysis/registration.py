"""What the analysis registers: the selected model with its figures, and the energy model."""

from __future__ import annotations

import numpy as np
from mlflow.tracking import MlflowClient

from green_screen import names
from green_screen.analysis import registry
from green_screen.analysis.document import number, percent
from green_screen.analysis.figures import SOURCE_TEXT
from green_screen.analysis.final import SELECTED, FinalComparison
from green_screen.analysis.findings import Findings, difference_text, headline
from green_screen.analysis.registry import ModelCard
from green_screen.analysis.report_evidence import machine


def register_selected(findings: Findings, run_id: str) -> int:
    """Register the model that the final run `run_id` logged as challenger; return its version.

    Its figures are means over the finished final runs of the selected configuration.
    """
    assert findings.final is not None
    card = model_card(findings, findings.final, run_id)
    version = registry.register(
        run_id, description=description(findings, findings.final, card), tags=card.as_tags()
    )
    return int(version.version)


def model_card(findings: Findings, final: FinalComparison, run_id: str) -> ModelCard:
    """Return the figures that the registered version carries."""
    runs = final.of(SELECTED)
    run = MlflowClient().get_run(run_id)
    invalid = runs[runs["measurement_valid"].str.lower() == "false"]
    digest = run.data.params.get("dataset_sha256", "")[:12]
    return ModelCard(
        test_accuracy=float(runs[names.TEST_ACCURACY].mean()),
        energy_per_epoch_j=float(runs[names.ENERGY_PER_EPOCH_J].mean(skipna=False)),
        emissions_kg_co2eq=float(runs[names.EMISSIONS_TOTAL_KG_CO2EQ].mean(skipna=False)),
        energy_source=", ".join(sorted(set(runs["energy_source"]))),
        measurement_valid=invalid.empty,
        invalid_reason="; ".join(sorted(set(invalid["invalid_reason"]) - {""})),
        campaign=findings.campaign,
        campaign_run_id=findings.campaign_run_id,
        source_run_id=run_id,
        dataset=f"{run.data.params.get('dataset', '')} {digest}".strip(),
        hardware=machine(run.data.tags),
        final_runs=len(runs),
    )


def description(findings: Findings, final: FinalComparison, card: ModelCard) -> str:
    """Return the version's description, in Markdown, made from the data."""
    runs = final.of(SELECTED)
    epochs = ", ".join(f"{value:g}" for value in np.unique(runs["epochs"]))
    selection = findings.selection
    assert selection is not None
    executed = "\n".join(f"- {factor}: {level}" for factor, level in selection.effective.items())
    return (
        f"{headline(findings)}\n\n"
        f"Trained for {epochs} epochs on {card.dataset} with {card.hardware}. Means over "
        f"{card.final_runs} final runs: test accuracy {percent(card.test_accuracy)}, "
        f"{number(card.energy_per_epoch_j)} J per epoch "
        f"({SOURCE_TEXT.get(card.energy_source, card.energy_source)}), "
        f"{number(card.emissions_kg_co2eq)} kg CO2eq for the training (estimate).\n\n"
        f"Against the baseline: {difference_text(findings)}.\n\n"
        f"What was executed:\n\n{executed}\n\n"
        "Input: raw uint8 images [n, height, width, 3]; preprocessing is part of the model. "
        "Output: a probability for each class.\n"
    )
