"""Whether every combination of precision, internal, batch size and optimizer trains.

    python -m benchmarks.every_combination --dataset cifar10-12k.zip --out DIR

trains each for two epochs on few images, in a process of its own, several on each GPU at once: it
tells what trains, what diverges and what crashes, and measures no energy. `DIR/combinations.csv`
gets a row as each ends, and the same command does those that are missing there (take out a row to
have it done again); `DIR/combinations.md` is the table. Requested combinations that execute the
same are trained once.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import time
from collections import Counter
from pathlib import Path

import mlflow

from green_screen import names, tracking
from green_screen.executors.executor import Job, Outcome
from green_screen.executors.local import LocalExecutor, local_devices
from green_screen.options import TrainOptions
from green_screen.space import Space, TrainingConfig, canonical, resolve
from green_screen.sweep.runner import Ended, run_jobs

FACTORS = ("precision", "internal", "batch_size", "optimizer")
TRAINER = "benchmarks.brief_training:train_briefly"
COLUMNS = (*FACTORS, "outcome", "seconds", "first_epoch_s", "loss", "val_loss", "test_loss")

Levels = tuple[str, ...]  # of FACTORS

# The longest first, so that none is left alone at the end.
LONGEST_FIRST = ("jit_compilation", "pre_quantization", "post_quantization", "None")
HALF_PRECISION = ("float16", "global_policy_float16")


def levels_of(config: TrainingConfig) -> Levels:
    """Return the levels of the four factors."""
    return tuple(canonical(getattr(config, factor)) for factor in FACTORS)


def plan(only: dict[str, list[str]]) -> dict[Levels, list[TrainingConfig]]:
    """Return what is executed -> the requested configurations that execute it, the longest first.

    Learning rate and preprocessing are such that a sound combination has no reason to diverge.

    Args:
        only: Factor -> the levels that are wanted, where it is not all.
    """
    space = Space.load()
    choices = [
        [v for v in space.levels[f] if f not in only or canonical(v) in only[f]] for f in FACTORS
    ]
    found: dict[Levels, list[TrainingConfig]] = {}
    for values in itertools.product(*choices):
        levels = dict(zip(FACTORS, values, strict=True))
        config = space.parse({"lr": 0.0008, "preprocessing": "standardization", **levels})
        found.setdefault(levels_of(resolve(config).effective), []).append(config)

    def order(executed: Levels) -> tuple[int, bool, bool]:
        precision, internal, batch_size, _ = executed
        known_to_crash = precision in HALF_PRECISION and batch_size == "4"
        return LONGEST_FIRST.index(internal), not known_to_crash, precision != "float64"

    return {executed: found[executed] for executed in sorted(found, key=order)}


def row_of(ended: Ended, executed: Levels) -> dict[str, str]:
    """Return a combination's row: what became of it, its seconds and its losses."""
    reason, metrics = ended.result.reason, ended.run.data.metrics
    if ended.result.outcome is Outcome.FINISHED:
        diverged = ended.run.data.tags[names.TAG_DIVERGED] == "true"
        outcome = "diverges" if diverged else "trains"
    elif reason.startswith(names.NATIVE_CRASH):
        outcome = f"crashed: {reason.removeprefix(names.NATIVE_CRASH + ': ')}"
    else:
        outcome = f"failed: {reason}"
    figures = ("first_epoch_s", "loss", "val_loss", "test_loss")
    return {
        **dict(zip(FACTORS, executed, strict=True)),
        "outcome": " ".join(outcome.split()),
        "seconds": f"{ended.result.wall_s:.1f}",
        **{name: f"{metrics[name]:.4g}" for name in figures if name in metrics},
    }


