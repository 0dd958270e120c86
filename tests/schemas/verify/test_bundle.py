"""Bundles judged whole: the vectors, records, keys; and that no change passes as verified."""

import base64
import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.schemas.bundle import MAX_ENTRIES
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.verify import bundle as verifier
from sealtape.schemas.verify.bundle import verify_bundle
from sealtape.schemas.verify.steps import STEPS, State
from tests.factories.bundles import ANN, LOOSE, PLAIN, found, judged, stamped, story
from tests.vectors.bundle_parts import LOG, SESSION, START_S, line, packed, zipped
from tests.vectors.generate_bundle import (
    FILE,
    deleted,
    recovered,
    redacted,
    whole,
    with_ml_dsa,
)
from tests.verifier.insiders import INSIDERS

VECTORS = json.loads(FILE.read_text(encoding="utf-8"))
BEFORE = VECTORS["files"]["checkpoints/10"]
CASES = {case["name"]: case for case in VECTORS["cases"]}


@pytest.mark.parametrize("name", CASES)
def test_vectors(name):
    case = CASES[name]
    data = base64.b64decode(case["bundle"])
    if case["verdict"] == "usage":
        with pytest.raises(SettingsError):
            parse_evidence_policy(case["policy"].encode())
        return
    report = verify_bundle(data, parse_evidence_policy(case["policy"].encode()))
    assert report.verdict == case["verdict"]
    failed = [step for step in STEPS if report.state(step) == State.FAIL]
    assert (case["step"] in failed) if case["step"] else failed == []
    assert json.loads(json.dumps(report.to_json()))["verdict"] == case["verdict"]


def test_a_view_will_do():
    data = memoryview(packed(whole()))
    assert verify_bundle(data, parse_evidence_policy(PLAIN.encode())).verdict == "verified"


def test_steps_are_gone_through_in_their_order():
    report = judged(whole())
    assert list(report.states) == [step for step in STEPS if step in report.states]
    assert len(report.states) == len(STEPS)


def test_a_cosignature_of_tomorrow_is_told():
    now_ns = (START_S + 40 - 61) * 10**9
    report = judged(whole(), now_ns=now_ns)
    assert report.verdict == "verified"
    assert len([note for note in report.notes if "has not come yet" in note]) == 2
    assert judged(whole(), now_ns=now_ns + 10**9).notes == []


# -- entries ---------------------------------------------------------------------------------------


def records(files, rules=LOOSE):
    report = judged(files, rules)
    return report.verdict, [(item.object, item.reason) for item in found_of(report, "records")]


def found_of(report, step):
    return [item for item in report.findings if item.step == step]


def add(value):
    def step(log):
        log.add(value(log) if callable(value) else value)

    return step


def incident(session):
    return {
        "v": 1, "type": "incident", "at_ns": "1", "reason": "gap", "session": session.hex(),
        "bus": {"topic": "bus", "partition": 0, "offset": "7"}, "epoch": 0, "seq": "5",
    }  # fmt: skip


def start(log):
    return {**log.common("log"), "log": LOG, "number": 1, "before": ""}


def beat(log):
    nothing = {"count": "0", "root": hashlib.sha256(b"").hexdigest()}
    return {
        **log.common("heartbeat"), "index": "3", "every_s": 600, "keys": nothing,
        "shards": nothing, "nodes": nothing, "open": "0",
    }  # fmt: skip


def foreign_statement(log):
    log.statement("key", {"action": "introduce", "role": "node", "key": "k+00+AA", "replaces": "",
                          "since": None, "log": "other.example/log"}, ANN)  # fmt: skip


def repeated(log):
    log.entries.append(log.entries[1])


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (add("{}"), "missing"),
        (add("no JSON"), "JSON"),
        (add(lambda log: line({**log.common("rumour")})), "must be one of"),
        (add(start), "entry 0, and no other, begins the log"),
        (add(beat), "the heartbeat says that it is entry 3"),
        (add(incident(bytes(16))), "it is of another session"),
        (foreign_statement, "its statement is made for the log"),
        (repeated, "its statement is there twice"),
    ],
)
def test_entries_that_do_not_belong(step, reason):
    verdict, reasons = records(story(after=[step]))
    assert verdict == "tampered"
    assert len(reasons) == 1
    assert reason in reasons[0][1]


@pytest.mark.parametrize("members", [{"log": "other.example/log"}, {"number": 2, "before": BEFORE}])
def test_a_log_that_begins_otherwise(members):
    def moved(log):
        log.entries[0] = line(json.loads(log.entries[0]) | members).encode()

    verdict, reasons = records(story(before=[moved]))
    assert (verdict, reasons[0][0]) == ("tampered", "entries/0.json")
    assert "begins here" in reasons[0][1]


def test_a_log_that_does_not_begin():
    def none(log):
        log.entries[0] = log.entries[1]

    assert "begins the log" in records(story(before=[none]))[1][0][1]


def test_incidents_are_told():
    report = judged(story(after=[add(incident(SESSION))]))
    assert report.verdict == "verified"
    assert "incident of this session: gap" in report.notes[0]


def test_no_more_entries_than_are_read(monkeypatch):
    assert MAX_ENTRIES == 50_000
    monkeypatch.setattr(verifier, "MAX_ENTRIES", 7)
    assert "at most 7" in found(judged(whole()), "inclusion")[0][1]


@pytest.mark.parametrize(
    "change", [lambda data: data[45:], lambda data: data * 2, lambda data: b"x"]
)
def test_a_proof_of_inclusion_that_does_not_hold(change):
    files = whole()
    report = judged({**files, "inclusion": change(files["inclusion"])})
    assert found(report, "inclusion")[0][0] == "tampered"
    assert report.state("records") == State.NOT_CHECKED


