"""Whether CPU energy is measured or modelled, and the advice for the second case."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from green_screen.power import rapl


def domain(
    folder: Path, number: str, name: str, content: str | None, range_uj: int = 10**9
) -> Path:
    place = folder / f"intel-rapl:{number}"
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n", encoding="ascii")
    (place / "max_energy_range_uj").write_text(str(10**9), encoding="ascii")
    counter = place / "energy_uj"
    if content is None:
        counter.mkdir()  # unreadable for root too, which the tests may run as
    else:
        counter.write_text(content, encoding="ascii")
    return counter


def test_readable_counters_are_a_measurement(tmp_path):
    domain(tmp_path, "0", "package-0", "123456789\n")
    domain(tmp_path, "0:0", "core", None)  # a part of the package
    domain(tmp_path, "1", "psys", None)  # the platform is no package
    assert rapl.cpu_source(tmp_path) == rapl.CpuSource("rapl")


def test_a_part_of_the_packages_is_not_the_cpu(tmp_path):
    domain(tmp_path, "0", "package-0", "1\n")
    closed = domain(tmp_path, "1", "package-1", None)
    source = rapl.cpu_source(tmp_path)
    assert source.source == "codecarbon_estimate"
    assert source.can_be_allowed
    assert "for 1 of 2 packages" in source.hint
    assert source.hint.endswith(f"sudo chmod a+r {closed}")
    counters = rapl.Counters(tmp_path)
    assert counters.there and not counters.measure_cpu
    assert math.isnan(counters.read().cpu_j)


def test_counters_are_added_up_and_may_wrap(tmp_path):
    first = domain(tmp_path, "0", "package-0", "999000000")
    second = domain(tmp_path, "1", "package-1", "20000000")
    memories = [domain(tmp_path, f"{n}:0", "dram", f"{5 + 5 * n}000000") for n in (0, 1)]
    counters = rapl.Counters(tmp_path)
    assert counters.measure_cpu
    assert counters.read() == rapl.RaplTotals(0.0, 0.0)
    first.write_text("500000", encoding="ascii")  # 1.5 J after 999 J of 1000
    second.write_text("23000000", encoding="ascii")
    memories[1].write_text("11000000", encoding="ascii")
    totals = counters.read()
    assert (totals.cpu_j, totals.dram_j) == pytest.approx((4.5, 1.0))
    second.unlink()
    assert math.isnan(counters.read().cpu_j)
    second.write_text("24000000", encoding="ascii")
    assert counters.read().cpu_j == pytest.approx(5.5)


def test_memory_of_one_socket_is_not_the_memory(tmp_path):
    for number in "01":
        domain(tmp_path, number, f"package-{number}", f"{number}7000000")
    domain(tmp_path, "0:0", "dram", "1")
    totals = rapl.Counters(tmp_path).read()
    assert totals.cpu_j == 0.0 and math.isnan(totals.dram_j)


def test_dies_that_show_their_sockets_counter_are_counted_once(tmp_path):
    dies = [domain(tmp_path, str(n), f"package-0-die-{n}", f"7000000{n}") for n in range(3)]
    counters = rapl.Counters(tmp_path)
    for die in dies:
        die.write_text("75000000", encoding="ascii")
    assert counters.read().cpu_j == pytest.approx(5.0, abs=0.01)


@pytest.mark.parametrize(("number", "name"), [("0:0", "core"), ("0", "psys")])
def test_without_counters_it_says_why(tmp_path, number, name):
    domain(tmp_path, number, name, "1\n")
    source = rapl.cpu_source(tmp_path)
    assert source.source == "codecarbon_estimate"
    assert not source.can_be_allowed
    assert "no RAPL counter" in source.hint
