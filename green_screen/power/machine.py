"""The machine beside its boards: CPU, memory and emissions.

The CPU is measured by RAPL where all of its packages can be read, the memory where it has counters.
What is not measured is CodeCarbon's model, where that is installed.
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from green_screen import names
from green_screen.power import emissions, rapl
from green_screen.power.reading import NAN, CarbonReading
from green_screen.power.trace import PowerSamples

J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class MachineTotals:
    """What has been counted so far.

    Attributes:
        carbon: CodeCarbon's totals; ``None`` if it gives none.
        rapl: The processors' counters.
    """

    carbon: emissions.CarbonTotals | None
    rapl: rapl.RaplTotals = rapl.RaplTotals()


@dataclass(frozen=True, kw_only=True)
class Terms:
    """By which terms energy becomes emissions, and how the CPU's is known.

    Attributes:
        cpu_source: ``rapl``, ``codecarbon_estimate``, the name CodeCarbon has for another counter,
            or ``none``.
        by_rapl: Whether RAPL counts the whole CPU.
        cpu_in_part: Whether CodeCarbon counts a part of the CPU: it is then missing.
        modelled: Whether CodeCarbon is there.
        g_per_kwh: Own carbon intensity in g CO2eq per kWh; ``None`` is CodeCarbon's.
        pue: Power usage effectiveness of the data centre.
    """

    cpu_source: str = names.SOURCE_NONE
    by_rapl: bool = False
    cpu_in_part: bool = False
    modelled: bool = True
    g_per_kwh: float | None = None
    pue: float = 1.0


class Machine:
    """Counts the machine's energy beside its boards.

    Args:
        country: ISO 3166-1 code of three letters, for CodeCarbon's carbon intensity.
        gpu_indices: NVML indices of the boards that are measured.
        g_per_kwh: Own carbon intensity in g CO2eq per kWh instead of the country's.
        pue: Power usage effectiveness: emissions are so many times those of the energy.

    Raises:
        ValueError: A value is out of range, or CodeCarbon does not know the country.
    """

    def __init__(
        self,
        *,
        country: str,
        gpu_indices: Sequence[int],
        g_per_kwh: float | None = None,
        pue: float = 1.0,
    ) -> None:
        """Prepare; counting begins with :meth:`start`."""
        check(country, g_per_kwh, pue)
        self._counters = rapl.Counters()
        self._by_rapl = self._counters.measure_cpu
        self._g_per_kwh = g_per_kwh
        self._pue = pue
        self._watched_s, self._watched_j = array("d"), array("d")
        self._tracker: emissions.CarbonTracker | None = None
        # Of counters that can be read in part CodeCarbon would take the part for the whole.
        self._partly = self._counters.there and not self._by_rapl
        if emissions.installed():
            self._tracker = emissions.CarbonTracker(
                country=country, gpu_indices=gpu_indices, cpu_load=self._partly
            )

    @property
    def needs_watching(self) -> bool:
        """Whether :meth:`watch` must be called more often than windows begin and end."""
        return self._by_rapl

    def start(self) -> None:
        """Find the hardware and begin to count."""
        if self._tracker is not None:
            self._tracker.start()

    def stop(self) -> None:
        """Stop counting."""
        if self._tracker is not None:
            self._tracker.stop()

    def watch(self) -> None:
        """Read the processors' counters, which wrap."""
        now_s, cpu_j = time.perf_counter(), self._counters.read().cpu_j
        if not math.isnan(cpu_j):
            self._watched_s.append(now_s)
            self._watched_j.append(cpu_j)

    @property
    def samples(self) -> PowerSamples | None:
        """The CPU's power by the counters so far; ``None`` without any."""
        joules, times_s = self._watched_j[:], self._watched_s[:]  # those are appended last
        powers_w = array("d")
        for n in range(1, len(joules)):
            powers_w.append((joules[n] - joules[n - 1]) / (times_s[n] - times_s[n - 1]))
        return PowerSamples("cpu", times_s[1 : len(joules)], powers_w) if powers_w else None

    def read(self) -> MachineTotals:
        """Return the totals now."""
        carbon = self._tracker.read() if self._tracker is not None else None
        return MachineTotals(carbon, self._counters.read())

    @property
    def terms(self) -> Terms:
        """How the CPU's energy is known, and how energy becomes emissions."""
        source = self._tracker.cpu_source if self._tracker is not None else names.SOURCE_NONE
        in_part = self._partly and source == rapl.SOURCE_RAPL
        if self._by_rapl:
            source = rapl.SOURCE_RAPL
        elif in_part:
            source = names.SOURCE_NONE
        return Terms(
            cpu_source=source,
            by_rapl=self._by_rapl,
            cpu_in_part=in_part,
            modelled=self._tracker is not None,
            g_per_kwh=self._g_per_kwh,
            pue=self._pue,
        )


