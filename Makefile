# `make demo` and `make test` set up what they need in .venv; PYTHON chooses the interpreter (3.10 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := services sitecustomize.py tmp_redirect_pytest.py examples tests benchmarks

.PHONY: demo test soak lint bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/demo.stamp
	$(BIN)/tmp-redirect demo

test: lint
	# First with the shim off: each of its promises must then fail.
	tests/private-tmp $(BIN)/python -m pytest --shim-off --quiet -r f
	tests/private-tmp $(BIN)/python -m pytest

# Random trees until 10,000 files were seen, a thousand path forms, and a thousand processes that are killed;
# SOAK=<the seed it printed> repeats a run.
SOAK ?= new
soak: $(VENV)/test.stamp
	SOAK=$(SOAK) tests/private-tmp $(BIN)/python -m pytest -s --timeout 1800 \
		tests/test_trees.py tests/test_path_forms.py tests/test_lifecycle.py tests/test_nfs.py tests/test_ends.py \
		-k 'not test_ends or killed'

lint: $(VENV)/test.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

bench: $(VENV)/test.stamp
	$(BIN)/python benchmarks/bench.py

$(VENV)/%.stamp: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 10) <= sys.version_info < (3, 14) else "Python 3.10 to 3.13 is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache
