# Everything a person or CI does here. Each target sets up .venv first and does nothing for it when
# nothing has changed. Needs Python >= 3.11, git and make.

PY      := .venv/bin/python
WORKERS ?= 2
ARGS    ?=
# For `make lock` only.
UV      ?= uv
LOCK     = $(UV) pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
           --no-emit-index-url --no-emit-find-links --no-header --upgrade --quiet

# Tests start hundreds of programs in Python: none of them should compile what others have.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-servers test lint bench soak fuzz servers fetch-servers fmt lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' Makefile

setup: ## .venv with the pinned, hash-checked requirements and sealtape, editable
	@bash deploy/setup.sh

demo: setup ## a real psql session recorded, sealed, found, replayed, verified; KEEP=1 leaves it running
	@KEEP="$(KEEP)" $(PY) deploy/demo/demo.py $(ARGS)

demo-servers: setup ## the same on real Kafka, S3, PostgreSQL and OpenSearch; they are fetched once
	@KEEP="$(KEEP)" $(PY) deploy/demo/demo.py --servers $(ARGS)

test: setup ## every test but the soak and bench ones; ARGS="-k name" narrows
	@$(PY) -P -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not soak" --ignore=tests/bench $(ARGS)

lint: setup ## ruff, mypy, import contracts, house checks, individual coverage
	@echo "lint: ruff" && $(PY) -m ruff check . && $(PY) -m ruff format --check .
	@echo "lint: mypy" && $(PY) -m mypy
	@echo "lint: import contracts" && $(PY) -c "from importlinter.cli import lint_imports_command as c; c()"
	@echo "lint: house checks" && $(PY) -P -m pytest -q -m "not soak" tests/house --ignore=tests/house/test_wheel.py
	@echo "lint: individual coverage" && $(PY) -m tests.house.individual_coverage

bench: setup ## the benchmarks (tests/bench), numbers as ratios to a bare relay
	@$(PY) -P -m pytest tests/bench -s --timeout=0 -o faulthandler_timeout=0 $(ARGS)

soak: setup ## the long-running tests
	@$(PY) -P -m pytest -m soak -s --timeout=0 -o faulthandler_timeout=0 $(ARGS)

fuzz: setup ## inputs for every parser, guided by what they reach; FUZZ=N SEED=N, ARGS="--folder DIR note"
	@PY="$(PY)" WORKERS="$(WORKERS)" bash deploy/fuzz.sh $(ARGS)

servers: setup ## real Kafka, PostgreSQL, S3, OpenSearch and Keycloak until Ctrl-C; ARGS="kafka s3" narrows
	@$(PY) -m tests.servers up $(ARGS)

fetch-servers: setup ## what real servers are made of, into a cache outside the checkout, once
	@$(PY) -m tests.servers fetch

fmt: setup ## ruff format and the safe fixes
	@$(PY) -m ruff format . && $(PY) -m ruff check --fix --exit-zero --quiet . && $(PY) -m ruff format --quiet .

lock: ## requirements/*.txt anew from pyproject.toml (needs uv)
	$(LOCK) --all-extras --group dev -o requirements/dev.txt
	$(LOCK) --extra all -c requirements/dev.txt -o requirements/image.txt
	$(LOCK:pyproject.toml=) --group build -c requirements/dev.txt -o requirements/build.txt
	$(LOCK:pyproject.toml=) --group fuzz -o requirements/fuzz.txt
