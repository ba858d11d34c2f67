"""A training's energy in the forms that others ask for.

The model card's field is Hugging Face's (hub documentation, "Displaying carbon emissions for your
model"); BoAmps is Boavizta's data model for the energy of AI tasks; SCI is ISO/IEC 21031:2024,
``((E x I) + M) per R``; Annex XI is that of Regulation (EU) 2024/1689, section 1, point 2 (d) and
(e). Every figure says whether it was measured or estimated.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import yaml

from green_screen import __version__, names
from green_screen.report.facts import ExportError, TrainingFacts

_HOURS_A_YEAR = 8766.0
_TIME = "%Y-%m-%d %H:%M:%S"
_METHODS = {
    names.SOURCE_COUNTER: "nvml",
    names.SOURCE_POWER: "nvml",
    names.SOURCE_ESTIMATE: "codecarbon",
}
_PRECISIONS = {
    "float32": "fp32",
    "global_policy_float16": "mixed fp16",
    "float16": "fp16",
    "float64": "fp64",
}
_BOAMPS = "https://github.com/Boavizta/BoAmps"


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What a run does not know of itself, given by who exports it.

    Attributes:
        pue: Energy of the building over that of its computers.
        intensity_g_per_kwh: Carbon intensity of the electricity; ``None`` is the country's mean.
        embodied_kg_co2eq: Emissions of making the hardware; ``None`` is not counted.
        lifetime_years: How long the hardware is used.
    """

    pue: float = 1.0
    intensity_g_per_kwh: float | None = None
    embodied_kg_co2eq: float | None = None
    lifetime_years: float = 4.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name, least in (
            ("pue", 1.0),
            ("intensity_g_per_kwh", 0.0),
            ("embodied_kg_co2eq", 0.0),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise ExportError(f"{name} must be at least {least:g} and finite, but got {value}")
        if not 0 < self.lifetime_years < math.inf:
            raise ExportError(f"lifetime_years must be more than 0, but got {self.lifetime_years}")


def exported(facts: TrainingFacts, form: str, assumptions: Assumptions) -> str:
    """Return a training's report as text.

    Args:
        facts: The training.
        form: A key of :data:`FORMS`.
        assumptions: What the run does not know.
    """
    return FORMS[form](facts, assumptions)


def _model_card(facts: TrainingFacts, assumptions: Assumptions) -> str:
    grams = _intensity(facts, assumptions)[0] * facts.energy_kwh * assumptions.pue
    head: dict[str, Any] = {"library_name": "keras", "tags": ["image-classification"]}
    if not math.isnan(grams):  # without its figure the field is none
        head["co2_eq_emissions"] = _known(
            {
                "emissions": _figure(grams),
                "source": f"Green Screen {__version__}: energy {facts.how}, "
                "times a carbon intensity",
                "training_type": "pre-training",
                "geographical_location": facts.country,
                "hardware_used": facts.hardware,
            }
        )
    levels = ", ".join(f"{factor} {level}" for factor, level in facts.factors.items())
    rows = "\n".join(f"| {what} | {value} | {kind} |" for what, value, kind in _rows(facts, grams))
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"
        f"# {_subject(facts)}\n\n"
        f"Trained{_epochs(facts)}{_on(facts)}.{f' {levels}.' if levels else ''}\n\n"
        "## What the training took\n\n"
        f"| | | |\n|---|---|---|\n{rows}\n"
        + (f"\nThe measurement is in doubt: {facts.doubt}.\n" if facts.doubt else "")
    )


def _rows(facts: TrainingFacts, grams: float) -> list[tuple[str, str, str]]:
    kind = "measured" if facts.measured else "estimated"
    return [
        row
        for value, row in (
            (facts.energy_j, ("energy", f"{_figure(facts.energy_j)} J", facts.how)),
            (facts.seconds, ("time", f"{_figure(facts.seconds)} s", "measured")),
            (
                facts.j_per_1k_images,
                ("energy per 1,000 images", f"{_figure(facts.j_per_1k_images)} J", kind),
            ),
            (grams, ("emissions", f"{_figure(grams)} g CO2eq", "estimated")),
            (
                facts.test_accuracy,
                ("test accuracy", f"{100 * facts.test_accuracy:.1f} %", "measured"),
            ),
        )
        if not math.isnan(value)
    ]


