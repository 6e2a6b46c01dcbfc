# Every target sets up what it needs: `make demo` or `make test` in a fresh clone is enough.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

# More words for pytest: make test ARGS="-x -k kernels"
ARGS ?=
# Test files run side by side; each worker takes up to 4 GB.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint notebooks bench peers docs release-check clean FORCE

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# A stamp whose Python does not run, or that came from another folder, is out of date however new it is.
$(STAMP): pyproject.toml constraints.txt $(shell sh .ci/venv.sh check || echo FORCE)
	@sh .ci/venv.sh

FORCE:

# Compiled programs outlive the process: the second run of the tests or the demo compiles next to nothing.
demo test test-all notebooks peers docs: export JAX_COMPILATION_CACHE_DIR := $(CURDIR)/.jax_cache
demo test test-all notebooks peers docs: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS := 0.02
# Here compilation costs more than the programs it makes: a third less of it for hardly slower ones. Your own XLA_FLAGS
# come after these, and so the last word is theirs: XLA_FLAGS=--xla_cpu_max_isa=AVX2 make test
demo test test-all notebooks peers docs: override export XLA_FLAGS := --xla_llvm_disable_expensive_passes=true $(XLA_FLAGS)

demo: $(STAMP) ## compose and sample the pretrained densities; tables and pictures in demo_output/
	$(BIN)/numpyro-diffusion demo --output demo_output

test: $(STAMP) ## the quick tests
	$(PYTEST) -m "not slow" $(ARGS) tests

test-all: $(STAMP) ## all tests, the slow ones too
	$(PYTEST) $(ARGS) tests

lint: $(STAMP) ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

notebooks: $(STAMP) ## execute notebooks/*.py into notebooks/executed/
	$(BIN)/python notebooks/execute.py

# A benchmark is a file that runs by itself; training is a command of its own.
bench: $(STAMP) ## every benchmark once, the quick way
	@set -e; for script in $$(grep -l __main__ benchmarks/*/*.py | grep -v /train/); do \
		echo "$$script --quick"; $(BIN)/python "$$script" --quick; done

docs: $(STAMP) ## the documentation, strictly and offline, and its links: docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html
	$(BIN)/python docs/check_site.py docs/_build/html

release-check: $(STAMP) ## build, check the metadata and the size, and try the wheel in a fresh venv without extras
	PYTHON=$(BIN)/python sh .ci/release.sh

peers: $(STAMP) ## the same problems by other packages and methods: benchmarks/results/peers.md
	$(BIN)/python benchmarks/peers/peers.py $(ARGS)

clean: ## remove what make made
	rm -rf $(VENV) .venv-uv .jax_cache demo_output docs/_build build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
