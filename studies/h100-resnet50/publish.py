"""Writes all that the study publishes from its stores, or checks it.

    .venv/bin/python studies/h100-resnet50/publish.py            # what the stores say so far
    .venv/bin/python studies/h100-resnet50/publish.py --check    # exit status 1 if files differ
    .venv/bin/python studies/h100-resnet50/publish.py --freeze pixels-32

The last writes a complete block's energy model, to be committed before new configurations are
drawn; their store, a folder ``new-pixels-32``, is ``new-pixels-32.tar.xz``. How well they were
predicted is then among the goals.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import green_screen  # noqa: F401  before MLflow: nothing is sent to anybody

# isort: split
import numpy as np
import pandas as pd
from answers import answers_table
from documents import made_html, other_store, pages, without_images, write_documents
from evidence import goals_table, uncertainty_table
from reading import (
    FOLDER,
    PLANNED,
    Block,
    DictionaryError,
    coefficients_file,
    read_blocks,
    read_dictionary,
    runs_table,
)
from telling import CRATE, crate, figures, page

from green_screen.registry.energy_service import energy_models, write_models

# Fits end a little elsewhere on another processor; what was logged must be the same.
RELATIVE = 1e-3
_NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def tables(folder: Path, blocks: dict[str, Block | None]) -> dict[str, pd.DataFrame]:
    """Return the tables by their names.

    Raises:
        DictionaryError: Their columns are not those of the data dictionary, which has their order.
    """
    dictionary = read_dictionary(folder)
    measured = _measured(blocks)
    found = {
        "runs": pd.concat([runs_table(block, dictionary) for block in measured]),
        "blocks": pd.concat([block.windows for block in measured]),
        "questions": pd.concat([answers_table(name, block) for name, block in blocks.items()]),
        "goals": pd.concat([goals_table(name, block) for name, block in blocks.items()]),
        "uncertainty": pd.concat(
            [uncertainty_table(name, block) for name, block in blocks.items()]
        ),
        "data_dictionary": dictionary,
    }
    for name, table in found.items():
        columns = list(dictionary.loc[dictionary["table"] == name, "column"])
        if odd := set(columns) ^ set(table.columns):
            raise DictionaryError(f"{name}.csv and the dictionary differ in {', '.join(odd)}")
        found[name] = table[columns]
    return found


def texts(folder: Path, blocks: dict[str, Block | None]) -> dict[str, str]:
    """Return the text files of the publication by their names in the folder."""
    made = tables(folder, blocks)
    found = {f"tables/{name}.csv": _csv(table) for name, table in made.items()}
    found["RESULTS.md"] = page(blocks, made)
    there = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    files = {name for name in there if "__pycache__" not in name} | set(found)
    found[CRATE] = crate(folder, files, _measured(blocks))
    return found


def _measured(blocks: dict[str, Block | None]) -> list[Block]:
    """Return the blocks that have runs, and those of new configurations."""
    found = [block for block in blocks.values() if block]
    return [*found, *(block.new for block in found if block.new)]


def _csv(table: pd.DataFrame) -> str:
    return table.map(_cell).to_csv(index=False, lineterminator="\n")


def _cell(value: object) -> str:
    if isinstance(value, pd.Timestamp):
        return value.isoformat(timespec="seconds")
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.0f}" if value.is_integer() else f"{value:.6g}"
    return "" if value is None else str(value)


def differences(name: str, committed: str, made: str) -> Iterator[str]:
    """Yield in words where two versions of a file differ by more than rounding."""
    lines = itertools.zip_longest(committed.splitlines(), made.splitlines(), fillvalue="")
    for number, (old, new) in enumerate(lines, start=1):
        digit = name.endswith((".md", ".html"))
        if not _same(old, new, digit=digit):
            cells = itertools.zip_longest(old.split(","), new.split(","), fillvalue="")
            pairs = (pair for pair in cells if not _same(*pair, digit=digit))
            before, after = next(pairs, (old, new))
            yield f"{name}, line {number}: committed {before!r}, from the stores {after!r}"


def _same(old: str, new: str, *, digit: bool) -> bool:
    """Return whether texts agree but for rounding, of decimals also by one in the last digit."""
    if old == new:
        return True
    if _NUMBER.sub("#", old) != _NUMBER.sub("#", new):
        return False
    for pair in zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True):
        a, b = (float(text.replace(",", "")) for text in pair)
        last = 10.0 ** -len(pair[0].partition(".")[2]) if digit and "." in pair[0] else 0.0
        if not abs(a - b) <= RELATIVE * max(abs(a), abs(b)) + 1.001 * last:
            return False
    return True


def check(folder: Path, blocks: dict[str, Block | None]) -> list[str]:
    """Return in words where the folder's files are not what its stores say."""
    found: list[str] = []
    for name, made in texts(folder, blocks).items():
        path = folder / name
        if path.is_file():
            found += differences(name, path.read_text("utf-8"), made)
        else:
            found.append(f"{name} is missing")
    return found


def check_documents(folder: Path) -> list[str]:
    """Return in words where reports and notebooks are not what the folder's stores say.

    The page is analysed anew and compared; of the others it is what they say they were made from.
    """
    found = list(other_store(folder))
    for name, archive in pages(folder):
        path = folder / name
        if path.is_file():
            committed = path.read_text("utf-8")
            found += differences(name, *map(without_images, (committed, made_html(archive))))
        else:
            found.append(f"{name} is missing")
    return found


def write(folder: Path, blocks: dict[str, Block | None]) -> None:
    """Write figures, tables, results and metadata into the folder."""
    (folder / "figures").mkdir(exist_ok=True)
    for figure in figures({name: block for name, block in blocks.items() if block}):
        (folder / "figures" / f"{figure.name}.svg").write_bytes(figure.wide_svg)
        (folder / "figures" / f"{figure.name}.png").write_bytes(figure.png)
    for name, text in texts(folder, blocks).items():
        (folder / name).write_text(text, encoding="utf-8")


def freeze(folder: Path, name: str, block: Block | None) -> str:
    """Write a complete block's energy model; return why not, or an empty text."""
    path = folder / coefficients_file(name)
    if block is None or not block.complete:
        return f"{name} is not complete: {block.progress if block else 'no run yet'}"
    if path.exists():
        return f"{path.name} is there: what was predicted with is not to be changed"
    models = energy_models(block.law, ())
    if models is None:
        return f"the law does not describe {name}"
    path.write_text(write_models(models), encoding="utf-8")
    return ""


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Write, check or freeze; return the exit status."""
    parser = argparse.ArgumentParser(description="The publication of the study, from its stores.")
    parser.add_argument("--check", action="store_true", help="write nothing: compare")
    parser.add_argument("--freeze", choices=PLANNED, help="write a complete block's energy model")
    asked = parser.parse_args(arguments)
    blocks = read_blocks(folder)
    if asked.freeze:
        problems = [why] if (why := freeze(folder, asked.freeze, blocks[asked.freeze])) else []
    elif asked.check:
        problems = check(folder, blocks) + check_documents(folder)
    else:
        problems = []
        write_documents(folder)  # first: the metadata list them
        write(folder, blocks)
    for problem in problems:
        print(problem, file=sys.stderr)
    return min(len(problems), 1)


if __name__ == "__main__":
    sys.exit(main())