def read_rows(path: Path) -> dict[Levels, dict[str, str]]:
    """Return the rows so far by what was executed."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {tuple(row[f] for f in FACTORS): row for row in csv.DictReader(file)}


def add_row(path: Path, row: dict[str, str]) -> None:
    """Append a row to the file, which is made with the first."""
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def markdown(
    planned: dict[Levels, list[TrainingConfig]], rows: dict[Levels, dict[str, str]]
) -> str:
    """Return the table of all requested combinations, one column an optimizer, and its sums."""
    cells: dict[Levels, dict[str, str]] = {}
    for executed, configs in planned.items():
        row = rows.get(executed)
        word = row["outcome"].partition(":")[0] if row else "not done yet"
        for config in configs:
            *place, optimizer = levels_of(config)
            here = (*place, optimizer) == executed
            text = f"{word}, {float(row['seconds']):.0f} s" if row and here else word
            same = "" if here else f" (executed as {executed[0]}, {executed[1]})"
            cells.setdefault(tuple(place), {})[optimizer] = text + same
    optimizers = list(dict.fromkeys(o for row in cells.values() for o in row))
    header = [*FACTORS[:3], *optimizers]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for place in sorted(cells, key=lambda p: (p[1], p[0], int(p[2]))):
        lines.append(f"| {' | '.join([*place, *(cells[place][o] for o in optimizers)])} |")
    done = [rows[executed] for executed in planned if executed in rows]
    counts = Counter(row["outcome"].partition(":")[0] for row in done)
    requested = sum(len(configs) for configs in planned.values())
    sums = ", ".join(f"{n} {word}" for word, n in counts.most_common()) or "none"
    lines += ["", f"{requested} requested, {len(planned)} executed, {len(done)} done: {sums}.", ""]
    for row in done:
        if row["outcome"] != "trains":
            levels = ", ".join(f"{factor}={row[factor]}" for factor in FACTORS)
            losses = f"loss {row['loss']}, {row['val_loss']}, {row['test_loss']} (training, "
            why = f"diverges: {losses}validation, test)" if row["loss"] else row["outcome"]
            lines.append(f"- {levels}: {why}")
    return "\n".join(lines) + "\n"


def only_of(wanted: list[str]) -> dict[str, list[str]]:
    """Return factor -> levels of a list of factor=level."""
    only: dict[str, list[str]] = {}
    for text in wanted:
        factor, _, level = text.partition("=")
        if factor not in FACTORS:
            raise SystemExit(f"levels must be of {', '.join(FACTORS)}, but got {text!r}")
        only.setdefault(factor, []).append(level)
    return only


def check_settings(path: Path, settings: dict[str, object]) -> None:
    """Keep the settings beside the rows, and refuse to mix rows of several."""
    if path.exists() and (found := json.loads(path.read_text(encoding="utf-8"))) != settings:
        raise SystemExit(f"{path.parent} holds combinations of {found}: choose another --out")
    path.write_text(json.dumps(settings), encoding="utf-8")


def main() -> None:
    """Train the missing ones, print each as it ends, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=320, help="images of all three parts")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--levels", nargs="*", default=[], help="factor=level, to do only these")
    parser.add_argument("--workers-per-gpu", type=int, default=4)
    parser.add_argument("--time_limit_s", type=float, default=180.0, help="of one combination")
    parser.add_argument("--budget_s", type=float, default=float("inf"), help="start none after it")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    start = time.monotonic()

    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "combinations.csv"
    options = TrainOptions(
        dataset=args.dataset,
        model=args.model,
        image_size=args.image_size,
        samples=args.samples,
        epochs=args.epochs,
    )
    settings = {name: getattr(args, name) for name in ("dataset", "model", "image_size")}
    settings |= {"samples": args.samples, "epochs": args.epochs}
    check_settings(args.out / "settings.json", settings)
    planned = plan(only_of(args.levels))
    missing = [executed for executed in planned if executed not in read_rows(path)]

    # Several processes share a board's memory.
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    os.environ["GREEN_SCREEN_SPOOL"] = str(args.out / "spool")
    mlflow.set_tracking_uri(f"sqlite:///{(args.out / 'mlflow.db').resolve()}")
    experiment = tracking.ensure_experiment("every combination")

    def make_job(position: int) -> Job:
        executed = missing[position]
        return Job(
            position=position,
            kind=names.KIND_RUN,
            config=planned[executed][0],
            options=options,
            run_id=tracking.create_child(None, " ".join(executed), {}, experiment),
            tracking_uri=tracking.store_uri(),
            time_limit_s=args.time_limit_s,
            trainer=TRAINER,
        )

    def on_end(ended: Ended) -> None:
        row = row_of(ended, missing[ended.result.job.position])
        add_row(path, row)
        done = len(read_rows(path))
        told = ", ".join(row[column] for column in (*FACTORS, "outcome"))
        passed_s = time.monotonic() - start
        print(f"[{done}] {told}, {row['seconds']} s ({passed_s:.0f} s passed)", flush=True)

    devices = [device for device in local_devices() for _ in range(args.workers_per_gpu)]
    with LocalExecutor(devices=devices) as executor:
        run_jobs(
            executor,
            range(len(missing)),
            make_job,
            on_end=on_end,
            on_lost=lambda ended: None,
            stop=lambda: time.monotonic() - start > args.budget_s,
        )
    rows = read_rows(path)
    table = markdown(planned, rows)
    (args.out / "combinations.md").write_text(table, encoding="utf-8")
    left = len([executed for executed in planned if executed not in rows])
    note = f"{left} are left: the same command does them\n" if left else ""
    print(f"\n{table}\n{note}{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
