# Barflow's make targets. `make` alone lists them.
SHELL := bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
UV_VERSION := 0.13.9
ARGS ?=

.PHONY: help setup demo dashboard test lint bench clean lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: .venv/.ready node_modules/.ready ## install everything into .venv and node_modules (quick when nothing changed)

.venv/.ready: requirements-dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or run make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing the pinned packages into .venv (about a minute on a first run)" >&2
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements-dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# npm comes with the Node of the virtual environment; what it starts must find that Node first, too.
node_modules/.ready: package.json package-lock.json .npmrc | .venv/.ready
	@echo "installing the pinned packages into node_modules (some seconds)" >&2
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --loglevel=error --no-progress >/dev/null
	@touch $@

demo: .venv/.ready ## the whole pipeline on this machine; ARGS="--symbols AAPL,NVDA"
	@$(BIN)/barflow demo $(ARGS)

dashboard: setup ## the analysts' page on what the demo stored; ARGS="--port 8080"
	@$(BIN)/barflow dashboard $(ARGS)

test: lint ## lint, types, import rules and the whole test suite; ARGS="-k sessions"
	@$(BIN)/python -m pytest $(ARGS)

lint: setup ## ruff, mypy and import-linter
	@$(BIN)/ruff format --check -q . || { echo "run .venv/bin/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

bench: setup ## measure this machine: ratios against peers and limits
	@$(BIN)/python -m benchmarks $(ARGS)

LOCK := $(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
lock: setup ## compile requirements*.in into requirements*.txt with hashes
	@$(LOCK) requirements-airflow.in -o requirements-airflow.txt
	@$(LOCK) -c requirements-airflow.txt requirements-dev.in -o requirements-dev.txt
	@$(LOCK) -c requirements-airflow.txt requirements.in -o requirements.txt

clean: ## remove the demo's state and everything built
	@rm -rf .barflow .venv node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
