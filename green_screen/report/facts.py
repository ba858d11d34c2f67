"""What one logged training took, gathered for a report in somebody else's form."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from green_screen import names, tracking
from green_screen.decision.tradeoff import J_PER_KWH, carbon_intensity_g_per_kwh
from green_screen.space import FACTOR_NAMES

_BOARDS, _HOST = "the GPUs alone", "CPU and memory of the machine"
_RAPL = "the CPU, and memory where it has a counter"
# Source of an energy -> whether it was measured, what it is of, and how it is known.
_SOURCES = {
    names.SOURCE_COUNTER: (True, _BOARDS, "measured on the GPU alone; sensor error about 5 %"),
    names.SOURCE_POWER: (True, _BOARDS, "measured on the GPU alone; sensor error about 5 %"),
    names.SOURCE_RAPL: (True, _RAPL, f"measured on {_RAPL}"),
    names.SOURCE_SAMPLED: (
        False,
        _BOARDS,
        "estimated from one reading of the GPU's power an epoch",
    ),
    names.SOURCE_ESTIMATE: (False, _HOST, "estimated for CPU and memory"),
}
_UNKNOWN = (False, "not known", "of a source that is not known")
_RUN_ID = re.compile(r"[0-9a-f]{32}")


class ExportError(ValueError):
    """A run or a model that is not there, or of which too little is known."""


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """One training: what was run, on what, and what it took.

    NaN, ``None`` and empty texts are unknown.

    Attributes:
        run_id: The MLflow run.
        name: Its name.
        started: When, in UTC; not known of a run made elsewhere and imported.
        seconds: Of set-up, training and test.
        energy_j: Of the same span, by `energy_source`.
        energy_source: A value of ``names.TAG_ENERGY_SOURCE``.
        j_per_1k_images: Steady training energy of 1,000 images.
        country: ISO 3166-1 code of three letters.
        intensity_g_per_kwh: Mean carbon intensity of the country's electricity, an estimate.
        test_accuracy: A fraction.
        model: Name of the network.
        n_parameters: Of the network.
        dataset: Name of the data set.
        n_images: Training images of an epoch.
        epochs: Of the training.
        factors: Factor -> level as executed, of those that are known.
        gpu: Name of the GPUs; empty without one.
        n_gpus: How many were measured.
        cpu: Name of the processor.
        cpu_cores: Its cores, as the run saw them.
        memory_gib: Of the machine.
        operating_system: Its name and version.
        tensorflow: Version.
        doubt: Why the measurement is in doubt; empty if it is not.
    """

    run_id: str
    name: str
    started: datetime | None
    seconds: float
    energy_j: float
    energy_source: str
    j_per_1k_images: float
    country: str
    intensity_g_per_kwh: float
    test_accuracy: float
    model: str
    n_parameters: float
    dataset: str
    n_images: float
    epochs: int | None
    factors: dict[str, str]
    gpu: str
    n_gpus: int
    cpu: str
    cpu_cores: str
    memory_gib: float
    operating_system: str
    tensorflow: str
    doubt: str

    @property
    def energy_kwh(self) -> float:
        """The energy in kilowatt-hours."""
        return self.energy_j / J_PER_KWH

    @property
    def measured(self) -> bool:
        """Whether the energy was measured, and not estimated."""
        return self._source[0]

    @property
    def boundary(self) -> str:
        """What the energy is of."""
        return self._source[1]

    @property
    def how(self) -> str:
        """How the energy is known, in a few words."""
        return f"{self._source[2]} ({self.energy_source})"

    @property
    def of_boards(self) -> bool:
        """Whether the energy is that of GPUs."""
        return self.boundary == _BOARDS

    @property
    def _source(self) -> tuple[bool, str, str]:
        return _SOURCES.get(self.energy_source, _UNKNOWN)

    @property
    def hardware(self) -> str:
        """What it ran on, in a few words; empty if that is unknown."""
        if self.gpu:
            return f"{self.n_gpus} x {self.gpu}"
        return f"1 x {self.cpu}" if self.cpu else ""


def training_facts(run_or_model: str) -> TrainingFacts:
    """Return what is known of a training.

    Args:
        run_or_model: A run id, ``runs:/ID/...``, or a registered model as ``models:/NAME/VERSION``
            or ``models:/NAME@ALIAS``: then the run that its network is from.

    Raises:
        ExportError: There is no such run or model, or the run has no energy.
        OptionError: The store cannot be used.
        StoreUnavailableError: The tracking server stayed away.
    """
    tracking.check_store()
    run = tracking.read_run(_run_id(run_or_model))
    metrics, params, tags = run.data.metrics, run.data.params, run.data.tags
    energy_j = metrics.get(names.ENERGY_TOTAL_J, math.nan)
    if math.isnan(energy_j):
        why = tags.get(names.MISSING_PREFIX + names.ENERGY_TOTAL_J, "it logged none")
        raise ExportError(f"run {run.info.run_id} has no {names.ENERGY_TOTAL_J}: {why}")
    gpu = tags.get(names.TAG_GPU_NAME, "none")
    country = params.get("country", "")
    return TrainingFacts(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        started=None
        if names.TAG_IMPORTED in tags
        else datetime.fromtimestamp(run.info.start_time / 1000.0, timezone.utc),
        seconds=metrics.get(names.DURATION_S, math.nan),
        energy_j=energy_j,
        energy_source=tags.get(names.TAG_ENERGY_SOURCE, names.SOURCE_NONE),
        j_per_1k_images=metrics.get(names.ENERGY_PER_1K_IMAGES_J, math.nan),
        country=country,
        intensity_g_per_kwh=carbon_intensity_g_per_kwh(country) if country else math.nan,
        test_accuracy=metrics.get(names.TEST_ACCURACY, math.nan),
        model=params.get("model", ""),
        n_parameters=metrics.get(names.N_PARAMETERS, math.nan),
        dataset=params.get("dataset", ""),
        n_images=metrics.get(names.N_TRAIN_IMAGES, math.nan),
        epochs=int(params["epochs"]) if "epochs" in params else None,
        factors={
            factor: level
            for factor in FACTOR_NAMES
            if (level := params.get(names.EFFECTIVE_PREFIX + factor, params.get(factor, "")))
        },
        gpu="" if gpu == "none" else gpu.split(", ")[0],
        n_gpus=0 if gpu == "none" else len(gpu.split(", ")),
        cpu=tags.get(names.TAG_CPU_NAME, ""),
        cpu_cores=tags.get(names.TAG_CPU_CORES, ""),
        memory_gib=float(tags.get(names.TAG_MEMORY_GIB, "nan")),
        operating_system=tags.get(names.TAG_OPERATING_SYSTEM, ""),
        tensorflow=tags.get(names.TAG_TENSORFLOW_VERSION, ""),
        doubt=tags.get(names.TAG_INVALID_REASON, ""),
    )


def _run_id(text: str) -> str:
    if _RUN_ID.fullmatch(text):
        return text
    if found := re.fullmatch(r"runs:/([0-9a-f]{32})(/.*)?", text):
        return found[1]
    client = MlflowClient()
    try:
        if found := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", text):
            version = client.get_model_version_by_alias(found[1], found[2])
        elif found := re.fullmatch(r"models:/([^/@]+)/(\d+)", text):
            version = client.get_model_version(found[1], found[2])
        else:
            raise ExportError(
                "what is exported must be a run id, runs:/ID, models:/NAME/VERSION or "
                f"models:/NAME@ALIAS, but got {text!r}"
            )
    except MlflowException as error:
        raise ExportError(f"{text}: {error.message}") from error
    source = version.tags.get(names.VERSION_SOURCE_RUN) or version.run_id
    if not source:
        raise ExportError(f"{text} does not say which run it is from")
    return str(source)
