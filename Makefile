# Everything here sets itself up: a machine with Python 3.11 or newer (with its venv module) and a way to install
# packages is enough. The first run creates .venv; later runs reuse it until the dependencies change.
#
# On Linux the usual torch from the package index brings CUDA libraries of several gigabytes. Nothing here needs
# them: where that hurts, point pip's own configuration at a CPU build of the pinned version before `make`.

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
WORKERS := 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test lint format docs sweep certainty demo bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## */  make \1\t/' | expand -t 18

setup: $(STAMP)  ## create .venv and install everything (the other targets do it by themselves)

# The first interpreter that is new enough and can make environments; PYTHON=... overrides the search.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	if ! $(PY) -m pip --version >/dev/null 2>&1; then \
		for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3 python; do \
			if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
				found=$$python; break; \
			fi; \
		done; \
		if [ -z "$${found:-}" ]; then \
			echo "boundcheck needs Python 3.11 or newer with its venv module; none was found on PATH." >&2; \
			echo "Install one (on Debian or Ubuntu: python3 and python3-venv), or: make PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "Creating $(VENV) with $$($$found --version)"; \
		$$found -m venv --clear $(VENV); \
	fi
	@echo "Installing boundcheck and its pinned dependencies into $(VENV) (some minutes the first time)"
	@$(PY) -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

test: lint  ## style, types, tests with doctests, documentation: all that must pass
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS)
	$(PY) -m mkdocs build -q --strict

lint: $(STAMP)  ## style and types only
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

format: $(STAMP)  ## rewrite the code in the house style
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(STAMP)  ## build the documentation into site/
	$(PY) -m mkdocs build --strict

sweep: $(STAMP)  ## the slow sweeps that `make test` leaves out
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) -m slow

certainty: $(STAMP)  ## every evaluator against independent truths on thousands of random models, with its figures
	OMP_NUM_THREADS=1 $(PY) tests/certainty.py --processes $(WORKERS)

demo: $(STAMP)  ## the counterexample, then a small trained model against its bounds
	$(BIN)/boundcheck reproduce bernoulli
	$(PY) -m boundcheck.demo

bench: $(STAMP)  ## the benchmarks
	$(PY) -m benchmarks

clean:  ## remove what make and the tools made, .venv included
	rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
