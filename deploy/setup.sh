#!/usr/bin/env bash
# Makes .venv from the pinned, hash-checked requirements. `make setup` and all other targets call it;
# when nothing has changed it only compares a few checksums.
#
#   PYTHON=python3.13 deploy/setup.sh    with an interpreter of your choice
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'setup: %s\n' "$*"; }
usable() { # a Python >= 3.11 that can make virtual environments
  "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}
candidates=(python3 python3.14 python3.13 python3.12 python3.11)
[ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
checksum() { cat "$@" | cksum; }

stamp=.venv/.sealtape-setup
requirements="$(checksum requirements/dev.txt) $PWD"
project="$(checksum pyproject.toml) $PWD"
had_requirements="" had_project=""
if [ -f "$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
  { read -r had_requirements; read -r had_project; } <"$stamp" || true
fi
[ "$requirements" = "$had_requirements" ] && [ "$project" = "$had_project" ] && exit 0

if [ "$requirements" != "$had_requirements" ]; then
  # An environment that was moved, or whose interpreter went away, is made anew.
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || { [ -f "$stamp" ] && [ "${had_requirements#* * }" != "$PWD" ]; }; then
    python=""
    for candidate in "${candidates[@]}"; do
      if usable "$candidate"; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
      {
        echo "setup: no usable Python found (tried: ${candidates[*]})."
        echo "setup: Sealtape needs Python 3.11 or newer with its venv module (on Debian: python3-venv)."
        echo "setup: name one with PYTHON=/path/to/python make setup"
      } >&2
      exit 1
    fi
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
  fi
  # All of them are named, so none is looked for: older versions of pip, asked for `coverage[toml]` by a
  # package, take the newest coverage instead of the pinned one, and refuse it.
  say "installing $(grep -c '^[a-z].*==' requirements/dev.txt) pinned packages (some minutes on a first run)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-deps --require-hashes --only-binary :all: -r requirements/dev.txt
  .venv/bin/python -m pip check --disable-pip-version-check >/dev/null || {
    echo "setup: requirements/dev.txt lacks something; make it anew with \`make lock\`." >&2
    .venv/bin/python -m pip check --disable-pip-version-check >&2
    exit 1
  }
fi
say "installing sealtape itself, editable"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
printf '%s\n%s\n' "$requirements" "$project" >"$stamp"
say "ready: .venv ($(.venv/bin/python --version))"
