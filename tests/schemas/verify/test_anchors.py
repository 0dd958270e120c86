"""Checkpoints, witnesses and time-stamps of a bundle, by the verifier's own policy."""

import sys

import pytest

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.verify.anchors import Anchor, Anchors, witnessed_time
from sealtape.schemas.verify.steps import State
from tests.factories import timestamps as tsa
from tests.factories.bundles import (
    BOTH,
    LOOSE,
    PLAIN,
    SIGNER,
    found,
    judged,
    note_of,
    stamped,
    story,
    with_authority,
)
from tests.factories.timestamps import Party
from tests.vectors.bundle_parts import START_S, b64, ed25519, sha, signed, vkey
from tests.vectors.generate_bundle import policy, recovered, with_ml_dsa

WITNESSES = {
    f"w{n}": vkey(f"w{n}.example/w", b"\4", ed25519("", bytes([n]) * 32)) for n in (1, 2, 3)
}
TWO_OF_THREE = "".join(f"witness {name} {key}\n" for name, key in WITNESSES.items()) + (
    "group two 2 w1 w2 w3\nquorum two\n"
)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"w1": 5, "w2": 9, "w3": 7}, 7),
        ({"w1": 5, "w2": 5}, 5),
        ({"w1": 5}, None),
        ({}, None),
    ],
)
def test_the_witnessed_time_is_when_the_quorum_was_there(times, expected):
    assert witnessed_time(parse_policy(TWO_OF_THREE.encode()), times) == expected


def test_without_a_quorum_nothing_is_witnessed():
    rules = TWO_OF_THREE.replace("quorum two", "quorum none")
    assert witnessed_time(parse_policy(rules.encode()), {"w1": 5}) is None


def test_which_anchor_bounds_an_entry():
    def anchor(size, seconds, stamped_ns=None):
        return Anchor(size, bytes(32), b"", seconds, stamped_ns)

    anchors = Anchors("log/1", anchor(30, 300), quorum=True, monitored=True)
    anchors.others = {10: anchor(10, 100), 20: anchor(20, None, 150_000_000_000)}
    assert [anchors.covering(index) for index in (9, 10, 29, 30)] == [100, 300, 300, None]
    assert [anchors.before(index) for index in (9, 10, 20, 30)] == [None, 100, 100, 300]
    assert anchors.latest_ns(9) == 100_000_000_000
    assert anchors.latest_ns(10) == 150_000_000_000
    assert anchors.latest_ns(20) == 300_000_000_000
    assert anchors.latest_ns(30) is None
    assert anchors.at(30) is anchors.top
    assert anchors.at(20).stamped_ns
    assert anchors.at(5) is None


def test_a_whole_story_is_verified():
    report = judged(story())
    assert report.verdict == "verified"
    assert report.witnesses == {"office": START_S + 40, "monitor": START_S + 40}
    assert report.state("ml-dsa") == State.NOT_PROVIDED


# -- the checkpoint --------------------------------------------------------------------------------


def change(files, old, new):
    name, note = note_of(files)
    assert old in note
    return {**files, name: note.replace(old, new)}


CHECKPOINTS = {
    "no note": lambda files: {**files, note_of(files)[0]: b"no note\n"},
    "another size": lambda files: change(files, b"/1\n9\n", b"/1\n8\n"),
    "a signature changed": lambda files: change(
        files, b"\xe2\x80\x94 office", b"\xe2\x80\x94 0ffice"
    ),
}


@pytest.mark.parametrize("name", ["no note", "another size"])
def test_a_checkpoint_that_is_none(name):
    report = judged(CHECKPOINTS[name](story()))
    assert report.verdict == "tampered"
    assert report.findings[0].step == "checkpoint"
    assert report.state("inclusion") == State.NOT_CHECKED


def test_an_unknown_witness_is_not_counted():
    report = judged(CHECKPOINTS["a signature changed"](story()))
    assert found(report, "witnesses") == [("incomplete", "the quorum is short: monitor cosigned")]


