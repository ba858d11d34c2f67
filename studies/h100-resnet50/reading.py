"""Reads the study's stores: the runs of each block, and the blocks of steps that they measured."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from green_screen import names
from green_screen.results.paging import search_all
from green_screen.results.runs import read_epochs, read_runs
from green_screen.statistics.law_analysis import LawAnalysis, analyze_law

FOLDER = Path(__file__).parent
# What is planned: a store of this name, with images of so many pixels.
PLANNED = {"pixels-32": 32, "pixels-224": 224}

# Since this version images are read and steps are traced faster: what its runs took before their
# first steady step is not to be compared with what later ones did.
EARLIER_START = ("94f154130f240ffcd44fd9ccd59c331f18542095",)
_OF_WINDOW = (
    names.STEADY_WINDOW_S,
    names.WINDOW_RESOLUTION_PERCENT,
    names.WINDOW_ERROR_PERCENT,
)
_OF_START = (names.SETUP_ENERGY_J, names.SETUP_S, names.WARMUP_ENERGY_J, names.WARMUP_S)

STEADY_POWER_W = "steady_power_w"
_COMMIT = "mlflow.source.git.commit"


class DictionaryError(ValueError):
    """A table and the data dictionary do not agree."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One part of the study.

    Attributes:
        name: As of its store.
        planned: Runs that it is to have.
        runs: Rows of :func:`~green_screen.results.runs.read_runs`; set-up and warm-up of
            :data:`EARLIER_START` are NaN.
        stored: Run id -> the run with all that was logged.
        windows: One row a measured block of steps or of validation, as ``blocks.csv``.
        coefficients: The energy model as JSON, committed when the block was complete; empty before.
        new: Runs of new configurations, drawn after that; ``None`` if there are none.
    """

    name: str
    planned: int
    runs: pd.DataFrame
    stored: Mapping[str, Run] = field(default_factory=dict)
    windows: pd.DataFrame = field(default_factory=pd.DataFrame)
    coefficients: str = ""
    new: Block | None = None

    @cached_property
    def law(self) -> LawAnalysis:
        """The energy law of the block."""
        return analyze_law(self.runs, permutations=0)

    @property
    def n_finished(self) -> int:
        """How many runs have finished."""
        return int((self.runs["status"] == "FINISHED").sum())

    @property
    def complete(self) -> bool:
        """Whether all planned runs have come to their end: one that failed is a result."""
        ended = self.runs["status"].isin(("FINISHED", "FAILED"))
        return self.runs.loc[ended, "place"].nunique() >= self.planned

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        return f"{self.n_finished} of {self.planned} runs"

    @property
    def power_limit_w(self) -> float:
        """The boards' power limit; NaN if it is not known."""
        limits = (run.data.tags.get(names.TAG_GPU_POWER_LIMIT_W) for run in self.stored.values())
        return float(next(filter(None, limits), "nan"))


def read_blocks(folder: Path) -> dict[str, Block | None]:
    """Return the planned blocks; ``None`` is one of which the folder has no store yet."""
    found: dict[str, Block | None] = {}
    for name in PLANNED:
        block, new = (_read_if_there(folder / f"{stem}.tar.xz") for stem in (name, f"new-{name}"))
        coefficients = folder / coefficients_file(name)
        text = coefficients.read_text("utf-8") if coefficients.is_file() else ""
        found[name] = block and dataclasses.replace(block, coefficients=text, new=new)
    return found


def _read_if_there(archive: Path) -> Block | None:
    return read_store(archive) if archive.is_file() else None


