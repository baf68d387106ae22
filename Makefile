# The commands of the project; `make help` lists them. Everything is installed into $(VENV), made on first use.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
DEMO_ARGS ?=

BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet --progress-bar off --retries 10 -c constraints.txt
PYTEST := $(BIN)/python -m pytest $(PYTEST_ARGS)
RUN := $(BIN)/python -m

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help demo test test-slow test-all lint format docs bench setup clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# torch comes first and alone: a later resolution of everything at once may exchange a CPU build for a CUDA one.
$(VENV)/.torch: constraints.txt
	@echo "Installing $(TORCH) into $(VENV) (some minutes on a new machine)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) $(TORCH)
	@touch $@

# One stamp per extra of pyproject.toml, renewed when the requirements change.
$(VENV)/.extra-%: $(VENV)/.torch pyproject.toml
	@echo "Installing lnz[$*] into $(VENV) (some minutes on a new machine)"
	@$(PIP) -e '.[$*]'
	@touch $@

setup: $(VENV)/.extra-dev $(VENV)/.extra-docs ## install everything that developing needs

demo: $(VENV)/.extra-train ## train softmax and MRF on composed scenes: a table and a picture, under 5 minutes
	@$(BIN)/lnz fit segment --config configs/demo.yaml $(DEMO_ARGS)

test: $(VENV)/.extra-dev ## the fast tests, a few minutes
	@$(PYTEST) -n auto --maxprocesses 8 --dist loadfile -m "not slow"

test-slow: $(VENV)/.extra-dev ## the slow tests
	@$(PYTEST) -n auto --maxprocesses 4 --dist loadfile -m slow

test-all: $(VENV)/.extra-dev ## every test
	@$(PYTEST)

lint: $(VENV)/.extra-dev ## style, types and the layers of imports
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) pyright
	@$(BIN)/lint-imports

format: $(VENV)/.extra-dev ## rewrite the sources in the project's style
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

docs: $(VENV)/.extra-docs ## the documentation with its executed pages, in docs/_build/html
	@$(RUN) sphinx -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.extra-bench ## compare speed with the peers, interleaved in one process
	@$(RUN) benchmarks

clean: ## remove what the commands above wrote, but not $(VENV)
	rm -rf build dist docs/_build docs/gallery docs/jupyter_execute .pytest_cache .ruff_cache .hypothesis .import_linter_cache
