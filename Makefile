# Two commands do everything on a machine with Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/pip install --quiet --disable-pip-version-check

FUZZ ?= 20000

.PHONY: demo test fuzz campaign gpu lint docs install install-dev install-docs clean

demo: install
	$(BIN)/attentkit compare --out runs/demo

# A thread each: with two, processes side by side wait for each other. tests/conftest.py says how many, and which files come first.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

fuzz: install
	ATTENTKIT_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/test_fuzz.py tests/test_fuzz_texts.py tests/test_dicom_fuzz.py

# Hours; what has been tried is kept in runs/campaigns, so that it goes on where it was stopped.
campaign: install
	PYTHONPATH=benchmarks:tests $(BIN)/python -m campaigns --write

# On a machine with a GPU, under 25 minutes: its tests, the throughput, and the phantom at 256 pixels as far as time goes.
gpu: install
	$(BIN)/python benchmarks/gpu.py

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html."

# What each needs, once; `make test` alone needs no more than the first.
install: $(VENV)/installed
install-dev: $(VENV)/installed-dev
install-docs: $(VENV)/installed-docs

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"attent-kit needs Python 3.11 or newer, this is {v[0]}.{v[1]}: type make PYTHON=python3.12, for example.")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), torch among it: some gigabytes, a few minutes."
	$(PIP) --editable '.[test]'
	touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(PIP) --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) dist runs docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
