# make demo    train an image-to-text bridge on the embedded world, caption held-out scenes, write report.json
# make check   lint, types, fast tests
# make test    every test
# make prove   the figures too slow for a test: benchmarks/results/*.json; goes on where it was stopped
# make growth  loader against training, costs against size with a plot: benchmarks/results/loader.json, growth.json, .svg
#
# Each sets up .venv on a fresh machine and reuses it after. PYTHON=/path/to/python3.11 chooses the interpreter.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
	command -v $$name >/dev/null 2>&1 && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$name && break; done)
CORES := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
JOBS ?= $(shell [ $(CORES) -gt 8 ] && echo 8 || echo $(CORES))
# one thread a worker: on few cores, torch's own threads would only stand in each other's way
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.PHONY: help demo check test prove growth setup
.DEFAULT_GOAL := help

help:
	@sed -n '1,7s/^# \{0,1\}//p' Makefile

demo: $(READY)
	@rm -rf runs/demo
	@$(BIN)/python -m mmbridge.recipes.demo

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

test: $(READY)
	$(PYTEST)

prove: $(READY)
	$(BIN)/python benchmarks/killed.py
	$(BIN)/python benchmarks/digits.py
	$(BIN)/python benchmarks/first_bridge.py
	$(BIN)/python benchmarks/connector_study.py
	$(BIN)/python benchmarks/alignment_study.py
	$(BIN)/python benchmarks/subnetwork_study.py

growth: $(READY)
	$(BIN)/python benchmarks/loader.py
	$(BIN)/python benchmarks/growth.py

setup: $(READY)

$(READY): pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "mmbridge needs Python 3.11 or newer, found none; say which with PYTHON=/path/to/python3" >&2; exit 2; }
	@echo "setting up $(VENV) with $(PYTHON): a few minutes, once"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment; install its venv module" >&2; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(READY)
