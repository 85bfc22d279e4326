# One command each: `make demo`, `make test`, `make lint`. All of them set up .venv first, once.
# On Linux plain torch is the CUDA build; for the smaller CPU build tell pip where to find it (see PyTorch's
# "Get started" page) before the first `make`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP := .venv/bin/python -m pip --quiet --disable-pip-version-check
READY := .venv/.ready

.PHONY: setup demo test test-slow lint bench parity clean
.DEFAULT_GOAL := help

help:
	@echo "make setup      a virtual environment in .venv with the tested versions"
	@echo "make demo       make, use, measure and mend a small model; then open runs/demo/report.html"
	@echo "make test       the tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make lint       ruff and pyrefly"
	@echo "make bench      measure speed"
	@echo "make parity     our models beside transformers', cell by cell"
	@echo "make clean      remove .venv, caches and build files; runs/ stays"

setup: $(READY)

# torch first, at the tested version, so that nothing else asks for another; then the rest.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no python3 found; install Python 3.11 or newer" >&2; exit 1; }
	@test -x .venv/bin/python || "$(PYTHON)" -m venv .venv
	@.venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "make: .venv has $$(.venv/bin/python -V), 3.11 or newer is needed; run: rm -rf .venv && make setup PYTHON=python3.11" >&2; exit 1; }
	$(PIP) install "$$(grep '^torch==' constraints.txt)"
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)
	.venv/bin/qualm demo

test: $(READY)
	.venv/bin/python -m pytest -m "not slow and not network"

test-slow: $(READY)
	.venv/bin/python -m pytest -m "slow and not network"

lint: $(READY)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyrefly check --summary=none

bench: $(READY)
	@for script in benchmarks/*.py; do echo "== $$script"; .venv/bin/python "$$script" || exit 1; done

parity: $(READY)
	.venv/bin/python benchmarks/parity.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
