# Every target makes its own environment; nothing needs to be installed before but Python 3.10+ and make, and Rust for the
# native core. Another interpreter or place: make test PYTHON=python3.13 VENV=.venv-3.13

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INPUTS := $(shell find crates -name '*.rs' -o -name Cargo.toml) $(wildcard Cargo.*) \
	pyproject.toml transports/pyproject.toml observability/pyproject.toml tools/setup.sh tools/pure.py
TESTS ?= tests
SEED ?= 7

.DEFAULT_GOAL := help
.PHONY: help demo servers test faults bench gate conformance lint format types stubs rust sanitize docs wheels clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): $(INPUTS)
	@tools/setup.sh $(VENV)
	@touch $@

demo: $(READY) ## Watch a team of agents work on the bus
	@$(BIN)/neuralcore demo

servers: $(READY) ## Install the real Redis and Kafka that tests start
	@tools/servers.sh $(BIN)/python

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest $(TESTS)

faults: $(READY) ## Run the fault tests in their long form: make faults SEED=7
	NEURALCORE_FAULTS=long NEURALCORE_SEED=$(SEED) $(BIN)/python -m pytest tests/faults/sqlite tests/faults/redis tests/faults/kafka

bench: $(READY) ## Compare the bus with its peers; JSON beside the table
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks

gate: $(READY) ## Fail when the bus has become slower, in ratios to asyncio's queues
	$(BIN)/python -m benchmarks.gate

conformance: $(READY) ## Prove every promise on every set-up, and write docs/conformance.md: make conformance SETUPS=redis
	$(BIN)/python -m tests.conformance $(SETUPS) $(if $(ONLY),--only "$(ONLY)")

lint: $(READY) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## Rewrite formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY) ## Check types strictly
	$(BIN)/mypy

stubs: $(READY) ## Check the stub against the built native module
	$(BIN)/python -m mypy.stubtest neuralcore._native --allowlist tools/stubtest.allow

rust: ## Format, lint and test the crates
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --locked

sanitize: ## Run the crate's tests under the address and thread sanitizers and loom (nightly Rust)
	crates/bus/sanitize.sh

docs: $(READY) ## Build the documentation into site/
	$(BIN)/python -m pip install --quiet --group docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheels: $(READY) ## Build the wheels of the three distributions into dist/ and test them outside the repository
	PYTHON=$(abspath $(BIN)/python) tools/wheels.sh $(VENV)-wheels

clean: ## Remove what was built, the environment included
	rm -rf $(VENV) $(VENV)-wheels dist site target .mypy_cache .pytest_cache .ruff_cache
	find neuralcore -name '*.so' -delete
