# Two commands do all the set-up on a fresh machine:
#   make demo         ask the question this project is for (core dependencies only)
#   make test         run every test (adds the test tools and the extras)
# The other targets: make help.
# Override on the command line: make demo PYTHON=python3.13 DEMO="estimate -m mistral-7b -g a10g"

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
EXTRAS ?= calibrate,images,parquet,torch
PYTEST_ARGS ?=
# Files of tests run side by side, but one after the other where tests time a GPU.
WORKERS ?= $(if $(shell command -v nvidia-smi),0,auto)
DEMO ?= compare --model llama-3.1-8b --gpu h100-sxm -n 16 --context 8K

BIN := $(VENV)/bin
# Twice quiet: errors are shown, warnings about how this machine finds packages are not.
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check install --constraint $(CONSTRAINTS)
# A stamp is the proof that an install finished; editing what it was made from undoes it.
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: gallery help demo test fuzz oldest pythons audit check lint types imports format bench accuracy predictions clean

help:
	@sed -n 's/^#   \(make .*\)/  \1/p' $(firstword $(MAKEFILE_LIST))
	@echo "  make check        make lint, make types and make imports (which floor imports which)"
	@echo "  make format       let ruff rewrite the code"
	@echo "  make fuzz         try FUZZ hostile inputs (10000) in each test of tests/fuzz, FUZZ_S seconds at most"
	@echo "  make oldest       run every test with the oldest packages allowed, in .venv-oldest"
	@echo "  make pythons      run every test with each of PYTHONS that is installed, in .venv-NAME"
	@echo "  make audit        look the pinned packages up in PyPI's list of vulnerabilities (pip-audit)"
	@echo "  make bench        measure start-up and sweep speed on this machine"
	@echo "  make accuracy     write docs/accuracy.md and the spreads of intervals from measured rows (ROWS=folder)"
	@echo "  make predictions  show which predictions changed, and store them as they are now"
	@echo "  make gallery      write docs/gallery.md and its pictures (needs a browser)"
	@echo "  make clean        remove $(VENV), build output and caches"

demo: $(CORE)
	@echo '$$ bifurcate $(DEMO)'
	@$(BIN)/bifurcate $(DEMO)

test: $(DEV)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist loadfile $(PYTEST_ARGS)

check: lint types imports

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

imports: $(DEV)
	$(BIN)/lint-imports --no-logo

format: $(DEV)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Reviewed like code: CONTRIBUTING.md.
predictions: $(DEV)
	@$(BIN)/python tests/golden/predictions.py

# Looks for new examples, for at most FUZZ_S seconds in each of its tests.
FUZZ ?= 10000
FUZZ_S ?= 600
fuzz: $(DEV)
	@BIFURCATE_FUZZ=$(FUZZ) BIFURCATE_FUZZ_S=$(FUZZ_S) \
	  $(BIN)/python -m pytest -q --numprocesses auto tests/fuzz

# Every test with the oldest packages that pyproject.toml allows.
oldest:
	@$(MAKE) test VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt EXTRAS=calibrate,parquet

# Every test with other versions of Python: make pythons PYTHONS="python3.13 /opt/python3.14/bin/python3"
PYTHONS ?= python3.12 python3.13 python3.14
pythons:
	@for python in $(PYTHONS); do \
	  command -v "$$python" >/dev/null || { echo "make: no $$python here"; continue; }; \
	  $(MAKE) test PYTHON="$$python" VENV=".venv-$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" \
	    EXTRAS=calibrate,parquet || exit 1; done

# In an environment of its own. Strict: a package that cannot be looked up is a failure.
audit:
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && \
	  .venv-audit/bin/python -m pip --quiet --disable-pip-version-check install pip-audit; }
	@.venv-audit/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off -r $(CONSTRAINTS)

bench: $(CORE)
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python benchmarks/api.py
	@$(BIN)/python benchmarks/sweep.py

# The rows are no part of the project: make accuracy ROWS=folder
ROWS ?= ../shared/measurements ../shared/measurements/second
accuracy: $(DEV)
	@$(BIN)/python tools/accuracy.py $(ROWS)

gallery: $(DEV)
	@$(BIN)/python tools/gallery.py

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find benchmarks simulator tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=..." >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)

# The build back end is installed first and pinned too, so no hidden environment builds the package;
# pip knows dependency groups since 25.1.
$(CORE): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "Installing bifurcate and what it needs into $(VENV) ..."
	@$(PIP) 'pip>=25.1' hatchling editables
	@$(PIP) --no-build-isolation --editable .
# Compiled once here, the code need not be compiled at each start where Python writes no bytecode.
	@$(BIN)/python -m compileall -q simulator
	@touch $@

$(DEV): $(CORE)
	@echo "Installing the extras ($(EXTRAS)) and the test tools into $(VENV) ..."
	@$(PIP) --no-build-isolation --editable ".[$(EXTRAS)]" --group test --group lint --group build
	@touch $@
