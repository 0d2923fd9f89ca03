# Everything runs from a fresh clone: `make demo`, `make test`.  `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := src tests $(wildcard examples tools benchmarks)
ISSUE ?= 01

# One thread per process: tests and benchmarks run as several processes.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1

# Modules are compiled once, not in each of the processes that tests start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo torch test check lint test-all bench accept clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/core.stamp  ## install the core and run keyword spotting on a flash compute-in-memory chip
	@$(BIN)/insitu demo

test: lint  ## `make lint`, then all default tests
	$(ONE_THREAD) $(BIN)/python -m pytest

check: lint  ## `make lint`, then the fast tests
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not slow and not long"

test-all: lint  ## `make lint`, then every test, the long ones too
	$(ONE_THREAD) $(BIN)/python -m pytest -m "slow or not slow"

lint: $(VENV)/dev.stamp  ## format, lint, types, layers
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	@$(ONE_THREAD) $(BIN)/python -m tests.warm & $(BIN)/pyright --pythonpath $(BIN)/python; code=$$?; wait; exit $$code
	$(BIN)/lint-imports

torch: $(VENV)/torch.stamp  ## install the PyTorch extra (the CPU build where the package index offers it)

bench: $(VENV)/core.stamp  ## every benchmark of insitu.bench
	@if [ -d src/insitu/bench ]; then $(BIN)/insitu bench; else echo "no benchmarks yet"; fi

accept: $(VENV)/dev.stamp  ## run acceptance/NN.yaml and write docs/status.md: make accept ISSUE=01
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/accept.py $(ISSUE)

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist

# Installing happens once; a stamp is older than the files that say what to install.
$(VENV)/pip.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or too old; needs Python 3.11 or later. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/core.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	$(PIP) install --no-compile --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/pip.stamp pyproject.toml constraints.txt
	$(PIP) install --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/core.stamp

$(VENV)/torch.stamp: $(VENV)/dev.stamp
	$(PIP) install --no-compile --constraint constraints.txt --editable '.[dev,torch]'
	@touch $@
