# Two commands do everything on a fresh machine with Python 3.11 or newer: make demo, make test.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

# What a GPU machine without a network lacks beside torch, for its own Python (profiling/README.md).
GPU_PYTHON ?= 3.12
GPU_WHEELS ?= flashinfer-python==0.6.18.post1 apache-tvm-ffi==0.1.15.post2 simpy==4.1.2 loky==3.7.0 plotly==7.1.0 typing-extensions==4.15.0

# Tests run on all cores, at most four: their processes share memory and disk, too. PARALLEL= for one after the other.
PARALLEL ?= -n logical --maxprocesses 4 --dist worksteal
NO_TORCH := not live and not gpu and not readers

.PHONY: help live demo test test-all test-live lint types experiments notebooks bench gpu-wheels gpu-campaign clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

$(VENV)/.made:
	@if [ -z "$(PYTHON)" ]; then echo "llmsim needs Python 3.11 or newer; none was found. Install one, or: make PYTHON=/path/to/python" >&2; exit 1; fi
	@echo "setting up $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml
	@echo "installing llmsim (first time: a minute or two) ..."
	@$(PIP) install -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing the tools for tests ..."
	@$(PIP) install -e '.[dev]'
	@touch $@

$(VENV)/.live: $(VENV)/.dev
	@echo "installing torch for the CPU ..."
	@$(PIP) install torch==2.13.0
	@touch $@

$(VENV)/.serve: $(VENV)/.live
	@echo "installing a real server for the tests ..."
	@$(PIP) install -e '.[serve-test]' torch==2.13.0
	@touch $@

$(VENV)/.readers: $(VENV)/.dev
	@echo "installing a reader of exports for the tests ..."
	@$(PIP) install -e '.[export-test]'
	@touch $@

live: $(VENV)/.live  ## add torch for the CPU, which profile and validate need

demo: $(VENV)/.run  ## set up, serve a shipped workload with four schedulers, show who wins
	@$(BIN)/llmsim simulate experiments/demo.yaml --out runs

test: $(VENV)/.dev  ## set up, run all tests that need no torch, with some of the costly examples
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "$(NO_TORCH)"

test-all: $(VENV)/.dev  ## the same with all examples
	@LLMSIM_TESTS=all $(BIN)/python -m pytest -q $(PARALLEL) -m "$(NO_TORCH)"

test-live: $(VENV)/.serve $(VENV)/.readers  ## add torch, a real server and readers of exports, run the tests that need them
	@LLMSIM_TESTS=all LLMSIM_SERVER_TESTS=required $(BIN)/python -m pytest -q -m "live or readers"

lint: $(VENV)/.dev  ## ruff
	@$(BIN)/ruff check llmsim tests experiments

types: $(VENV)/.live  ## mypy, strict (with torch, whose types it needs)
	@$(BIN)/mypy

experiments: $(VENV)/.run  ## all experiments at full size (about half an hour on two cores); results in experiments/results
	@for script in experiments/[0-9]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

notebooks: $(VENV)/.dev  ## write experiments/*.ipynb anew from the scripts
	@$(BIN)/jupytext -q --to ipynb experiments/[0-9]*.py

bench: $(VENV)/.run  ## JSON lines: speed as a ratio to bare SimPy, measured in the same run (ARGS="--only scale" for a part)
	@$(BIN)/python -m llmsim.benchmarks $(ARGS)

gpu-wheels:  ## download what the GPU machine lacks into profiling/wheels (32 MB), for GPU_PYTHON=3.12
	@rm -rf profiling/wheels && mkdir -p profiling/wheels
	@$(PYTHON) -m pip --disable-pip-version-check download -q --no-deps --only-binary=:all: --implementation cp \
		--python-version $(GPU_PYTHON) --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 \
		--platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d profiling/wheels $(GPU_WHEELS)
	@ls -l profiling/wheels

gpu-campaign: $(if $(DRY),$(VENV)/.live)  ## measure, fit and validate on a GPU (STEPS="setup fit" for some, DRY=1 on the CPU)
	@PYTHON=$(if $(DRY),$(BIN)/python,$(PYTHON)) bash profiling/gpu_campaign.sh $(STEPS)

clean:  ## remove what make made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
