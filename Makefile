# make demo: from nothing to clusters. make test: the tests. make bench: all benchmarks, hours.
# Each installs what is missing.
PYTHON ?= python3
VENV := .venv
# Processes that test side by side, each with a Spark session of its own (3 GB): three suit two cores, for Spark's
# driver waits a lot. TESTERS=1 where memory is short.
TESTERS ?= 3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# uv unpacks 5 GB in a third of pip's time; where it cannot reach an index that pip is set up for, pip does it.
PIP := $(BIN)/python -m pip
OPTIONS := --quiet --constraint constraints.txt

.PHONY: demo test lint format install bench accuracy clean

demo: $(INSTALLED)
	@$(BIN)/faceclust demo

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

# Exact versions come from constraints.txt; a change there or in pyproject.toml installs again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found %d.%d: set PYTHON=..." % sys.version_info[:2])'
	@echo "Installing into $(VENV) (about 5 GB; a few minutes on a slow network) ..."
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install $(OPTIONS) --disable-pip-version-check uv
	@$(BIN)/uv pip install $(OPTIONS) --python $(BIN)/python --editable '.[dev]' || $(PIP) install $(OPTIONS) --editable '.[dev]'
	@$(BIN)/python -m faceclust_spark.prepare
	@touch $@

# One benchmark: make bench-growth ARGS='--faces 50000,100000'. Tables on stderr, one JSON object on stdout.
bench-%: $(VENV)/.bench
	@$(BIN)/python tests/benchmarks/$*.py $(ARGS)

bench: bench-all

# Peers and ours side by side, on people that nothing was tuned or trained on; needs FACECLUST_DATA.
accuracy: bench-accuracy

$(VENV)/.bench: $(INSTALLED)
	@$(BIN)/uv pip install $(OPTIONS) --python $(BIN)/python --editable '.[dev,bench]' || $(PIP) install $(OPTIONS) --editable '.[dev,bench]'
	@touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
