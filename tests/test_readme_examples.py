"""The Python examples of the documentation run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [page for page in (ROOT / "README.md", ROOT / "docs" / "measuring.md") if page.exists()]


def examples() -> list[pytest.param]:
    """Return each different example once: pages may show the same one."""
    found: dict[str, str] = {}
    for page in PAGES:
        blocks = re.findall(
            r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S
        )
        for number, block in enumerate(blocks, start=1):
            found.setdefault(block, f"{page.stem}-{number}")
    return [pytest.param(block, id=name) for block, name in found.items()]


@pytest.mark.parametrize("code", examples())
def test_example(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    if "SMICallback" in code:
        assert (tmp_path / "smi" / "logs.csv").read_text(encoding="utf-8").count("\n") >= 4
    if "EnergyMeter" in code:
        assert re.search(r"\d J in \d+\.\d\d s, \w+", done.stdout)
