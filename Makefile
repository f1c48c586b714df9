# make demo: from nothing to clusters. make test: the tests. make bench: all benchmarks, hours.
# Each installs what is missing.
PYTHON ?= python3
VENV := .venv
# Processes that test side by side, each with a Spark session of its own (3 GB): three suit two cores, for Spark's
# driver waits a lot. TESTERS=1 where memory is short.
TESTERS ?= 3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# uv unpacks 5 GB in a third of pip's time, but does not read pip's settings: where pip has an index of its own, or uv
# cannot do it, pip installs.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
UV := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python
OWN_INDEX = test -n "$$PIP_INDEX_URL" || $(PIP) config get global.index-url >/dev/null 2>&1
install-into = { ! { $(OWN_INDEX); } && $(PIP) install --constraint constraints.txt uv && \
	$(UV) --constraint constraints.txt --editable '.[$(1)]'; } || \
	{ echo "Installing by pip ..."; $(PIP) install --constraint constraints.txt --editable '.[$(1)]'; }

comma := ,

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
	@$(call install-into,dev)
	@$(BIN)/python -m faceclust_spark.prepare
	@touch $@

# One benchmark: make bench-growth ARGS='--faces 50000,100000'. Tables on stderr, one JSON object on stdout.
bench-%: $(VENV)/.bench
	@$(BIN)/python tests/benchmarks/$*.py $(ARGS)

bench: bench-all

# Peers and ours side by side, on people that nothing was tuned or trained on; needs FACECLUST_DATA.
accuracy: bench-accuracy

$(VENV)/.bench: $(INSTALLED)
	@$(call install-into,dev$(comma)bench)
	@touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info
