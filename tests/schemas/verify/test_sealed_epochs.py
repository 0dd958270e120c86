"""What the log has of the epochs, and the fragments that seals name."""

import pytest

from sealtape.schemas.bundle import open_bundle
from sealtape.schemas.tlog.records import parse_entry
from sealtape.schemas.verify.sealed_epochs import find_epochs
from sealtape.schemas.verify.steps import BundleReport
from tests.factories.bundles import LOOSE, found, judged, reworded, story
from tests.vectors.bundle_parts import CLASS, line, packed, segment_entry
from tests.vectors.generate_bundle import lost, recovered, unsealed, whole

OTHER_CLASS = {**CLASS, "name": "other"}


def seals(files):
    report = judged(files, LOOSE)
    return report.verdict, found(report, "seals")


def fragments(files):
    report = judged(files, LOOSE)
    return report.verdict, [reason for _, reason in found(report, "fragments")]


def test_closed_and_sealed():
    assert seals(story()) == ("verified", [])
    assert seals(recovered()) == ("verified", [])


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (unsealed, "the epoch is not sealed yet"),
        (lost, "2 frames were lost"),
        (lambda: story(attested=0, seal={"checkpoint_sha256": "00" * 32}), "are not signed"),
        (lambda: story(closed=""), "never closed"),
    ],
)
def test_what_is_not_complete(given, reason):
    _, findings = seals(given())
    assert "incomplete" in {verdict for verdict, _ in findings}
    assert any(reason in why for _, why in findings)


def twice(kind):
    def step(log):
        (again,) = [entry for entry in log.entries if f'"type":"{kind}"'.encode() in entry]
        log.entries.append(again)

    return step


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("session-open", "opened twice"), ("session-seal", "the epoch is sealed twice")],
)
def test_once_for_each_epoch(kind, reason):
    assert seals(story(after=[twice(kind)])) == ("tampered", [("tampered", reason)])


@pytest.mark.parametrize(
    "seal",
    [
        {"tenant": "other"},
        {"class": OTHER_CLASS},
        {"opening_sha256": "0a" * 32},
        {"epoch": 1},
    ],
)
def test_a_seal_of_something_else(seal):
    verdict, findings = seals(story(seal=seal))
    assert verdict == "tampered"
    assert findings[0][1] in (
        "it is not the seal of what was opened",
        "no entry opens its epoch",
    )


def test_a_seal_before_its_open():
    def swapped(log):
        entries = log.entries
        kinds = [b'"type":"session-open"', b'"type":"session-seal"']
        first, last = (
            next(index for index, entry in enumerate(entries) if kind in entry) for kind in kinds
        )
        entries[first], entries[last] = entries[last], entries[first]

    _, findings = seals(story(after=[swapped]))
    assert ("tampered", "it is not the seal of what was opened") in findings


def test_an_epoch_is_left_out():
    files = {
        name: data
        for name, data in whole().items()
        if not name.startswith(("fragments/", "frames/"))
    }
    moved = whole()
    files |= {
        name.replace("/0.", "/1."): data
        for name, data in moved.items()
        if name.startswith(("fragments/", "frames/"))
    }
    verdict, findings = seals(files)
    assert verdict == "tampered"
    assert ("tampered", "no entry opens its epoch") in findings
    assert seals(story(opened={"epoch": 1, "continues": None}))[0] == "tampered"


def test_no_epoch_at_all():
    def nothing(log):
        log.entries[:] = [entry for entry in log.entries if b'"session-' not in entry]

    files = story(after=[nothing])
    files = {
        name: data for name, data in files.items() if not name.startswith(("fragments", "frames"))
    }
    assert seals(files) == (
        "tampered",
        [("tampered", "an epoch of the session is left out, or all")],
    )


def test_keys_or_frames_of_an_epoch_without_an_entry():
    key = line({"key": "00" * 32, "seq": "3"}).encode() + b"\n"
    for name, data in (("keys/7.jsonl", key), ("frames/7.bin", b"")):
        files = {**story(), name: data}
        assert seals(files) == ("tampered", [("tampered", "no entry opens its epoch")])
        assert [item.object for item in judged(files, LOOSE).findings] == [name]


@pytest.mark.parametrize(
    "other",
    [
        {"of": "journal"},
        {"tenant": "other"},
        {"node": "node-2"},
        {"boot": "21" * 16},
        {"worker": 1},
        {"number": "18"},
    ],
)
def test_epochs_of_two_sessions_by_what_they_say(other):
    files = recovered()
    names = [name for name in files if name.startswith("entries/")]
    opens = [name for name in names if b'"session-open"' in files[name]]
    bundle = open_bundle(packed(reworded(files, opens[1], **other)))
    entries = {index: parse_entry(data) for index, data in bundle.entries.items()}
    report = BundleReport()
    find_epochs(bundle, entries, report)
    reason = "it is of another tenant, node or number than the first"
    assert ("tampered", reason) in found(report, "seals")


# -- fragments -------------------------------------------------------------------------------------


