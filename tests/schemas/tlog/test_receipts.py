"""Receipts and beacons: what counts as one, and where a seal differs from what was sent."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import tree
from sealtape.schemas.bodies import Beacon
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.tlog.receipts import (
    MAX_BEACON,
    MAX_RECEIPT,
    Ended,
    beacon_of,
    contradiction,
    verify_receipt,
)
from sealtape.schemas.tlog.records import parse_entry
from tests.factories.witnessed import WitnessedLog, seal_of

LOG = "sealtape.example/log"
ENDED = Ended(b"\x5e" * 16, 0, 12, b"\x11" * 32)
OTHER = replace(ENDED, session=b"\x5f" * 16)


def made(*ended):
    log = WitnessedLog()
    for each in ended or (ENDED,):
        log.seal(each)
    return log, parse_policy(log.policy.encode())


def test_a_receipt_gives_the_seal():
    log, policy = made(ENDED, OTHER)
    found = verify_receipt(log.receipt(ENDED), ENDED, policy, LOG)
    assert found == parse_entry(log.entries[1])
    assert contradiction(found, ENDED) == ""
    assert len(log.receipt(ENDED)) < MAX_RECEIPT


def test_a_beacon_is_what_open_says():
    log, policy = made()
    leaves = [tree.leaf_hash(entry) for entry in log.entries]
    assert beacon_of(log.beacon(), policy, LOG) == Beacon(f"{LOG}/1", 3, tree.root(leaves))
    assert len(log.beacon()) < MAX_BEACON


def test_another_session_or_epoch_is_none_of_ours():
    log, policy = made(ENDED)
    data = log.receipt(ENDED)
    for other in (OTHER, replace(ENDED, epoch=1)):
        with pytest.raises(FormatError, match=r"not of [0-9a-f]+ epoch"):
            verify_receipt(data, other, policy, LOG)


def test_a_receipt_without_its_entry_or_with_another():
    log, policy = made()
    with pytest.raises(FormatError, match="extra data"):
        verify_receipt(log.receipt(ENDED, extra=None), ENDED, policy, LOG)
    forged = seal_of(ENDED, root=b"\x12" * 32)
    with pytest.raises(FormatError, match="does not lead"):
        verify_receipt(log.receipt(ENDED, extra=forged), ENDED, policy, LOG)


def test_an_entry_that_is_no_seal():
    log, policy = made()
    log.entries[1] = b'{"at_ns":"1","before":"","log":"x","number":1,"type":"log","v":1}'
    leaves = [tree.leaf_hash(entry) for entry in log.entries]
    path = tuple(tree.inclusion_proof(leaves, 1))
    whole, _ = made()
    data = whole.receipt(ENDED, path=path, note=log.beacon(), extra=log.entries[1])
    with pytest.raises(FormatError, match="session-seal"):
        verify_receipt(data, ENDED, policy, LOG)


def test_only_a_witnessed_checkpoint_of_this_log_counts():
    log, policy = made()
    log.witnessed = False
    with pytest.raises(SignatureError, match="quorum"):
        verify_receipt(log.receipt(ENDED), ENDED, policy, LOG)
    with pytest.raises(SignatureError, match="quorum"):
        beacon_of(log.beacon(), policy, LOG)
    with pytest.raises(FormatError, match=r"not of the log other\.example"):
        beacon_of(made()[0].beacon(), policy, "other.example/log")


@pytest.mark.parametrize("number", ["x", "0", "01"])
def test_a_shard_has_a_number(number):
    log = WitnessedLog(number=number)
    policy = parse_policy(log.policy.encode())
    with pytest.raises(FormatError, match="shard"):
        beacon_of(log.beacon(), policy, LOG)


def test_a_log_that_the_policy_does_not_know():
    _, policy = made()
    strange = WitnessedLog(seed=7)
    strange.seal(ENDED)
    with pytest.raises(SignatureError, match="by a trusted key"):
        verify_receipt(strange.receipt(ENDED), ENDED, policy, LOG)
    with pytest.raises(SignatureError, match="by a trusted key"):
        beacon_of(strange.beacon(), policy, LOG)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": 11, "attested": 11}, "11 frames were sealed, and 12"),
        ({"lost": 1, "root": b""}, "1 of 12 frames were lost"),
        ({"root": b"\x12" * 32}, "not those that were sent"),
        ({"attested": 8}, "8 of 12 frames were signed"),
        ({"closed": ""}, "CLOSE says ''"),
    ],
)
def test_a_seal_that_differs(changes, says):
    seal = parse_entry(seal_of(ENDED, **changes))
    assert says in contradiction(seal, ENDED)


def test_an_epoch_that_a_crash_ended_is_sealed_without_close():
    broken = replace(ENDED, closed=False)
    assert contradiction(parse_entry(seal_of(broken)), broken) == ""
    assert contradiction(parse_entry(seal_of(broken)), ENDED) != ""
    assert contradiction(parse_entry(seal_of(broken, lost=2, root=b"")), broken) != ""


@given(st.data())
def test_no_other_bytes_are_a_receipt(data):
    log, policy = made()
    good = log.receipt(ENDED)
    at = data.draw(st.integers(0, len(good) - 1))
    cut = data.draw(st.booleans())
    bad = good[:at] if cut else good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    try:
        found = verify_receipt(bad, ENDED, policy, LOG)
    except FormatError:
        return
    # A signature of a key that the policy does not know may say anything.
    assert found == parse_entry(log.entries[1])


def test_trailing_bytes():
    log, policy = made()
    with pytest.raises(FormatError):
        verify_receipt(log.receipt(ENDED) + b"\n", ENDED, policy, LOG)
