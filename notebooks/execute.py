"""Executes the notebooks and keeps their outputs: ``python -m notebooks.execute``.

Run it from the project's root. The store is the one that ``MLFLOW_TRACKING_URI`` names, by default
``mlflow.db`` there; ``GREEN_SCREEN_SWEEP`` names a campaign, by default the latest.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(notebook: Path, workdir: Path, output: Path | None = None) -> None:
    """Execute a notebook and write it, outputs included.

    Args:
        notebook: The notebook.
        workdir: Where its kernel works: relative tracking URIs begin there.
        output: Where the result goes; ``None`` replaces the notebook.

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
    nbformat.write(content, output or notebook)


def main() -> int:
    """Execute every notebook beside this file."""
    for notebook in sorted(FOLDER.glob("*.ipynb")):
        print(notebook.name)
        execute(notebook, Path.cwd())
    return 0


if __name__ == "__main__":
    sys.exit(main())
