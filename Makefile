# `make help` lists the targets. Everything runs in .venv, which is made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_DIR ?= runs/demo
ROOT ?=
SWEEPS ?= runs/sweeps
# Further arguments of a sweep, a table or the tests, e.g. ARGS='--small true --teacher_options "--data.weights FILE"'
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow bench-data bench-metrics check lint format clean

help: ## List the targets
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

$(BIN)/omiad: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --editable '.[dev]'
	@touch $@

demo: $(BIN)/omiad ## Install, then train, distil, test and show on synthetic data (about 5 minutes)
	$(BIN)/omiad demo --output $(DEMO_DIR)

test: $(BIN)/omiad ## Install, then run the tests
	$(BIN)/pytest $(ARGS)

test-slow: $(BIN)/omiad ## Install, then run the slow tests (sweeps, README, the default model)
	$(BIN)/pytest -m slow $(ARGS)

bench-data: $(BIN)/omiad ## Install, then measure indexing, decoding, the feature store and its reading
	$(BIN)/pytest -m benchmark -s tests/benchmarks/test_data.py

bench-metrics: $(BIN)/omiad ## Speed, memory and error of the pixel figures (about 5 minutes)
	$(BIN)/python tests/benchmarks/metrics.py

sweep-real: $(BIN)/omiad ## Experiments on ROOT=... with WEIGHTS=..., judged by artificial defects
	$(BIN)/python tests/benchmarks/sweep_real.py --root $(ROOT) --weights $(WEIGHTS) $(ARGS)

sweep-%: $(BIN)/omiad ## Both stages on ROOT=..., beside the paper (mvtec, visa, mpdd, realiad, folder)
	$(BIN)/omiad sweep $* $(ROOT) --output $(SWEEPS) $(ARGS)

table-%: $(BIN)/omiad ## A table of the paper beside one's own figures (1, 12; with ROOT=... 3, 13, 14, 15)
	$(BIN)/omiad table $* $(if $(ROOT),--root $(ROOT)) --output $(SWEEPS) $(ARGS)

check: lint test ## Everything CI runs

lint: $(BIN)/omiad ## Style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(BIN)/omiad ## Rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what the targets made, except runs/
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
