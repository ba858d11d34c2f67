"""Other people's settings that a training would run under: Keras's file and the environment.

What a level's meaning rests on is set explicitly (:mod:`green_screen.network.keras_defaults`); here
is what cannot work and is refused, and what changes the execution and is told.

Needs no TensorFlow.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from green_screen.options import OptionError

# Variables of TensorFlow, of the libraries below it, and of the loader that finds them ...
_EXECUTION = re.compile(
    r"(TF|TENSORFLOW|XLA|CUDA|CUDNN|CUBLAS|NVIDIA|NCCL|OMP|GOMP|KMP|MKL|DNNL|ONEDNN|OPENBLAS)_\w+"
    r"|LD_PRELOAD|MALLOC_CONF"
)
# ... but for those that say what to print, what is installed or which board is whose, those that
# scikit-learn sets as it is imported, those of Terraform, which has the same beginning (secrets
# among them), and those that have a tag of their own.
_NO_EXECUTION = re.compile(
    r"TF_CPP_\w+|TF_USE_LEGACY_KERAS|CUDA_(VISIBLE_DEVICES|DEVICE_ORDER|VERSION|HOME|PATH|ROOT)"
    r"|TF_(CLI|TOKEN|VAR|LOG|CLOUD|REGISTRY|STATE|PLUGIN_CACHE)_\w+"
    r"|TF_(LOG|INPUT|IGNORE|DATA_DIR|WORKSPACE|IN_AUTOMATION|REATTACH_PROVIDERS)"
    r"|KMP_(DUPLICATE_LIB_OK|INIT_AT_FORK)"
    r"|NVIDIA_(VISIBLE_DEVICES|DRIVER_CAPABILITIES|REQUIRE_\w+|PRODUCT_NAME)|XLA_FLAGS"
)
# By Keras's file, checked there by assertions as it is imported.
_KERAS_CHOICES = {
    "floatx": ("float16", "float32", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
}
# The values that TensorFlow takes for yes.
_YES = ("true", "True", "1")


def execution_settings(environment: Mapping[str, str] = os.environ) -> str:
    """Return the variables that change how a training is executed, ``none`` if none is set."""
    found = {
        name: value
        for name, value in sorted(environment.items())
        if _EXECUTION.fullmatch(name) and not _NO_EXECUTION.fullmatch(name)
    }
    return ", ".join(f"{name}={value}" for name, value in found.items()) or "none"


def check_settings(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse settings under which no training works, or under which a level is another one.

    Raises:
        OptionError: A variable, or Keras's own file of settings, is such a setting.
    """
    legacy = environment.get("TF_USE_LEGACY_KERAS")
    if legacy in _YES:
        raise OptionError(
            f"TF_USE_LEGACY_KERAS={legacy} has TensorFlow look for tf-keras, which this experiment "
            "does not use: unset it"
        )
    for jit in re.findall(r"tf_xla_auto_jit=(\S+)", environment.get("TF_XLA_FLAGS", "")):
        if jit not in ("0", "-1"):
            raise OptionError(
                f"TF_XLA_FLAGS with tf_xla_auto_jit={jit} compiles every level of internal by XLA, "
                "not jit_compilation alone: unset it"
            )
    home = environment.get("KERAS_HOME", os.path.join(os.path.expanduser("~"), ".keras"))
    _check_keras_file(Path(os.path.expanduser(home)) / "keras.json")


def check_flags(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse compiler flags that XLA does not know: it would abort every run in native code.

    Which it knows only it can tell: a process compiles an addition with them, without a GPU.

    Raises:
        OptionError: It did not compile it.
    """
    flags = [name for name in ("TF_XLA_FLAGS", "XLA_FLAGS") if environment.get(name)]
    if not flags:
        return
    program = "import tensorflow as tf; tf.function(lambda x: x + 1, jit_compile=True)(1.0)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        unknown = re.search(r"Unknown flags? in .*", done.stderr)
        why = unknown[0] if unknown else (done.stderr.strip().splitlines() or ["it ended"])[-1]
        raise OptionError(
            f"{' or '.join(flags)} cannot be used: {why.strip()}: correct it or unset it"
        )


def _check_keras_file(path: Path) -> None:
    """Refuse a file of settings that Keras could not be imported with."""
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise OptionError(f"Keras cannot read its settings {str(path)!r}: {error}") from error
    except ValueError:
        return  # Keras takes its own defaults then
    if not isinstance(content, dict):
        raise OptionError(
            f"Keras's settings {str(path)!r} must be an object, but are {content!r}: correct the "
            "file or remove it"
        )
    for name, choices in _KERAS_CHOICES.items():
        if content.get(name, choices[0]) not in choices:
            raise OptionError(
                f"{name} in Keras's settings {str(path)!r} must be one of {', '.join(choices)}, "
                f"but is {content[name]!r}: correct the file or remove it"
            )
    epsilon = content.get("epsilon", 1e-7)
    if not isinstance(epsilon, float):
        raise OptionError(
            f"epsilon in Keras's settings {str(path)!r} must be a number with a point, such as "
            f"1e-07, but is {epsilon!r}: correct the file or remove it"
        )
