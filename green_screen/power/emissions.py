"""CodeCarbon: energy by component and emissions, offline and silent.

One tracker a meter. It measures only when it is read: its own timer is set aside, because a timer
that measures while the reading thread does counts an interval twice.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from green_screen.power.reading import CarbonReading

# CodeCarbon measures no interval shorter than 0.05 s (BaseEmissionsTracker.flush, version 3.3).
_MIN_INTERVAL_S = 0.06
_NEVER_S = 1e6


@dataclass(frozen=True)
class CarbonTotals:
    """Energy and emissions since the tracker started."""

    time_s: float = 0.0
    cpu_kwh: float = 0.0
    gpu_kwh: float = 0.0
    ram_kwh: float = 0.0
    emissions_kg: float = 0.0

    def at(self, time_s: float, rate: CarbonTotals) -> CarbonTotals:
        """Return the totals at a later time if things go on at the mean rate since `rate`."""
        known_s = self.time_s - rate.time_s
        share = (time_s - self.time_s) / known_s if known_s > 0 else 0.0
        return CarbonTotals(
            time_s,
            self.cpu_kwh + share * (self.cpu_kwh - rate.cpu_kwh),
            self.gpu_kwh + share * (self.gpu_kwh - rate.gpu_kwh),
            self.ram_kwh + share * (self.ram_kwh - rate.ram_kwh),
            self.emissions_kg + share * (self.emissions_kg - rate.emissions_kg),
        )


class _Receiver:
    """An output of CodeCarbon that keeps what it is given at each flush."""

    def __init__(self) -> None:
        self.data: Any = None

    def out(self, total: Any, delta: Any) -> None:
        self.data = total

    def live_out(self, total: Any, delta: Any) -> None:
        """Not called: the interval for live output is set to never."""

    def task_out(self, data: Any, experiment_name: str) -> None:
        """Not called: tasks are not used."""

    def exit(self) -> None:
        """Nothing is held open."""


class CarbonTracker:
    """CodeCarbon's offline tracker, read as running totals.

    Args:
        country: ISO 3166-1 code of three letters, for the carbon intensity.
        gpu_indices: NVML indices of the boards to count; none if empty.

    Raises:
        ValueError: CodeCarbon has no carbon intensity for the country.
    """

    def __init__(self, *, country: str, gpu_indices: Sequence[int]) -> None:
        """Prepare a tracker; it counts from :meth:`start`."""
        check_country(country)
        self._country = country
        self._gpu_indices = list(gpu_indices)
        self._receiver = _Receiver()
        self._tracker: Any = None
        self._before = CarbonTotals()
        self._last = CarbonTotals()

    def start(self) -> None:
        """Find the hardware and begin to count."""
        with _quiet():
            from codecarbon import OfflineEmissionsTracker

            self._tracker = OfflineEmissionsTracker(
                country_iso_code=self._country,
                gpu_ids=self._gpu_indices,
                output_methods=[],
                output_handlers=[self._receiver],
                emissions_endpoint=None,
                log_level="critical",
                measure_power_secs=_NEVER_S,
                api_call_interval=-1,
                allow_multiple_runs=True,
            )
            self._tracker.start()
        self._before = self._last = CarbonTotals(time_s=time.perf_counter())

    def read(self) -> CarbonTotals | None:
        """Return the totals now, or ``None`` if CodeCarbon gives none.

        Within 60 ms of the last reading CodeCarbon does not measure: the totals then go on at the
        rate of the interval before, so that no time is lost between two readings.
        """
        now = time.perf_counter()
        if self._receiver.data is not None and now - self._last.time_s < _MIN_INTERVAL_S:
            return self._last.at(now, self._before)
        with _quiet():
            self._tracker.flush()
        data = self._receiver.data
        if data is None:
            return None
        gpu_kwh = data.gpu_energy if self._gpu_indices else 0.0
        # Emissions are energy times one intensity. Without boards of ours CodeCarbon may count all
        # boards of the machine: leave their part out.
        all_kwh = data.cpu_energy + data.ram_energy + data.gpu_energy
        ours_kwh = data.cpu_energy + data.ram_energy + gpu_kwh
        emissions_kg = data.emissions * ours_kwh / all_kwh if all_kwh > 0 else 0.0
        self._before = self._last
        self._last = CarbonTotals(now, data.cpu_energy, gpu_kwh, data.ram_energy, emissions_kg)
        return self._last

    def stop(self) -> None:
        """Stop counting and the threads that do it."""
        if self._tracker is not None:
            with _quiet():
                self._tracker.stop()


def between(
    start: CarbonTotals | None, end: CarbonTotals | None, *, with_gpu: bool
) -> CarbonReading:
    """Return the reading of the window between two totals.

    A component of zero has no sensor: it is missing, and with it the emissions, unless it is the
    GPU of a machine that uses none.
    """
    if start is None or end is None:
        reason = "CodeCarbon gave no figures"
        nan = math.nan
        return CarbonReading(
            cpu_kwh=nan, gpu_kwh=nan, ram_kwh=nan, emissions_kg_co2eq=nan, reason=reason
        )
    parts = {
        "cpu": end.cpu_kwh - start.cpu_kwh,
        "gpu": end.gpu_kwh - start.gpu_kwh,
        "ram": end.ram_kwh - start.ram_kwh,
    }
    zero = [name for name, kwh in parts.items() if kwh <= 0]
    lacking = [name for name in zero if with_gpu or name != "gpu"]
    known = {name: math.nan if name in zero else kwh for name, kwh in parts.items()}
    return CarbonReading(
        cpu_kwh=known["cpu"],
        gpu_kwh=known["gpu"],
        ram_kwh=known["ram"],
        emissions_kg_co2eq=math.nan if lacking else end.emissions_kg - start.emissions_kg,
        reason=f"CodeCarbon has no figure for {', '.join(lacking)}" if lacking else "",
    )


def check_country(country: str) -> None:
    """Refuse a country whose carbon intensity CodeCarbon does not know.

    Raises:
        ValueError: The code is not among those of CodeCarbon's data.
    """
    with _quiet():
        from codecarbon.input import DataSource

        known = DataSource().get_global_energy_mix_data()
    if country not in known:
        raise ValueError(
            f"country must be a three-letter code that CodeCarbon knows, such as USA or DEU, "
            f"but got {country!r}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep CodeCarbon from writing to the terminal, at import too."""
    log = logging.getLogger("codecarbon")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
