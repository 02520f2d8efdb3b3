# Everything that one does with a checkout. Each target makes .venv first, when it is missing or out of date.

PYTHON_IN_VENV := .venv/bin/python
UV ?= uv

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench bench-origin up soak lock clean

help:
	@echo "Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

setup:
	@scripts/setup.sh

demo: setup  ## show it all at once: publish, mirror, publish a change, play a track
	@.venv/bin/music-cloud demo

test: check  ## lint, types and every test, against a real S3 server
	@scripts/setup.sh tools
	$(PYTHON_IN_VENV) -m pytest

check: setup  ## lint, formatting and types only
	$(PYTHON_IN_VENV) -m ruff check
	$(PYTHON_IN_VENV) -m ruff format --check
	$(PYTHON_IN_VENV) -m mypy

bench: setup  ## measure the figures that the docs quote, and draw them
	@scripts/setup.sh bench
	$(PYTHON_IN_VENV) -m benchmarks

bench-origin: setup  ## measure the origin beside nginx, Caddy and Starlette (needs a C compiler)
	@scripts/setup.sh tools
	$(PYTHON_IN_VENV) -m benchmarks.origin

up: setup  ## keep a local S3 server (and nginx in front, if there is one) running
	@exec $(PYTHON_IN_VENV) -m localstack up

soak: setup  ## the tests that run for minutes
	@scripts/setup.sh tools
	$(PYTHON_IN_VENV) -m pytest -m soak

# The index is named so that no setting of this machine gets into the lock.
LOCKING := --universal --python-version 3.11 --generate-hashes --upgrade --no-config --no-emit-index-url \
    --default-index https://pypi.org/simple --custom-compile-command "make lock" --quiet

# Both are installed into one environment: what the second shares with the first has the same version.
lock:  ## pin the newest allowed versions in requirements-*.lock (needs uv)
	@command -v $(UV) >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	$(UV) pip compile pyproject.toml --group dev $(LOCKING) --output-file requirements-dev.lock
	$(UV) pip compile --group bench --constraint requirements-dev.lock $(LOCKING) \
	    --output-file requirements-bench.lock

clean:  ## remove everything that can be made again
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
