# Every target sets up what it needs: a virtual environment in .venv from the hash-pinned lock.
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
PORT ?= 5000

# The CUDA libraries (2.4 GB) only where an NVIDIA driver is; they are for x86_64 alone.
DRIVER := $(wildcard /proc/driver/nvidia/version) $(shell command -v nvidia-smi 2>/dev/null)
X86 := $(filter x86_64,$(shell uname -m))
LOCK := $(if $(and $(strip $(DRIVER)),$(X86)),requirements-gpu.lock,requirements.lock)

# The first campaign, on the bundled digits: ResNet-50 on a GPU, a smaller network on two CPU cores.
ifeq ($(LOCK),requirements-gpu.lock)
QUICK ?= --config green_screen/quick_gpu.yaml --dataset digits --model resnet50 --image_size 32 --epochs 14 \
  --design balanced --n_runs 10 --baseline_every 5
QUICK_PAIRS := 3
QUICK_NOTE := ResNet-50 on a GPU: 13 runs, then 6 to compare; less than a quarter of an hour on an H100
else
QUICK ?= --config green_screen/quick.yaml --dataset digits --model resnet8 --image_size 12 --epochs 8 \
  --design grid --grid_factors batch_size,precision,lr_schedule --replicates 4 --baseline_every 6
# Estimates follow the time a run takes, which varies with what else the machine does.
QUICK_PAIRS := 5
QUICK_NOTE := No GPU: a small network on the CPU, energies are estimates. 15 runs, then 10 to compare; minutes.\n$\
  Half precision is left out: a CPU only emulates it.
endif
QUICK_ANALYSIS ?= --objective energy --min_accuracy 0.9 --final_repeats $(QUICK_PAIRS)
# The published settings.
STUDY ?= --n_runs 100 --dataset cifar100 --model resnet50 --epochs 50 --design balanced --baseline_every 10 \
  --max_window_s 10 --cooldown_band_c 15 --cooldown_timeout_s 20

export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_TRACKING_URI ?= sqlite:///mlflow.db
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup sweep study study-tables status ui test coverage test-rest test-slow test-all lint format notebooks lock clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/installed ## Install everything into .venv

# uv comes from the same lock, hashes checked, and installs the rest in parallel.
$(VENV)/installed: $(LOCK) pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: TensorFlow 2.15 and TensorFlow Addons need Python 3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) from $(LOCK)"
	@$(PYTHON) -m venv $(VENV)
	@awk '/^uv==/ { p = 1 } p { print } p && !/\\$$/ { exit }' $(LOCK) > $(VENV)/uv.lock
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	@$(PY) -m uv pip install --quiet --python $(PY) --require-hashes -r $(LOCK)
	@$(PY) -m uv pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

sweep: setup ## The main job, small: a campaign, its analysis, a comparison, a registered model
	@printf '$(QUICK_NOTE)\n'
	@$(PY) -m entrypoints.sweep $(QUICK)
	@$(PY) -m entrypoints.analyze $(QUICK_ANALYSIS)

study: setup ## The published settings: 100 configurations screened for their energy, then halved for their accuracy
	$(PY) -m entrypoints.sweep --protocol screening $(STUDY)
	$(PY) -m entrypoints.analyze
	$(PY) -m entrypoints.sweep --protocol halving $(STUDY)
	$(PY) -m entrypoints.analyze --final_epochs 50

study-tables: setup ## Tables, figures, reports and notebooks of studies/h100-resnet50 from its stores
	$(PY) studies/h100-resnet50/publish.py

status: setup ## The state of the latest campaign, from the store alone
	$(PY) -m entrypoints.status

ui: setup ## MLflow's pages on the same store, at http://127.0.0.1:5000 (PORT=...)
ifneq ($(filter http:% https:%,$(MLFLOW_TRACKING_URI)),)
	@echo "The store is a server, which has its pages itself: $(MLFLOW_TRACKING_URI)"
else
	$(PY) -m mlflow ui --backend-store-uri $(MLFLOW_TRACKING_URI) --port $(PORT)
endif

# A third process uses the cores while tests of servers and faults wait; tests/conftest.py has the order.
PYTEST := $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: setup ## The tests without the slow ones
	$(PYTEST) -m "not slow"

# Of the rooms that every figure comes from, by their own tests: Python 3.11 has no tracing that costs
# little, and with the whole suite it would take a fifth to a third more time.
CORE := power measurement statistics
coverage: setup ## The tests of meter and statistics, and how much of their code they run through
	$(PYTEST) -m "not slow" $(CORE:%=tests/%) $(CORE:%=--cov=green_screen.%) --cov-report=term:skip-covered

test-rest: setup ## What of `make test` is not of `make coverage`
	$(PYTEST) -m "not slow" $(CORE:%=--ignore=tests/%)

test-slow: setup ## The slow tests: servers, clusters, faults, notebooks
	$(PYTEST) -m slow

test-all: test test-slow ## All tests

lint: setup ## ruff and mypy, as CI runs them
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup ## Let ruff put the code in form
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

notebooks: setup ## Execute the notebooks on the store and keep their outputs
	$(PY) -m notebooks.execute

lock: pyproject.toml ## Resolve the pins of pyproject.toml again
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --extra experiment --extra dev --extra ray pyproject.toml -o requirements.lock
	$(PY) -m uv pip compile --quiet --python-platform x86_64-manylinux_2_28 --python-version 3.11 --generate-hashes --no-annotate --no-header --extra experiment --extra dev --extra ray --extra gpu pyproject.toml -o requirements-gpu.lock -c requirements.lock

clean: ## Remove the environment and caches; runs and their store stay
	rm -rf $(VENV) .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
