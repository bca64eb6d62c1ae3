# Barflow's make targets. `make` alone lists them.
SHELL := bash
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
ARGS ?=
ENV ?= dev
# Test processes at a time. Tests that share fixtures stay in one process (tests/scheduling.py).
WORKERS ?= 3
# A test run starts hundreds of programs. Without byte code, each compiles the project again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo dashboard airflow test test-host test-all contract pictures lint docs bench synth diff deploy-local rehearse clean lock notice audit

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: .venv/.ready node_modules/.ready build/.bundles ## install everything into .venv and node_modules (quick when nothing changed)

# The packages' byte code is written here: where the environment sets PYTHONDONTWRITEBYTECODE, as many containers do,
# each program would compile what it imports, which takes it a second.
.venv/.ready: requirements-dev.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or run make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@echo "installing the pinned packages into .venv (about a minute on a first run)" >&2
	@sed -n '/^uv==/,/[^\\]$$/p' orchestration/host/requirements.txt > .venv/uv.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r .venv/uv.txt
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements-dev.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@echo "$(CURDIR)" > "$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')/barflow_checkout.pth"
	@touch $@

# npm comes with the Node of the virtual environment; what it starts must find that Node first, too.
node_modules/.ready: package.json package-lock.json .npmrc | .venv/.ready
	@echo "installing the pinned packages into node_modules (some seconds)" >&2
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --loglevel=error --no-progress >/dev/null
	@touch $@

# Airflow beside the rest, in the same versions: its lock file holds all packages of the other.
.venv/.airflow: requirements-airflow.txt | .venv/.ready
	@echo "installing Airflow into .venv (some seconds more)" >&2
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements-airflow.txt
	@touch $@

# Spark's classes in the form that Java loads fastest: a session then starts in half the CPU time. Without, all works too.
.venv/.jvm-archive: tools/jvm_archive.py .venv/.ready
	@echo "writing Java's class archive for faster starts of Spark (once, half a minute)" >&2
	@$(BIN)/python -m tools.jvm_archive >/dev/null || true
	@touch $@

# Environments of their own: what checks datacontract.yaml bounds packages that the others need newer, and no package of
# the tools that `make bench` compares with is on the project's path.
CONTRACT := build/contract
PEERS := build/peers
$(CONTRACT)/.ready $(PEERS)/.ready: build/%/.ready: requirements-%.txt | .venv/.ready
	@echo "installing requirements-$*.txt into build/$* (some seconds)" >&2
	@$(BIN)/uv venv -q --clear --python $(BIN)/python build/$*
	@$(BIN)/uv pip install -q --compile-bytecode --python build/$*/bin/python --require-hashes -r requirements-$*.txt
	@touch $@

