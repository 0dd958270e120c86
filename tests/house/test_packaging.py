"""The distribution: versions agree, extras stay apart, licences stay permissive."""

import importlib.metadata
import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import sealtape
from tests.house import sources

PROJECT = tomllib.loads((sources.ROOT / "pyproject.toml").read_text())
FILES = ("dev", "fuzz")  # `make setup` installs the first, `make fuzz` the second
COPYLEFT = re.compile(r"\b(?:AGPL|LGPL|GPL|SSPL|BUSL)|General Public License", re.IGNORECASE)


def _closure(*extras):
    """Names of everything `sealtape[extras]` brings on this platform."""
    seen, todo = set(), [("sealtape", set(extras))]
    while todo:
        name, wanted = todo.pop()
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": e}) for e in wanted or {""}):
                continue
            key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if key not in seen:
                seen.add(key)
                todo.append((requirement.name, set(requirement.extras) | {""}))
    return {name for name, _ in seen} - {"sealtape"}


def _licence(name):
    found = importlib.metadata.metadata(name)
    classifiers = [c for c in found.get_all("Classifier", []) if c.startswith("License")]
    return " ".join([found.get("License-Expression") or found.get("License") or "", *classifiers])


def test_versions_agree():
    version = PROJECT["project"]["version"]
    assert sealtape.__version__ == version
    assert f"## [{version}]" in (sources.ROOT / "CHANGELOG.md").read_text()


def test_capture_brings_no_pyarrow():
    assert "pyarrow" not in _closure("", "capture")
    assert "pyarrow" in _closure("", "ingest")
    assert "pyarrow" not in _closure("", "capture", "kafka")


def test_all_is_all():
    extras = [name for name in PROJECT["project"]["optional-dependencies"] if name != "all"]
    assert _closure("", "all") == set().union(*(_closure("", extra) for extra in extras))


def test_what_is_shipped_depends_on_permissive_licences_only():
    licences = {name: _licence(name) for name in _closure("", "all")}
    assert not {name: text for name, text in licences.items() if COPYLEFT.search(text)}


def test_every_dependency_is_pinned():
    pinned = "".join((sources.ROOT / f"requirements/{name}.txt").read_text() for name in FILES)
    names = {canonicalize_name(line.split("==")[0]) for line in pinned.splitlines() if "==" in line}
    wanted = list(PROJECT["project"]["dependencies"])
    for more in PROJECT["project"]["optional-dependencies"].values():
        wanted += more
    for name, more in PROJECT["dependency-groups"].items():
        if name != "containers":  # nobody gets it unasked
            wanted += [line for line in more if isinstance(line, str)]
    missing = {canonicalize_name(Requirement(line).name) for line in wanted} - names - {"sealtape"}
    assert not missing, f"run `make lock`: {missing}"
