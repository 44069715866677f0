# Two commands do everything on a machine with Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint install clean

demo: install
	$(BIN)/attentkit compare --out runs/demo

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/pip install --quiet ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"attent-kit needs Python 3.11 or newer, this is {v[0]}.{v[1]}: type make PYTHON=python3.12, for example.")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), torch among it: some gigabytes, a few minutes."
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) dist runs .pytest_cache .hypothesis
