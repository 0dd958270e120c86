"""Holds, releases and deletions of a bundle's session."""

import pytest

from sealtape.schemas.canonical import fields
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.tlog.statements import read_statement
from sealtape.schemas.verify.key_history import KeyHistory
from sealtape.schemas.verify.lifecycle import Decisions, decisions
from sealtape.schemas.verify.steps import State
from tests.factories.bundles import ANN, BOB, BOTH, LOOSE, found, judged, story
from tests.vectors.bundle_parts import SESSION, Log, sha
from tests.vectors.generate_bundle import SHORT, deleted

MATTER = "0a" * 32
OURS = {"sessions": [SESSION.hex()]}
OTHERS = {"sessions": ["00" * 16]}


def hold(*signers, sessions=None):
    def step(log):
        log.hold = log.statement(
            "hold", {"matter": MATTER, **(sessions or OURS)}, *(signers or (ANN,))
        )

    return step


def release(*signers, of=None, sessions=None):
    def step(log):
        body = {"hold": of or log.hold, **(sessions or OURS)}
        log.statement("release", body, *(signers or (ANN, BOB)))

    return step


def intent(*signers, basis="erasure", sessions=None):
    def step(log):
        log.at = len(log.entries)
        matter = MATTER if basis == "erasure" else "00" * 32
        default = (ANN, BOB) if basis == "erasure" else ("reaper",)
        body = {"basis": basis, "matter": matter, **(sessions or OURS)}
        log.intent = log.statement("tombstone-intent", body, *(signers or default))

    return step


def done(*signers, of=None, index=None, objects=()):
    def step(log):
        at = log.at if index is None else index
        body = {
            "intent": of or log.intent, "index": str(at), "wraps": "1", "documents": "0",
            "objects": list(objects),
        }  # fmt: skip
        log.statement("tombstone-done", body, *(signers or ("reaper",)))

    return step


def policy_of(class_, *signers, tenant="main"):
    def step(log):
        body = {"tenant": tenant, "class": class_, "policy_sha256": "0b" * 32}
        log.statement("policy", body, *(signers or (ANN,)))

    return step


def lifecycle(*after, rules=LOOSE, **options):
    report = judged(story(after=after, **options), rules)
    return report, found(report, "lifecycle")


def test_nothing_was_decided():
    report, findings = lifecycle()
    assert (report.verdict, findings) == ("verified", [])
    assert report.state("lifecycle") == State.NOT_PROVIDED


@pytest.mark.parametrize(
    ("steps", "detail"),
    [
        ([hold()], "held"),
        ([hold(), release()], "not held any more"),
        ([hold(), hold(), release()], "held"),
        ([hold(), release(ANN)], "held"),
        ([hold(), release(sessions=OTHERS)], "held"),
        ([intent()], "not held any more"),
    ],
)
def test_holds_and_releases(steps, detail):
    report, findings = lifecycle(*steps)
    assert (report.verdict, findings) == ("verified", [])
    assert report.details["lifecycle"] == detail


def test_a_release_before_its_hold_releases_nothing():
    def early(log):
        log.hold = f"{log.ids + 2:032x}"
        release()(log)

    report, _ = lifecycle(early, hold())
    assert report.details["lifecycle"] == "held"


@pytest.mark.parametrize(
    "step",
    [
        hold(sessions=OTHERS),
        intent(sessions=OTHERS),
        release(of="0c" * 16),
        done(of="0c" * 16, index=3),
    ],
)
def test_decisions_about_others(step):
    _, findings = lifecycle(step)
    assert findings == [("tampered", "it is not about this session")]


def test_what_is_not_signed_does_not_count():
    report, findings = lifecycle(hold("node-1"), intent("reaper"), policy_of(SHORT, "reaper"))
    assert (report.verdict, findings) == ("verified", [])
    assert len(report.notes) == 3
    assert report.state("lifecycle") == State.NOT_PROVIDED
    report, _ = lifecycle(intent(basis="expired"), done(ANN))
    assert report.deleted is False


def test_erased():
    report, findings = lifecycle(intent(), done())
    assert (report.verdict, report.exit_code, findings) == ("deleted", 3, [])
    assert report.details["lifecycle"] == "deleted by policy"


@pytest.mark.parametrize(
    "steps",
    [
        [intent(), done(index=3)],
        [intent(), done("admin.example/ann")],
        [intent(ANN), done()],
    ],
)
def test_not_a_deletion(steps):
    report, findings = lifecycle(*steps)
    assert (report.verdict, findings) == ("verified", [])


def test_done_before_its_intent_is_no_deletion():
    def early(log):
        log.at, log.intent = len(log.entries) + 1, f"{log.ids + 2:032x}"
        done()(log)

    report, _ = lifecycle(early, intent())
    assert report.verdict == "verified"