build/.bundles: $(wildcard lambda/*/requirements.txt spark/requirements.txt glue/requirements.txt) | .venv/.ready node_modules/.ready
	@echo "fetching what the functions and Spark on AWS are made of (some seconds)" >&2
	@$(BIN)/python -m stacks.bundles >/dev/null 2>&1 || $(BIN)/python -m stacks.bundles
	@touch $@

demo: .venv/.ready node_modules/.ready ## the whole pipeline on this machine; ARGS="--symbols AAPL,NVDA"
	@$(BIN)/barflow demo $(ARGS)

dashboard: setup ## the analysts' page on what the demo stored; ARGS="--port 8080"
	@$(BIN)/barflow dashboard $(ARGS)

airflow: .venv/.airflow .venv/.jvm-archive ## Airflow's page with the project's DAGs on embedded services; ARGS="--port 8081"
	@$(BIN)/python -m local.airflow_demo $(ARGS)

test: setup .venv/.airflow .venv/.jvm-archive $(CONTRACT)/.ready ## the tests, three processes at a time; ARGS="-k sessions"
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-all: WORKERS := 4 # more than in test: the longest tests mostly wait
test-all: setup .venv/.airflow .venv/.jvm-archive $(CONTRACT)/.ready ## make test, and what takes minutes: Airflow itself, the host, a deployment, the rehearsal
	@$(BIN)/python -m pytest -n $(WORKERS) -m "minutes or not minutes" $(ARGS)

test-host: setup .venv/.airflow ## install and start all that the host on AWS runs, on this machine
	@$(BIN)/python -m pytest -m minutes tests/host $(ARGS)

contract: $(CONTRACT)/.ready ## compare datacontract.yaml with the released one, and test your lake and warehouse against it
	@$(CONTRACT)/bin/python tools/check_contract.py compare
	@$(CONTRACT)/bin/python tools/check_contract.py test $(ARGS)

pictures: setup .venv/.airflow .venv/.jvm-archive ## remake the documentation's pictures with the browser of the tests
	@PICTURES_TO="$(CURDIR)/docs/images" $(BIN)/python -m pytest -q -m "minutes or not minutes" -k "picture or green_run or recovers_from_faults" tests/browser tests/deploy

lint: setup .venv/.airflow ## format, style, words, types and import rules: ruff, codespell, mypy, import-linter
	@$(BIN)/ruff format --check -q . || { echo "run .venv/bin/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check -q .
	@$(BIN)/codespell
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo

docs: .venv/.ready node_modules/.ready ## build the documentation's site into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "build/site/index.html"

bench: setup .venv/.airflow .venv/.jvm-archive $(PEERS)/.ready ## measure this machine: ratios against peers and limits
	@$(BIN)/python -m benchmarks $(ARGS)

synth: setup ## the CloudFormation templates of an environment into cdk.out; ENV=prod
	@PATH="$(CURDIR)/$(BIN):$$PATH" npx --no-install cdk synth --quiet -c env=$(ENV)

diff: synth ## what a change does to an environment, sorted by danger; ENV=prod
	@$(BIN)/python tools/review.py $(ENV) $(ARGS)

deploy-local: setup ## deploy, deploy again and tear down on an emulator of AWS; ENV=prod
	@$(BIN)/python -m rehearsal.deploy --env $(ENV)

rehearse: setup .venv/.airflow .venv/.jvm-archive ## deploy to an emulator of AWS, run, inject faults and check the recovery; ARGS="--to docs/rehearsal.md"
	@$(BIN)/python -m rehearsal --env $(ENV) $(ARGS)

LOCK := $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
LOCK_HERE := $(LOCK) --python-version 3.11
# A function has no command line, so it needs none of what those of common-expression-language and apprise import.
NO_COMMAND_LINE := $(foreach package,annotated-doc click markdown-it-py mdurl prompt-toolkit pygments rich shellingham typer wcwidth,--no-emit-package $(package))
LOCK_LAMBDA := $(LOCK) --python-version 3.13 --python-platform aarch64-manylinux_2_28 $(NO_COMMAND_LINE)
lock: setup ## compile requirements*.in into requirements*.txt with hashes
	@$(LOCK_HERE) requirements-airflow.in -o requirements-airflow.txt
	@$(LOCK_HERE) -c requirements-airflow.txt requirements-dev.in -o requirements-dev.txt
	@$(LOCK_HERE) -c requirements-airflow.txt requirements.in -o requirements.txt
	@for folder in lambda/*/; do test ! -f $${folder}requirements.in || $(LOCK_LAMBDA) $${folder}requirements.in -o $${folder}requirements.txt || exit; done
	@$(LOCK_HERE) --python-platform aarch64-manylinux_2_28 spark/requirements.in -o spark/requirements.txt
	@$(LOCK_HERE) --python-platform aarch64-manylinux_2_28 -c requirements-airflow.txt orchestration/host/requirements.in -o orchestration/host/requirements.txt
	@$(LOCK_HERE) --python-platform x86_64-manylinux_2_28 --no-emit-package pyarrow glue/requirements.in -o glue/requirements.txt
	@$(LOCK_HERE) requirements-audit.in -o requirements-audit.txt
	@$(LOCK_HERE) requirements-contract.in -o requirements-contract.txt
	@$(LOCK_HERE) requirements-peers.in -o requirements-peers.txt

notice: setup .venv/.airflow ## write NOTICE from the lock files and the licences that the packages state
	@$(BIN)/python -m tools.notice

AUDIT := build/audit
LOCKS = requirements*.txt */requirements.txt */*/requirements.txt
audit: setup ## look up known vulnerabilities of every locked package: pip-audit, npm audit
	@$(BIN)/uv venv -q --clear --python $(BIN)/python $(AUDIT)
	@$(BIN)/uv pip install -q --python $(AUDIT)/bin/python --require-hashes -r requirements-audit.txt
	@failed=0; for lock in $(wildcard $(LOCKS)); do \
	  echo "$$lock" >&2; $(AUDIT)/bin/pip-audit --progress-spinner off --strict --disable-pip --require-hashes -r $$lock || failed=1; done; \
	  PATH="$(CURDIR)/$(BIN):$$PATH" npm audit || failed=1; exit $$failed

clean: ## remove the demo's state and everything built
	@rm -rf .barflow .venv node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
