"""Who signed what of a session, and how its epochs connect."""

import pytest

from sealtape.schemas.verify.steps import State
from tests.factories.bundles import LOOSE, found, judged, story, trusting
from tests.vectors.bundle_parts import (
    LOG,
    SESSION,
    Epoch,
    b64,
    note,
    root,
    segment_entry,
    sha,
    vkey,
)
from tests.vectors.generate_bundle import DATA, begun, built, files, lost, recovered

CERTIFICATE, SIGNATURES, EPOCHS = "certificate", "signatures", "epochs"


def opened(*signers, **changes):
    """An epoch whose OPEN says something else."""
    return Epoch(0).begin(*signers, **changes).add(3, DATA).add(4, DATA).close("client")


def step(name, given, rules=LOOSE):
    report = judged(given, rules)
    return report, [why for _, why in found(report, name)]


# -- OPEN ------------------------------------------------------------------------------------------


def test_a_known_node_signed():
    report, reasons = step(CERTIFICATE, story())
    assert (report.verdict, reasons) == ("verified", [])
    report, reasons = step(CERTIFICATE, story(introduced=False), trusting(LOOSE, "node-1"))
    assert (report.verdict, reasons) == ("verified", [])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"introduced": False}, "no signature by a trusted key"),
        ({"epoch": opened("reaper")}, "no signature by a trusted key"),
        ({"epoch": opened(node="node-2"), "opened": {"node": "node-2"}}, "names the node node-2"),
        ({"before": [lambda log: log.key("revoke", "node", "node-1", since=0)]}, "no signature"),
        ({"after": [lambda log: log.key("revoke", "node", "node-1", since=5)]}, "no signature"),
        ({"epoch": opened(log="other.example/log")}, "must be named like its session"),
        ({"epoch": opened(ident_sha256="00" * 32)}, "IDENT is not the one"),
        ({"epoch": opened(v=2)}, "version 2"),
    ],
)
def test_an_open_that_does_not_count(given, reason):
    report, reasons = step(CERTIFICATE, story(**given))
    assert report.verdict == "tampered"
    assert reason in reasons[0]
    assert report.state(SIGNATURES) == State.NOT_CHECKED


def test_an_open_for_another_log():
    epoch = Epoch(0)
    name = f"other.example/log/session/{SESSION.hex()}/0"
    epoch.begin(log="other.example/log", key=vkey(name, key=epoch.ephemeral))
    epoch.add(3, DATA).close("client")
    _report, reasons = step(CERTIFICATE, story(epoch=epoch))
    assert reasons == [f"OPEN names the log other.example/log, not {LOG}"]


def test_a_revocation_behind_the_open_comes_too_late():
    late = [lambda log: log.key("revoke", "node", "node-1", since=7)]
    report, reasons = step(CERTIFICATE, story(after=late))
    assert (report.verdict, reasons) == ("verified", [])


@pytest.mark.parametrize(
    "members",
    [
        {"of": "journal"},
        {"node": "node-2"},
        {"boot": "21" * 16},
        {"worker": 1},
        {"number": "18"},
        {"anchor_ns": "1"},
        {"class": {"name": "standard", "retain_for_s": 1, "delete_after_s": 2}},
        {"continues": {"epoch": 0, "size": "1", "root": "00" * 32}},
    ],
)
def test_an_entry_that_says_something_else_than_open(members):
    segment = {"class": members["class"]} if "class" in members else {}
    report, reasons = step(CERTIFICATE, story(opened=members, segment=segment, seal=segment))
    assert report.verdict == "tampered"
    assert reasons == ["OPEN says other things than entries/5.json"]


def test_an_entry_of_another_open():
    other = {"opening_sha256": "0a" * 32}
    _report, reasons = step(CERTIFICATE, story(opened=other, seal=other))
    assert reasons == ["OPEN is not the one that the log names"]


def test_an_open_that_is_not_there():
    report, _reasons = step(CERTIFICATE, story(cuts=[2], spans=[(2, 5)]))
    assert (report.state(CERTIFICATE), report.state(SIGNATURES)) == (State.NOT_PROVIDED,) * 2
    assert report.verdict == "tampered"


# -- the epoch's own key ---------------------------------------------------------------------------


def signed_by(epoch, size=5, origin=None, top=None, name=None):
    """A record's checkpoint."""
    leaves = epoch.leaves()[:size]
    text = f"{origin or epoch.origin}\n{size}\n{b64(top or root(leaves))}\n"
    return note(text, (name or epoch.origin, epoch.ephemeral))


