"""How far the measured energy can be trusted, and what measuring costs. Needs a GPU.

Run from the repository's root; each part writes a table ``<part>.md`` to the output folder and its
records to ``<part>.json``, from which it goes on where it was interrupted::

    python -m benchmarks.energy_accuracy --out energy_accuracy --zeus-path zeus

(a) The counter against sampled power, CodeCarbon and Zeus, on the same windows of a load that keeps
    the GPU busy and of one that waits for the host.
(b) What measuring costs: epochs with and without the meter, in pairs whose order alternates.
(c) How much the energy per 1,000 images varies between runs of one configuration with XLA, each in
    a process of its own, as in a campaign. They stay in ``mlflow.db`` in the output folder.
(d) What a single power reading at the end of each epoch would have said.

Zeus needs packages that this environment cannot hold. It is read from a folder of its own, made by
``pip install --no-deps --target zeus zeus httpx httpcore h11 anyio idna certifi``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import mlflow
import tensorflow as tf
from scipy import stats

from benchmarks.jobs import run_job
from benchmarks.measured_training import LEVELS, Training
from green_screen import names
from green_screen.executors.local import LocalExecutor, local_devices
from green_screen.measurement.run_measurement import synchronize_gpu
from green_screen.options import TrainOptions
from green_screen.power.meter import EnergyMeter
from green_screen.space import Space

PARTS = "abcd"
READS = 30


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, apart from where to."""

    model: str
    samples: int
    batch_size: int
    matrix: int
    warm_up_s: float
    window_s: float
    repeats: int
    pairs: int
    replicates: int
    end_epochs: int


class Results:
    """The records of one part in a file, saved after each one."""

    def __init__(self, folder: Path, part: str, settings: Settings) -> None:
        """Open the part's file, or go on with it.

        Raises:
            SystemExit: The file was made with other settings.
        """
        self.path = folder / f"{part}.json"
        self.content: dict[str, Any] = {
            "settings": asdict(settings),
            "date": date.today().isoformat(),
            "device": "",
            "records": [],
        }
        if self.path.exists():
            self.content = json.loads(self.path.read_text(encoding="utf-8"))
            if self.content["settings"] != asdict(settings):
                raise SystemExit(f"{self.path} was made with other settings: choose another --out")

    @property
    def records(self) -> list[dict[str, Any]]:
        """What was measured so far."""
        found: list[dict[str, Any]] = self.content["records"]
        return found

    def has(self, **key: object) -> bool:
        """Whether a record with these values is there."""
        return any(key.items() <= record.items() for record in self.records)

    def add(self, record: Mapping[str, Any], device: str) -> None:
        """Keep a record, on disk too."""
        self.content["device"] = device
        self.records.append(dict(record))
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.content, indent=1), encoding="utf-8")
        part.replace(self.path)
        print(
            {k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()}, flush=True
        )


# (a) The same windows by every method.


