"""Sessions that begin and end, nodes, and clients that were turned away."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas.ocsf.sessions import refusal, session_ended, session_started
from tests.factories.ocsf import problems
from tests.schemas.ocsf import cases

STARTS = list(cases.indexed("session-start", "node-start"))
ENDS = list(cases.indexed("session-end", "node-end"))
REFUSALS = list(cases.indexed("session-refused"))


@pytest.mark.parametrize(("session", "command", "close", "event"), STARTS)
def test_starts(session, command, close, event):
    assert json.loads(session_started(session).to_json()) == event
    assert not problems(event)


@pytest.mark.parametrize(("session", "command", "close", "event"), ENDS)
def test_ends(session, command, close, event):
    assert json.loads(session_ended(session, **close).to_json()) == event
    assert not problems(event)


@pytest.mark.parametrize(("session", "command", "close", "event"), REFUSALS)
def test_refusals(session, command, close, event):
    assert json.loads(refusal(command, session).to_json()) == event
    assert not problems(event)


def test_there_are_vectors():
    assert STARTS
    assert ENDS
    assert REFUSALS


def test_the_event_of_a_start_does_not_change_while_the_session_goes_on():
    session = STARTS[0][0]
    later = dataclasses.replace(
        session, frames=99, commands=5, bytes_client=7, revision=99, state="closed", ended_ns=9
    )
    assert session_started(later).to_json() == session_started(session).to_json()


def test_an_end_whose_time_is_not_known():
    session, _, close, _ = ENDS[0]
    found = session_ended(dataclasses.replace(session, ended_ns=None, agent=""), **close)
    assert found.members["duration"] == 0
    assert "actor" not in found.members
    assert not problems(found.to_json())


def test_an_end_before_its_start_has_no_duration_below_zero():
    session, _, close, _ = ENDS[0]
    found = session_ended(dataclasses.replace(session, ended_ns=1), **close)
    assert found.members["duration"] == 0


def test_a_node_that_died():
    session, _, close, _ = ENDS[-1]
    found = session_ended(dataclasses.replace(session, close_reason="aborted"), **close)
    assert (found.members["severity"], found.members["status"]) == ("Medium", "Failure")
    assert not problems(found.to_json())


def test_a_refused_agent():
    session, command, _, _ = REFUSALS[0]
    found = refusal(dataclasses.replace(command, agent="bot", user="ann", target=""), session)
    assert found.members["actor"]["app_name"] == "bot"
    assert found.members["service"] == {"name": "unknown"}
    assert not problems(found.to_json())


@given(cases.sessions, cases.commands, st.integers(0, 9), st.integers(0, 2**62))
def test_all_documents_make_valid_events(session, command, epoch, seq):
    for event in (
        session_started(session),
        session_ended(session, epoch=epoch, seq=seq),
        refusal(command, session),
    ):
        assert not problems(event.to_json())
