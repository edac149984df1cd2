# Everything runs in .venv, which `make` builds by itself; only Python 3.11+ is needed beforehand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install test test-full lint demo clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("ctjax needs Python 3.11 or newer; set PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m ctjax.faces.models
	touch $@

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not full'

test-full: $(STAMP)
	$(BIN)/python -m pytest -m full

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

demo: $(STAMP)
	$(BIN)/python infer.py

clean:
	rm -rf $(VENV) out build dist *.egg-info
