# Everything here works from a clone with nothing installed but Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
WORKERS ?= 2

.PHONY: demo test test-search test-stores test-trackers check bench soak format clean help

help:
	@echo "make demo    train on real data: 1,797 handwritten digits, about a minute"
	@echo "make test    everything a contributor must pass"
	@echo "make test-search    searches with Ray Tune and W&B, in an environment of their own"
	@echo "make test-stores    runs that send their checkpoints to an object store on this machine"
	@echo "make test-trackers  each tracker with its client, in an environment of its own"
	@echo "make check   the static part: format, lint, types, layers"
	@echo "make bench   the figures behind the README, printed"
	@echo "make soak    the long runs, and mutation testing: what the tests notice"

.venv/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch numpy
	@touch $@

.venv/.demo: .venv/.base
	$(PIP) --editable '.[demo]'
	@touch $@

.venv/.dev: .venv/.base
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/.demo

.venv/.soak: .venv/.dev
	$(PIP) --editable '.[dev,soak]'
	@touch $@

demo: .venv/.demo
	$(BIN)/surestep run examples/digits.yaml

check: .venv/.dev
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/ruff check --fix src tests benchmarks examples

test: check
	rm -f .coverage .coverage.*
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not gpu and not soak" -n $(WORKERS) --cov --cov-report=
	$(BIN)/python tests/coverage_gate.py

.venv-search/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-search
	.venv-search/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt torch numpy
	.venv-search/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
		--editable '.[memory]' pytest pytest-timeout 'ray[tune]==2.60.0' wandb==0.31.0
	@touch $@

test-search: .venv-search/.done
	OMP_NUM_THREADS=1 .venv-search/bin/python -m pytest tests/searchers

.venv-stores/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-stores
	.venv-stores/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt torch numpy
	.venv-stores/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
		--editable '.[remote]' pytest pytest-timeout
	.venv-stores/bin/python -m pip --disable-pip-version-check install --quiet \
		s3fs==2026.9.0 aiobotocore==3.10.0 boto3==1.43.117 'moto[server]==5.2.5'
	@touch $@

test-stores: .venv-stores/.done
	OMP_NUM_THREADS=1 .venv-stores/bin/python -m pytest tests/stores

test-trackers: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.trackers.environments $(TRACKERS)

bench: .venv/.dev
	$(BIN)/python -m benchmarks

soak: .venv/.soak
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak --timeout=0 -v
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak.mutation

clean:
	rm -rf .venv .venv-search .venv-stores .venv-trackers build dist .coverage .coverage.* .mypy_cache .ruff_cache .hypothesis
