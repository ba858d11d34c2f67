"""No verdict depends on how fast a machine is: tests read no clock and wait for events."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
# The waits for events, and the time of simulated boards.
CLOCKS = {
    TESTS / "support" / name for name in ("waiting.py", "virtual_time.py", "simulated_nvml.py")
}
OTHERS = sorted(set(TESTS.rglob("*.py")) - CLOCKS)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_clock_is_read_and_no_wait_has_a_limit(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"time", "timeit"}
        if isinstance(node, ast.ImportFrom):
            assert node.module not in ("time", "timeit")
        if isinstance(node, ast.keyword):
            assert node.arg != "timeout", f"line {node.value.lineno}: pytest's is the one limit"
