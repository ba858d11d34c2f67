"""From a small real campaign to a served champion and executed notebooks: no simulation here."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import nbformat
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from simulated_campaign import SimulatedCampaign
from waiting import until

from green_screen import names, tracking
from green_screen.registry import registry
from notebooks.execute import execute

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
IMAGE_SIZE = 16
MODEL = registry.model_name("resnet8")

# Levels that two CPU cores train in a second or two.
CONFIG = """
factors:
  preprocessing: [None, standardization]
  augmentation: [None, random]
  precision: [float32]
  batch_size: [16, 32]
  partitioning: [60-20-20]
  lr: [0.01, 0.0008]
  lr_schedule: [constant, cosine]
  optimizer_momentum: [0.0, 0.9]
  optimizer: [SGD, Adam]
  internal: [None]
"""


class Store:
    """A store with a small campaign, and processes that work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def mlflow_run(self, entry_point: str, **options: object) -> str:
        """Run an entry point of MLproject; nothing but its own folder says where the project is."""
        words = ["-m", "mlflow", "run", str(ROOT), "-e", entry_point, "--env-manager", "local"]
        words += [word for key, value in options.items() for word in ("-P", f"{key}={value}")]
        return self.python(*words)

    def python(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("real"))
    (made.folder / "config.yaml").write_text(CONFIG)
    made.mlflow_run(
        "sweep",
        n_runs=2,
        dataset="digits",
        model="resnet8",
        epochs=2,
        samples=60,
        image_size=IMAGE_SIZE,
        # An epoch takes 30 ms, of which the estimate of energy knows nothing once in a while.
        min_window_s=0.5,
        config=made.folder / "config.yaml",
    )
    return made


@pytest.fixture(scope="module")
def analysed(store: Store) -> str:
    return store.mlflow_run("analyze", final_repeats=1)


@pytest.fixture(scope="module")
def champion(store: Store, analysed: str) -> str:
    return store.mlflow_run("promote", name=MODEL)


def test_the_analysis_ends_with_all_that_a_newcomer_needs(analysed: str) -> None:
    assert "The selected configuration trained with an estimated" in analysed
    # Lines are wrapped where the numbers' lengths put it.
    assert "energy than the baseline in one run each" in " ".join(analysed.split())
    assert "best configuration (efficiency)" in analysed
    assert "J, estimate" in analysed
    report = Path(analysed.split("report:")[1].splitlines()[0].strip())
    assert "estimates by CodeCarbon, not measurements" in report.read_text(encoding="utf-8")
    assert "make ui" in analysed.split("next:")[1]


def test_the_champion_predicts_in_a_fresh_process(store: Store, champion: str) -> None:
    assert "version 1: champion" in champion
    code = (
        "import mlflow, numpy as np, json\n"
        f"model = mlflow.pyfunc.load_model('models:/{MODEL}@champion')\n"
        f"images = np.zeros((2, {IMAGE_SIZE}, {IMAGE_SIZE}, 3), np.uint8)\n"
        "print(json.dumps(np.asarray(model.predict(images)).tolist()))"
    )
    probabilities = np.array(json.loads(store.python("-c", code).splitlines()[-1]))
    assert probabilities.shape == (2, 10)
    assert probabilities.sum(axis=1) == pytest.approx([1, 1], abs=1e-3)


def test_the_champion_is_served_over_http(store: Store, champion: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = f"models serve -m models:/{MODEL}@champion --env-manager local"
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *command.split(), "--port", str(port)],
        cwd=store.folder,
        env=store.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(lambda: _answers(f"http://127.0.0.1:{port}/ping", server))
        images = np.full((1, IMAGE_SIZE, IMAGE_SIZE, 3), 128, np.uint8)
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"inputs": images.tolist()}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            probabilities = np.array(json.load(answer)["predictions"])
        assert probabilities.shape == (1, 10)
        assert probabilities.sum() == pytest.approx(1, abs=1e-3)
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    assert server.poll() is None, f"the server ended with status {server.returncode}"
    try:
        with urllib.request.urlopen(url):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_on_a_real_campaign(
    notebook: Path, store: Store, analysed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in store.environment.items():
        monkeypatch.setenv(key, value)
    output = tmp_path / notebook.name
    execute(notebook, store.folder, output, {"store": "a small one"})
    executed = nbformat.read(output, as_version=4)
    assert executed.metadata["green_screen"] == {"store": "a small one"}
    # What is shown is the same each time: no place in memory, no random name.
    assert "Styler>" in output.read_text() and not re.search(" at 0x", output.read_text())
    assert set(re.findall(r"\bT_\w{5}", output.read_text())) <= {f"T_{i:05d}" for i in range(99)}
    cells = [c for c in executed.cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    pictures = [o for cell in cells for o in cell.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 2


def test_the_notebooks_say_what_a_campaign_of_failed_runs_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        failed = SimulatedCampaign(n_runs=2, failed=(0, 1, 2))
        failed.write(MlflowClient(), tracking.ensure_experiment(), "all failed")
        for notebook in NOTEBOOKS:
            # In this process: a kernel takes longer to start than all of it.
            exec(_code(notebook), {"display": print})
    finally:
        mlflow.set_tracking_uri(before)
    said = capsys.readouterr().out
    assert said.count("0 of 3 runs are used") == len(NOTEBOOKS)
    assert "Nothing is selected: no configuration meets the rule" in said
    assert "No resnet50 is a challenger." in said


def test_the_notebooks_tell_screenings_as_such_and_how_far_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        client, experiment = MlflowClient(), tracking.ensure_experiment()
        campaign = SimulatedCampaign(n_runs=24, protocol="screening")
        parent = campaign.write(client, experiment, "stopped")
        client.set_tag(parent, names.TAG_RUNS_PLANNED, "111")
        # Killed before it had logged anything.
        tags = {MLFLOW_PARENT_RUN_ID: parent, names.TAG_KIND: names.KIND_RUN}
        client.set_terminated(client.create_run(experiment, tags=tags).info.run_id, "KILLED")
        client.set_terminated(parent, "KILLED")
        for notebook in NOTEBOOKS:
            exec(_code(notebook), {"display": print})
    finally:
        mlflow.set_tracking_uri(before)
    said = capsys.readouterr().out
    assert f"Provisional: {len(campaign.design())} of 111 planned runs have finished." in said
    assert "'not known': 1" in said
    assert "Nothing is selected, so there is nothing to compare." in said
    assert "The baseline has no validation accuracy." in said and "of nan" not in said
    assert "No  is a challenger" not in said


def _code(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "code")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_defines_nothing(notebook: Path) -> None:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(ast.parse(_code(notebook))) if isinstance(node, kinds)]