def check(country: str, g_per_kwh: float | None, pue: float) -> None:
    """Refuse terms that cannot be.

    Raises:
        ValueError: A value is out of range, or CodeCarbon does not know the country.
    """
    if g_per_kwh is not None and not 0 <= g_per_kwh < math.inf:
        raise ValueError(f"carbon_intensity must be in g CO2eq per kWh, >= 0, not {g_per_kwh!r}")
    if not 1 <= pue < math.inf:
        raise ValueError(f"pue must be 1 or more, but got {pue!r}")
    emissions.check_country(country)


def between(
    start: MachineTotals, end: MachineTotals, terms: Terms, *, uses_gpu: bool, gpu_j: float = NAN
) -> CarbonReading:
    """Return the reading of the window between two totals.

    Emissions are those of CPU, memory and, where one is used, GPU. A part that is missing makes
    them missing. Without CodeCarbon, which alone knows the memory of most machines, they are those
    of what is measured, and the reading says of what.

    Args:
        start: Totals at the beginning.
        end: Totals at the end.
        terms: How the CPU's energy is known, and how energy becomes emissions.
        uses_gpu: Whether a GPU is used.
        gpu_j: The boards' joules by the meter, which stand in where CodeCarbon has none.
    """
    kwh, reasons = _modelled(start, end, terms)
    if terms.by_rapl:
        kwh["cpu"] = _rise(start.rapl.cpu_j, end.rapl.cpu_j) / J_PER_KWH
        if math.isnan(kwh["cpu"]):
            reasons["RAPL has no figure for {}"] = ["cpu"]
    dram_kwh = _rise(start.rapl.dram_j, end.rapl.dram_j) / J_PER_KWH
    memory_kwh = kwh["ram"] if terms.modelled else dram_kwh
    gpu_kwh = gpu_j / J_PER_KWH if math.isnan(kwh["gpu"]) else kwh["gpu"]
    parts = {"cpu": kwh["cpu"], "memory": memory_kwh, **({"gpu": gpu_kwh} if uses_gpu else {})}
    if not uses_gpu:
        reasons = {text: [k for k in lacking if k != "gpu"] for text, lacking in reasons.items()}
    covers = tuple(name for name, value in parts.items() if not math.isnan(value))
    whole = len(covers) == len(parts)
    kg_per_kwh = end.carbon.kg_per_kwh if end.carbon is not None else NAN
    if terms.g_per_kwh is not None:
        kg_per_kwh = terms.g_per_kwh / 1000.0
    known_kwh = sum(parts[name] for name in covers) if covers else NAN
    said = [text.format(", ".join(lacking)) for text, lacking in reasons.items() if lacking]
    if not terms.modelled:
        said.append(emissions.ABSENT)
        if terms.g_per_kwh is None:
            said.append("without it, emissions need carbon_intensity")
    return CarbonReading(
        cpu_kwh=kwh["cpu"],
        gpu_kwh=kwh["gpu"],
        ram_kwh=kwh["ram"],
        dram_kwh=dram_kwh,
        emissions_kg_co2eq=known_kwh * kg_per_kwh * terms.pue
        if whole or not terms.modelled
        else NAN,
        covers=covers,
        cpu_source=terms.cpu_source,
        modelled=terms.modelled,
        reason="; ".join(said),
    )


def _modelled(
    start: MachineTotals, end: MachineTotals, terms: Terms
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return CodeCarbon's figures, and which of them are missing by which reason."""
    kwh = dict.fromkeys(("cpu", "gpu", "ram"), NAN)
    if not terms.modelled:
        return kwh, {}
    if start.carbon is None or end.carbon is None:
        return kwh, {"CodeCarbon gave no figures for {}": list(kwh)}
    reasons: dict[str, list[str]] = {}
    for name, part in emissions.parts_between(start.carbon, end.carbon).items():
        if name == "cpu" and terms.by_rapl:
            continue
        if name == "cpu" and terms.cpu_in_part:
            reasons["RAPL can be read for some of the packages only: no {} is known"] = [name]
            continue
        kwh[name] = part.kwh
        if part.missing:
            reasons.setdefault(part.missing, []).append(name)
    return kwh, reasons


def _rise(start: float, end: float) -> float:
    """Return how far a counter has risen; one that has not has not been read in between."""
    return end - start if end > start else NAN
