# make help lists the targets.  Variables: PYTHON (own interpreter), VENV, TORCH (see scripts/setup.sh),
# T (arguments of pytest), B (arguments of consolve bench poisson), D (arguments of consolve demo).
VENV ?= .venv
PY := $(VENV)/bin/python
T ?=
D ?=
B ?= --dim 2 --cells 512 --domain spheres --solver cg --solver icc --solver gamg --solver hypre \
     --solver mg --solver cnn --solver dcd

export VENV
ifdef PYTHON
export PYTHON
endif
ifdef TORCH
export TORCH
endif

.PHONY: help setup demo test bench lint format types clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.ready: pyproject.toml scripts/setup.sh
	@scripts/setup.sh

setup: $(VENV)/.ready ## system packages (Debian), virtual environment, Python packages

demo: $(VENV)/.ready ## a smoke plume, its projections by -pc_type cnn against plain CG
	@$(PY) -m consolve demo $(D)

test: $(VENV)/.ready ## the tests, on two processes (T="-k name", T="-n 0", T=--slow for the long ones too)
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(T)

bench: $(VENV)/.ready ## one system by every solver (B="--dim 3 --cells 64 ...")
	@$(PY) -m consolve bench poisson $(B)

lint: $(VENV)/.ready ## ruff
	@$(PY) -m ruff check .

format: $(VENV)/.ready ## rewrite the sources as ruff formats them
	@$(PY) -m ruff format .

types: $(VENV)/.ready ## mypy
	@$(PY) -m mypy

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
