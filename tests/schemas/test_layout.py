"""Object keys: each comes back from its parts, and nothing else is a key."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import layout
from sealtape.schemas.errors import FormatError

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "segments.json").read_text(encoding="utf-8")
)
ID = "019aac8f5c007e1ea6d1000000000001"
KEY = f"seg/v1/tenant=main/class=standard/dt=2026-11-22/{ID}-1.parquet"

names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)
days = st.dates().map(lambda day: day.isoformat())
uuids = st.from_regex(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", fullmatch=True)
terms = st.integers(0, 2**63 - 1)


def test_vectors():
    keys = VECTORS["keys"]
    assert layout.segment_key("main", "standard", "2026-11-22", ID, 1) == keys["segment"] == KEY
    assert layout.manifest_key(KEY) == keys["manifest"]
    assert layout.segment_of_manifest(keys["manifest"]) == KEY
    found = layout.parse_key(keys["quarantine"])
    assert isinstance(found, layout.QuarantineKey)
    assert layout.quarantine_key(found.tenant, found.day, found.id) == keys["quarantine"]


@pytest.mark.parametrize("key", VECTORS["malformed_keys"])
def test_malformed_vectors(key):
    with pytest.raises(FormatError):
        layout.parse_key(key)


@given(names, names, days, uuids, terms)
def test_a_segment_key_comes_back(tenant, class_name, day, uuid7hex, term):
    key = layout.segment_key(tenant, class_name, day, uuid7hex, term)
    assert layout.parse_key(key) == layout.SegmentKey(tenant, class_name, day, uuid7hex, term)
    assert key.startswith(layout.tenant_prefix(tenant, class_name))
    assert key.startswith(layout.SEGMENT_PREFIX)
    assert layout.segment_of_manifest(layout.manifest_key(key)) == key


@given(names, days, uuids)
def test_a_quarantine_key_comes_back(tenant, day, uuid7hex):
    key = layout.quarantine_key(tenant, day, uuid7hex)
    assert layout.parse_key(key) == layout.QuarantineKey(tenant, day, uuid7hex)


@pytest.mark.parametrize("name", ["", "-a", "_a", "A", "a b", "a/b", "a" * 64, "é", "a\n", ".."])
def test_names(name):
    assert not layout.is_name(name)
    with pytest.raises(FormatError, match="name of a tenant"):
        layout.check_name(name, "tenant")
    assert layout.check_name("a-b_9", "tenant") == "a-b_9"


@pytest.mark.parametrize(
    "parts",
    [
        ("Main", "standard", "2026-11-22", ID, 1),
        ("main", "", "2026-11-22", ID, 1),
        ("main", "standard", "20261122", ID, 1),
        ("main", "standard", "2026-13-01", ID, 1),
        ("main", "standard", "2026-11-22", ID.upper(), 1),
        ("main", "standard", "2026-11-22", ID[:-1], 1),
        ("main", "standard", "2026-11-22", ID, -1),
        ("main", "standard", "2026-11-22", ID, 2**63),
    ],
)
def test_a_part_of_another_form_is_refused(parts):
    with pytest.raises(FormatError):
        layout.segment_key(*parts)


def test_a_term_beyond_64_bits_is_no_key():
    with pytest.raises(FormatError, match="term"):
        layout.parse_key(KEY.replace("-1.parquet", "-9999999999999999999.parquet"))


def test_only_segments_have_manifests():
    with pytest.raises(FormatError, match="not a segment"):
        layout.manifest_key(VECTORS["keys"]["quarantine"])
    with pytest.raises(FormatError, match="not a manifest"):
        layout.segment_of_manifest(KEY)
    with pytest.raises(FormatError):
        layout.segment_of_manifest("seg/v1/x.manifest.jsonl")


def test_days_are_utc():
    assert layout.day_of(0) == "1970-01-01"
    assert layout.day_of(86_400 * 10**9 - 1) == "1970-01-01"
    assert layout.day_of(-1) == "1969-12-31"
    assert layout.day_of(2**63 - 1) == "2262-04-11"
    with pytest.raises(FormatError, match="not a time"):
        layout.day_of(10**30)
