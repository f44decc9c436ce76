# Each target sets itself up: a virtual environment in .venv, pinned by constraints.txt, made again when that or
# pyproject.toml changes. `make demo PYTHON=/path/to/python3.12` chooses the interpreter, `make test ARGS="-k store"` the
# tests, VENV=folder another environment. Tests run in two processes of one thread each.

VENV ?= .venv
PYTHON ?= python3
ARGS ?=
READY := $(VENV)/.octavo-installed
ERRORS_ONLY := -qq

.PHONY: demo test lint install clean

demo: install
	@$(VENV)/bin/octavo demo $(ARGS)

test: install
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: install
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

install: $(READY)

$(READY): pyproject.toml constraints.txt $(wildcard setup.py index/native/*.cpp index/native/*.h)
	@found=; for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then found=$$python; break; fi; done; \
	if [ -z "$$found" ]; then \
	  echo "Octavo needs Python 3.11 or newer with its venv module, and found none."; \
	  echo "Install one (on Debian: python3 and python3-venv) or name it: make PYTHON=/path/to/python3"; exit 1; fi; \
	echo "Installing Octavo with $$($$found -V) into $(VENV): up to 2 GB, once; a few minutes with a slow network."; \
	$$found -m venv $(VENV)
	@$(VENV)/bin/python -m pip install $(ERRORS_ONLY) --disable-pip-version-check -c constraints.txt pip
	@$(VENV)/bin/python -m pip install $(ERRORS_ONLY) -c constraints.txt --build-constraint constraints.txt \
	  -e . --group dev
	@touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info index/native/kernels*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
