# make run     fastgate in front of two small services of its own, with what to try (ARGS="--port 9000" moves it)
# make test    all that the tests need, then linters, types and tests
# make bench   fastgate beside nginx, HAProxy, Envoy and others (about 50 minutes; ARGS=--quick: one)
# make docs    the pages that are made from the code
# make clean   takes away what the others made

SHELL := /bin/bash
PY := .venv/bin/python
CORE := $(wildcard fastgate/_core.p* fastgate/core/*.p* fastgate/proxy/*.p*)
ARGS ?=

.NOTPARALLEL:
.PHONY: run test lint bench docs clean

run: .venv/for-run .venv/built
	.venv/bin/fastgate demo $(ARGS)

test: .venv/for-tests .venv/built lint
	$(PY) -m pytest $(ARGS)

lint: .venv/for-tests .venv/built
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: .venv/for-tests .venv/built
	$(PY) -m bench $(ARGS)

docs: .venv/for-run .venv/built
	$(PY) -m tools.reasons_page docs/reasons.md
	$(PY) -m fastgate.telemetry.reference docs/metrics.md
	$(PY) -m fastgate.config.reference

clean:
	rm -rf .venv build dist *.egg-info fastgate/_core.c fastgate/_core.*.so

# Each of the first two also builds the extension, so that it is compiled once on a fresh machine.
.venv/for-run: pyproject.toml setup.py tools/setup.sh
	tools/setup.sh run
	@touch .venv/for-run .venv/built

.venv/for-tests: pyproject.toml setup.py tools/setup.sh
	tools/setup.sh test
	@touch .venv/for-tests .venv/for-run .venv/built

.venv/built: $(CORE)
	$(PY) -m pip install -q --no-build-isolation --no-deps --editable .
	@touch $@
