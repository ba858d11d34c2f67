"""The settings of the XLA compiler, the same for every level."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "XLA_FLAGS"

# TensorFlow 2.15's generator of Triton kernels for matrix products gives the two operands of one
# multiplication different types where a half-precision product of a batch of 4 is fused with what
# surrounds it, and aborts the process. Without it cuBLAS computes the product.
NO_TRITON_PRODUCTS = "--xla_gpu_enable_triton_gemm=false"


def settle_flags() -> str:
    """Set XLA's flags for this process and return what they are, as ``XLA_FLAGS`` has them.

    What the user has set stays and comes last: of a flag that is given twice XLA takes the last.
    XLA reads them once, with its first compilation.
    """
    given = _given(os.environ.get(VARIABLE, ""))
    if NO_TRITON_PRODUCTS not in given.split():
        os.environ[VARIABLE] = f"{NO_TRITON_PRODUCTS} {given}".strip()
    return os.environ[VARIABLE]


def _given(value: str) -> str:
    """Return the user's flags, which are in a file where the variable's value is no flag.

    XLA passes over a file that it cannot read, and so does this.
    """
    if not value.strip() or value.lstrip().startswith("-"):
        return value.strip()
    try:
        return " ".join(Path(value).read_text(encoding="utf-8").split())
    except OSError:
        return ""
