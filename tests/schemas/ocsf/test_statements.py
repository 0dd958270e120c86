"""Statements, while they run and with their results."""

import dataclasses
import json

import pytest
from hypothesis import given

from sealtape.schemas.ocsf.statements import ACTIVITIES, statement
from tests.factories.ocsf import problems
from tests.schemas.ocsf import cases

CASES = list(cases.indexed("statement"))
SESSION, COMMAND = CASES[1][0], CASES[1][1]


@pytest.mark.parametrize(("session", "command", "close", "event"), CASES)
def test_vectors(session, command, close, event):
    assert json.loads(statement(command, session).to_json()) == event
    assert not problems(event)


def test_there_is_a_vector_for_each_status():
    assert [case[1].status for case in CASES] == ["running", "ok", "error"]


@pytest.mark.parametrize(
    ("effect", "number", "name"),
    [*((effect, *said) for effect, said in ACTIVITIES.items()), ("exec", 99, "exec"),
     ("", 99, "Other")],
)  # fmt: skip
def test_effects_are_activities(effect, number, name):
    found = statement(dataclasses.replace(COMMAND, effect=effect), SESSION)
    assert (found.members["activity_id"], found.members["activity_name"]) == (number, name)
    assert found.members["type_uid"] == 600500 + number
    assert not problems(found.to_json())


def test_the_id_says_which_result_it_is():
    ids = [statement(dataclasses.replace(COMMAND, version=v), SESSION).uid for v in range(3)]
    fact = f"{COMMAND.session.hex()}:0:3:7"
    assert ids == [f"{fact}:0", fact, f"{fact}:2"]


def test_without_fingerprint_table_database_or_known_protocol():
    bare = dataclasses.replace(
        COMMAND, fingerprint="", tables=(), protocol="ssh", target="", source=""
    )
    found = statement(bare, dataclasses.replace(SESSION, database=""))
    assert found.members["query_info"]["uid"] == COMMAND.id
    assert found.members["database"] == {
        "name": "unknown", "uid": "unknown", "type_id": 0, "type": "Unknown",
    }  # fmt: skip
    assert "table" not in found.members
    assert not problems(found.to_json())


@given(cases.sessions, cases.commands)
def test_all_documents_make_valid_events(session, command):
    assert not problems(statement(command, session).to_json())
