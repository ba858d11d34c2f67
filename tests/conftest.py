"""Shared by all tests. That this file is here puts its folder on the import path."""

import os
from pathlib import Path

import pytest

# Every test has a store of its own, also when the tests are started inside a run of MLflow's.
for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(variable, None)

# The files that take longest, the longest first. With `--no-loadscope-reorder` they are started in
# this order: one of them started last would leave the other processes idle.
_FOLDER = Path(__file__).parent
SLOW_FILES = [
    _FOLDER / name
    for name in (
        "sweep/test_faults_of_the_server.py",
        "analysis/test_notebooks.py",
        "cluster/test_deployment.py",
        "cluster/test_ray.py",
        "cluster/test_tracking_server.py",
        "sweep/test_faults_of_children.py",
        "sweep/test_faults_of_the_parent.py",
        "training/test_run.py",
        "training/test_quantization.py",
        "training/test_precision.py",
        "training/test_jit_compilation.py",
        "sweep/test_local.py",
        "training/test_augmentation.py",
        "analysis/test_analyze.py",
        "analysis/test_registry.py",
        "training/test_pipeline.py",
        "test_readme_examples.py",
        "test_tracking.py",
    )
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first; the others keep their order."""
    assert all(path.is_file() for path in SLOW_FILES), "SLOW_FILES names a file that is gone"
    place = {path: number for number, path in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