def coefficients_file(name: str) -> str:
    """Return the file of a block's committed coefficients."""
    return f"energy-model-{name}.json"


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Unpack a store and work in that copy: the archive itself is never opened for writing.

    In it, because its artifacts have relative paths, and MLflow makes a folder for them.
    """
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        store = Path(folder, store_name(archive))
        with contextlib.chdir(store):
            yield store


def store_name(archive: Path) -> str:
    """Return the name of a store, which is that of its folder, too."""
    return archive.name.removesuffix(".tar.xz")


def read_store(archive: Path) -> Block:
    """Read a store from a copy of its archive."""
    name = store_name(archive)
    with unpacked(archive) as store:
        client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
        runs = read_runs(experiment=names.EXPERIMENT, client=client)
        ids = list(runs["campaign"].unique())
        planned = [client.get_run(parent).data.tags[names.TAG_RUNS_PLANNED] for parent in ids]
        experiments = [known.experiment_id for known in client.search_experiments()]
        found = {run.info.run_id: run for run in search_all(client, experiments, "")}
        stored = {run_id: found[run_id] for run_id in runs["run_id"]}
        windows = _windows(name, runs, client)
    return Block(
        name=name,
        planned=sum(map(int, planned)),
        runs=_prepared(name, runs, stored),
        stored=stored,
        windows=windows,
    )


def _prepared(name: str, runs: pd.DataFrame, stored: Mapping[str, Run]) -> pd.DataFrame:
    found = runs["run_id"].map(stored)
    comparable = ~found.map(lambda run: run.data.tags.get(_COMMIT, "")).isin(EARLIER_START)
    power_w = runs[names.ENERGY_PER_1K_IMAGES_J] * runs[names.STEADY_IMAGES_PER_S] / 1000
    return runs.assign(
        block=name,
        order=runs["position"],
        start_comparable=comparable,
        **{STEADY_POWER_W: power_w},
        **{metric: runs[metric].where(comparable) for metric in _OF_START},
        **{m: found.map(lambda run, m=m: run.data.metrics.get(m, np.nan)) for m in _OF_WINDOW},
    )


def _windows(name: str, runs: pd.DataFrame, client: MlflowClient) -> pd.DataFrame:
    parts = {
        "steps": (names.BLOCK_STEPS, names.BLOCK_S, names.BLOCK_ENERGY_J),
        "validation": ("", names.VALIDATION_BLOCK_S, names.VALIDATION_BLOCK_ENERGY_J),
    }
    found = []
    for part, (steps, seconds, joules) in parts.items():
        metrics = [metric for metric in (steps, seconds, joules) if metric]
        rows = read_epochs(list(runs["run_id"]), metrics=metrics, client=client)
        rows = rows.rename(
            columns={"epoch": "index", steps: "steps", seconds: "seconds", joules: "joules"}
        )
        found.append(rows.assign(part=part))
    order = runs.set_index("run_id")["position"]
    windows = pd.concat(found, ignore_index=True)
    windows = windows.assign(block=name, order=windows.pop("run_id").map(order))
    return windows.sort_values(["order", "part", "index"], ignore_index=True)


def read_dictionary(folder: Path) -> pd.DataFrame:
    """Return the data dictionary: which columns the tables have, in order, and what they say."""
    path = folder / "tables" / "data_dictionary.csv"
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def runs_table(block: Block, dictionary: pd.DataFrame) -> pd.DataFrame:
    """Return ``runs.csv`` of a block, by the sources that the dictionary names.

    Raises:
        DictionaryError: A metric that some run has a value of is in no column.
    """
    known = set(re.findall(r"metric (\w+)", "\n".join(dictionary["source"])))
    for run in block.stored.values():
        values = run.data.metrics.items()
        if unknown := {name for name, value in values if not np.isnan(value)} - known:
            raise DictionaryError(f"no column of the dictionary is of metric {min(unknown)}")
    out = block.law.excluded.set_index("run_id")["reason"]
    frame = block.runs.assign(left_out=block.runs["run_id"].map(out))
    of_runs = dictionary.loc[dictionary["table"] == "runs", ["column", "source"]]
    columns = {}
    for column, source in of_runs.itertuples(index=False, name=None):
        logged = re.fullmatch(r"(tag|param|metric) (\S+)", source)
        columns[column] = (
            [_logged(block.stored[run_id], *logged.groups()) for run_id in frame["run_id"]]
            if logged
            else list(frame[column])
        )
    return pd.DataFrame(columns)


def _logged(run: Run, kind: str, key: str) -> str | float | None:
    if kind == "metric":
        return run.data.metrics.get(key)
    of: Mapping[str, str] = run.data.tags if kind == "tag" else run.data.params
    return of.get(key)
