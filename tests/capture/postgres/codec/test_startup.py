import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.postgres.codec import messages
from sealtape.capture.postgres.codec import startup as s
from sealtape.capture.postgres.codec.messages import ProtocolViolation


def first(data):
    assert s.first_length(data[:4]) == len(data) - 4
    return s.read_first(data[4:])


def code(number, rest=b""):
    return struct.pack(">I", number) + rest


def test_encryption_requests():
    assert first(messages.SSL_REQUEST) == s.SSLRequest()
    assert s.read_first(code(80877104)) == s.GSSENCRequest()
    for number in (80877103, 80877104):
        with pytest.raises(ProtocolViolation):
            s.read_first(code(number, b"plaintext after it"))


def test_cancel_requests_of_both_lengths():
    for key in (b"1234", b"k" * 256):
        assert first(messages.cancel_request(9, key)) == s.CancelRequest(9, key)
    for key in (b"123", b"k" * 257):
        with pytest.raises(ProtocolViolation):
            s.read_first(code(80877102, code(9, key)))


@pytest.mark.parametrize("size", [0, 4, 7, 10_001, 0xFFFF_FFFF])
def test_first_lengths_no_client_sends(size):
    with pytest.raises(ProtocolViolation):
        s.first_length(struct.pack(">I", size))


def test_first_length_needs_its_four_bytes():
    with pytest.raises(ProtocolViolation):
        s.first_length(b"\0\0\0")
    with pytest.raises(ProtocolViolation):
        s.read_first(b"\0\0\0")


def test_startup_messages():
    found = first(messages.startup({"user": "u", "database": "orders"}))
    assert found == s.Startup(0x30000, {"user": "u", "database": "orders"}, ())
    assert found.key_bytes == 4
    assert found.negotiation == b""
    newer = first(messages.startup({"user": "u"}, messages.PROTOCOL_3_2))
    assert newer.key_bytes == 32
    assert newer.negotiation == b""


def test_negotiation_of_newer_protocols_and_options():
    found = first(messages.startup({"user": "u", "_pq_.x": "1"}, 0x3_270F))
    assert found.options == ("_pq_.x",)
    assert found.parameters == {"user": "u"}
    assert messages.negotiated(found.negotiation[5:]) == (messages.PROTOCOL_3_2, ["_pq_.x"])
    old = first(messages.startup({"user": "u", "_pq_.x": "1"}))
    assert messages.negotiated(old.negotiation[5:]) == (messages.PROTOCOL_3_0, ["_pq_.x"])


@pytest.mark.parametrize("version", [0, 2 << 16, 4 << 16, 1234 << 16])
def test_other_protocols(version):
    with pytest.raises(s.UnsupportedProtocol):
        s.read_first(code(version, b"\0"))


@pytest.mark.parametrize(
    "body",
    [b"", b"user", b"user\0", b"user\0u\0", b"user\0u\0\0x", b"user\0u\0user\0v\0\0", b"\0\0"],
)
def test_malformed_startups(body):
    with pytest.raises(ProtocolViolation):
        s.read_first(code(3 << 16, body))


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else(body):
    for data in (body, code(3 << 16, body)):
        try:
            s.read_first(data)
        except ProtocolViolation:
            pass


def test_targets():
    assert s.target_of({"database": "orders"}) == ("orders", None)
    assert s.target_of({"database": "orders/other DB"}) == ("orders", "other DB")
    assert s.target_of({"database": "a/b/c"}) == ("a", "b/c")
    assert s.target_of({"user": "orders", "database": ""}) == ("orders", None)


@pytest.mark.parametrize(
    "name", ["", "Orders", "orders/", "/x", "-a", "a b", "a" * 64, "a/" + "b" * 64, "a\n"]
)
def test_what_names_no_target(name):
    with pytest.raises(ProtocolViolation):
        s.target_of({"database": name})


def startup(**parameters):
    return s.Startup(0x30000, parameters, ())


def test_safe_parameters_go_on_as_they_were_spelt():
    found = s.admit(
        startup(user="u", database="d", application_name="psql", DateStyle="ISO", TimeZone="UTC")
    )
    assert found.forward == {"application_name": "psql", "DateStyle": "ISO", "TimeZone": "UTC"}
    assert (found.application, found.run, found.replication) == ("psql", "", "")


@pytest.mark.parametrize("name", ["search_path", "role", "session_authorization", "x"])
def test_what_could_change_a_statements_meaning_is_refused(name):
    with pytest.raises(s.ParameterRefused, match=name):
        s.admit(startup(**{name: "evil"}))
    with pytest.raises(s.ParameterRefused, match=name):
        s.admit(startup(options=f"-c {name}=evil"))


def test_unless_the_target_allows_it():
    found = s.admit(startup(Search_Path="a", options="-c jit=off"), allowed=["search_path", "JIT"])
    assert found.forward == {"Search_Path": "a", "jit": "off"}
    assert found.parameters == ("Search_Path=a", "jit=off")


def test_allowing_what_is_ours_changes_nothing():
    found = s.admit(startup(user="u", options=""), allowed=["user", "options"])
    assert found.forward == {}


def test_replication():
    for value in ("", "false", "off", "No", "0"):
        assert s.admit(startup(replication=value)).replication == ""
    for value in ("true", "database", "1"):
        with pytest.raises(s.ParameterRefused):
            s.admit(startup(replication=value))
        found = s.admit(startup(replication=value), replication=True)
        assert found.replication == value
        assert found.parameters == (f"replication={value}",)


def test_run_ids():
    by_options = startup(application_name="x", options="-c sealtape.run=r-1 -cstatement_timeout=5s")
    found = s.admit(by_options)
    assert found.run == "r-1"
    assert found.forward == {"application_name": "x", "statement_timeout": "5s"}
    assert s.admit(startup(**{"sealtape.run": "r-2"})).run == "r-2"
    assert s.admit(startup(application_name="agent sealtape.run=r-3;x")).run == "r-3"
    assert s.admit(startup(application_name="agentsealtape.run=r-3")).run == ""
    both = startup(application_name="sealtape.run=b", options="--sealtape.run=a")
    assert s.admit(both).run == "a"
    assert len(s.admit(startup(**{"sealtape.run": "r" * 500})).run) == s.MAX_RUN


def test_options():
    assert s.options_of("") == []
    assert s.options_of(r"-c a=b\ c  -cd=e --lock-timeout=1 -c f=g\\") == [
        ("a", "b c"),
        ("d", "e"),
        ("lock_timeout", "1"),
        ("f", "g\\"),
    ]


@pytest.mark.parametrize("options", ["-d 5", "-c", "-c a", "-c =b", "--x", "word", "-B 10"])
def test_other_switches_are_refused(options):
    with pytest.raises(s.ParameterRefused):
        s.options_of(options)


@given(st.text(max_size=60))
def test_any_options_are_read_or_refused(options):
    try:
        s.options_of(options)
    except s.ParameterRefused:
        pass
