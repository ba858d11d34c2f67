"""Shared by all tests. That this file is here puts its folder on the import path."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

# What libraries and this project keep for a user is not the tests' to write; of several processes
# of tests the first one says where. Before MLflow is imported, which would count its imports.
if "PYTEST_XDIST_WORKER" not in os.environ:
    OWN = tempfile.TemporaryDirectory(prefix="green-screen-tests-")
    for name in ("GREEN_SCREEN_SPOOL", "CUDA_CACHE_PATH", "KERAS_HOME"):
        os.environ[name] = str(Path(OWN.name) / name.lower())
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
import pytest

# Every test has a store of its own, also when the tests are started inside a run of MLflow's.
for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(variable, None)

# What takes long, the longest first: `make test-all` runs all tests, `make test` those that are not
# marked `slow`: these files, and single tests elsewhere. With `--no-loadscope-reorder` files are
# started in this order: one of them started last would leave the other processes idle.
_FOLDER = Path(__file__).parent
SLOW = [
    _FOLDER / name
    for name in (
        # Real clusters, servers, deployments; kills, outages and full disks.
        "sweep/test_faults_of_the_server.py",
        "measurement/test_other_frameworks.py",
        "cluster/test_deployment.py",
        "cluster/test_ray.py",
        "analysis/test_notebooks.py",
        "cluster/test_tracking_server.py",
        "cluster/test_slurm.py",
        "sweep/test_faults_of_trainings.py",
        "sweep/test_faults_of_children.py",
        "sweep/test_faults_of_the_parent.py",
        "sweep/test_faults_of_the_output.py",
        "test_wheel.py",
        "test_no_telemetry.py",
        "executors/test_local.py",
        "training/test_checkpoint.py",
        "training/test_serving.py",
        "power/test_energy_accuracy.py",
        "test_readme_examples.py",
    )
]
LONG = [
    _FOLDER / name
    for name in (
        "training/test_run.py",
        "network/test_quantization.py",
        "network/test_precision.py",
        "network/test_jit_compilation.py",
        "data/test_augmentation.py",
        "analysis/test_analyze.py",
        "registry/test_registry.py",
        "data/test_pipeline.py",
        "tracking/test_tracking.py",
    )
]


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: to make its tables takes seconds, to copy them does not."""
    folder = tmp_path_factory.mktemp("migrated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where its default experiment will have its artifacts
        mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store(
    migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A fresh sqlite store in the working folder, which is the current one; its URI."""
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{shutil.copy(migrated_database, tmp_path / 'mlflow.db')}"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow files and put them first, then the long ones; the others keep their order."""
    first = [*SLOW, *LONG]
    assert all(path.is_file() for path in first), "SLOW or LONG names a file that is gone"
    place = {path: number for number, path in enumerate(first)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
    for item in items:
        if item.path in SLOW:
            item.add_marker("slow")
