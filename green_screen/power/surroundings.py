"""What around a measurement can change it: the host that the GPU waits for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

_CPU = Path("/sys/devices/system/cpu")
_CLOCK = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
# Files that container engines leave in the root of their containers.
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The host at a moment.

    Attributes:
        governor: How the CPU's clock is chosen, such as ``performance``; several joined by commas,
            empty where the host does not tell.
        load: Runnable processes a core, a mean of the last minute.
        steal_percent: Share of the CPU's time since boot that other guests of its host took; NaN
            where the system does not count it.
        clock_source: What the system's clock counts, such as ``tsc``; empty if unknown.
        container: The engine or the sign of a container; empty if there is none.
    """

    governor: str
    load: float
    steal_percent: float
    clock_source: str
    container: str


def surroundings() -> Surroundings:
    """Return what the host is like now."""
    load, _, _ = os.getloadavg()
    times = psutil.cpu_times()
    total_s = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    steal_s = getattr(times, "steal", float("nan"))
    return Surroundings(
        governor=governor(_CPU),
        load=load / (os.cpu_count() or 1),
        steal_percent=100.0 * steal_s / total_s if total_s > 0 else float("nan"),
        clock_source=_text(_CLOCK),
        container=_container(),
    )


def governor(cpus: Path) -> str:
    """Return the governors of a folder of CPUs as Linux shows them, joined by commas."""
    found = {_text(path) for path in cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return ",".join(sorted(found - {""}))


def _container() -> str:
    for mark in _CONTAINER_MARKS:
        if mark.exists():
            return str(mark)
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "Kubernetes"
    return os.environ.get("container", "")  # noqa: SIM112 (as podman and systemd-nspawn spell it)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
