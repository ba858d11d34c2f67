"""Shared by all tests. That this file is here puts its folder on the import path."""

import os

# Every test has a store of its own, also when the tests are started inside a run of MLflow's.
for variable in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
    os.environ.pop(variable, None)
