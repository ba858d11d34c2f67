"""CodeCarbon: energy by component and emissions, offline and silent.

One tracker a meter. It measures only when it is read: its own timer is set aside, because a timer
that measures while the reading thread does counts an interval twice. What a user has configured for
CodeCarbon elsewhere is set aside too, and what a scheduler says of a job: it would change the
figures of a run unseen. They are the whole machine's.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from green_screen import names
from green_screen.power import rapl
from green_screen.power.nvml import COUNTER_UPDATE_S

ABSENT = "CodeCarbon is not installed (pip install 'green-screen[carbon]')"

# CodeCarbon measures no interval shorter than 0.05 s (BaseEmissionsTracker.flush, version 3.3).
_MIN_INTERVAL_S = 0.06
_NEVER_S = 1e6
# A sensor that has counted nothing for so long is not there; for less, it has not been renewed.
_SILENT_S = 2 * COUNTER_UPDATE_S

# Every option of CodeCarbon's that changes energy or emissions, so that neither the file
# .codecarbon.config nor a variable CODECARBON_... can (BaseEmissionsTracker, version 3.3).
_FIXED: dict[str, Any] = {
    "tracking_mode": "machine",
    "pue": 1.0,
    "wue": 0.0,
    "force_cpu_power": None,
    "force_ram_power": None,
    "force_carbon_intensity_g_co2e_kwh": None,
    "rapl_include_dram": False,
    "rapl_prefer_psys": False,
    "region": None,
    "cloud_provider": None,
    "cloud_region": None,
    "country_2letter_iso_code": None,
    # Empty, because for None an older name of it is looked for; with a token it asks a server.
    "electricitymaps_api_token": "",
}


@dataclass(frozen=True)
class CarbonTotals:
    """Energy and emissions since the tracker started.

    `silent` counts for how many intervals between readings CPU, GPU and RAM had no figure;
    `readings` are the two of CodeCarbon's that these follow from, themselves without any.
    """

    time_s: float = 0.0
    cpu_kwh: float = 0.0
    gpu_kwh: float = 0.0
    ram_kwh: float = 0.0
    emissions_kg: float = 0.0
    silent: tuple[int, ...] = (0, 0, 0)
    readings: tuple[CarbonTotals, ...] = ()

    @property
    def kg_per_kwh(self) -> float:
        """The carbon intensity; NaN if nothing has been counted."""
        kwh = self.cpu_kwh + self.gpu_kwh + self.ram_kwh
        return self.emissions_kg / kwh if kwh > 0 else math.nan

    def at(self, time_s: float, rate: CarbonTotals) -> CarbonTotals:
        """Return the totals at another time, if things go at the mean rate since `rate`."""
        known_s = self.time_s - rate.time_s
        share = (time_s - self.time_s) / known_s if known_s > 0 else 0.0
        return CarbonTotals(
            time_s,
            self.cpu_kwh + share * (self.cpu_kwh - rate.cpu_kwh),
            self.gpu_kwh + share * (self.gpu_kwh - rate.gpu_kwh),
            self.ram_kwh + share * (self.ram_kwh - rate.ram_kwh),
            self.emissions_kg + share * (self.emissions_kg - rate.emissions_kg),
            self.silent,
            (replace(rate, readings=()), replace(self, readings=())),
        )


# How CodeCarbon names its ways to know the CPU's energy -> how this project does.
_CPU_SOURCES = {
    "intel_rapl": rapl.SOURCE_RAPL,
    "cpu_load": rapl.SOURCE_MODEL,
    "constant": rapl.SOURCE_MODEL,
}


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
        cpu_load: Whether to model the CPU even where RAPL can be read. CodeCarbon adds up those
            packages that it can read, and calls a part of the CPU the whole.

    Raises:
        ValueError: CodeCarbon has no carbon intensity for the country.
    """

    def __init__(self, *, country: str, gpu_indices: Sequence[int], cpu_load: bool = False) -> None:
        """Prepare a tracker; it counts from :meth:`start`."""
        check_country(country)
        self._cpu_load = cpu_load
        self._country = country
        self._gpu_indices = list(gpu_indices)
        self._receiver = _Receiver()
        self._tracker: Any = None
        # CodeCarbon counts an interval once for each thread that reads it at the same moment.
        self._lock = threading.Lock()
        self._before = CarbonTotals()
        self._last = CarbonTotals()
        self._counted_s: dict[str, float] = {}
        self.cpu_source = names.SOURCE_NONE

    def start(self) -> None:
        """Find the hardware and begin to count.

        `cpu_source` then says how the CPU's energy is known: ``rapl``, ``codecarbon_estimate``, the
        name CodeCarbon has for another counter, or ``none``.
        """
        with _quiet():
            from codecarbon import OfflineEmissionsTracker

            self._tracker = OfflineEmissionsTracker(
                country_iso_code=self._country,
                gpu_ids=self._gpu_indices,
                output_methods=[],
                output_dir=tempfile.gettempdir(),  # one that does not exist would be an error
                output_handlers=[self._receiver],
                emissions_endpoint=None,
                log_level="critical",
                measure_power_secs=_NEVER_S,
                api_call_interval=-1,
                allow_multiple_runs=True,
                force_mode_cpu_load=self._cpu_load,
                **_FIXED,
            )
            self._tracker.start()
        self.cpu_source = self._find_cpu_source()
        self._before = self._last = CarbonTotals(time_s=time.perf_counter())
        # The first reading loads tables, which takes half a second: not inside a window.
        time.sleep(_MIN_INTERVAL_S)
        self.read()

    def read(self) -> CarbonTotals | None:
        """Return the totals now, or ``None`` if CodeCarbon gives none.

        Within 60 ms of the last reading CodeCarbon does not measure: the totals then go on at the
        rate of the interval before, so that no time is lost between two readings.
        """
        with self._lock:
            return self._read()

    def _read(self) -> CarbonTotals | None:
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
        totals = CarbonTotals(now, data.cpu_energy, gpu_kwh, data.ram_energy, emissions_kg)
        totals = self._with_silence(totals)
        readings = (replace(self._last, readings=()), totals)
        self._before, self._last = self._last, replace(totals, readings=readings)
        return self._last

    def _with_silence(self, totals: CarbonTotals) -> CarbonTotals:
        """Return totals that know whether a component had no figure since the last reading."""
        last = self._last
        counted = {
            "cpu": totals.cpu_kwh > last.cpu_kwh,
            "gpu": totals.gpu_kwh > last.gpu_kwh and all(self._gpus_count()),
            "ram": totals.ram_kwh > last.ram_kwh,
        }
        silent = []
        for before, (name, rose) in zip(last.silent, counted.items(), strict=True):
            since_s = self._counted_s.setdefault(name, last.time_s)
            if rose:
                self._counted_s[name] = totals.time_s
            silent.append(before + (not rose and totals.time_s - since_s > _SILENT_S))
        return replace(totals, silent=tuple(silent))

    def _gpus_count(self) -> Iterator[bool]:
        """Whether each board has a figure for the last interval.

        The sum hides a board that was lost beside one that works. CodeCarbon gives it nowhere but
        in its own objects.
        """
        for hardware in getattr(self._tracker, "_hardware", ()):
            if type(hardware).__name__ == "GPU":
                for device in hardware.devices.devices:
                    if device.gpu_index in self._gpu_indices:
                        yield device.energy_delta.kWh > 0

    def _find_cpu_source(self) -> str:
        for hardware in getattr(self._tracker, "_hardware", ()):
            if type(hardware).__name__ == "CPU":
                return _CPU_SOURCES.get(hardware._mode, str(hardware._mode))
            if getattr(hardware, "chip_part", "") == "CPU":
                return type(hardware).__name__  # Apple's and Raspberry Pi's own counters
        return names.SOURCE_NONE

    def stop(self) -> None:
        """Stop counting and the threads that do it."""
        if self._tracker is not None:
            with _quiet():
                self._tracker.stop()