def _boamps(facts: TrainingFacts, assumptions: Assumptions) -> str:
    components = [
        {"componentName": facts.cpu, "componentType": "cpu", "nbComponent": 1, "share": 1},
        {
            "componentType": "ram",
            "nbComponent": 1,
            "memorySize": facts.memory_gib,
        },
    ]
    if facts.gpu:
        gpu = {"componentName": facts.gpu, "componentType": "gpu", "nbComponent": facts.n_gpus}
        components.insert(0, {**gpu, "manufacturer": "nvidia", "share": 1})
    report = {
        "header": {
            "reportId": str(uuid.uuid5(uuid.NAMESPACE_OID, facts.run_id)),
            "reportDatetime": f"{facts.started or datetime.now(timezone.utc):{_TIME}}",
            "reportStatus": "draft",
            "formatVersionSpecificationUri": _BOAMPS,
        },
        "task": {
            "taskStage": "training",
            "taskFamily": "image classification",
            "algorithms": [
                {
                    "trainingType": "supervisedLearning",
                    "algorithmType": "neural network",
                    "algorithmName": facts.model,
                    "parametersNumber": facts.n_parameters / 1e9,
                    "framework": "tensorflow",
                    "frameworkVersion": facts.tensorflow,
                    "epochsNumber": facts.epochs,
                    "optimizer": facts.factors.get("optimizer", ""),
                    "quantization": _PRECISIONS.get(facts.factors.get("precision", ""), ""),
                }
            ],
            "dataset": [
                {
                    "dataUsage": "input",
                    "dataType": "image",
                    "dataQuantity": facts.n_images,
                    "source": "other",
                }
            ],
            "measuredAccuracy": facts.test_accuracy,
            "taskDescription": "; ".join(filter(None, (facts.dataset, f"energy {facts.how}"))),
        },
        "measures": [
            {
                "measurementMethod": _METHODS.get(facts.energy_source, facts.energy_source),
                "gpuTrackingMode": facts.energy_source if facts.of_boards else "none",
                "cpuTrackingMode": "none" if facts.of_boards else facts.energy_source,
                "powerConsumption": facts.energy_kwh,
                "measurementDuration": facts.seconds,
                "measurementDateTime": f"{facts.started:{_TIME}}" if facts.started else "",
            }
        ],
        "system": {"os": facts.operating_system},
        "software": {"language": "python"},
        "infrastructure": {"infraType": "other", "components": components},
        # The schema knows no intensity without a country.
        "environment": facts.country
        and {
            "country": facts.country,
            "powerSourceCarbonIntensity": _intensity(facts, assumptions)[0],
        },
        "quality": "high" if facts.measured and not facts.doubt else "low",
    }
    return json.dumps(_known(report), indent=2, allow_nan=False) + "\n"


