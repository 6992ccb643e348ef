# Every target makes its own environment in .venv, with the versions that CI ran.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
ARGS ?=

.PHONY: help demo test check docs dist clean

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: .venv/.demo ## Set up and run the demo: adversarial training on a small formal language, a few minutes on a CPU
	$(BIN)/hf-mgan demo $(ARGS)

test: .venv/.test ## Set up and run the tests (offline, CPU)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile $(ARGS)

check: .venv/.test ## Lint, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# -E reads every page anew: a cached page does not repeat its warning, so a failed build would pass when repeated.
docs: .venv/.docs ## Build the documentation into docs/_build/html, warnings as errors
	$(BIN)/sphinx-build -q -E -W -b html docs docs/_build/html

dist: .venv/.dist ## Build wheel and sdist into dist/, and check what an index would show of them
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

clean: ## Remove the environment and everything built
	rm -rf .venv docs/_build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e ".[demo]"
	@touch $@

.venv/.test: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e ".[demo,evaluation,quantization,dev]"
	@touch $@

.venv/.docs: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) -e ".[demo,docs]"
	@touch $@

.venv/.dist: .venv/.test
	$(INSTALL) build twine
	@touch $@