@pytest.mark.parametrize(
    ("options", "stated", "reason"),
    [
        ({"origin": f"{LOG}/session/other/0"}, 5, "checkpoint is of"),
        ({"top": bytes(32)}, 5, "do not have the root that was signed"),
        ({"size": 4}, 5, "is of 4 frames"),
        ({"name": "node-1"}, 5, "no signature by a trusted key"),
    ],
)
def test_a_signed_size_that_does_not_hold(options, stated, reason):
    signed = signed_by(built(), **options)
    record = {"checkpoint": {"size": str(stated), "note": signed}}
    report, reasons = step(SIGNATURES, story(record=record))
    assert report.verdict == "tampered"
    assert reason in reasons[0]


def test_a_signed_size_inside_a_fragment():
    epoch = built()
    record = {"checkpoint": {"size": "3", "note": epoch.signed(3)}}
    seal = {"attested": "3", "checkpoint_sha256": sha(epoch.signed(3).encode()).hex()}
    report, reasons = step(SIGNATURES, story(record=record, seal=seal))
    assert (report.verdict, reasons) == ("incomplete", [])
    wrong = {"checkpoint": {"size": "3", "note": signed_by(epoch, 3, top=bytes(32))}}
    _, reasons = step(SIGNATURES, story(record=wrong, seal=seal))
    assert "do not have the root" in reasons[0]


@pytest.mark.parametrize(
    "seal",
    [
        {"attested": "4"},
        {"attested": "0", "checkpoint_sha256": "00" * 32},
        {"checkpoint_sha256": "0a" * 32},
    ],
)
def test_a_seal_with_another_signed_size(seal):
    report, reasons = step(SIGNATURES, story(seal=seal))
    assert report.verdict == "tampered"
    assert reasons[0].startswith("the seal names a signed size of")


def test_nothing_was_signed():
    seal = {"attested": "0", "checkpoint_sha256": "00" * 32}
    report, reasons = step(SIGNATURES, story(record={"checkpoint": None}, seal=seal))
    assert (report.verdict, reasons) == ("incomplete", [])


def test_behind_a_gap_nothing_is_compared():
    report, reasons = step(SIGNATURES, lost())
    assert (report.verdict, reasons) == ("incomplete", [])
    parts = {"cuts": [2], "gaps": {1: [(2, 4)]}, "spans": [(0, 2), (4, 5)], "lost": 2}
    signed = story(attested=5, **parts)
    assert signed["fragments/0.jsonl"].count(b'"note"') == 2
    report, reasons = step(SIGNATURES, signed)
    assert (report.verdict, reasons) == ("incomplete", [])


def test_what_was_signed_behind_a_gap_is_attested_all_the_same():
    """As the log's writer puts it into the seal, and as the monitor wants it."""
    parts = {"cuts": [2], "gaps": {1: [(2, 4)]}, "spans": [(0, 2), (4, 5)], "lost": 2}
    report, reasons = step(SIGNATURES, story(attested=2, **parts))
    assert report.verdict == "tampered"
    assert "signed size of 2, here it is 5" in reasons[0]


def test_sizes_in_absent_fragments_are_those_of_their_records():
    _report, reasons = step(SIGNATURES, story(cuts=[2], spans=[(0, 2)]))
    assert reasons == []  # that rows are missing is found elsewhere
    seal = {"attested": "3"}
    _, reasons = step(SIGNATURES, story(cuts=[2], spans=[(0, 2)], seal=seal))
    assert reasons
    nothing = {"attested": "0", "checkpoint_sha256": "00" * 32}
    given = story(cuts=[2], spans=[(0, 2)], seal=nothing, record={"checkpoint": None})
    _, reasons = step(SIGNATURES, given)
    assert reasons == []


def test_without_a_seal_signatures_are_checked_all_the_same():
    report, reasons = step(SIGNATURES, story(seal=False))
    assert (report.verdict, reasons, report.state(SIGNATURES)) == ("incomplete", [], State.PASS)


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"closed": "target"}, "ends as client, sealed is target"),
        ({"closed": ""}, "ends as client, sealed is no end"),
        (
            {"epoch": Epoch(0).begin().add(3, DATA).add(3, DATA), "closed": "client"},
            "ends as not closed, sealed is client",
        ),
        (
            {"epoch": Epoch(0).begin().add(3, DATA).add(8, b"{}"), "closed": "client"},
            "CLOSE cannot be read",
        ),
    ],
)
def test_ends_that_disagree(given, reason):
    report, reasons = step(EPOCHS, story(**given))
    assert report.verdict == "tampered"
    assert reason in reasons[0]


def test_an_end_that_is_absent():
    _, reasons = step(EPOCHS, story(cuts=[2], spans=[(0, 2)], closed="target"))
    assert reasons == []


def test_recovered():
    report, reasons = step(EPOCHS, recovered())
    assert (report.verdict, reasons) == ("verified", [])
    assert [(span.what, span.epoch, span.lo, span.hi) for span in report.spans] == [
        ("attested", 0, 2, 4)
    ]
    assert "attested by the node's key" in report.notes[0]


