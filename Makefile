# Everything runs in a virtual environment that make sets up by itself; `make help` lists the targets.
#
#   PYTHON=python3.12        another interpreter (3.11 or later)
#   TORCH_INDEX=URL          take torch from this package index, e.g. one with builds for the CPU only
#   WORKERS=0                the tests in one process, instead of two
#   ARGS="-k order"          more arguments for pytest or the demo

.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p -c '' 2>/dev/null && echo $$p && break; done)
TORCH_INDEX ?=
ARGS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
PINS := pyproject.toml constraints.txt

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: demo
demo: $(VENV)/.demo ## Train, validate, export and predict on real digits, with everything shown drawn from bus events
	@$(BIN)/lineside demo $(ARGS)

# Beside one another; what each of the checks says is shown as it ends, what pytest says as it goes (hence its plus).
.PHONY: test
test: $(VENV)/.dev ## All checks: lint, types and tests, beside one another
	@+$(MAKE) --jobs --keep-going --output-sync --no-print-directory lint types pytest

.PHONY: lint
lint: $(VENV)/.dev ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: $(VENV)/.dev ## mypy and pyright, both strict
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

.PHONY: pytest
pytest: $(VENV)/.dev $(VENV)/.browser
	+$(BIN)/pytest -n $(WORKERS) --dist loadfile $(ARGS)

.PHONY: soak
soak: $(VENV)/.dev ## Ten times as many random schedules and kills as in the tests
	LINESIDE_SCHEDULES=100000 LINESIDE_EXAMPLES=2000 LINESIDE_KILLS=200 LINESIDE_TAILS=800 \
		LINESIDE_INTERLEAVINGS=10000 $(BIN)/pytest --timeout 1800 tests/bus/test_schedules.py tests/bus/test_machine.py \
		tests/journal tests/runners/test_interleavings.py $(ARGS)

.PHONY: bench
bench: $(VENV)/.dev ## The benchmarks that need no GPU, browser or notebook, each with its baseline in the same run
	@for script in publish throughput latency loop order flood journal replay exit imports service predict predict_service; do \
		echo; echo "== benchmarks/$$script.py"; $(BIN)/python benchmarks/$$script.py; done

.PHONY: docs
docs: $(VENV)/.dev ## Write docs/events.md from its template and the event classes
	$(BIN)/python docs/make_events.py

.PHONY: snapshot
snapshot: $(VENV)/.dev ## Write down what the events promise from now on: at a release
	$(BIN)/lineside schema json - > tests/schemas/snapshots/events.json

.PHONY: format
format: $(VENV)/.dev ## Let ruff rewrite what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: pins
pins: $(VENV)/.dev ## Write constraints.txt from what is installed
	@{ echo "# What was tested, written by \`make pins\`. torch stands without a build tag: the CPU build is taken where one is at hand."; \
		$(BIN)/python -m pip freeze --all --exclude-editable | sed 's/+cpu$$//'; } > constraints.new
	@mv constraints.new constraints.txt

.PHONY: clean
clean: ## Remove the virtual environment and everything built or cached
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

# What is installed, in steps that are done once and again when the pins change. A stamp is written last, so that
# an interrupted installation goes on where it was.

$(VENV)/.python:
	@[ -n "$(PYTHON)" ] || { echo "No Python found. Install Python 3.11 or later, or name one: make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Lineside needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# torch comes first and alone: asked for by a range, through another package, it would be the newest build with
# gigabytes of CUDA libraries even where a CPU build of the pinned version is at hand.
$(VENV)/.torch: $(VENV)/.python $(PINS)
	@echo "Installing torch: some 200 MB for the CPU, some gigabytes with CUDA (see TORCH_INDEX in the Makefile)"
	@$(INSTALL) --quiet --quiet pip
	@$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.demo: $(VENV)/.torch
	@echo "Installing lineside and what the demo needs"
	@$(INSTALL) --quiet --quiet --editable '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	@echo "Installing the development tools, and the peers that the benchmarks compare with"
	@$(INSTALL) --quiet --quiet --editable '.[demo,notebook]' --group dev --group bench
	@touch $@

$(VENV)/.browser: $(VENV)/.dev
	@echo "Looking for a browser to test the dashboard in; where there is none, installing one"
	@$(BIN)/python -m tests.service.browser
	@touch $@
