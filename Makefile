# `make study` and `make test` need python3 (3.11 or newer); they install the rest into .venv.

VENV ?= .venv
PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= 8
BIN := $(VENV)/bin

.PHONY: setup study test docs

## Set up only.
setup: $(VENV)/.ready
	@echo "Ready. In each new terminal: source $(VENV)/bin/activate"

## Set up, check the study file, and run the study.
study: $(VENV)/.ready
	@$(BIN)/python -m batchscape check $(CONFIG)
	$(BIN)/snakemake --cores $(CORES) all --configfile $(CONFIG)

## Set up, and run all tests.
test: $(VENV)/.ready-for-tests
	$(BIN)/python -m pytest

## Make the config reference and the schema from the typed models.
docs: $(VENV)/.ready
	$(BIN)/python -m batchscape reference > docs/config.md
	$(BIN)/python -m batchscape schema > config/schema.json

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.platform == "win32" and "Batchscape runs on Linux and macOS; on Windows, install and run it in WSL")'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python is older than 3.11; write for example: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Batchscape into $(VENV), which takes some minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@$(BIN)/python -m compileall -q src # or each job would, where PYTHONDONTWRITEBYTECODE is set
	@touch $@

$(VENV)/.ready-for-tests: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