def test_a_checkpoint_of_another_size_than_its_name():
    files = story()
    name, note = note_of(files)
    other = {key: value for key, value in files.items() if key != name}
    other |= {"checkpoints/8": note, "bundle.json": files["bundle.json"].replace(b'"9"', b'"8"')}
    report = judged(other)
    assert found(report, "checkpoint") == [("tampered", "it is of 9 entries, not of 8")]


def test_a_log_that_signed_with_ml_dsa_alone():
    files = with_ml_dsa()
    name, note = note_of({key: files[key] for key in files if not key.endswith("mldsa")})
    lines = note.split(b"\n")
    lines = [line for line in lines if not line.startswith(b"\xe2\x80\x94 sealtape")]
    moved = files[f"{name}.mldsa"].replace(b"1 ", b"0 ", 1)
    report = judged({**files, name: b"\n".join(lines), f"{name}.mldsa": moved}, policy(ml_dsa=True))
    assert found(report, "checkpoint") == [("tampered", "the log's Ed25519 signature is missing")]


def test_a_policy_that_asks_for_no_witness():
    report = judged(story(), LOOSE.replace("quorum office", "quorum none"))
    assert report.verdict == "verified"
    assert report.state("witnesses") == State.NOT_PROVIDED
    assert report.state("times") == State.NOT_PROVIDED


def test_nobody_cosigned():
    report = judged(story(witnesses=()))
    assert found(report, "witnesses") == [("incomplete", "the quorum is short: nobody cosigned")]


def test_the_monitor_is_told_apart():
    report = judged(story(witnesses=BOTH[:1]), LOOSE)
    assert (report.verdict, report.state("monitor")) == ("verified", State.NOT_PROVIDED)
    report = judged(story(witnesses=BOTH[:1]))
    assert [verdict for verdict, _ in found(report, "monitor")] == ["incomplete"]


def test_ml_dsa():
    report = judged(with_ml_dsa(), policy(ml_dsa=True))
    assert (report.verdict, report.state("ml-dsa")) == ("verified", State.PASS)
    strict = (
        policy(ml_dsa=True)
        .replace("ml_dsa_from = 0\n", "")
        .replace('require = ["monitor"]', 'require = ["ml-dsa"]')
    )
    report = judged(story(), strict)
    assert [verdict for verdict, _ in found(report, "ml-dsa")] == ["incomplete"]
    report = judged(story(), policy(ml_dsa=True))
    assert report.state("times") == State.NOT_PROVIDED


# -- the others ------------------------------------------------------------------------------------


def test_earlier_checkpoints():
    report = judged(recovered())
    assert (report.verdict, report.state("consistency")) == ("verified", State.PASS)
    assert report.details["consistency"] == "2 earlier checkpoints"


def test_without_an_earlier_checkpoint_nothing_is_consistent():
    report = judged(story())
    assert (report.verdict, report.state("consistency")) == ("verified", State.NOT_PROVIDED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda files: {"checkpoints/7.consistency": files["checkpoints/5.consistency"]}, "hold"),
        (lambda files: {"checkpoints/7.consistency": b"x\n"}, "base64"),
        (lambda files: {"checkpoints/7.consistency": b"A\n" * 2049}, "missing, or too long"),
        (lambda files: {"checkpoints/7": files["checkpoints/5"]}, "it is of 5 entries"),
        (lambda files: {"checkpoints/7": b"\n"}, "empty line"),
    ],
)
def test_earlier_checkpoints_that_are_no_beginning(change, reason):
    files = recovered()
    report = judged(files | change(files))
    ((verdict, why),) = found(report, "consistency")
    assert verdict == "tampered"
    assert reason in why


def test_an_earlier_checkpoint_without_proof():
    files = recovered()
    del files["checkpoints/7.consistency"]
    assert found(judged(files), "consistency")[0][1].startswith("its proof of consistency")


