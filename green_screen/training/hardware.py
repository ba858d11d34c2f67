"""What a run ran on, as tags."""

from __future__ import annotations

import logging
import math
import platform
import re
from pathlib import Path

import psutil
import tensorflow as tf

from green_screen import names
from green_screen.network.int8 import cpu_cores
from green_screen.power.surroundings import surroundings
from green_screen.training.settings import execution_settings

logger = logging.getLogger(__name__)


def hardware_tags() -> dict[str, str]:
    """Return the names of processors, the versions and settings that a measurement depends on."""
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in _gpus()]
    tags = {
        names.TAG_CPU_NAME: _cpu_name(),
        names.TAG_CPU_CORES: str(cpu_cores()),
        names.TAG_MEMORY_GIB: f"{psutil.virtual_memory().total / 2**30:.1f}",
        names.TAG_OPERATING_SYSTEM: platform.platform(),
        names.TAG_TENSORFLOW_VERSION: tf.__version__,
        names.TAG_EXECUTION_SETTINGS: execution_settings(),
        names.TAG_GPU_NAME: ", ".join(gpu.get("device_name", "unknown") for gpu in gpus) or "none",
    }
    if gpus:
        tags[names.TAG_GPU_DRIVER] = gpu_driver()
        build = tf.sysconfig.get_build_info()
        tags[names.TAG_CUDA_VERSION] = str(build.get("cuda_version", "unknown"))
        tags[names.TAG_CUDNN_VERSION] = str(build.get("cudnn_version", "unknown"))
    return tags


def host_tags() -> dict[str, str]:
    """Return what around the run can change its measurement; what is not known has no tag."""
    try:
        host = surroundings()
    except (OSError, ValueError, psutil.Error) as error:  # no reason to lose a run
        logger.warning("the state of the host cannot be read: %s", error)
        return {}
    figures = {names.TAG_HOST_LOAD: host.load, names.TAG_HOST_STEAL_PERCENT: host.steal_percent}
    texts = {
        names.TAG_HOST_GOVERNOR: host.governor,
        names.TAG_HOST_CLOCK: host.clock_source,
        names.TAG_HOST_CONTAINER: host.container or "none",
    }
    known = {name: f"{value:.2f}" for name, value in figures.items() if math.isfinite(value)}
    return known | {name: text for name, text in texts.items() if text}


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


def gpu_driver() -> str:
    """Return the version of the NVIDIA driver; ``unknown`` where it does not tell."""
    described = Path("/proc/driver/nvidia/version")
    return (
        driver_version(described.read_text(encoding="utf-8")) if described.exists() else "unknown"
    )


def driver_version(description: str) -> str:
    """Return the version in the NVIDIA driver's description of itself.

    Its first line is such as ``NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun ...``
    """
    found = re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", description, re.MULTILINE)
    return found.group(1) if found else "unknown"
