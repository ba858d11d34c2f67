"""The report of each block, as HTML and PDF, and the project's notebooks executed on its store."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import mlflow
import nbformat
from reading import PLANNED, unpacked

from green_screen import names
from green_screen.analysis.analyze import analyze
from green_screen.options import AnalyzeOptions, option_params
from green_screen.report.findings import Findings
from green_screen.report.html import to_html
from green_screen.report.pdf import to_pdf
from green_screen.report.report import write_report

sys.path.append(str(Path(__file__).parents[2]))

from notebooks.execute import NOTEBOOKS, execute  # noqa: E402

_OPTIONS = AnalyzeOptions(experiment=names.EXPERIMENT, final_repeats=0)
SETTINGS = ("MLFLOW_", "GREEN_SCREEN_")  # what variables of ours begin with
_IMAGE = re.compile(r'"data:[^"]*"')


def documents_of(name: str) -> str:
    """Return the folder of a block's documents."""
    return f"reports/{name}"


def write_documents(folder: Path) -> None:
    """Write the documents of each block that has a store."""
    for name, archive in _archives(folder):
        into = folder / documents_of(name)
        into.mkdir(parents=True, exist_ok=True)
        with _alone(archive):
            findings = _analyzed(archive)
            report = write_report(findings)
            (into / names.REPORT_HTML).write_text(to_html(report), encoding="utf-8")
            # Dated by its last run: the same store gives the same file.
            made = findings.runs["start_time"].max().to_pydatetime()
            (into / names.REPORT_PDF).write_bytes(to_pdf(report, made))
            os.environ["GREEN_SCREEN_SWEEP"] = findings.campaign_run_id  # not the user's: `_alone`
            for notebook in NOTEBOOKS:
                execute(notebook, Path.cwd(), into / notebook.name, {"store": _digest(archive)})


def made_html(archive: Path) -> str:
    """Return the HTML report of a store."""
    with _alone(archive):
        return to_html(write_report(_analyzed(archive)))


def without_images(page: str) -> str:
    """Return a page without what is drawn in it, which another machine may draw another way."""
    return _IMAGE.sub('""', page)


def other_store(folder: Path) -> Iterator[str]:
    """Yield in words which documents are missing, or not of the store that is there."""
    for name, archive in _archives(folder):
        digest, where = _digest(archive), documents_of(name)
        pdf = folder / where / names.REPORT_PDF
        if not pdf.is_file() or digest.encode() not in pdf.read_bytes():
            yield f"{where}/{pdf.name} is not of this store"
        for notebook in NOTEBOOKS:
            executed = folder / where / notebook.name
            if not executed.is_file() or not _is_execution(executed, notebook, digest):
                yield f"{where}/{notebook.name} is not the notebook of now, executed on this store"


def pages(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name of each report's page, and the archive that it is of."""
    for name, archive in _archives(folder):
        yield f"{documents_of(name)}/{names.REPORT_HTML}", archive


def _archives(folder: Path) -> Iterator[tuple[str, Path]]:
    archives = {name: folder / f"{name}.tar.xz" for name in PLANNED}
    yield from ((name, archive) for name, archive in archives.items() if archive.is_file())


def _is_execution(executed: Path, notebook: Path, digest: str) -> bool:
    """Return whether a notebook was executed on a store, without an error or a warning."""
    done, source = (nbformat.read(path, as_version=4) for path in (executed, notebook))
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    shown = [output for cell in code for output in cell.outputs]
    return (
        done.metadata.get("green_screen") == {"store": digest}
        and [cell.source for cell in done.cells] == [cell.source for cell in source.cells]
        and all(cell.execution_count for cell in code)
        and not any(
            output.output_type == "error" or output.get("name") == "stderr" for output in shown
        )
    )


def _digest(archive: Path) -> str:
    return f"{archive.name}, SHA-256 {hashlib.sha256(archive.read_bytes()).hexdigest()}"


def _analyzed(archive: Path) -> Findings:
    """Return what the project's own analysis finds in the store that is worked in."""
    findings = analyze(_OPTIONS).findings
    options = ", ".join(f"{name}={value}" for name, value in option_params(_OPTIONS).items())
    # Not when and in which run: the copy of the store is thrown away with the analysis in it.
    return dataclasses.replace(
        findings,
        how=f"Made from {_digest(archive)}; campaign {findings.campaign_run_id}. "
        f"Options: {options}.",
    )


@contextlib.contextmanager
def _alone(archive: Path) -> Iterator[None]:
    """Work in a copy of a store, with nothing of the user's own store, settings or folders."""
    ours = {name: value for name, value in os.environ.items() if not _is_setting(name)}
    before = mlflow.get_tracking_uri()
    with unpacked(archive) as store:
        ours |= {
            # Whole, because MLflow remembers a database by its address.
            "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GREEN_SCREEN_SPOOL": str(store / "spool"),
            "IPYTHONDIR": str(store / "ipython"),
        }
        with mock.patch.dict(os.environ, ours, clear=True):
            mlflow.set_tracking_uri(ours["MLFLOW_TRACKING_URI"])
            try:
                yield
            finally:
                mlflow.set_tracking_uri(before)


def _is_setting(name: str) -> bool:
    return name.startswith(SETTINGS)
