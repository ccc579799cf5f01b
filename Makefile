# Everything here works on a machine that has only make and a Python of at least 3.11: the first
# target that needs it makes .venv and installs into it, and again when pyproject.toml changes.

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/installed
WORKERS ?= 2
ARGS    ?=

# The first of these that runs, is new enough and can make a virtual environment.
PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
USABLE  := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))

.PHONY: help train test quick bench docs clean
.DELETE_ON_ERROR:

help:
	@echo "make train   train the example on real digits (ARGS='--seed 1' and so on)"
	@echo "make test    formatting, lint, types, all tests, doctests and documentation"
	@echo "make quick   the tests without the slow ones, under two minutes"
	@echo "make bench   how long a training step takes, beside other libraries"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make clean   back to a fresh clone"

train: $(STAMP)
	$(BIN)/python examples/mnist.py $(ARGS)

test: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

quick: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

bench: $(STAMP)
	$(BIN)/python benchmarks/overhead.py $(ARGS)

docs: $(STAMP)
	$(BIN)/python -m pip install -qq --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) out dist site .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@set -e; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		for python in $(PYTHONS); do \
			if "$$python" -c '$(USABLE)' >/dev/null 2>&1; then found=$$python; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "fluxax needs Python 3.11 or newer with the modules venv and ensurepip;" \
				"none of these is one: $(PYTHONS). Install one (on Debian: python3 and" \
				"python3-venv), or name it: make PYTHON=/path/to/python3 ..." >&2; \
			exit 1; \
		fi; \
		echo "making $(VENV) with $$found"; \
		"$$found" -m venv --clear $(VENV); \
	fi
	@echo "installing what pyproject.toml names; this takes a minute or two"
	@$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $@
