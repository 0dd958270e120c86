"""Records and alarms of scheduled verification."""

import hashlib
import hmac
import json
from dataclasses import replace

import pytest

from sealtape.schemas.errors import FormatError
from sealtape.schemas.verification import (
    PASS,
    Alarm,
    CheckedLog,
    Verification,
    gravest,
    signature,
)
from tests.vectors.generate_verification import FILE

VECTORS = json.loads(FILE.read_text(encoding="utf-8"))
RECORD = VECTORS["record"].encode()
ALARM = VECTORS["alarm"].encode()


def test_the_record_of_the_page():
    record = Verification.from_json(RECORD)
    assert record.findings == 1
    assert record.verdict == "tampered"
    assert record.bytes == 67108912
    assert record.log == CheckedLog("sealtape.example/log/1", 300)
    assert record.to_json() == RECORD


def test_the_record_of_a_pass():
    data = VECTORS["pass"].encode()
    record = Verification.from_json(data)
    assert record.object == PASS
    assert record.log is None
    assert record.to_json() == data


@pytest.mark.parametrize("name", ["alarm", "alarm_of_the_log"])
def test_alarms_of_the_vectors(name):
    data = VECTORS[name].encode()
    alarm = Alarm.from_json(data)
    assert alarm.to_json() == data
    assert json.loads(data)["id"] == alarm.id.hex()


@pytest.mark.parametrize(
    ("read", "data"), [(Verification.from_json, RECORD), (Alarm.from_json, ALARM)]
)
def test_no_beginning_and_nothing_longer_is_read(read, data):
    for end in range(len(data)):
        with pytest.raises(FormatError):
            read(data[:end])
    for more in (b"\n", b" ", b"{}", b"\0"):
        with pytest.raises(FormatError):
            read(data + more)


@pytest.mark.parametrize("why", VECTORS["refused"])
def test_refused(why):
    with pytest.raises(FormatError):
        Verification.from_json(VECTORS["refused"][why].encode())


def test_an_alarm_has_the_id_of_its_finding():
    alarm = Alarm.from_json(ALARM)
    assert replace(alarm, at_ns=1, node="other").id == alarm.id
    assert replace(alarm, finding=replace(alarm.finding, seq=3)).id != alarm.id
    with pytest.raises(FormatError, match="id is not"):
        Alarm.from_json(ALARM.replace(b'"seq":"2"', b'"seq":"3"'))
    with pytest.raises(FormatError):
        Alarm.from_json(ALARM.replace(b'"type":"alarm"', b'"type":"alert"'))


def test_text_that_is_none_is_replaced_and_long_text_is_cut():
    alarm = Alarm.from_json(ALARM)
    odd = replace(alarm, finding=replace(alarm.finding, object="a\udcffb", reason="x" * 5000))
    read = Alarm.from_json(odd.to_json())
    assert read.finding.object == "a?b"
    assert len(read.finding.reason) == 4096
    assert read.id == odd.id


def test_the_signature():
    secret, at_s = VECTORS["secret"].encode(), VECTORS["sent_s"]
    found = signature(secret, at_s, ALARM)
    assert found == VECTORS["signature"]
    named, told = found.split(",v1=")
    message = named.removeprefix("t=").encode() + b"." + ALARM
    assert hmac.new(secret, message, hashlib.sha256).hexdigest() == told
    others = {signature(b"x", at_s, ALARM), signature(secret, 1, ALARM), signature(secret, 1, b"")}
    assert len(others | {found}) == 4


def test_the_gravest_of_verdicts():
    assert gravest(set()) == "verified"
    assert gravest({"incomplete"}) == "incomplete"
    assert gravest({"incomplete", "tampered"}) == "tampered"
