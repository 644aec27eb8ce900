# Two commands set up everything inside this checkout: `make compare` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: compare test lint docs lowest clean

compare: .venv/lab.stamp  ## train six learning-rate plans on real text and compare them
	$(BIN)/trainplan compare $(ARGS)

test: .venv/test.stamp  ## run every test
	$(BIN)/python -m pytest -q -n 2 $(ARGS)
	$(BIN)/python tests/golden.py tests/golden/*.json

lint: .venv/test.stamp  ## linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/lab.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) 'pip>=25.1' && $(PIP) -c constraints.txt -e '.[lab]'
	touch $@

.venv/test.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) 'pip>=25.1' && $(PIP) -c constraints.txt -e '.[lab,jax,hf,lightning,keras,trackers]' \
		--group test --group lint --group docs
	touch $@

docs: .venv/test.stamp  ## build the documentation into site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

lowest:  ## the core's tests on the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv .cache/lowest
	.cache/lowest/bin/python -m pip install --quiet 'pip>=25.1'
	.cache/lowest/bin/python -m pip install --quiet -c constraints-lowest.txt -e . --group test
	.cache/lowest/bin/python -m pytest -q -p no:cacheprovider tests/schedules tests/test_plan.py

clean:
	rm -rf .venv .cache build dist
