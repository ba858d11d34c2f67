"""Whether CPU energy is measured or modelled, and the advice for the second case."""

from __future__ import annotations

from pathlib import Path

import pytest

from green_screen.power import rapl


def package(folder: Path, name: str, content: str | None) -> Path:
    (folder / name).mkdir(parents=True)
    counter = folder / name / "energy_uj"
    if content is None:
        counter.mkdir()  # unreadable for root too, which the tests may run as
    else:
        counter.write_text(content, encoding="ascii")
    return counter


def test_readable_counters_are_a_measurement(tmp_path):
    package(tmp_path, "intel-rapl:0", "123456789\n")
    package(tmp_path, "intel-rapl:0:0", "1\n")  # a part of the package
    assert rapl.cpu_source(tmp_path) == rapl.CpuSource("rapl")


def test_unreadable_counters_come_with_the_command_that_allows_them(tmp_path):
    package(tmp_path, "intel-rapl:0", "1\n")
    closed = package(tmp_path, "intel-rapl:1", None)
    source = rapl.cpu_source(tmp_path)
    assert source.source == "codecarbon_estimate"
    assert source.can_be_allowed
    assert source.hint.endswith(f"sudo chmod a+r {closed}")


@pytest.mark.parametrize("name", ["nothing", "intel-rapl:0:0"])
def test_without_counters_it_says_why(tmp_path, name):
    package(tmp_path, name, "1\n")
    source = rapl.cpu_source(tmp_path)
    assert source.source == "codecarbon_estimate"
    assert not source.can_be_allowed
    assert "no RAPL counter" in source.hint