def test_an_entry_moved_to_another_index():
    files = whole()
    files["entries/9.json"] = files.pop("entries/8.json")
    assert found(judged(files), "inclusion")
    files["entries/99.json"] = files.pop("entries/9.json")
    assert "must be some of" in found(judged(files), "inclusion")[0][1]


# -- keys ------------------------------------------------------------------------------------------


def test_keys_behind_the_heartbeat_may_be_there():
    late = [lambda log: log.key("introduce", "node", "node-1")]
    assert judged(story(late=late)).verdict == "verified"


def test_keys_that_do_not_count_are_told():
    report = judged(story(after=[lambda log: log.key("introduce", "node", "reaper", "reaper")]))
    assert report.verdict == "verified"
    assert "not signed by enough administrators" in report.notes[0]


def test_a_bundle_without_heartbeat():
    report = judged(whole(heartbeat=False))
    assert [verdict for verdict, _ in found(report, "keys")] == ["incomplete"]


def test_a_key_is_left_out():
    report = judged(whole(hide_key=True))
    assert found(report, "keys") == [
        ("tampered", "3 keys were decided on before, the bundle has others")
    ]


# -- nothing passes --------------------------------------------------------------------------------

BUNDLES = {
    "whole": whole(),
    "redacted": redacted(),
    "recovered": recovered(),
    "deleted": deleted(),
    "ml-dsa": with_ml_dsa(),
    "stamped": stamped(story()),
}
DATA = {name: packed(files) for name, files in BUNDLES.items()}
VERDICTS = {name: "deleted" if name == "deleted" else "verified" for name in DATA}
CHOSEN = st.sampled_from(sorted(DATA))


def test_they_are_good_as_they_are():
    for name, data in DATA.items():
        assert judged(data).verdict == VERDICTS[name]


@given(CHOSEN, st.data())
def test_a_flipped_bit_anywhere_in_the_file(name, data):
    whole_ = bytearray(DATA[name])
    bit = data.draw(st.integers(0, len(whole_) * 8 - 1))
    whole_[bit // 8] ^= 1 << bit % 8
    report = judged(bytes(whole_))
    assert (report.verdict, report.findings[0].step) == ("tampered", "form")


@given(CHOSEN, st.data())
def test_cut_off_or_continued_anywhere(name, data):
    whole_ = DATA[name]
    end = data.draw(st.integers(0, len(whole_) - 1))
    for wrong in (whole_[:end], whole_[end:] if end else b"", whole_ + whole_[end:]):
        assert judged(wrong).verdict == "tampered"


# What a verifier does not need: without it, or with something else there, less is shown, and
# nothing wrong. All else is caught although the sums were made anew.
NEUTRAL = ("README.txt", "timestamps/", "keys/", "checkpoints/")


@settings(max_examples=300)
@given(CHOSEN, st.data())
def test_a_flipped_bit_in_a_file_whose_sums_were_made_anew(name, data):
    files = BUNDLES[name]
    place = data.draw(st.sampled_from(sorted(files)).filter(lambda item: files[item]))
    content = bytearray(files[place])
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    report = judged({**files, place: bytes(content)})
    if place == top(files) and report.verdict != "tampered":
        # A witness's name or key id became a stranger's: its cosignature is not counted.
        assert set(report.witnesses) < {"office", "monitor"}
    elif not place.startswith(NEUTRAL):
        assert report.verdict == "tampered"


def top(files):
    """The checkpoint that everything is proven under."""
    return f"checkpoints/{json.loads(files['bundle.json'])['checkpoint']}"


@settings(max_examples=200)
@given(CHOSEN, st.data())
def test_files_dropped_doubled_and_exchanged(name, data):
    files = dict(BUNDLES[name])
    names = sorted(files)
    one, other = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    how = data.draw(st.sampled_from(["drop", "copy", "swap", "empty", "cut"]))
    if how == "drop":
        del files[one]
    elif how == "copy":
        files[one] = files[other]
    elif how == "swap":
        files[one], files[other] = files[other], files[one]
    elif how == "empty":
        files[one] = b""
    else:
        files[one] = files[one][: len(files[one]) // 2]
    report = judged(files)
    touched = {one, other} if how == "swap" else {one}
    if files != BUNDLES[name] and not all(item.startswith(NEUTRAL) for item in touched):
        assert report.verdict in ("tampered", "incomplete")


@given(st.permutations(["whole", "recovered", "deleted"]), st.data())
def test_files_of_another_bundle(names, data):
    """Two valid bundles of one session and the same keys, put together."""
    files, strange = BUNDLES[names[0]], BUNDLES[names[1]]
    place = data.draw(st.sampled_from(sorted(strange)))
    mixed = {**files, place: strange[place]}
    if mixed != files and not place.startswith(NEUTRAL):
        assert judged(mixed).verdict in ("tampered", "incomplete")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_verdict(data):
    assert judged(data).verdict == "tampered"


CONTENTS = st.dictionaries(st.sampled_from(sorted(BUNDLES["whole"])), st.binary(max_size=80))


@given(CONTENTS)
def test_any_contents_are_a_verdict(changes):
    report = judged({**BUNDLES["whole"], **changes})
    good = set(changes) <= {"README.txt"}
    assert report.verdict in (("verified",) if good else ("tampered", "incomplete"))


def test_a_zip_of_nothing():
    assert judged(zipped({})).verdict == "tampered"


def test_expired_before_its_last_epoch_is_sealed():
    """Not early: nothing says yet when its term began."""
    files, rules = INSIDERS["expired, and the last epoch is not sealed"]
    report = judged(files, rules)
    assert report.verdict == "incomplete"
    assert [why for _, why in found(report, "lifecycle")] == [
        "the witnessed time of the seal is not there"
    ]
