"""RAPL, the energy counters of Intel and AMD processors and of the memory beside them.

Read from ``/sys/class/powercap``, all packages or none: a part of the processors is not the CPU.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from green_screen import names

SOURCE_RAPL = names.SOURCE_RAPL
SOURCE_MODEL = names.SOURCE_ESTIMATE

POWERCAP = Path("/sys/class/powercap")
_J_PER_UJ = 1e-6
# Processors of several dies can show a domain a die that all count the whole socket. Counters that
# are so near to each other are one; two that differ meet by chance once in 100,000 times.
_SAME_J = 1.0


@dataclass(frozen=True)
class CpuSource:
    """How CPU energy is known.

    Attributes:
        source: ``rapl`` (measured) or ``codecarbon_estimate`` (a model of the load).
        hint: Why it is not measured, and what to do; empty if it is.
        can_be_allowed: Whether the counters are there and only the permission is missing.
    """

    source: str
    hint: str = ""
    can_be_allowed: bool = False


def cpu_source(powercap: Path | None = None) -> CpuSource:
    """Return whether the counters of all of the machine's packages can be read.

    Kernels since 5.10 let root alone read them, because fine-grained power readings leak secrets
    (CVE-2020-8694).

    Args:
        powercap: Where the kernel shows them; the default is :data:`POWERCAP`.
    """
    folder = powercap or POWERCAP
    packages = _packages(folder)
    if not packages:
        return CpuSource(
            SOURCE_MODEL,
            f"this machine shows no RAPL counter under {folder} (virtual machines and most "
            "cloud hosts do not): CPU energy is CodeCarbon's model of the load",
        )
    closed = [package / "energy_uj" for package in packages if not _readable(package)]
    if closed:
        return CpuSource(
            SOURCE_MODEL,
            f"RAPL is there but may not be read for {len(closed)} of {len(packages)} packages, so "
            "CPU energy is a model of the load; to allow it until the next boot: "
            f"sudo chmod a+r {' '.join(str(path) for path in closed)}",
            can_be_allowed=True,
        )
    return CpuSource(SOURCE_RAPL)


@dataclass(frozen=True)
class RaplTotals:
    """Joules since the counters were opened; NaN for what cannot be read."""

    cpu_j: float = math.nan
    dram_j: float = math.nan


class Counters:
    """The counters of all packages, and of the memory where every package has one.

    A counter wraps, a busy server's within half an hour: :meth:`read` must be called more often.

    Args:
        powercap: Where the kernel shows them; the default is :data:`POWERCAP`.

    Attributes:
        there: Whether the machine has any, readable or not.
    """

    def __init__(self, powercap: Path | None = None) -> None:
        """Open the counters that can be read."""
        self._lock = threading.Lock()
        packages = _packages(powercap or POWERCAP)
        memories = [memory for package in packages for memory in _parts(package, "dram")]
        self.there = bool(packages)
        self._cpu = _Group(packages)
        self._dram = _Group(memories if len(memories) == len(packages) else [])

    @property
    def measure_cpu(self) -> bool:
        """Whether all packages can be read."""
        return self._cpu.open

    def read(self) -> RaplTotals:
        """Return the totals now."""
        with self._lock:
            return RaplTotals(self._cpu.read(), self._dram.read())


class _Group:
    """Counters that are added up: all of them, or none."""

    def __init__(self, domains: Sequence[Path]) -> None:
        self.open = bool(domains) and all(_readable(domain) for domain in domains)
        self._domains = _distinct(domains) if self.open else []
        self._last_j = [_energy_j(domain) for domain in self._domains]
        self._total_j = 0.0

    def read(self) -> float:
        """Return the joules since the start; NaN if one of the counters cannot be read now."""
        if not self.open:
            return math.nan
        try:
            now_j = [_energy_j(domain) for domain in self._domains]
        except (OSError, ValueError):
            return math.nan
        for domain, last_j, value_j in zip(self._domains, self._last_j, now_j, strict=True):
            wrapped_j = _range_j(domain) if value_j < last_j else 0.0
            self._total_j += value_j - last_j + wrapped_j
        self._last_j = now_j
        return self._total_j


def _packages(powercap: Path) -> list[Path]:
    """Return the folders of the packages; beside them can lie that of the whole platform (psys)."""
    domains = sorted(path.parent for path in powercap.glob("intel-rapl:[0-9]*/energy_uj"))
    top = [domain for domain in domains if domain.name.count(":") == 1]
    return [domain for domain in top if _name(domain).startswith("package")]


def _parts(package: Path, name: str) -> list[Path]:
    """Return the folders of a package's parts of a name, wherever the kernel shows them."""
    found = {*package.glob(f"{package.name}:*"), *package.parent.glob(f"{package.name}:*")}
    return [part for part in sorted({p.name: p for p in found}.values()) if _name(part) == name]


def _distinct(domains: Sequence[Path]) -> list[Path]:
    kept: dict[Path, float] = {}
    for domain in domains:
        energy_j = _energy_j(domain)
        if energy_j == 0 or all(abs(energy_j - other_j) > _SAME_J for other_j in kept.values()):
            kept[domain] = energy_j
    return list(kept)


def _name(domain: Path) -> str:
    try:
        return (domain / "name").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _energy_j(domain: Path) -> float:
    return int((domain / "energy_uj").read_text(encoding="ascii")) * _J_PER_UJ


def _range_j(domain: Path) -> float:
    """Return where a counter wraps; NaN if the kernel does not tell."""
    try:
        return int((domain / "max_energy_range_uj").read_text(encoding="ascii")) * _J_PER_UJ
    except (OSError, ValueError):
        return math.nan


def _readable(domain: Path) -> bool:
    try:
        return _energy_j(domain) >= 0
    except (OSError, ValueError):
        return False
