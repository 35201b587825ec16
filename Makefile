# Everything a developer types. Each target sets up .venv first, once; the constraints file makes
# that repeatable.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Three processes for two cores: tests that use Ray or a server mostly wait. Those that share one
# stay in one process (tests/conftest.py).
PYTEST := $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

BENCHMARKS ?= batching busy_share catalog demo_deadlines diffusers_loop input_videos intake interpolate \
  overhead planning sparse_attention

.PHONY: demo check lint types quick test suite thorough bench train-flipbook clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"vidplat needs Python 3.11 or newer, found {v.major}.{v.minor}: set PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## render the example prompts on the embedded model
	$(BIN)/vidplat submit examples/prompts.parquet --deadline 60s

check: lint types  ## format, lint, types

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

quick: $(READY)  ## tests without Ray, servers, browser and torch: half a minute
	$(PYTEST) --numprocesses 2 --quick

# Types of a fresh clone take half a minute of one core, so they are checked beside the tests; what
# is wrong with them is told once more at the end.
test: lint  ## all tests that guard a promise, and format, lint and types
	$(MAKE) --no-print-directory --jobs=2 types suite || { $(BIN)/mypy; exit 1; }

suite: $(READY)
	$(PYTEST)

thorough: check  ## every test, also what `test` leaves out, and many more generated examples
	$(PYTEST) -m "thorough or not thorough" --hypothesis-profile=thorough

bench: $(READY)  ## benchmarks that need neither root nor hours; one alone: make bench BENCHMARKS=methods
	for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || exit 1; done

train-flipbook: $(READY)  ## train the embedded models from nothing; a stopped run goes on from checkpoints/
	$(BIN)/python -m flipbook_training checkpoints src/vidplat/models_data
	$(BIN)/python -m flipbook_training.causal checkpoints checkpoints src/vidplat/models_data/flipbook-causal

clean:  ## remove what the other targets made, except checkpoints
	rm -rf .venv .vidplat renders dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
