"""What all events share: numbers, ids, endpoints, actors, bytes."""

import json
from hashlib import sha256

import pytest

from sealtape.schemas.documents import SessionDocument
from sealtape.schemas.ocsf import event
from sealtape.schemas.ocsf.event import About, actor, endpoint, make_event, user
from tests.factories.ocsf import problems

SESSION = bytes(range(16))
DOCUMENT = SessionDocument(
    SESSION, "main", "standard", "ann", "shop", "postgres", "node-1", started_ns=5, revision=0
)


def about(**values):
    known = {"uid": "u", "code": "c", "time_ns": 1_999_999, "tenant": "main", "correlation": "x"}
    return About(**known | values)


def made(**values):
    known = {"message": "m", "members": {}, "ours": {"n": 1}}
    return make_event(event.BASE_EVENT, (99, "Odd"), **{"about": about()} | known | values)


def test_an_event_is_one_line_of_utf8():
    line = made(message="größer\nthan").to_json()
    assert b"\n" not in line
    assert "größer" in line.decode()
    assert not problems(line)


def test_what_every_event_says():
    said = json.loads(made().to_json())
    assert (said["time"], said["class_uid"], said["type_uid"]) == (1, 0, 99)
    assert (said["severity_id"], said["status_id"]) == (1, 1)
    assert said["metadata"]["version"] == event.VERSION == "1.8.0"
    assert said["metadata"]["log_version"] == event.LOG_VERSION
    assert said["unmapped"] == {"sealtape": {"time_ns": "1999999", "n": 1}}
    assert made().uid == "u"


def test_what_is_not_known_is_left_out():
    said = json.loads(made(about=about(tenant=""), status=None).to_json())
    assert not {"tenant_uid", "reporter"} & set(said["metadata"])
    assert not {"status", "status_id"} & set(said)
    known = json.loads(made(about=about(node="node-1")).to_json())
    assert known["metadata"]["reporter"] == {"name": "node-1"}


def test_a_session_goes_where_its_frames_would():
    found = made(about=about(correlation=SESSION.hex()))
    assert (found.key, found.route) == (SESSION.hex().encode(), SESSION)


@pytest.mark.parametrize("name", ["frames-1f/0", "abcd", "", "zz" * 16])
def test_anything_else_goes_by_the_hash_of_its_name(name):
    found = made(about=about(correlation=name))
    assert (found.key, found.route) == (name.encode(), sha256(name.encode()).digest()[:16])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("192.0.2.7:50312", {"ip": "192.0.2.7", "port": 50312}),
        ("192.0.2.7", {"ip": "192.0.2.7"}),
        ("[2001:db8::7]:50312", {"ip": "2001:db8::7", "port": 50312}),
        ("2001:db8::7", {"ip": "2001:db8::7"}),
        ("gate.example.org:1", {"name": "gate.example.org", "port": 1}),
        ("gate.example.org:x", {"name": "gate.example.org"}),
        ("", {"name": "unknown"}),
    ],
)
def test_endpoints(source, expected):
    assert endpoint(source) == expected


def test_who_acts():
    assert user(DOCUMENT) == {"name": "ann", "type_id": 1, "type": "User"}
    assert actor(DOCUMENT) == {"user": user(DOCUMENT), "session": {"uid": SESSION.hex()}}
    other = SessionDocument(
        SESSION, "main", "standard", "", "shop", "postgres", "n", 5, 0, agent="bot", groups=("a",)
    )
    assert user(other) == {"name": "unknown", "type_id": 0, "type": "Unknown"}
    assert actor(other)["app_name"] == "bot"


def test_groups():
    grouped = SessionDocument(
        SESSION, "main", "standard", "ann", "shop", "postgres", "n", 5, 0, groups=("dba", "ops")
    )
    assert user(grouped)["groups"] == [{"name": "dba"}, {"name": "ops"}]


def test_classes_belong_to_their_categories():
    assert event.AUTHENTICATION.category_uid == 3
    assert event.BASE_EVENT.category_uid == 0
