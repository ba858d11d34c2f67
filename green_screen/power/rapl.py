"""RAPL, the energy counter of Intel and AMD processors: may it be read, and if not, what to do.

CodeCarbon reads it; this module only says which of measurement and model its CPU energy is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SOURCE_RAPL = "rapl"
SOURCE_MODEL = "codecarbon_estimate"

_POWERCAP = Path("/sys/class/powercap")


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


def cpu_source(powercap: Path = _POWERCAP) -> CpuSource:
    """Return whether the counters of the processor's packages can be read.

    Kernels since 5.10 let root alone read them, because fine-grained power readings leak secrets
    (CVE-2020-8694).
    """
    counters = sorted(powercap.glob("intel-rapl:[0-9]*/energy_uj"))
    packages = [path for path in counters if path.parent.name.count(":") == 1]
    if not packages:
        return CpuSource(
            SOURCE_MODEL,
            f"this machine shows no RAPL counter under {powercap} (virtual machines and most "
            "cloud hosts do not): CPU energy is CodeCarbon's model of the load",
        )
    unreadable = [path for path in packages if not _readable(path)]
    if unreadable:
        return CpuSource(
            SOURCE_MODEL,
            "RAPL is there but may not be read, so CPU energy is a model of the load; to allow "
            f"it until the next boot: sudo chmod a+r {' '.join(str(p) for p in unreadable)}",
            can_be_allowed=True,
        )
    return CpuSource(SOURCE_RAPL)


def _readable(path: Path) -> bool:
    try:
        return path.read_text(encoding="ascii").strip().isdecimal()
    except OSError:
        return False
