"""What a run ran on, as tags."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
import tensorflow as tf


def hardware_tags() -> dict[str, str]:
    """Return the names of the processors and the versions that a measurement depends on."""
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in _gpus()]
    tags = {
        "cpu_name": _cpu_name(),
        "cpu_cores": str(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "memory_gib": f"{psutil.virtual_memory().total / 2**30:.1f}",
        "operating_system": platform.platform(),
        "tensorflow_version": tf.__version__,
        "gpu_name": ", ".join(gpu.get("device_name", "unknown") for gpu in gpus) or "none",
    }
    if gpus:
        tags["gpu_driver"] = _driver()
        build = tf.sysconfig.get_build_info()
        tags["cuda_version"] = str(build.get("cuda_version", "unknown"))
        tags["cudnn_version"] = str(build.get("cudnn_version", "unknown"))
    return tags


def _gpus() -> list[tf.config.PhysicalDevice]:
    devices: list[tf.config.PhysicalDevice] = tf.config.get_visible_devices("GPU")
    return devices


def _cpu_name() -> str:
    """Return the product's name, which `platform` does not know on Linux."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _driver() -> str:
    """Return the NVIDIA driver's description of itself."""
    version = Path("/proc/driver/nvidia/version")
    return version.read_text(encoding="utf-8").splitlines()[0] if version.exists() else "unknown"