ELSEWHERE = {"size": "1", "root": "00" * 32}


def continued(continues, *, seal_first=True, lost_first=0, attested=4, closed="", second=None):
    """Two epochs; what the second says that it continues, and what its entry says besides."""
    log = begun()
    first = Epoch(0).begin().add(3, DATA)
    first = first.close(closed) if closed else first.add(3, DATA)
    first.open_entry(log)
    record = first.fragment(0, 4, signed=4)
    one = segment_entry(log, 0, bytes(32), record, 4)
    real = {"epoch": 0, "size": "4", "root": root(first.leaves()).hex()}
    then = Epoch(1, continues={**real, **continues}).begin().add(3, DATA).close("aborted")
    then.open_entry(log, **(second or {}))
    last = then.fragment(0, 4, signed=4)
    two = segment_entry(log, 1, one[1], last, 4)
    if seal_first:
        changes = {"root": "", "lost": str(lost_first)} if lost_first else {}
        first.seal_entry(log, [record], closed, attested, **changes)
    then.seal_entry(log, [last], "aborted", 4)
    log.heartbeat()
    log.checkpoint(40)
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    epochs = {
        0: (first, [(record, one[0], one[2])], [(0, 4)]),
        1: (then, [(last, two[0], two[2])], [(0, 4)]),
    }
    return files(log, wanted, epochs)


def test_an_epoch_that_goes_on_from_a_signed_end():
    report, reasons = step(EPOCHS, continued({}))
    assert (report.verdict, reasons, report.spans) == ("verified", [], [])


@pytest.mark.parametrize("continues", [{"size": "3"}, {"root": "00" * 32}])
def test_an_epoch_that_goes_on_from_somewhere_else(continues):
    report, reasons = step(EPOCHS, continued(continues))
    assert report.verdict == "tampered"
    assert reasons == ["it does not continue epoch 0 as that is sealed"]


def test_an_epoch_that_goes_on_from_lost_frames():
    """Nobody can compute that root: only the size is compared."""
    _, reasons = step(EPOCHS, continued({"root": "00" * 32}, lost_first=1))
    assert reasons == []
    _, reasons = step(EPOCHS, continued({"size": "3"}, lost_first=1))
    assert reasons


def test_an_epoch_that_goes_on_from_one_without_seal():
    report, reasons = step(EPOCHS, continued({"size": "3"}, seal_first=False))
    assert (report.verdict, reasons) == ("incomplete", [])


def test_an_epoch_that_goes_on_after_it_was_closed():
    report, reasons = step(EPOCHS, continued({}, closed="client"))
    assert (report.verdict, reasons) == ("incomplete", ["it goes on after epoch 0 was closed"])
    report, reasons = step(EPOCHS, continued({"size": "3"}, closed="client"))
    assert (report.verdict, len(reasons)) == ("tampered", 2)


@pytest.mark.parametrize("other", [{"continues": None}, {"continues": {"epoch": 1, **ELSEWHERE}}])
def test_an_epoch_that_names_another_than_the_one_before_it(other):
    report, reasons = step(EPOCHS, continued({}, seal_first=False, second=other))
    assert report.verdict == "tampered"
    assert reasons == ["it does not continue the epoch before it"]


def test_a_first_epoch_that_continues_something():
    other = {"continues": {"epoch": 0, **ELSEWHERE}}
    _, reasons = step(EPOCHS, story(opened=other))
    assert reasons == ["it does not continue the epoch before it"]


# -- flags -----------------------------------------------------------------------------------------


def flagged(number):
    """An epoch with a payload of the future, of OPEN or CLOSE."""
    epoch = built()
    kind = epoch.frames[number][0][44]
    header, payload = epoch._frame(number, kind, 0, b"of the future")
    epoch.frames[number] = header[:46] + b"\0\1" + header[48:], payload
    return epoch


def test_an_open_that_must_not_be_read():
    report, reasons = step(CERTIFICATE, story(epoch=flagged(0)))
    assert (report.verdict, reasons) == ("incomplete", [])
    assert {report.state(CERTIFICATE), report.state(SIGNATURES)} == {State.NOT_CHECKED}
    other = {"opening_sha256": "0a" * 32}
    report, reasons = step(CERTIFICATE, story(epoch=flagged(0), opened=other, seal=other))
    assert (report.verdict, reasons) == ("tampered", ["OPEN is not the one that the log names"])


def test_a_close_that_must_not_be_read():
    report, reasons = step(EPOCHS, story(epoch=flagged(4)))
    assert (report.verdict, reasons) == ("incomplete", [])
    report, reasons = step(EPOCHS, story(epoch=flagged(4), closed=""))
    assert (report.verdict, reasons) == ("tampered", ["the epoch ends as closed, sealed is no end"])