def _sci(facts: TrainingFacts, assumptions: Assumptions) -> str:
    intensity, intensity_kind = _intensity(facts, assumptions)
    energy_kwh = facts.energy_kwh * assumptions.pue
    embodied = assumptions.embodied_kg_co2eq
    share = facts.seconds / (assumptions.lifetime_years * _HOURS_A_YEAR * 3600.0)
    embodied_g = 0.0 if embodied is None else embodied * 1000.0 * share
    parts = {
        "E_kwh": (
            energy_kwh,
            f"{facts.how}, times a PUE of {assumptions.pue:g} (given by the exporter)",
        ),
        "I_g_co2eq_per_kwh": (intensity, intensity_kind),
        "M_g_co2eq": (
            embodied_g,
            "not counted: no embodied emissions were given"
            if embodied is None
            else "not known: the training's duration was not logged"
            if math.isnan(share)
            else f"modelled: {embodied:g} kg CO2eq (given by the exporter) times the training's "
            f"share of {assumptions.lifetime_years:g} years of use",
        ),
        "R": (1.0, f"one training: {_subject(facts)}{_epochs(facts)}"),
    }
    score = energy_kwh * intensity + embodied_g
    content = {
        "standard": "ISO/IEC 21031:2024",
        "formula": "SCI = ((E * I) + M) per R",
        "sci_g_co2eq_per_training": score,
        "boundary": facts.boundary,
        "terms": {name: {"value": value, "how": how} for name, (value, how) in parts.items()},
        "run_id": facts.run_id,
    }
    return json.dumps(_known(content), indent=2, allow_nan=False) + "\n"


def _annex_xi(facts: TrainingFacts, assumptions: Assumptions) -> str:
    grams = _intensity(facts, assumptions)[0] * facts.energy_kwh * assumptions.pue
    word = "measured" if facts.measured else "estimated"
    size = "" if math.isnan(facts.n_parameters) else f" ({facts.n_parameters:,.0f} parameters)"
    data = f" on {facts.dataset}" if facts.dataset else ""
    began = f", beginning {facts.started:%Y-%m-%d %H:%M} UTC" if facts.started else ""
    took = (
        ""
        if math.isnan(facts.seconds)
        else f"; set-up, training and test took {_figure(facts.seconds)} s"
    )
    text = (
        f"Computational resources and training time. {facts.model or 'A network'}{size} was "
        f"trained{data}{_epochs(facts)}{_on(facts)}{began}{took}.\n\n"
        f"Energy consumption. The training's energy consumption was {word}: "
        f"{_figure(facts.energy_kwh)} kWh ({_figure(facts.energy_j)} J), {facts.how}. "
        "Energy of earlier experiments, of cooling and of the other parts of the machine is not "
        "part of this figure."
    )
    if not math.isnan(grams):
        text += (
            f" With a carbon intensity {_intensity(facts, assumptions)[1]} and a PUE of "
            f"{assumptions.pue:g}, this is an estimated {_figure(grams)} g CO2eq."
        )
    if facts.doubt:
        text += f" The measurement is in doubt: {facts.doubt}."
    return text + "\n"


FORMS: Mapping[str, Callable[[TrainingFacts, Assumptions], str]] = {
    "model-card": _model_card,
    "boamps": _boamps,
    "sci": _sci,
    "annex-xi": _annex_xi,
}


def _intensity(facts: TrainingFacts, assumptions: Assumptions) -> tuple[float, str]:
    """Return the carbon intensity in g CO2eq per kWh, and where it is from."""
    if assumptions.intensity_g_per_kwh is not None:
        given = assumptions.intensity_g_per_kwh
        return given, f"of {given:g} g CO2eq per kWh (given by the exporter)"
    mean = facts.intensity_g_per_kwh
    if math.isnan(mean):
        return mean, "not known: neither a country was logged nor an intensity given"
    return mean, f"of {mean:.0f} g CO2eq per kWh (sourced: yearly mean of {facts.country})"


def _figure(value: float) -> float:
    return float(f"{value:.4g}")


def _subject(facts: TrainingFacts) -> str:
    return " on ".join(filter(None, (facts.model or "a network", facts.dataset)))


def _epochs(facts: TrainingFacts) -> str:
    return "" if facts.epochs is None else f" for {facts.epochs} epochs"


def _on(facts: TrainingFacts) -> str:
    return f" on {facts.hardware}" if facts.hardware else ""


def _known(content: Any) -> Any:
    """Leave out what is not known, and what has nothing in it then: no form has a word for it."""
    if isinstance(content, dict):
        known = {key: _known(value) for key, value in content.items()}
        return {key: value for key, value in known.items() if value not in ("", None, {})}
    if isinstance(content, list):
        return [_known(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