def test_fragments_that_are_whole():
    assert fragments(story(cuts=[2, 4])) == ("verified", [])
    assert fragments(lost()) == ("incomplete", [])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"tenant": "other"}, "of another session"),
        ({"class": "other"}, "of another session"),
        ({"session": "00" * 16}, "of another session"),
        ({"epoch": 1}, "of another session"),
        ({"v": 2}, "version 2"),
    ],
)
def test_a_record_of_something_else(record, reason):
    verdict, reasons = fragments(story(record=record))
    assert verdict == "tampered"
    assert reason in reasons[0]


@pytest.mark.parametrize(
    ("seal", "reason"),
    [
        ({"fragments": {"count": "2", "root": "00" * 32}}, "not those that the seal names"),
        ({"frames": "6"}, "end at 5"),
        ({"root": "00" * 32}, "do not give the root"),
        ({"first_ts_ns": "0"}, "other times"),
        ({"last_ts_ns": str(2**62)}, "other times"),
    ],
)
def test_a_seal_over_other_fragments(seal, reason):
    verdict, reasons = fragments(story(seal=seal))
    assert verdict == "tampered"
    assert reason in reasons[0]


def test_lost_frames_that_the_seal_does_not_state():
    verdict, reasons = fragments(story(cuts=[2], gaps={1: [(2, 4)]}))
    assert verdict == "tampered"
    assert "end at 5" in reasons[0]


@pytest.mark.parametrize(
    ("cuts", "gaps"),
    [
        ([2], {1: [(3, 4)]}),
        ([2], {0: [(0, 1)]}),
        ([3], {1: [(1, 2)]}),
        ([2], {1: [(2, 3), (3, 4)]}),
    ],
)
def test_fragments_that_do_not_follow_each_other(cuts, gaps):
    verdict, reasons = fragments(story(cuts=cuts, gaps=gaps))
    assert verdict == "tampered"
    assert reasons


def test_a_gap_that_begins_before_the_fragment_in_front_of_it_ends():
    _, reasons = fragments(story(cuts=[3], gaps={1: [(2, 4)]}, lost=2))
    assert reasons == ["frames 3 to 3 are neither there nor stated lost"]


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        ({"tenant": "other"}, "segment"),
        ({"class": OTHER_CLASS}, "segment"),
        ({"fragments": {"count": 2, "root": "00" * 32}}, "inclusion proof"),
        ({"fragments": {"count": 1, "root": "00" * 32}}, "not in a tree"),
    ],
)
def test_a_segment_that_does_not_hold_it(segment, reason):
    if "tenant" in segment or "class" in segment:
        tenant = segment.get("tenant", "main")
        name = segment.get("class", CLASS)["name"]
        segment["object"] = (
            f"seg/v1/tenant={tenant}/class={name}/dt=2026-11-23/"
            "019aac8f5c007e1ea6d1000000000000-1.parquet"
        )
    verdict, reasons = fragments(story(segment=segment))
    assert verdict == "tampered"
    assert reason in reasons[0]


PATHS = {
    "of another entry": (lambda line: line.replace("6 ", "5 ", 1), "no segment"),
    "of no entry": (lambda line: line.replace("6 ", "99 ", 1), "no segment"),
    "of another place": (lambda line: line.replace(" 1 ", " 0 ", 1), "inclusion proof"),
    "without hashes": (lambda line: "6 1\n", "too short"),
    "twice": (lambda line: line + line, "1 records have 2 paths"),
    "none": (lambda line: "", "1 records have 0 paths"),
    "no path": (lambda line: "6\n", "names the segment"),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_that_do_not_hold(name):
    change, reason = PATHS[name]
    files = story()
    path = files["fragments/0.paths"].decode()
    assert path.startswith("6 1 ")
    verdict, reasons = fragments({**files, "fragments/0.paths": change(path).encode()})
    assert verdict == "tampered"
    assert reason in reasons[0]


def test_records_that_are_no_lines():
    files = story()
    cut = files["fragments/0.jsonl"][:-1]
    verdict, reasons = fragments({**files, "fragments/0.jsonl": cut})
    assert verdict == "tampered"
    assert "0 records" in reasons[0]


def test_the_records_are_missing():
    files = {
        name: data
        for name, data in story().items()
        if not name.startswith(("fragments/", "frames/"))
    }
    assert fragments(files) == ("tampered", ["it is missing"])
    files = {
        name: data
        for name, data in unsealed().items()
        if not name.startswith(("fragments/", "frames/"))
    }
    assert fragments(files) == ("incomplete", [])
    files["frames/0.bin"] = unsealed()["frames/0.bin"]
    assert fragments(files) == ("tampered", ["it is missing"])


def test_a_segment_behind_the_seal():
    record = story()["fragments/0.jsonl"][:-1]
    paths = []

    def again(log):
        index, _, path = segment_entry(log, 1, b"\1" * 32, record, 5)
        paths.append(f"{index} 1 {path}\n".encode())

    files = story(after=[again])
    verdict, reasons = fragments({**files, "fragments/0.paths": paths[0]})
    assert verdict == "tampered"
    assert "after the seal" in reasons[0]
