"""The frames of a bundle against what was sealed."""

import struct

import pytest

from sealtape.schemas.verify.steps import State
from tests.factories.bundles import ANN, BOB, LOOSE, judged, story
from tests.vectors.bundle_parts import Epoch, sha
from tests.vectors.generate_bundle import DATA, built, deleted, lost
from tests.verifier.stories import intent

HEADER = struct.Struct(">8s16sIQqBBHI32s")
FIELDS = ("magic", "session", "epoch", "seq", "ts_ns", "kind", "suite", "flags", "size", "digest")


def frames(files, rules=LOOSE):
    report = judged(files, rules)
    return report, [
        (item.verdict, item.reason, item.frames)
        for item in report.findings
        if item.step == "frames"
    ]


def split(data):
    """The frames of a file as [header fields by name, stored length, payload]."""
    parts = []
    while data:
        fields = dict(zip(FIELDS, HEADER.unpack(data[:84]), strict=True))
        size = int.from_bytes(data[84:88], "big")
        length = 0 if size == 0xFFFFFFFF else size
        parts.append([fields, size, data[88 : 88 + length]])
        data = data[88 + length :]
    return parts


def joined(parts):
    return b"".join(
        HEADER.pack(*fields.values()) + size.to_bytes(4, "big") + payload
        for fields, size, payload in parts
    )


def changed(at, /, files=None, **fields):
    """With other fields in one frame's header, whatever was sealed."""
    files = files or story()
    parts = split(files["frames/0.bin"])
    parts[at][0] |= fields
    return {**files, "frames/0.bin": joined(parts)}


def test_whole():
    report, findings = frames(story())
    assert (report.verdict, findings, report.frames) == ("verified", [], 5)
    assert report.payload_bytes == sum(len(payload) for _, payload in built().frames)
    assert report.state("frames") == State.PASS


def test_an_epoch_of_several_fragments():
    report, findings = frames(story(cuts=[2, 3]))
    assert (report.verdict, findings) == ("verified", [])


@pytest.mark.parametrize(
    ("fields", "reason", "span"),
    [
        ({"magic": b"SEALFRM2"}, "starts with", (3, 4)),
        ({"session": bytes(16)}, "another frame stands in its place", (3, 4)),
        ({"epoch": 1}, "another frame stands in its place", (3, 4)),
        ({"seq": 4}, "another frame stands in its place", (3, 4)),
        ({"ts_ns": 2**62}, "their headers are not those that were sealed", (0, 5)),
        ({"ts_ns": 0}, "its time lies before the frame before it", (3, 4)),
        ({"size": 1}, "the payload has", (3, 4)),
        ({"digest": bytes(32)}, "the payload is not the one that was sealed", (3, 4)),
        ({"kind": 3}, "their headers are not those that were sealed", (0, 5)),
        ({"kind": 1}, "an epoch begins with OPEN and IDENT, and has each once", (3, 4)),
        ({"kind": 2}, "an epoch begins with OPEN and IDENT, and has each once", (3, 4)),
        ({"kind": 7}, "CLOCK is not public", (3, 4)),
        ({"kind": 8}, "CLOSE is not public", (3, 4)),
        ({"suite": 0}, "FACTS is public", (3, 4)),
    ],
)
def test_a_header_that_was_changed(fields, reason, span):
    report, findings = frames(changed(3, **fields))
    assert report.verdict == "tampered"
    assert any(verdict == "tampered" and reason in why and frames == span
               for verdict, why, frames in findings)  # fmt: skip


