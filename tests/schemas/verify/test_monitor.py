"""The rules over all entries of a log: valid histories, restarts, and each rule broken."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.schemas.errors import DigestError, FormatError
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.tlog.records import BusPlace, LogIncident, SessionOpen, SessionSeal
from sealtape.schemas.tree import EMPTY_ROOT
from sealtape.schemas.verify import monitor
from sealtape.schemas.verify.monitor import LogRules
from sealtape.schemas.verify.violations import Limits
from tests.factories.breaches import (
    BREACHES,
    case_id,
    cases,
)
from tests.factories.breaches_of_segments import replaces_nothing
from tests.factories.breaches_of_sessions import goes_on_elsewhere, vanishes_unsaid
from tests.factories.breaking import append
from tests.factories.happenings import generate
from tests.factories.histories import (
    Beat,
    Begin,
    Cut,
    Done,
    Raw,
    Say,
    Seal,
    Sign,
    Witness,
    plain,
)
from tests.factories.judging import check_breach, feed, judge, new_rules, reread

RULES = ("entry", "start", "statement-log", "statement-id", "objects")
PLACE = BusPlace("frames", 0, 1)
SEEDS = st.integers(0, 2**32)


@pytest.mark.parametrize(("rule", "breach"), cases(*RULES), ids=case_id)
def test_breaches(rule, breach):
    check_breach(rule, breach)


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.integers(1, 60))
def test_valid_histories_break_no_rule(seed, sessions):
    rules = judge(generate(seed, sessions))
    assert rules.violations == []
    assert rules.late == ()
    assert rules.sessions >= sessions


def test_histories_have_everything():
    kinds, steps = set(), set()
    for seed in range(25):
        history = generate(seed, 60)
        steps |= {type(step) for step in history.steps}
        kinds |= {step.body.kind for step in history.of(Sign)}
        kinds |= {step.entry.reason for step in history.of(LogIncident)}
        kinds |= {"merged" for cut in history.of(Cut) if cut.replaces}
        kinds |= {"recovered" for step in history.of(SessionOpen) if step.entry.epoch > 1}
        kinds |= {"lost" for step in history.of(SessionSeal) if step.entry.lost}
        kinds |= {"turn" for step in history.of(Begin)[1:]}
        kinds |= {"removed" for step in history.of(Done) if step.objects}
    assert steps == {Begin, Say, Cut, Seal, Sign, Done, Witness, Beat}
    assert kinds == {
        "key", "policy", "hold", "release", "tombstone-intent", "malformed", "session_missing",
        "continuation", "after_seal", "merged", "recovered", "lost", "turn", "removed",
    }  # fmt: skip


def test_the_same_seed_is_the_same_history():
    first, second = ([e.entry for e in generate(5, 30).write()] for _ in range(2))
    assert first == second
    assert first != [e.entry for e in generate(6, 30).write()]


@pytest.mark.soak
@pytest.mark.timeout(7_200)
def test_ten_thousand_sessions_without_a_false_alarm():
    sessions = 0
    for seed in range(100):
        rules = judge(generate(seed, 100))
        assert rules.violations == []
        sessions += rules.sessions
    assert sessions >= 10_000


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.data())
def test_nothing_that_a_log_says_is_too_much(seed, data):
    """Entries left out, repeated, exchanged or damaged: violations, never an error."""
    history = generate(seed, 15)
    events = history.write()
    rules, manifests, number = new_rules(history), {}, 1
    order = data.draw(st.lists(st.integers(0, len(events) - 1), max_size=15))
    for at in order:
        choice = data.draw(st.integers(0, 3))
        if choice == 0:
            del events[at % len(events)]
        elif choice == 1:
            events.insert(at % len(events), events[data.draw(st.integers(0, len(events) - 1))])
        elif choice == 2:
            events[0], events[at % len(events)] = events[at % len(events)], events[0]
        else:
            event = events[at % len(events)]
            place = data.draw(st.integers(0, max(0, len(event.entry) - 1)))
            entry = event.entry[:place] + b"0" + event.entry[place + 1 :]
            events[at % len(events)] = replace(event, entry=entry)
    for event in events:
        if isinstance(event.step, Witness):
            rules.witnessed(rules.size, event.step.at_ns)
            continue
        if isinstance(event.step, Begin) and event.number > number:
            rules.turn()
            number = event.number
        feed(rules, [replace(event, index=rules.size, number=rules.number)], manifests)
    again = reread(rules, history)
    assert again.to_json() == rules.to_json()


# -- restarts --------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(SEEDS, st.data())
def test_a_monitor_that_was_stopped_finds_the_same(seed, data):
    history = generate(seed, 25)
    breach = data.draw(st.sampled_from([None, *(function for _, function in BREACHES)]))
    if breach is not None:
        breach(history)
    events = history.write()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=3)))
    whole, parted = new_rules(history), new_rules(history)
    feed(whole, events, {})
    manifests, before = {}, 0
    for cut in [*cuts, len(events)]:
        feed(parted, events[before:cut], manifests)
        parted = reread(parted, history)
        before = cut
    assert parted.violations == whole.violations
    assert parted.late == whole.late
    assert (parted.number, parted.size, parted.root) == (whole.number, whole.size, whole.root)
    assert parted.to_json() == whole.to_json()


def kept():
    history = generate(1, 20)
    return history, judge(history)


def test_a_state_that_was_changed_is_refused():
    history, rules = kept()
    data = rules.to_json()
    for at in range(0, len(data), max(1, len(data) // 200)):
        for wrong in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            with pytest.raises(FormatError):
                new_rules(history).read(wrong)
    with pytest.raises(FormatError):
        new_rules(history).read(data + b"\n")
    with pytest.raises(DigestError):
        new_rules(history).read(data.replace(b'"suppressed":"0"', b'"suppressed":"1"'))


def test_a_state_of_another_policy_is_refused():
    history, rules = kept()
    data = rules.to_json()
    good = {"log": "sealtape.example/log", "admins": history.admins, "threshold": history.threshold}
    LogRules(**good).read(data)
    for changes in (
        {"log": "other.example/log"},
        {"admins": history.admins[1:]},
        {"threshold": history.threshold + 1},
        {"limits": Limits(session_s=1)},
    ):
        with pytest.raises(FormatError, match="another policy"):
            LogRules(**(good | changes)).read(data)


# -- reading ---------------------------------------------------------------------------------------


def test_entries_come_in_their_order():
    history = generate(2, 5)
    rules = new_rules(history)
    event = history.write()[0]
    with pytest.raises(FormatError, match="next entry is 0"):
        rules.take(1, event.entry)
    rules.take(0, event.entry)
    with pytest.raises(FormatError, match="1 entries were taken, not 2"):
        rules.witnessed(2, 0)


def test_the_tree_is_a_copy():
    history = generate(2, 5)
    rules = judge(history)
    tree = rules.tree
    assert (tree.hi, tree.root()) == (rules.size, rules.root)
    tree.append(bytes(32))
    assert tree.root() != rules.root


def test_what_is_wrong_is_returned_and_kept():
    history = generate(2, 5)
    rules = new_rules(history)
    found = rules.take(0, b"poem")
    assert [(item.rule, item.index) for item in found] == [("entry", 0)]
    assert rules.violations == list(found)
    again = rules.take(1, b"poem")
    assert len(again) == 1
    assert rules.violations == [*found, *again]
    assert rules.witnessed(2, 10**18) == ()


def test_a_log_that_does_not_begin():
    history = generate(2, 5)
    begin = history.steps[0]
    history.steps[0] = Raw(b"poem")
    writer = history.write()
    assert begin not in history.steps
    rules = new_rules(history)
    feed(rules, [replace(event, number=1) for event in writer], {})
    assert [(item.rule, item.index) for item in rules.violations] == [("entry", 0)]
    rules = new_rules(history)
    incident = LogIncident(10**18, "malformed", PLACE)
    rules.take(0, plain(incident))
    assert [(item.rule, item.index) for item in rules.violations] == [("start", 0)]


def test_the_wrong_shard():
    history = generate(2, 5, turns=False)
    history.of(Begin)[0].change["number"] = 2
    text = Checkpoint("sealtape.example/log/1", 0, EMPTY_ROOT).text()
    history.of(Begin)[0].change["before"] = history.log_keys[1].sign(text).decode()
    rules = judge(history)
    assert [(item.rule, item.index) for item in rules.violations] == [("start", 0)]


def test_manifests_that_are_wanted():
    for seed in range(50):
        history = generate(seed, 60)
        rules = new_rules(history)
        merged = {id(cut) for cut in history.of(Cut) if cut.replaces}
        done = {id(step) for step in history.of(Done) if step.objects}
        if merged and done:
            break
    seen, manifests, places = set(), {}, {}
    for event in history.write():
        if not isinstance(event.step, Witness):
            wanted = rules.wanted(event.entry)
            here = (event.number, event.index)
            if isinstance(event.step, Begin) and event.number > rules.number:
                rules.turn()
            if isinstance(event.step, Cut):
                (own,) = [digest for digest, place in wanted.items() if place == here]
                places[own] = here
                assert len(wanted) == 1 + len(event.step.replaces)
            elif isinstance(event.step, Done):
                assert len(wanted) == len(event.step.objects)
            else:
                assert wanted == {}
            assert all(places[digest] == place for digest, place in wanted.items())
            seen.add(type(event.step))
        feed(rules, [event], manifests)
    assert {Cut, Done} <= seen
    assert rules.wanted(b"poem") == {}
    assert rules.wanted(b'{"type":"segment"}') == {}
    segment = next(event for event in history.write() if isinstance(event.step, Cut))
    speaking = segment.entry[:-1] + b',"x-like":{"type":"tombstone-done"}}'
    assert len(new_rules(history).wanted(speaking)) == 1
    incident = plain(LogIncident(1, "malformed", PLACE))
    assert rules.wanted(incident[:-1] + b',"x-like":{"type":"segment"}}') == {}


def test_replacing_what_is_not_there():
    check_breach("replaces", replaces_nothing)


def test_replacing_what_cannot_be_read():
    for seed in range(50):
        history = generate(seed, 60)
        merged = [cut for cut in history.of(Cut) if cut.replaces]
        if merged:
            break
    events = history.write()
    cut = merged[-1]
    event = next(event for event in events if event.step is cut)
    for hidden in ("new", "old"):
        rules, manifests = new_rules(history), {}
        for each in events:
            if each is event and hidden == "old":
                manifests.clear()
            if each is event and hidden == "new":
                each = replace(each, manifest=b"")
            feed(rules, [each], manifests)
            if each.step is cut:
                break
        assert {item.rule for item in rules.violations} == {"manifest"}
        assert len(rules.violations) == (1 if hidden == "new" else len(cut.replaces))


def test_a_removed_object_whose_manifest_is_gone():
    for seed in range(80):
        history = generate(seed, 60)
        done = [step for step in history.of(Done) if step.objects]
        if done:
            break
    rules, manifests = new_rules(history), {}
    for event in history.write():
        if event.step is done[0]:
            manifests.clear()
        feed(rules, [event], manifests)
        if event.step is done[0]:
            break
    assert {item.rule for item in rules.violations} == {"manifest"}


def test_a_removed_object_that_was_replaced():
    for seed in range(80):
        history = generate(seed, 60)
        done = history.of(Done)
        merged = [cut for cut in history.of(Cut) if cut.replaces]
        if done and merged and history.steps.index(merged[0]) < history.steps.index(done[0]):
            break
    done[0].objects.append(merged[0].replaces[0])
    assert judge(history).violations == []


# -- time ------------------------------------------------------------------------------------------


def test_what_is_late_lasts_until_it_comes():
    for seed in range(80):
        history = generate(seed, 40)
        steps = vanishes_unsaid(history)
        if steps is not None:
            break
    passed = steps[0].entry
    rules = judge(history)
    assert [item.rule for item in rules.late] == ["missing"]
    assert rules.violations == list(rules.late)
    incident = LogIncident(history.steps[-1].at_ns, "session_missing", PLACE, passed.session, 0, 1)
    append(history, Say(incident))
    rules = judge(history)
    assert rules.late == ()
    assert [item.rule for item in rules.violations] == ["missing"]


def test_silence_lasts_until_the_next_heartbeat():
    history = generate(4, 10)
    last = history.steps[-1].at_ns
    for seconds in (1_000, 1_100, 1_200):
        history.steps.append(Witness(last + seconds * 10**9))
    rules = judge(history)
    assert [item.rule for item in rules.violations] == ["silent"]
    assert [item.rule for item in rules.late] == ["silent"]
    assert "480 seconds" in rules.late[0].reason
    history.steps.append(Beat(last + 1_200 * 10**9))
    append(history)
    rules = judge(history)
    assert [item.rule for item in rules.violations] == ["silent"]
    assert rules.late == ()


def test_what_must_be_stated_is_told_once():
    for seed in range(80):
        history = generate(seed, 40)
        steps = goes_on_elsewhere(history)
        if steps is not None:
            break
    append(history)
    rules = judge(history)
    assert [item.rule for item in rules.violations] == ["continues"]
    assert rules.late == ()


def test_a_flood_of_violations_is_counted(monkeypatch):
    monkeypatch.setattr(monitor, "MAX_VIOLATIONS", 3)
    history = generate(2, 5)
    append(history, *(Raw(b"poem") for _ in range(5)))
    rules = judge(history)
    assert (len(rules.violations), rules.suppressed) == (3, 2)
    assert reread(rules, history).suppressed == 2


def test_limits_are_whose_who_runs_it():
    history = generate(4, 30)
    history.wait(1)
    limits = Limits(session_s=0, journal_s=0)
    rules = judge(history, limits)
    assert {item.rule for item in rules.violations} == {"unsealed"}
    assert rules.open == len(rules.late) > 0
