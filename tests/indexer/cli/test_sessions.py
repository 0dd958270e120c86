"""`sealtape sessions`."""

import pytest

FIELDS = {
    *("session", "user", "groups", "agent", "target", "protocol", "source", "started", "ended"),
    *("state", "frames", "bytes_client", "bytes_server", "commands", "errors", "effects"),
}


def test_json_lines_newest_first(at, recorded):
    answer = at("sessions", "--json")
    assert answer.code == 0
    assert {line["session"] for line in answer.lines} == {
        built.session.hex() for built in (recorded.closed, recorded.live, recorded.grace)
    }
    for line in answer.lines:
        assert set(line) >= FIELDS
    started = [line["started"] for line in answer.lines]
    assert started == sorted(started, reverse=True)


def test_what_a_line_says(at, recorded):
    (line,) = at("sessions", f"session:{recorded.closed.session.hex()}", "--json").lines
    assert line["user"] == "ada"
    assert line["groups"] == ["dba"]
    assert line["agent"] is None
    assert line["target"] == "shop"
    assert line["protocol"] == "postgres"
    assert line["state"] == "sealed"
    assert line["frames"] == len(recorded.closed.frames)
    assert line["commands"] == 3
    assert line["errors"] == 0
    assert line["effects"] == ["read"]
    assert line["started"].endswith("Z")
    assert line["ended"] > line["started"]
    (line,) = at("sessions", f"session:{recorded.live.session.hex()}", "--json").lines
    assert line["state"] == "live"
    assert line["ended"] is None


def test_a_query(at, recorded):
    assert [x["session"] for x in at("sessions", "user:grace", "--json").lines] == [
        recorded.grace.session.hex()
    ]
    assert len(at("sessions", "user:ada", "--json").lines) == 2
    (line,) = at("sessions", "--json", "--", "-user:ada").lines
    assert line["user"] == "grace"


def test_limit(at):
    assert len(at("sessions", "--limit", "1", "--json").lines) == 1


def test_nothing_found_is_no_error(at):
    answer = at("sessions", "user:nobody", "--json")
    assert (answer.code, answer.out) == (0, "")


def test_for_people(at, recorded):
    answer = at("sessions")
    assert answer.out.splitlines()[0].startswith("session")
    assert recorded.closed.session.hex()[:12] in answer.out


@pytest.mark.parametrize("command", ["sessions", "search"])
def test_a_query_that_cannot_be_read(at, command):
    answer = at(command, "since:yesteryear", "--json")
    assert answer.code == 64
    assert answer.error["code"] == "query"


def test_before_the_first_run(run):
    run("init", "lab", "--dev")
    answer = run("-c", "lab", "sessions", "--json")
    assert answer.code == 74
    assert answer.error["code"] == "store"
