"""How to wait for the GPU: by the frameworks of this process that use it.

A framework gives its work to the GPU and goes on; a window that ends then would miss what is still
under way. None is imported here, and none is made to start its GPU: one that has not has nothing
under way.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

Wait = Callable[[], None]


def on_gpu() -> dict[str, Wait]:
    """Return, for each imported framework that uses a GPU, what waits for its work."""
    found = {}
    for module, name, find in _FRAMEWORKS:
        framework = sys.modules.get(module)
        if framework is None:
            continue
        try:
            wait = find(framework)
        except Exception:  # no driver, no device, or a framework that is being imported just now
            logger.debug("%s does not say whether it uses a GPU", name, exc_info=True)
            continue
        if wait is not None:
            found[name] = wait
    return found


def _torch(torch: Any) -> Wait | None:
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    # To wait for a device that is not in use would put a context on it.
    try:
        used = [n for n in range(cuda.device_count()) if cuda.memory_reserved(n) > 0]
    except (NotImplementedError, RuntimeError):  # an allocator of its own that does not count
        used = [cuda.current_device()]

    def wait() -> None:
        for device in used:
            cuda.synchronize(device)

    return wait if used else None


def _tensorflow(tensorflow: Any) -> Wait | None:
    context = sys.modules.get("tensorflow.python.eager.context")
    if context is None or not hasattr(tensorflow, "config"):
        return None
    # The eager context is made with the first operation, and to list devices would make it.
    if not getattr(context.context(), "_initialized", True) or not tensorflow.executing_eagerly():
        return None
    if not tensorflow.config.list_logical_devices("GPU"):
        return None
    wait: Wait = tensorflow.test.experimental.sync_devices
    return wait


def _jax(jax: Any) -> Wait | None:
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is None or not hasattr(jax, "local_devices"):
        return None
    # To list devices would make the backends.
    if not getattr(bridge, "backends_are_initialized", lambda: True)():
        return None
    on_gpu = any(device.platform in ("gpu", "cuda") for device in jax.local_devices())

    def wait() -> None:
        # A device works in the order of its orders: what is alive of the last one is the latest.
        jax.block_until_ready(jax.live_arrays())

    return wait if on_gpu else None


def _cupy(cupy: Any) -> Wait | None:
    # Of the current device: to ask for others would put a context on them.
    if not hasattr(cupy, "cuda") or cupy.get_default_memory_pool().total_bytes() == 0:
        return None
    wait: Wait = cupy.cuda.runtime.deviceSynchronize
    return wait


_FRAMEWORKS = (
    ("torch", "PyTorch", _torch),
    ("tensorflow", "TensorFlow", _tensorflow),
    ("jax", "JAX", _jax),
    ("cupy", "CuPy", _cupy),
)