@dataclass(frozen=True)
class Part:
    """One component's energy in a window, or :data:`NO_FIGURE` or :data:`GAP` if it is missing."""

    kwh: float
    missing: str = ""


NO_FIGURE = "CodeCarbon has no figure for {}"
GAP = (
    "CodeCarbon had no figure for {} in a part of the time: the energy counter failed or its "
    "driver was restarted"
)


def parts_between(start: CarbonTotals, end: CarbonTotals) -> dict[str, Part]:
    """Return the energy of ``cpu``, ``gpu`` and ``ram`` in the window between two totals.

    A component of zero has no sensor: it is missing. The same holds for one that had no figure in
    a part of the window, because its sum lacks that part.

    Where the window begins between two of CodeCarbon's readings, its beginning was carried on from
    the first and may have come to more than the second. Such a component's beginning is taken
    between the two; neighbouring windows then add up to a little more than the whole.
    """
    kwh = _rises(start, end)
    if end.readings and end.readings[0].time_s < start.time_s < end.readings[1].time_s:
        between = _rises(end.readings[1].at(start.time_s, end.readings[0]), end)
        kwh = {name: value if value > 0 else between[name] for name, value in kwh.items()}
    gaps = dict(zip(kwh, zip(start.silent, end.silent, strict=True), strict=True))
    return {
        name: Part(math.nan, NO_FIGURE)
        if value <= 0
        else Part(math.nan, GAP)
        if gaps[name][0] < gaps[name][1]
        else Part(value)
        for name, value in kwh.items()
    }


def _rises(start: CarbonTotals, end: CarbonTotals) -> dict[str, float]:
    return {
        "cpu": end.cpu_kwh - start.cpu_kwh,
        "gpu": end.gpu_kwh - start.gpu_kwh,
        "ram": end.ram_kwh - start.ram_kwh,
    }


def installed() -> bool:
    """Return whether CodeCarbon is there."""
    if "codecarbon" in sys.modules:
        return sys.modules["codecarbon"] is not None
    return importlib.util.find_spec("codecarbon") is not None


def check_country(country: str) -> None:
    """Refuse a country whose carbon intensity CodeCarbon does not know, where it is installed.

    Raises:
        ValueError: The code is not among those of CodeCarbon's data.
    """
    if not installed():
        return
    with _quiet():
        from codecarbon.input import DataSource

        known = DataSource().get_global_energy_mix_data()
    if country not in known:
        raise ValueError(
            f"country must be a three-letter code that CodeCarbon knows, such as USA or DEU, "
            f"but got {country!r}"
        )


# What stands between CodeCarbon and its surroundings is of the whole process.
_aside = threading.RLock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep CodeCarbon from the terminal and from the job that it runs in, at import too.

    In a job of Slurm's it asks ``scontrol`` for the job's share of CPUs and memory and models that,
    and fails where the job's container has no such command.
    """
    with _aside:
        log = logging.getLogger("codecarbon")
        disabled, log.disabled = log.disabled, True
        try:
            from codecarbon.core import util
            from codecarbon.external import ram

            jobs = {module: module.SLURM_JOB_ID for module in (util, ram)}
            for module in jobs:
                module.SLURM_JOB_ID = None
            try:
                yield
            finally:
                for module, job in jobs.items():
                    module.SLURM_JOB_ID = job
        finally:
            log.disabled = disabled
