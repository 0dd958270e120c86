import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.postgres.codec import messages
from sealtape.capture.postgres.codec.messages import ProtocolViolation
from tests.capture.postgres.codec import pg_script as pg


def test_builders_give_the_manuals_bytes():
    assert messages.message(b"Z", b"I") == b"Z\0\0\0\x05I"
    assert messages.ready_for_query(b"T") == b"Z\0\0\0\x05T"
    assert messages.AUTHENTICATION_OK == b"R\0\0\0\x08\0\0\0\0"
    assert messages.AUTHENTICATION_CLEARTEXT == b"R\0\0\0\x08\0\0\0\x03"
    assert messages.SSL_REQUEST == b"\0\0\0\x08\x04\xd2\x16\x2f"
    assert messages.TERMINATE == b"X\0\0\0\x04"
    assert messages.parameter_status("a", "b") == b"S\0\0\0\x08a\0b\0"
    assert messages.password_message("x") == b"p\0\0\0\x06x\0"
    assert messages.sasl_response(b"abc") == b"p\0\0\0\x07abc"
    assert messages.sasl_initial_response("M", b"ab") == b"p\0\0\0\x0cM\0\0\0\0\x02ab"
    assert messages.startup({"user": "u"}) == b"\0\0\0\x10\0\x03\0\0user\0u\0\0"
    assert messages.cancel_request(1, b"key!") == b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01key!"
    found = messages.negotiate_protocol_version(messages.PROTOCOL_3_2, ["_pq_.x"])
    assert found == b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0"
    assert messages.negotiated(found[5:]) == (messages.PROTOCOL_3_2, ["_pq_.x"])


def test_backend_key_data_of_both_lengths():
    for key in (b"1234", b"k" * 256):
        found = messages.backend_key_data(7, key)
        assert messages.key_data(found[5:]) == (7, key)
    for key in (b"123", b"k" * 257):
        with pytest.raises(ProtocolViolation):
            messages.backend_key_data(7, key)
        with pytest.raises(ProtocolViolation):
            messages.key_data(b"\0\0\0\x07" + key)


def test_errors_and_notices_round_trip():
    found = messages.error_response("28000", "no\0pe", hint="ask", detail="why")
    assert found[:1] == b"E"
    assert messages.fields(found[5:]) == {
        "S": "FATAL",
        "V": "FATAL",
        "C": "28000",
        "M": "nope",
        "D": "why",
        "H": "ask",
    }
    assert messages.fields(messages.notice_response("hi")[5:])["M"] == "hi"


def test_fields_of_a_truncated_or_odd_body():
    assert messages.fields(b"") == {}
    assert messages.fields(b"Mabc") == {"M": "abc"}
    assert messages.fields(b"Ma\0Mb\0\0") == {"M": "a"}
    assert messages.fields(b"C\0\0") == {"C": ""}


@given(st.binary(max_size=200))
def test_parsers_raise_nothing_but_protocol_violation(body):
    messages.fields(body)
    for parser in (
        messages.strings,
        messages.authentication,
        messages.key_data,
        messages.parameter,
        messages.negotiated,
        messages.row_description,
        messages.data_row,
        messages.bind,
    ):
        try:
            parser(body)
        except ProtocolViolation:
            pass


def test_a_nul_cannot_be_sent_inside_a_string():
    with pytest.raises(ProtocolViolation):
        messages.cstring("a\0b")
    assert messages.cstring(b"ab") == b"ab\0"


@pytest.mark.parametrize("size", [0, 3, 0x4000_0001, 0xFFFF_FFFF])
def test_lengths_no_message_has(size):
    with pytest.raises(ProtocolViolation):
        messages.parse_length(b"Q" + size.to_bytes(4, "big"))


def test_length_of_a_header():
    assert messages.parse_length(b"Q\0\0\0\x04") == 0
    assert messages.parse_length(b"Q\0\0\0\x14") == 16
    with pytest.raises(ProtocolViolation):
        messages.parse_length(b"Q\0\0\0\x14", limit=19)
    with pytest.raises(ProtocolViolation):
        messages.parse_length(b"Q\0\0\0")


def test_strings():
    assert messages.strings(b"a\0bc\0\0rest") == (["a", "bc"], 6)
    assert messages.strings(b"a\0") == (["a"], 2)
    with pytest.raises(ProtocolViolation):
        messages.strings(b"a\0b")


def test_authentication():
    assert messages.authentication(b"\0\0\0\x05salt") == (5, b"salt")
    with pytest.raises(ProtocolViolation):
        messages.authentication(b"\0\0\0")


def test_parameter():
    assert messages.parameter(b"a\0b\0") == ("a", "b")
    for body in (b"a\0b", b"a\0", b"a\0b\0c"):
        with pytest.raises(ProtocolViolation):
            messages.parameter(body)


def test_negotiated_that_miscounts():
    for body in (b"\0\x03\0\x02", b"\0\x03\0\x02\0\0\0\x02a\0"):
        with pytest.raises(ProtocolViolation):
            messages.negotiated(body)


def test_row_description_and_row():
    found = messages.row_description(pg.columns(("a", 23, 1), ("b", 25, 0))[5:])
    assert found == [("a", 23, 1), ("b", 25, 0)]
    assert messages.data_row(pg.row(b"1", None, b"")[5:]) == [b"1", None, b""]
    for body in (b"\0\x01a", b"\0", b"\0\x01a\0xx"):
        with pytest.raises(ProtocolViolation):
            messages.row_description(body)
    for body in (b"", b"\0\x01\0\0", b"\0\x01\0\0\0\x02a"):
        with pytest.raises(ProtocolViolation):
            messages.data_row(body)


def test_bind():
    body = pg.bind("p", "s", [b"1", None], [1], [0, 1])[5:]
    assert messages.bind(body) == ("p", "s", [1], [b"1", None], [0, 1])
    for bad in (b"", b"p", b"p\0s", b"p\0s\0", b"p\0s\0\0\x05\0"):
        with pytest.raises(ProtocolViolation):
            messages.bind(bad)
