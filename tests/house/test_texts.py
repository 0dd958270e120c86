"""What no file of the repository may say."""

import re
from pathlib import PurePosixPath

from tests.house import sources

# Hosts of package registries, in two parts so that this file does not name them either. An address
# in a pinned file would bind every user to one registry.
REGISTRIES = [
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("crates", "io"),
    ("proxy.golang", "org"),  # golang, org alone begins the names of Go modules
    ("sum.golang", "org"),
    ("repo1.maven", "org"),
]
REGISTRY = re.compile("|".join(rf"\b{re.escape('.'.join(parts))}\b" for parts in REGISTRIES))
# A path of one person's machine.
MACHINE = re.compile(r"(?<![\w.$}~-])/(?:root|work|home|Users)/\w|(?<![\w.$}~-])/tmp/\w")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
ISSUE = re.compile(r"\bissues? #?\d+\b", re.IGNORECASE)
DOCUMENT = re.compile(r"(?<![\w/:.-])((?:\.{1,2}/|[\w-]+/)*[\w.-]+\.md)\b")
DESIGN = re.compile(r"\b(?:design|style|notes?) ?§", re.IGNORECASE)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)(?:#[^)]*)?\)")

# This file has to spell what it looks for.
SELF = PurePosixPath("tests/house/test_texts.py")


def _found(pattern, paths=None):
    hits = []
    for path in paths or sources.files():
        body = sources.text(path)
        if path == SELF or body is None:
            continue
        hits += [
            f"{path}:{number}: {match.group()}"
            for number, line in enumerate(body.splitlines(), 1)
            for match in pattern.finditer(line)
        ]
    return hits


def test_no_registry_is_named():
    assert not _found(REGISTRY)


def test_no_path_of_one_machine():
    assert not _found(MACHINE)


def test_nothing_is_left_to_be_done_in_a_comment():
    assert not _found(UNFINISHED)


def test_reasons_stand_in_the_text_not_in_a_tracker():
    assert not _found(ISSUE)
    assert not _found(DESIGN)


def test_documents_named_exist():
    """A document named in code or prose is one of this repository."""
    names = {path.name for path in sources.files()}
    paths = [p for p in sources.files() if p.suffix in {".py", ".md", ".toml", ".sh", ".sql"}]
    missing = [
        hit
        for hit in _found(DOCUMENT, paths)
        if hit.rsplit("/", 1)[-1].split(": ")[-1] not in names
    ]
    assert not missing


def test_links_in_documents_lead_somewhere():
    broken = []
    for path in sources.files():
        if path.suffix != ".md":
            continue
        for target in LINK.findall(sources.text(path)):
            if not (sources.ROOT / path.parent / target).exists():
                broken.append(f"{path}: {target}")
    assert not broken


def test_requirements_are_pinned_and_hashed_and_name_no_index():
    for path in sources.files():
        if path.parts[0] != "requirements":
            continue
        blocks = re.split(r"\n(?=\S)", sources.text(path).strip())
        for block in blocks:
            assert re.match(r"[\w.-]+(?:\[[\w,-]+\])?==\S+", block), f"{path}: not pinned: {block}"
            assert "--hash=sha256:" in block, f"{path}: no hash: {block.splitlines()[0]}"
        assert "://" not in sources.text(path)


def test_every_document_is_in_the_index():
    index = sources.text(PurePosixPath("docs/README.md"))
    listed = {(PurePosixPath("docs") / target) for target in LINK.findall(index)}
    documents = {p for p in sources.files() if p.parts[0] == "docs" and p.suffix == ".md"}
    missing = {str(path) for path in documents - listed} - {"docs/README.md"}
    assert not missing, f"add them to docs/README.md: {missing}"
