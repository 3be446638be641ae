# `make help` lists the targets. Everything runs in .venv, which is created on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_DIR ?= runs/demo
ROOT ?=
SWEEPS ?= runs/sweeps
# More arguments for a sweep, a table, the tests or the attacks, e.g. ARGS='--small --teacher_options "--data.weights FILE"'
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow fuzz soak bench-data bench-metrics check lint format clean

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

test-slow: $(BIN)/omiad ## Install, then run the slow tests (sweeps, documents, the default model)
	$(BIN)/pytest -m slow $(ARGS)

fuzz: $(BIN)/omiad ## Attack every file that omiad reads, e.g. ARGS="images names --seconds 600 --seed 7"
	PYTHONPATH=tests $(BIN)/python -m fuzz $(ARGS)

soak: $(BIN)/omiad ## Kill, interrupt, starve and exhaust the commands (hours), e.g. ARGS="--minutes 5"
	PYTHONPATH=tests $(BIN)/python -m soak $(ARGS)

bench-data: $(BIN)/omiad ## Install, then measure indexing, decoding, and building and reading the feature cache
	$(BIN)/pytest -m benchmark -s tests/benchmarks/test_data.py

bench-metrics: $(BIN)/omiad ## Measure speed, memory and error of the pixel metrics (about 5 minutes)
	$(BIN)/python tests/benchmarks/metrics.py

sweep-real: $(BIN)/omiad ## Run experiments on ROOT=... with WEIGHTS=..., judged by artificial defects
	$(BIN)/python tests/benchmarks/sweep_real.py --root $(ROOT) --weights $(WEIGHTS) $(ARGS)

sweep-%: $(BIN)/omiad ## Train and test both stages on ROOT=... (mvtec, visa, mpdd, realiad or folder)
	$(BIN)/omiad sweep $* $(ROOT) --output $(SWEEPS) $(ARGS)

table-%: $(BIN)/omiad ## Fill a table of the paper with your figures (1, 12; with ROOT=... 3, 13, 14, 15)
	$(BIN)/omiad table $* $(if $(ROOT),--root $(ROOT)) --output $(SWEEPS) $(ARGS)

check: lint test ## Run everything that CI runs

lint: $(BIN)/omiad ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(BIN)/omiad ## Reformat the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove everything the targets created, except runs/
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