def test_under_a_hold():
    report, findings = lifecycle(hold(), intent(), done())
    assert findings == [("tampered", "the session was to be deleted under a hold")]
    report, findings = lifecycle(hold(), release(), intent(), done())
    assert (report.verdict, findings) == ("deleted", [])
    report, findings = lifecycle(intent(), hold(), done())
    assert report.verdict == "deleted"


@pytest.mark.parametrize(("witnesses", "lacking"), [(BOTH[:1], "monitor"), (BOTH[1:], "quorum")])
def test_a_deletion_that_nobody_vouches_for(witnesses, lacking):
    report, findings = lifecycle(intent(), done(), witnesses=witnesses)
    assert report.verdict == "incomplete"
    assert lacking in findings[0][1]


# -- terms -----------------------------------------------------------------------------------------


def expired(at_s, *, policies=(), late_s=None, seal_s=40):
    """Sealed at 40 s, the intent in the log between two checkpoints."""

    def run(log):
        log.checkpoint(seal_s)
        for step in policies:
            step(log)
        log.heartbeat()
        log.checkpoint(at_s)
        intent(basis="expired")(log)
        log.checkpoint(late_s or at_s + 10)
        done()(log)

    return story(after=[run], open_class=SHORT)


def later(files):
    """The report; `story` witnesses the last checkpoint at 40 s, which matters to nothing here."""
    return judged(files, LOOSE)


def test_the_term_is_over():
    assert later(expired(640)).verdict == "deleted"


def test_the_term_is_not_over():
    report = later(expired(600, late_s=639))
    assert found(report, "lifecycle") == [("tampered", "the session was deleted 1 s early")]


def test_whether_the_term_was_over_is_not_shown():
    report = later(expired(639, late_s=640))
    assert found(report, "lifecycle")[0][0] == "incomplete"


@pytest.mark.parametrize(
    ("step", "verdict"),
    [
        (policy_of({**SHORT, "retain_for_s": 800}), "tampered"),
        (policy_of({**SHORT, "retain_for_s": 800, "name": "other"}), "deleted"),
        (policy_of({**SHORT, "retain_for_s": 800}, tenant="other"), "deleted"),
        (policy_of({**SHORT, "retain_for_s": 800}, "reaper"), "deleted"),
        (policy_of({**SHORT, "retain_for_s": 1}), "deleted"),
    ],
)
def test_the_larger_term_holds(step, verdict):
    assert later(expired(640, policies=[step])).verdict == verdict


def test_a_policy_behind_the_intent_changes_nothing():
    def run(log):
        log.checkpoint(40)
        log.heartbeat()
        log.checkpoint(640)
        intent(basis="expired")(log)
        policy_of({**SHORT, "retain_for_s": 800})(log)
        done()(log)

    assert later(story(after=[run], open_class=SHORT)).verdict == "deleted"


def test_without_a_seal_or_its_time_nothing_can_be_said():
    report = judged(story(seal=False, after=[intent(basis="expired"), done()]), LOOSE)
    assert ("incomplete", "the witnessed time of the seal is not there") in found(
        report, "lifecycle"
    )
    rules = LOOSE.replace("quorum office", "quorum none")
    report = judged(expired(640), rules)
    assert found(report, "lifecycle")[0][1] == "the witnessed time of the seal is not there"


def test_absent_frames_need_a_deletion_that_removed_their_object():
    assert judged(deleted()).verdict == "deleted"
    report = judged(story(after=[intent(), done()], spans=[]), LOOSE)
    assert found(report, "frames")[0][0] == "tampered"


@pytest.mark.parametrize(("place", "verdict"), [(-2, "deleted"), (-3, "tampered")])
def test_one_of_two_segments_removed(place, verdict):
    """The second fragment is absent; removed is its segment, or the other one."""
    removed = []

    def note(log):
        removed.append(sha(log.entries[place]).hex())

    def gone(log):
        done(objects=removed)(log)

    report = judged(story(cuts=[2], spans=[(0, 2)], after=[note, intent(), gone]), LOOSE)
    assert report.verdict == verdict
    assert [(span.what, span.lo, span.hi) for span in report.spans] == [("absent", 2, 5)]


def test_keys_are_decided_on_elsewhere():
    log = Log()
    log.start()
    log.key("introduce", "node", "node-1")
    entry = read_statement(fields(log.entries[1], "entry"))
    keys = KeyHistory(parse_evidence_policy(LOOSE.encode()), {1: entry})
    found = decisions(SESSION, {1: entry}, keys)
    assert found == Decisions(SESSION)
    assert [verifier.name for verifier in keys.verifiers("node", 2)] == ["node-1"]
