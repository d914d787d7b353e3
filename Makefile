# `make demo` and `make test` set up what they need in .venv; PYTHON chooses the interpreter (3.10 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SHIM := services sitecustomize.py tmp_redirect_entry.py tmp_redirect_pytest.py
SOURCES := $(SHIM) examples tests benchmarks

.PHONY: demo test test-a-to-k test-l-to-z test-shim-off lint soak fuzz conformance bench simulate clean
.DELETE_ON_ERROR:

demo: $(VENV)/demo.stamp
	$(BIN)/tmp-redirect demo

# The tests wait for servers and workers half of the time, so they run three at a time; what each says comes when it ends.
test: lint
	$(MAKE) --jobs=3 --output-sync=target --keep-going test-a-to-k test-shim-off test-l-to-z

test-a-to-k test-l-to-z: test-%: $(VENV)/test.stamp
	tests/private-tmp $(BIN)/python -m pytest tests/test_[$(subst -to-,-,$*)]*.py

# Each promise of the shim must fail without it.
test-shim-off: $(VENV)/test.stamp
	tests/private-tmp $(BIN)/python -m pytest --shim-off --quiet -r f

# A thousand workflows on workers of five pools, while they are killed, the disk is full and sweeps go on; random trees
# until 10,000 files were seen, a thousand path forms, and a thousand processes that are killed.
# Each prints its seed; SOAK=<seed> repeats it.
SOAK ?= new
soak: $(VENV)/test.stamp
	SOAK=$(SOAK) tests/private-tmp $(BIN)/python -m pytest -s --timeout 1800 \
		tests/test_trees.py tests/test_path_forms.py tests/test_lifecycle.py tests/test_nfs.py tests/test_ends.py \
		-k 'not test_ends or killed'
	tests/private-tmp $(BIN)/python -m tests.soak $(if $(filter-out new,$(SOAK)),--seed $(SOAK))

# A hundred times what `make test` tries of ids, settings, logs, paths and roots.
fuzz: $(VENV)/test.stamp
	SOAK=$(SOAK) tests/private-tmp $(BIN)/python -m pytest -s --timeout 7200 tests/test_fuzz_*.py

# The suites of others with the shim and without. As root: each run has mounts of its own.
conformance: $(VENV)/test.stamp
	$(BIN)/python -m tests.conformance

lint: $(VENV)/test.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

# Every interpreter, with the peers beside it; writes docs/benchmarks.json, its tables and its pictures. An hour.
bench: $(VENV)/test.stamp
	$(BIN)/python benchmarks/bench.py --all --write

simulate: $(VENV)/test.stamp
	$(BIN)/python benchmarks/simulate.py

# The demo needs this checkout, the tests the wheel, as users have it; the environment holds one of them.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
$(VENV)/demo.stamp: pyproject.toml | $(BIN)/python
	$(INSTALL) --editable '.[demo]'
	rm -f $(VENV)/test.stamp
	touch $@

# After an edit of the shim alone, what it depends on is there already: no need to look for it.
$(VENV)/test.stamp: pyproject.toml $(shell find $(SHIM) -name __pycache__ -prune -o -print) | $(BIN)/python
	$(INSTALL) $(if $(filter pyproject.toml,$?),'.[test]',--no-deps --no-build-isolation .)
	rm -f $(VENV)/demo.stamp
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "Python 3.10 to 3.13 is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache
