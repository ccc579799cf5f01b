# Everything here works on a machine that has only make and a Python of 3.11 to 3.13: the first
# target that needs it makes .venv and installs into it, and again when pyproject.toml changes.

WORKERS ?= 2
ARGS    ?=

# PYTHON and JAX say what to run on: make test PYTHON=python3.12 JAX=0.11.2. What they name has an
# environment of its own (.venv-3.12-jax-0.11.2), so that no run meets what another one installed.
FIND  = sh .ci/pythons $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
NAMED = $(or $(firstword $(shell $(FIND))),$(error PYTHON=$(PYTHON) cannot be used))
VENV := .venv$(if $(PYTHON),-$(NAMED))$(if $(JAX),-jax-$(JAX))
BIN   = $(VENV)/bin
STAMP = $(VENV)/installed

.PHONY: help train test quick bench docs clean
.DELETE_ON_ERROR:

help:
	@echo "make train   train the example on real digits (ARGS='--seed 1' and so on)"
	@echo "make test    formatting, lint, types, all tests, doctests and documentation"
	@echo "make quick   one row of every table, every fifth test, no slow ones: two minutes"
	@echo "make bench   how long a training step takes, beside other libraries"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make clean   back to a fresh clone"
	@echo "PYTHON=python3.12 JAX=0.11.2 after any of them: with these, in an environment of its own"

train: $(STAMP)
	$(BIN)/python examples/mnist.py $(ARGS)

# A file's tests run in one process (loadfile), since they share what JAX has compiled.
test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

quick: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow" --rows 1 --every 5 $(ARGS)

bench: $(STAMP)
	$(BIN)/python benchmarks/overhead.py $(ARGS)

docs: $(STAMP)
	$(BIN)/python -m pip install -qq --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-* out dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@set -e; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		found=$$($(FIND)); \
		set -- $$found; \
		echo "making $(VENV) with $$2"; \
		"$$2" -m venv --clear $(VENV); \
	fi
	@echo "installing what pyproject.toml names; this takes a minute or two"
	@$(BIN)/python -m pip install -qq --editable '.[dev]' $(if $(JAX),jax==$(JAX))
	@touch $@
