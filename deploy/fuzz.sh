#!/usr/bin/env bash
# Feeds every parser of foreign bytes: `make fuzz`. Installs atheris into .venv when it is not there;
# where it has no wheel, the inputs are made without guidance.
#
#   FUZZ=10000000 SEED=7    how many inputs in all, and which
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PY="${PY:-.venv/bin/python}"
export FUZZ="${FUZZ:-200000}" SEED="${SEED:-$(date +%s)}"

guided() { "$PY" -c 'import atheris' >/dev/null 2>&1; }

# On a platform that requirements/fuzz.txt does not name, pip installs nothing and is content.
guided || "$PY" -m pip install --quiet --disable-pip-version-check \
  --no-deps --require-hashes --only-binary :all: -r requirements/fuzz.txt || true
guided && exec "$PY" -m tests.fuzz.campaign --runs "$FUZZ" --seed "$SEED" "$@"

parsers="$("$PY" -c 'from tests.fuzz.seeds import PARSERS; print(len(PARSERS))')"
{
  echo "fuzz: atheris has no wheel for this Python, or it could not be installed. There are wheels for"
  echo "fuzz: CPython 3.11 to 3.14 on Linux and x86-64: PYTHON=python3.13 make setup, in a new .venv."
  echo "fuzz: Here the inputs are random changes of the samples, guided by nothing."
} >&2
FUZZ=$((FUZZ / parsers + 1)) exec "$PY" -P -m pytest tests/fuzz/test_parsers.py -n "${WORKERS:-2}" --timeout=0
