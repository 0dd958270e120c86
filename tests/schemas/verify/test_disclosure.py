"""Keys in a bundle open the payloads of their own frames."""

import json

import pytest

from sealtape.schemas.verify.steps import State
from tests.factories.bundles import LOOSE, found, judged, story
from tests.vectors.bundle_parts import Epoch, sha
from tests.vectors.generate_bundle import DATA, built, keys_file, policy

ALL = (1, 2, 3)
DECRYPT = policy(require='["decrypt"]')


def keyed(*seqs, epoch=None, **options):
    epoch = epoch or built()
    keys = keys_file({seq: epoch.key(seq) for seq in seqs})
    return story(epoch=epoch, keys=keys, **options)


def payloads(given, rules=LOOSE):
    report = judged(given, rules)
    return report, [why for _, why in found(report, "payloads")]


def test_without_keys():
    report, reasons = payloads(story())
    assert (report.verdict, reasons) == ("verified", [])
    assert report.state("payloads") == State.NOT_PROVIDED


@pytest.mark.parametrize("seqs", [ALL, (2,), (1, 3)])
def test_keys_that_open(seqs):
    report, reasons = payloads(keyed(*seqs))
    assert (report.verdict, reasons) == ("verified", [])
    assert report.details["payloads"] == f"{len(seqs)} payloads opened"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({2: bytes(32)}, "frame 2 was not sealed under the key"),
        ({2: built().key(3)}, "frame 2 was not sealed under the key"),
        ({0: bytes(32)}, "frame 0 has a key and no payload"),
        ({4: bytes(32)}, "frame 4 has a key and no payload"),
        ({9: bytes(32)}, "there is a key of frame 9"),
        ({2: built().key(2), 9: bytes(32)}, "there is a key of frame 9"),
    ],
)
def test_keys_that_do_not(keys, reason):
    report, reasons = payloads(story(keys=keys_file(keys)))
    assert report.verdict == "tampered"
    assert reason in reasons[0]


def test_a_withheld_frame_has_no_key():
    _, reasons = payloads(keyed(2, withheld=(2,)))
    assert "no payload that it could open" in reasons[0]


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"{}\n", lambda data: b""])
def test_keys_that_cannot_be_read(change):
    files = keyed(2)
    report, reasons = payloads({**files, "keys/0.jsonl": change(files["keys/0.jsonl"])})
    assert report.verdict == "tampered"
    assert reasons


def test_keys_out_of_order_or_twice():
    lines = keyed(*ALL)["keys/0.jsonl"].splitlines(keepends=True)
    for order in (lines[::-1], [lines[0], lines[0]]):
        _, reasons = payloads({**story(), "keys/0.jsonl": b"".join(order)})
        assert reasons


def test_a_payload_that_says_something_else_under_its_key():
    """The commitment is the key's and the rest is no ciphertext: only a node could make that."""
    epoch = Epoch(0).begin().add(3, DATA)
    key = epoch.key(2)
    _, payload = epoch.frames[2]
    forged = sha(b"sealtape/1 commit" + key) + payload[32:-1] + bytes([payload[-1] ^ 1])
    epoch.frames[2] = epoch._frame(2, 3, 2, forged)
    epoch.close("client")
    report, reasons = payloads(keyed(2, epoch=epoch))
    assert report.verdict == "tampered"
    assert "changed after it was encrypted" in reasons[0]


def test_what_is_of_a_later_version_is_not_opened():
    for position, value in ((44, 200), (46, 1)):  # kind, flags
        epoch = Epoch(0).begin().add(3, DATA)
        key = epoch.key(2)
        header, _ = epoch.frames[2]
        payload = sha(b"sealtape/1 commit" + key) + bytes(40)
        header = bytearray(epoch._frame(2, 3, 2, payload)[0])
        header[position] = value
        epoch.frames[2] = bytes(header), payload
        epoch.close("client")
        given = story(epoch=epoch, keys=keys_file({2: key}))
        _, reasons = payloads(given)
        assert reasons == []


def test_all_keys_may_be_required():
    report, reasons = payloads(keyed(*ALL), DECRYPT)
    assert (report.verdict, reasons) == ("verified", [])
    report, reasons = payloads(keyed(1, 3, withheld=(2,)), DECRYPT)
    assert (report.verdict, reasons) == ("verified", [])
    report, reasons = payloads(keyed(2), DECRYPT)
    assert (report.verdict, reasons) == ("incomplete", ["a payload has no key"] * 2)
    assert [item.frames for item in report.findings] == [(1, 2), (3, 4)]


def test_frames_that_cannot_be_read_are_found_elsewhere():
    files = keyed(2)
    report, reasons = payloads({**files, "frames/0.bin": files["frames/0.bin"][:700]})
    assert report.verdict == "tampered"
    assert reasons == ["there is a key of frame 2, which is not there"]
    assert json.dumps(report.to_json())