def test_each_bit_of_each_header_and_payload():
    files = story()
    data = files["frames/0.bin"]
    ends = []
    for _, _, payload in split(data):
        ends.append((ends[-1] if ends else 0) + 88 + len(payload))
    for bit in range(0, len(data) * 8, 101):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        report, findings = frames({**files, "frames/0.bin": bytes(flipped)})
        assert report.verdict == "tampered"
        here = next(seq for seq, end in enumerate(ends) if bit // 8 < end)
        assert any(span[0] <= here < span[1] for _, _, span in findings)


def test_every_truncation():
    files = story()
    data = files["frames/0.bin"]
    for end in range(0, len(data), 41):
        report, findings = frames({**files, "frames/0.bin": data[:end]})
        assert report.verdict == "tampered"
        assert findings


@pytest.mark.parametrize("more", [b"\0", b"SEALFRM1", bytes(88)])
def test_bytes_behind_the_last_frame(more):
    files = story()
    _report, findings = frames({**files, "frames/0.bin": files["frames/0.bin"] + more})
    assert findings == [("tampered", "frames stand behind the last fragment", (5, 6))]


def test_frames_dropped_doubled_and_swapped():
    files = story()
    parts = split(files["frames/0.bin"])
    one, two = parts[2], parts[3]
    for order in (
        [*parts[:2], *parts[3:]],
        [*parts[:3], one, *parts[3:]],
        [*parts[:2], two, one, *parts[4:]],
        parts[:4],
        parts[1:],
    ):
        report, findings = frames({**files, "frames/0.bin": joined(order)})
        assert report.verdict == "tampered"
        assert findings


# -- withheld and absent ---------------------------------------------------------------------------


def test_withheld_payloads():
    report, findings = frames(story(withheld=(1, 2, 3)))
    assert (report.verdict, findings) == ("verified", [])
    assert [(span.what, span.lo, span.hi) for span in report.spans] == [("withheld", 1, 4)]
    report, _ = frames(story(withheld=(1, 3)))
    assert [(span.lo, span.hi) for span in report.spans] == [(1, 2), (3, 4)]


@pytest.mark.parametrize("seq", [0, 4])
def test_a_public_payload_is_not_withheld(seq):
    _report, findings = frames(story(withheld=(seq,)))
    assert ("tampered", "a public payload is withheld", (seq, seq + 1)) in findings


def test_a_withheld_payload_of_another_size():
    _report, findings = frames(changed(2, files=story(withheld=(2,)), size=7))
    assert ("tampered", "the payload is shorter than its suite allows", (2, 3)) in findings
    assert ("tampered", "their headers are not those that were sealed", (0, 5)) in findings


@pytest.mark.parametrize(
    ("spans", "absent"),
    [([(0, 2)], (2, 5)), ([(2, 5)], (0, 2)), ([], (0, 2))],
)
def test_absent_fragments(spans, absent):
    report, findings = frames(story(cuts=[2], spans=spans))
    assert ("tampered", "they are missing, and no deletion removed them", absent) in findings
    assert absent in [(span.lo, span.hi) for span in report.spans if span.what == "absent"]


def test_frames_behind_a_gap():
    report, findings = frames(lost())
    assert (report.verdict, findings) == ("incomplete", [])


# -- kinds -----------------------------------------------------------------------------------------


def odd(kind=3, suite=2, flags=0, payload=b"x" * 64):
    """An epoch with one frame of the session's own making before CLOSE."""
    epoch = Epoch(0).begin().add(3, DATA)
    seq = len(epoch.frames)
    header, _ = epoch._frame(seq, kind, suite, payload)
    header = header[:46] + struct.pack(">H", flags) + header[48:]
    epoch.frames.append((header, payload))
    return epoch.close("client")


@pytest.mark.parametrize(
    ("epoch", "verdict", "reason"),
    [
        (odd(kind=9), "incomplete", "kind 9 is unknown to this version"),
        (odd(kind=127), "incomplete", "kind 127 is unknown to this version"),
        (odd(suite=3), "incomplete", "suite 3 is unknown to this version"),
        (odd(flags=4), "incomplete", "flags 0x0004 are unknown to this version"),
        (odd(payload=b"x" * 47), "tampered", "the payload is shorter than its suite allows"),
        (
            odd(suite=1, payload=b"x" * 31),
            "tampered",
            "the payload is shorter than its suite allows",
        ),
        (odd(kind=5, suite=0), "incomplete", "the node states that it did not record here"),
        (odd(kind=8, suite=0), "tampered", "a frame follows CLOSE"),
        (odd(kind=4, suite=0), "tampered", "FACTS is public"),
    ],
)
def test_frames_that_a_node_may_make(epoch, verdict, reason):
    report, findings = frames(story(epoch=epoch))
    assert report.verdict == verdict
    assert reason in [why for _, why, _ in findings]


@pytest.mark.parametrize(
    "epoch", [odd(kind=128), odd(kind=255, suite=0), odd(suite=1), odd(kind=7, suite=0)]
)
def test_frames_that_may_be_passed_over(epoch):
    report, findings = frames(story(epoch=epoch))
    assert (report.verdict, findings) == ("verified", [])


def test_open_that_is_not_public():
    epoch = built()
    header, payload = epoch.frames[0]
    header = header[:45] + b"\2" + header[46:]
    epoch.frames[0] = header, payload
    _report, findings = frames(story(epoch=epoch))
    assert ("tampered", "OPEN is not public", (0, 1)) in findings


def test_what_a_deletion_removed_may_be_absent():
    report, findings = frames(deleted())
    assert (report.verdict, findings) == ("deleted", [])
    assert [(span.what, span.lo, span.hi) for span in report.spans] == [("absent", 0, 5)]


def test_what_was_removed_has_its_place_in_time(monkeypatch):
    """Frames 2 and 3 are gone; their record says when they were."""
    plain, begin = Epoch.fragment, 1_795_392_000_000_000_000

    def gone(first, last):
        def erased(log):
            segments = [entry for entry in log.entries if b'"type":"segment"' in entry]
            intent(log, ANN, BOB, objects=sorted(sha(entry).hex() for entry in segments))

        def fragment(epoch, lo, hi, /, **options):
            times = {"first_ts_ns": str(first), "last_ts_ns": str(last)} if lo == 2 else {}
            return plain(epoch, lo, hi, **options, **times)

        monkeypatch.setattr(Epoch, "fragment", fragment)
        return frames(story(cuts=(2, 4), spans=[(0, 2), (4, 5)], after=[erased]))

    assert gone(begin + 2_000_000, begin + 3_000_000)[1] == []
    reason = "their times lie before the frame before them"
    assert gone(1, begin + 3_000_000)[1] == [("tampered", reason, (2, 4))]
    reason = "its time lies before the frame before it"
    assert gone(begin + 2_000_000, begin + 10**9)[1] == [("tampered", reason, (4, 5))]


@pytest.mark.parametrize("seq", [0, 1])
def test_an_epoch_that_begins_with_what_was_done(seq):
    """Of the most ordinary kind, suite and flags, as sealed, and not OPEN or IDENT."""
    epoch = built()
    header, payload = epoch.frames[seq]
    epoch.frames[seq] = header[:44] + b"\3\2" + header[46:], payload
    _report, findings = frames(story(epoch=epoch))
    reason = "an epoch begins with OPEN and IDENT, and has each once"
    assert ("tampered", reason, (seq, seq + 1)) in findings


def test_a_checkpoint_within_a_fragment():
    """Its root is computed though the fragment goes on behind it, unless frames were lost."""
    given = {"checkpoint": {"size": "4", "note": built().signed(4)}}
    report = judged(story(attested=4, record=given), LOOSE)
    assert report.state("signatures") == State.PASS
    epoch = built()
    epoch.fragment = lambda lo, hi, **rest: Epoch.fragment(
        epoch, lo, hi, **(rest | {"signed": 4 if lo else 2})
    )
    parts = {"cuts": [2], "gaps": {1: [(2, 3)]}, "spans": [(0, 2), (3, 5)]}
    report = judged(story(epoch=epoch, attested=4, lost=1, **parts), LOOSE)
    assert (report.verdict, report.state("frames")) == ("incomplete", State.PASS)
