"""Executes the notebooks and keeps their outputs: ``python -m notebooks.execute``.

Run it from the project's root. The store is the one that ``MLFLOW_TRACKING_URI`` names, by default
``mlflow.db`` there; ``GREEN_SCREEN_SWEEP`` names a campaign, by default the latest.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))

# Both differ each time: where an object lies in memory, and pandas' name of a styled table.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+>")
_STYLED = re.compile(r"\bT_[0-9a-f]{5}(?=[_\" ])")


def execute(
    notebook: Path,
    workdir: Path,
    output: Path | None = None,
    about: Mapping[str, str] | None = None,
) -> None:
    """Execute a notebook and write it, outputs included.

    Args:
        notebook: The notebook.
        workdir: Where its kernel works: relative tracking URIs begin there.
        output: Where the result goes; ``None`` replaces the notebook.
        about: What the result's metadata say of it, as ``green_screen``.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised an error.
    """
    content = nbformat.read(notebook, as_version=4)
    NotebookClient(
        content,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(workdir)}},
    ).execute()
    # Which Python ran it says nothing about the result and differs from machine to machine.
    content.metadata.pop("language_info", None)
    if about:
        content.metadata["green_screen"] = dict(about)
    for place, cell in enumerate(content.cells):
        for shown in cell.get("outputs", ()):
            for kind in {"text/plain", "text/html"} & set(shown.get("data", ())):
                text = _ADDRESS.sub(">", shown["data"][kind])
                shown["data"][kind] = _STYLED.sub(f"T_{place:05d}", text)
    nbformat.write(content, output or notebook)


def main() -> int:
    """Execute every notebook beside this file."""
    for notebook in NOTEBOOKS:
        print(notebook.name)
        execute(notebook, Path.cwd())
    return 0


if __name__ == "__main__":
    sys.exit(main())