def test_the_checkpoint_is_not_proven_under_itself():
    files = recovered()
    report = judged({**files, "checkpoints/13.consistency": b""})
    assert found(report, "consistency") == [("tampered", "a checkpoint is not proven under itself")]


def test_an_earlier_checkpoint_of_another_shard():
    files = recovered()
    key = ed25519("", b"\x55" * 32)
    origin = "sealtape.example/log/2"
    text = f"{origin}\n7\n{b64(bytes(32))}\n"
    line = signed(origin, b"\1", key, key.sign(text.encode()))
    second = f"log {vkey(origin, key=key)}\nwitness office"
    rules = PLAIN.replace("witness office", second, 1)
    report = judged({**files, "checkpoints/7": (text + "\n" + line).encode()}, rules)
    assert "it is of the log" in found(report, "consistency")[0][1]


# -- time-stamps -----------------------------------------------------------------------------------


def test_a_time_stamp_over_the_checkpoint():
    report = judged(stamped(story()), with_authority())
    assert (report.verdict, report.state("timestamps")) == ("verified", State.PASS)
    assert report.stamps == {"9/one": START_S * 10**9}
    assert report.accuracies == {"9/one": 10**9}
    assert report.bounds[0].not_after_ns == (START_S + 1) * 10**9


def test_a_time_stamp_over_an_earlier_checkpoint_covers_nothing_later():
    files = stamped(recovered(), name="checkpoints/7")
    report = judged(files, with_authority())
    assert (report.verdict, report.state("timestamps")) == ("verified", State.NOT_PROVIDED)
    required = (
        with_authority()
        .replace('["monitor"]\n', '["timestamp"]\n')
        .replace('monitors = ["timestamp"]', 'monitors = ["monitor"]')
    )
    report = judged(files, required)
    assert found(report, "timestamps") == [("incomplete", "none covers the seals")]


def test_a_time_stamp_of_something_else():
    report = judged(stamped(story(), over=b"else"), with_authority())
    ((verdict, _),) = found(report, "timestamps")
    assert verdict == "tampered"


def test_a_time_stamp_of_nobody_known():
    report = judged(stamped(story()), with_authority(name="two"))
    assert (report.verdict, report.state("timestamps")) == ("verified", State.NOT_PROVIDED)
    assert "no known authority" in report.notes[0]
    foreign = with_authority(root=Party("Root 9", 90, ca=True))
    assert found(judged(stamped(story()), foreign), "timestamps")


def test_a_time_stamp_over_a_checkpoint_that_is_wrong_is_passed_by():
    files = stamped(recovered(), name="checkpoints/7")
    report = judged({**files, "checkpoints/7": b"\n"}, with_authority())
    assert not report.stamps
    assert not found(report, "timestamps")


def test_two_time_stamps_the_earlier_counts():
    files = stamped(stamped(story()), "two")
    rules = with_authority(with_authority(), "two")
    report = judged(files, rules)
    assert set(report.stamps) == {"9/one", "9/two"}
    digest = sha(note_of(story())[1])
    for second, latest in (("20261122235930Z", START_S - 29), ("20261123000005Z", START_S + 1)):
        info = tsa.statement(digest, time=tsa.element(0x18, second.encode()))
        stamp = tsa.answer(SIGNER, digest, info=info)
        bounds = judged({**files, "timestamps/9/two.tsr": stamp}, rules).bounds
        assert bounds[0].not_after_ns == latest * 10**9


def test_where_time_stamps_cannot_be_verified(monkeypatch):
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    files = stamped(story())
    report = judged(files, with_authority())
    assert (report.verdict, report.state("timestamps")) == ("verified", State.NOT_CHECKED)
    required = with_authority(PLAIN.replace('require = ["monitor"]', 'require = ["timestamp"]'))
    for wanting in (files, story()):  # a stamp is missing, or there and not to be verified
        with pytest.raises(SettingsError, match="rfc3161"):
            judged(wanting, required)
    assert judged(story()).state("timestamps") == State.NOT_PROVIDED
