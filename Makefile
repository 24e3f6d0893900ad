# Set up, check, run and test a study: `make help` lists the targets. They need python3 (3.11 or newer) and install
# everything else into $(VENV).

VENV ?= .venv
PYTHON ?= python3
CONFIG ?= config/config.yaml
CORES ?= 8
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup study test docs site

help: ## List the targets and variables
	@echo "make TARGET [VARIABLE=VALUE ...]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12
	@echo "Variables: VENV=$(VENV) PYTHON=$(PYTHON) CONFIG=$(CONFIG) CORES=$(CORES)"

setup: $(VENV)/.ready ## Install Batchscape into VENV
	@echo "Ready. In each new terminal: source $(VENV)/bin/activate"

study: $(VENV)/.ready ## Check the study file CONFIG and run the study on CORES cores
	@$(BIN)/python -m batchscape check '$(CONFIG)'
	$(BIN)/snakemake --cores $(CORES) all --configfile '$(CONFIG)'

test: $(VENV)/.ready-for-tests ## Run all tests
	$(BIN)/python -m pytest

docs: $(VENV)/.ready ## Write docs/config.md and config/schema.json from the config models
	$(BIN)/python -m batchscape reference > docs/config.md
	$(BIN)/python -m batchscape schema > config/schema.json

site: $(VENV)/.ready-for-site ## Build the documentation as a site: build/site/index.html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . build/site

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.platform == "win32" and "Batchscape runs on Linux and macOS; on Windows, install and run it in WSL")'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python is older than 3.11; write for example: make setup PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Batchscape into $(VENV); this takes some minutes"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@$(BIN)/python -m compileall -q src # each job would, if PYTHONDONTWRITEBYTECODE is set
	@touch $@

$(VENV)/.ready-for-tests: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# Without their dependencies, which would replace a torch for CPUs: networks of these packages are tested too.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps timm torchvision
	@touch $@

$(VENV)/.ready-for-site: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@
