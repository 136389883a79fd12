# Everything here needs Python 3.11+ and make, and fetches from the package index alone. `make` lists the targets.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo test check lock-check faults torture bench bench-full deploy athena sbom licences audit lock system-deps clean

# Python's own caches, also where the environment turns them off: hundreds of processes of the tests would compile everything anew
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
# half as many again as cores: many tests wait for sockets, leases and processes
WORKERS := $(shell echo $$(( $$(nproc 2>/dev/null || echo 2) * 3 / 2 )))
LOCK := sh .ci/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate $(if $(UPGRADE),--upgrade)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F '|' '{ printf "%-20s %s\n", $$1, $$2 }'

setup:  ## make .venv from the lock, if it is not up to date (PYTHON=python3.12 chooses the interpreter, EXTRA=detector adds that extra)
	@PYTHON="$(PYTHON)" EXTRA="$(EXTRA)" sh .ci/setup

demo: setup  ## scan a small catalogue on this machine (ARGS="--catalogue DIR --results DIR")
	@$(BIN)/soundcheck demo $(ARGS)

test: setup  ## run the tests (ARGS="-k name")
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 20 $(ARGS)

check: setup  ## everything CI asks for: lock, ruff, mypy, import contracts, tests
	$(MAKE) lock-check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

lock-check: setup  ## do the requirements files satisfy pyproject.toml? (offline)
	$(BIN)/python -m pytest tests/test_ground.py -k lock

torture: setup  ## run the full numbers of reliability, which take long
	$(BIN)/python -m pytest -m torture --timeout 3600 -vv $(ARGS)

faults: setup  ## write the fault matrix into docs/reliability.md
	$(BIN)/python tests/support/fault_matrix.py

bench: setup  ## measure whole runs, shortly: beside what people would use instead, slot use, growth, start-up (JSON in build/bench)
	@mkdir -p build/bench
	$(BIN)/python benchmarks/end_to_end.py --hours 0.5 --rounds 1 --short-objects 30 --killed-objects 20 --json build/bench/end_to_end.json
	$(BIN)/python benchmarks/slots.py --hours 2 --json build/bench/slots.json
	$(BIN)/python benchmarks/growth.py --most 1000 --json build/bench/growth.json
	$(BIN)/python benchmarks/start_up.py --objects 10000 --no-prefect --json build/bench/start_up.json

bench-full: setup  ## the same at full length, which takes hours, and the benchmarks of single parts
	@mkdir -p build/bench
	$(BIN)/python benchmarks/end_to_end.py --hours 10 --rounds 3 --short-objects 300 --killed-objects 100 --json build/bench/end_to_end.json
	$(BIN)/python benchmarks/slots.py --hours 24 --json build/bench/slots.json
	$(BIN)/python benchmarks/growth.py --json build/bench/growth.json
	$(BIN)/python benchmarks/start_up.py --runs 3 --json build/bench/start_up.json
	$(BIN)/python benchmarks/workers.py --json build/bench/workers.json
	@set -e; for name in session listing planning lake detector; do \
		$(BIN)/python benchmarks/$$name.py --json build/bench/$$name.json; \
	done

deploy: setup  ## make work pools and deployments on the Prefect server of PREFECT_API_URL
	@for pool in soundcheck soundcheck-shards; do \
		$(BIN)/prefect work-pool inspect $$pool >/dev/null 2>&1 || $(BIN)/prefect work-pool create $$pool --type process; \
	done
	$(BIN)/prefect --no-prompt deploy --prefect-file deployments/prefect.yaml --all

athena: setup  ## print the tables and views of the results for Athena (RESULTS=s3://bucket/prefix)
	@$(BIN)/soundcheck sql --emit athena $(if $(RESULTS),--results $(RESULTS))

sbom: setup  ## print what is installed where soundcheck runs, as CycloneDX
	@$(BIN)/python .ci/packages sbom

licences: setup  ## write docs/licences.md
	$(BIN)/python .ci/packages licences >docs/licences.md

audit:  ## ask for known holes in what is locked (this calls out: pip-audit; ARGS="--ignore-vuln ID")
	@sh .ci/audit $(ARGS)

lock:  ## compile the requirements files anew (UPGRADE=1 takes newer versions)
	$(LOCK) --output-file requirements.txt pyproject.toml
	$(LOCK) --output-file requirements-dev.txt --extra local --extra traces --extra dev --constraint requirements.txt pyproject.toml
	$(LOCK) --output-file requirements-detector.txt --extra detector --constraint requirements-dev.txt pyproject.toml
	$(LOCK) --output-file requirements-tools.txt --group tools

system-deps:  ## install what heavier tests use from the distribution: PostgreSQL, Chromium (as root; does nothing where it cannot)
	@sh .ci/system-deps

clean:  ## remove .venv and everything made by tools
	rm -rf .venv .venv-tools .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find flows tasks connectors moderation tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
