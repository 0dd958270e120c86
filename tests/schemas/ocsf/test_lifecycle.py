"""Outbox rows: what the ledger says of sealing, gaps, incidents, keys and policies."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import canonical
from sealtape.schemas.ocsf.lifecycle import SEVERITIES, lifecycle_event
from tests.factories.ocsf import problems
from tests.schemas.ocsf import cases

ROWS = cases.VECTORS["lifecycle"]
KINDS = sorted({row["kind"] for row in ROWS})


def mapped(row, **changes):
    values = row | changes
    return lifecycle_event(
        values["kind"], values["key"], values["payload"].encode(), int(values["at_ns"])
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["kind"])
def test_vectors(row):
    assert json.loads(mapped(row).to_json()) == json.loads(row["event"])
    assert not problems(row["event"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["kind"])
def test_an_id_is_the_same_each_time_it_is_relayed(row):
    assert mapped(row).uid == mapped(row).uid == json.loads(row["event"])["metadata"]["uid"]


@pytest.mark.parametrize("reason", [*SEVERITIES, "something-new"])
def test_how_grave_an_incident_is(reason):
    row = next(row for row in ROWS if row["kind"] == "incident")
    body = json.loads(row["payload"]) | {"reason": reason}
    found = mapped(row, payload=canonical.encode(body).decode())
    assert found.members["severity"] == SEVERITIES.get(reason, (4, "High"))[1]
    assert not problems(found.to_json())


@pytest.mark.parametrize(
    "payload",
    ["", "{", "[]", "null", '{"v":1}', '{"session":5,"epoch":"x"}', "\ufffd", '{"tenant":7}'],
)
@pytest.mark.parametrize("kind", [*KINDS, "shard-moved"])
def test_what_is_not_understood_is_passed_on_as_it_is(kind, payload):
    found = lifecycle_event(kind, "k", payload.encode(), 5)
    assert found.members["class_uid"] == 0
    assert found.members["metadata"]["event_code"] == kind
    assert found.uid.startswith(f"{kind}:")
    assert found.uid != lifecycle_event(kind, "k", payload.encode(), 6).uid
    assert not problems(found.to_json())


def test_a_new_kind_keeps_what_it_says():
    found = lifecycle_event("shard-moved", "", b'{"shard":"a/0","tenant":"acme"}', 5)
    assert found.members["unmapped"]["sealtape"]["shard"] == "a/0"
    assert found.members["metadata"]["tenant_uid"] == "acme"
    assert found.members["message"] == "shard-moved"


@given(st.sampled_from([*KINDS, "odd"]), st.text(), st.binary(), st.integers(0, 2**62))
def test_whatever_a_row_holds_makes_a_valid_event(kind, key, payload, at_ns):
    key = key.encode("utf-8", "replace").decode()
    assert not problems(lifecycle_event(kind, key, payload, at_ns).to_json())