def busy_load(size: int) -> Callable[[], None]:
    """Return a piece of work that keeps the GPU busy: products of matrices, one after another."""
    matrix = tf.random.stateless_normal((size, size), seed=(1, 2)) / math.sqrt(size)

    @tf.function
    def work(x: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(20):
            x = tf.matmul(x, matrix)
        return tf.reduce_sum(x)

    return lambda: float(work(matrix)) and None


def waiting_load() -> Callable[[], None]:
    """Return a piece of work that waits for the host: thousands of tiny operations."""
    one = tf.ones((64, 64))

    def work() -> None:
        x = one
        for _ in range(1000):
            x = x + one
        float(x[0, 0])

    return work


def keep_on(work: Callable[[], None], seconds: float) -> None:
    """Repeat `work` for so long."""
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        work()


def compare_sources(results: Results, settings: Settings, zeus_path: Path | None) -> None:
    """Measure windows of two loads by the counter, by samples, by CodeCarbon and by Zeus."""
    zeus = zeus_monitor(zeus_path)
    loads = {"GPU-bound": busy_load(settings.matrix), "host-bound": waiting_load()}
    with EnergyMeter(synchronize=synchronize_gpu) as meter:
        device = require_gpu(meter)
        for load, work in loads.items():
            todo = [n for n in range(settings.repeats) if not results.has(load=load, repeat=n)]
            if todo:
                # The power reading is a mean of the last second, and clocks settle as a board
                # gets warm.
                keep_on(work, settings.warm_up_s)
            for repeat in todo:
                if zeus is not None:
                    zeus.begin_window("window", sync_execution=False)
                start = meter.mark()
                keep_on(work, settings.window_s)
                reading = meter.between(start, meter.mark())
                zeus_j = math.nan
                if zeus is not None:
                    window = zeus.end_window("window", sync_execution=False)
                    zeus_j = float(window.total_energy)
                record = {
                    "load": load,
                    "repeat": repeat,
                    "seconds": reading.seconds,
                    "mean_power_w": reading.mean_power_w,
                    "resolution_j": reading.resolution_j,
                    "counter_j": reading.counter_j,
                    "integral_j": reading.integral_j,
                    "codecarbon_j": reading.carbon.gpu_kwh * 3.6e6,
                    "zeus_j": zeus_j,
                }
                results.add(record, device)


def zeus_monitor(folder: Path | None) -> Any:
    """Return a monitor of Zeus from its own folder, or ``None`` without one."""
    if folder is None:
        return None
    if not (folder / "zeus").is_dir():
        raise SystemExit(f"--zeus-path {folder} holds no folder `zeus`")
    sys.path.append(str(folder.resolve()))  # at the end: our packages come first
    from zeus.monitor import ZeusMonitor

    return ZeusMonitor()


def table_a(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Deviation from the counter in percent: mean, and the largest in absolute value."""
    lines = [
        "| load | windows | s | W | resolution % | integral % | CodeCarbon % | Zeus % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for load in dict.fromkeys(record["load"] for record in records):
        rows = [record for record in records if record["load"] == load]
        cells = [load, str(len(rows))]
        cells += [f"{mean(rows, 'seconds'):.1f}", f"{mean(rows, 'mean_power_w'):.0f}"]
        cells.append(f"{100 * mean(rows, 'resolution_j') / mean(rows, 'counter_j'):.2f}")
        for method in ("integral_j", "codecarbon_j", "zeus_j"):
            off = [100 * (row[method] / row["counter_j"] - 1) for row in rows]
            worst = max(off, key=abs)
            cells.append(f"{statistics.fmean(off):+.2f} (at most {worst:+.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


# (b) With and without.


def compare_cost(results: Results, settings: Settings, training: Training) -> None:
    """Time epochs with and without the meter, next to each other."""
    for pair in range(settings.pairs):
        if results.has(pair=pair):
            continue
        seconds: dict[str, float] = {}
        for condition in ("with", "without") if pair % 2 else ("without", "with"):
            with EnergyMeter(synchronize=synchronize_gpu) as meter:
                device = require_gpu(meter)
                if condition == "with":
                    seconds[condition] = training.epoch(meter).seconds
            # The GPU has waited for as long before either of the two.
            if condition == "without":
                seconds[condition] = training.epoch(None).seconds
        results.add(
            {"pair": pair, "with_s": seconds["with"], "without_s": seconds["without"]}, device
        )


def reading_costs() -> dict[str, float]:
    """Return how long each kind of reading takes: medians in milliseconds."""
    with EnergyMeter() as meter:
        require_gpu(meter)
        board = meter.boards[0]
        readings: dict[str, Callable[[], object]] = {
            "energy counter": board.energy_j,
            "power": board.power_w,
            "status": board.status,
            "mark": lambda: meter.mark(read_carbon=False),
            "CodeCarbon": lambda: meter.with_carbon(meter.mark(read_carbon=False)),
        }
        return {name: _median_ms(read) for name, read in readings.items()}


def _median_ms(read: Callable[[], object]) -> float:
    found = []
    for _ in range(READS):
        begin_s = time.perf_counter()
        read()
        found.append(1000 * (time.perf_counter() - begin_s))
        time.sleep(0.06)  # CodeCarbon does not read twice within 0.06 s
    return statistics.median(found)


def table_b(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Mean cost in percent, with its 95 % confidence interval over the pairs."""
    costs = [100 * (record["with_s"] / record["without_s"] - 1) for record in records]
    lines = [
        "| pairs | epoch without s | epoch with s | cost % | median % | 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    interval = "not known from one pair"
    if len(costs) > 1:
        half = float(stats.t.ppf(0.975, len(costs) - 1)) * statistics.stdev(costs)
        half /= math.sqrt(len(costs))
        centre = statistics.fmean(costs)
        interval = f"{centre - half:+.2f} to {centre + half:+.2f}"
    lines.append(
        f"| {len(costs)} | {mean(records, 'without_s'):.3f} | {mean(records, 'with_s'):.3f} | "
        f"{statistics.fmean(costs):+.2f} | {statistics.median(costs):+.2f} | {interval} |"
    )
    return lines


# (c) Runs of their own.

RUN_METRICS = (
    names.ENERGY_PER_1K_IMAGES_J,
    names.ENERGY_PER_1K_IMAGES_NET_J,
    names.STEADY_WINDOW_S,
    names.IDLE_POWER_W,
    names.STEADY_SM_CLOCK_MHZ,
)


def repeat_runs(results: Results, settings: Settings) -> None:
    """Train one configuration again and again, each time in a process of its own.

    This process must not have used the GPU before: it would be another process on it.
    """
    with EnergyMeter() as meter:
        device = require_gpu(meter)
    store = results.path.with_name("mlflow.db").resolve()
    mlflow.set_tracking_uri(f"sqlite:///{store}")
    options = TrainOptions(
        dataset="synthetic", model=settings.model, samples=settings.samples, epochs=2
    )
    config = Space.load().parse({**LEVELS, "batch_size": str(settings.batch_size)})
    with LocalExecutor(devices=local_devices()[:1]) as executor:
        for replicate in range(settings.replicates):
            if results.has(replicate=replicate):
                continue
            result = run_job(executor, config, options, experiment="replicates")
            data = mlflow.get_run(result.job.run_id).data
            tags = (names.TAG_ENERGY_SOURCE, names.TAG_MEASUREMENT_VALID, names.TAG_INVALID_REASON)
            record = {
                "replicate": replicate,
                "wall_s": result.wall_s,
                **{name: data.metrics.get(name, math.nan) for name in RUN_METRICS},
                **{name: data.tags.get(name, "") for name in tags},
            }
            results.add(record, device)


def table_c(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Spread over the runs, gross and net of idle power."""
    steady_s = mean(records, names.STEADY_WINDOW_S)
    valid = sum(record[names.TAG_MEASUREMENT_VALID] == "true" for record in records)
    lines = [
        f"{len(records)} runs, {valid} valid, steady windows of {steady_s:.1f} s in the mean",
        "",
        "| J per 1,000 images | mean | standard deviation % | lowest | highest |",
        "|---|---|---|---|---|",
    ]
    for label, name in (
        ("gross", names.ENERGY_PER_1K_IMAGES_J),
        ("net of idle", names.ENERGY_PER_1K_IMAGES_NET_J),
    ):
        values = [record[name] for record in records]
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        centre = statistics.fmean(values)
        lines.append(
            f"| {label} | {centre:.2f} | {100 * spread / centre:.2f} | {min(values):.2f} "
            f"| {max(values):.2f} |"
        )
    return lines


# (d) A reading at each epoch's end.


def read_at_the_ends(results: Results, settings: Settings, training: Training) -> None:
    """Measure the epochs of one training, and read power and utilization once after each."""
    with EnergyMeter(synchronize=synchronize_gpu) as meter:
        device = require_gpu(meter)
        board = meter.boards[0]
        for epoch in range(settings.end_epochs):
            if results.has(epoch=epoch):
                continue
            marks = training.epoch(meter)
            last_w, last_percent = board.power_w(), board.status().utilization_percent
            _, whole = marks.readings()
            record = {
                "epoch": epoch,
                "seconds": whole.seconds,
                "energy_j": whole.energy_j,
                "mean_power_w": whole.mean_power_w,
                "utilization_percent": whole.utilization_percent,
                "last_power_w": last_w,
                "last_utilization_percent": last_percent,
            }
            results.add(record, device)


def table_d(epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Energy by one reading an epoch, times the epoch's length, against the counter."""
    mean_w, last_w = mean(epochs, "mean_power_w"), mean(epochs, "last_power_w")
    off = [100 * (e["last_power_w"] * e["seconds"] / e["energy_j"] - 1) for e in epochs]
    return [
        "| epochs | s each | mean W by the counter | mean W read at the ends | error % "
        "| largest error % | mean utilization % | median utilization read % |",
        "|---|---|---|---|---|---|---|---|",
        f"| {len(epochs)} | {mean(epochs, 'seconds'):.2f} | {mean_w:.0f} | {last_w:.0f} "
        f"| {statistics.fmean(off):+.1f} | {max(off, key=abs):+.1f} "
        f"| {mean(epochs, 'utilization_percent'):.0f} "
        f"| {statistics.median(e['last_utilization_percent'] for e in epochs):.0f} |",
    ]


def mean(records: Sequence[Mapping[str, Any]], key: str) -> float:
    """Mean of one column."""
    return statistics.fmean(record[key] for record in records)


def require_gpu(meter: EnergyMeter) -> str:
    """Return the boards in words, or end if there is none."""
    if not meter.boards:
        raise SystemExit(f"this benchmark needs a GPU: {meter.no_gpu_reason}")
    return "; ".join(board.name for board in meter.boards)


def write_table(results: Results, part: str, lines: Sequence[str]) -> None:
    """Write a part's table beside its figures."""
    heading = f"({part}) {results.content['device']}, {results.content['date']}"
    text = "\n".join([heading, "", *lines, ""])
    results.path.with_name(f"{part}.md").write_text(text, encoding="utf-8")
    print(text, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="output folder")
    parser.add_argument("--parts", default=PARTS, help="which of a, b, c and d (default: all)")
    parser.add_argument("--zeus-path", type=Path, help="folder that holds Zeus")
    for name, default in {
        "model": "resnet50",
        "samples": 24_000,
        "batch_size": 128,
        "matrix": 8192,
        "warm_up_s": 10.0,
        "window_s": 8.0,
        "repeats": 5,
        "pairs": 12,
        "replicates": 10,
        "end_epochs": 30,
    }.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    values = vars(parser.parse_args(argv))
    folder, parts, zeus_path = values.pop("out"), values.pop("parts"), values.pop("zeus_path")
    if not parts or not set(parts) <= set(PARTS):
        parser.error(f"--parts must be among {PARTS}, but got {parts!r}")
    settings = Settings(**values)
    folder.mkdir(parents=True, exist_ok=True)

    if "c" in parts:  # before this process uses the GPU
        results = Results(folder, "c", settings)
        repeat_runs(results, settings)
        write_table(results, "c", table_c(results.records))
    if "a" in parts:
        results = Results(folder, "a", settings)
        compare_sources(results, settings, zeus_path)
        write_table(results, "a", table_a(results.records))
    training = Training(settings) if set(parts) & set("bd") else None
    if training is not None and "b" in parts:
        results = Results(folder, "b", settings)
        compare_cost(results, settings, training)
        costs = reading_costs()
        lines = ["", "| one reading | ms |", "|---|---|"]
        lines += [f"| {name} | {milliseconds:.2f} |" for name, milliseconds in costs.items()]
        write_table(results, "b", table_b(results.records) + lines)
    if training is not None and "d" in parts:
        results = Results(folder, "d", settings)
        read_at_the_ends(results, settings, training)
        write_table(results, "d", table_d(results.records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
