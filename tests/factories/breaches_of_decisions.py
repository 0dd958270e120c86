"""The monitor's rules on statements and deletions, broken (see `breaches`)."""

from dataclasses import replace

from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.tlog.records import (
    SessionOpen,
)
from sealtape.schemas.tlog.statements import (
    HoldStatement,
    IntentStatement,
    KeyStatement,
    PolicyStatement,
    ReleaseStatement,
)
from tests.factories.breaking import (
    OTHER,
    append,
    breaks,
    current,
    ends,
    first,
    heading,
    key,
    named,
    opens,
    plain_cuts,
    policy,
    stranger,
)
from tests.factories.histories import (
    Begin,
    Done,
    Raw,
    Seal,
    Sign,
    signed,
)

# -- statements ------------------------------------------------------------------------------------


@breaks("statement-log")
def for_another_log(history):
    step = policy(history)
    step.change["heading"] = replace(step.body.heading, log="test.example/log")
    return append(history, step)


@breaks("statement-id")
def said_before(history):
    step = policy(history)
    known = history.of(KeyStatement)[0].body.heading
    step.change["heading"] = known
    return append(history, step)


@breaks("signed")
def signed_by_a_stranger(history):
    return append(history, policy(history, signers=[stranger()]))


@breaks("signed")
def one_signature_for_a_release(history):
    session = opens(history)[0].entry.session
    hold = Sign(HoldStatement(heading(history, 7), OTHER, (session,)), current(history))
    body = ReleaseStatement(heading(history, 8), hold.body.heading.id, (session,))
    release = Sign(body, current(history)[:1])
    append(history, hold, release)
    return [release]


@breaks("signed")
def expired_says_an_administrator(history):
    session = first(s for s in {s.entry.session for s in ends(history)} - named(history))
    if session is None:
        return None
    body = IntentStatement(heading(history, 9), "expired", bytes(32), (session,))
    return append(history, Sign(body, current(history)))


@breaks("signed")
def signature_does_not_verify(history):
    step = policy(history)
    good = signed(step.body, step.signers)
    other = signed(replace(step.body, policy_sha256=b"\x01" * 32), step.signers)
    # The lines of another note, behind this one's text.
    text = good.split(b"\\n\\n")[0]
    lines = other.split(b"\\n\\n")[1]
    return append(history, Raw(text + b"\\n\\n" + lines))


@breaks("signed")
def key_revoked_afterwards(history):
    new = stranger(2)
    introduce = key(history, "introduce", new.vkey, role="admin", seed=10)
    others = current(history)[: history.threshold - 1]
    said = policy(history, seed=11, signers=[new, *others])
    revoke = key(history, "revoke", new.vkey, role="admin", since=0, seed=12)
    append(history, introduce, said, revoke)
    index = next(event for event in history.write() if event.step is said).index
    revoke.change["since"] = index
    return [said]


@breaks("keys")
def introduced_twice(history):
    vkey = stranger(3).vkey
    first_, second = (key(history, "introduce", vkey, seed=seed) for seed in (13, 14))
    append(history, first_, second)
    return [second]


@breaks("keys")
def revoked_unknown(history):
    return append(history, key(history, "revoke", stranger(4).vkey, since=0))


@breaks("keys")
def replaces_unknown(history):
    replaces = stranger(5).vkey
    return append(history, key(history, "rotate", stranger(6).vkey, replaces=replaces))


@breaks("keys")
def not_a_key(history):
    return append(history, key(history, "introduce", "node-1 is no key"))


@breaks("release")
def of_no_hold(history):
    session = opens(history)[0].entry.session
    body = ReleaseStatement(heading(history, 15), b"\x99" * 16, (session,))
    return append(history, Sign(body, current(history)))


@breaks("release")
def of_another_session(history):
    sessions = sorted({step.entry.session for step in opens(history)})[:2]
    hold = Sign(HoldStatement(heading(history, 16), OTHER, (sessions[0],)), current(history))
    body = ReleaseStatement(heading(history, 17), hold.body.heading.id, (sessions[1],))
    release = Sign(body, current(history))
    append(history, hold, release)
    return [release]


# -- deletion --------------------------------------------------------------------------------------


def _undecided(history):
    """A session that is sealed and that no decision names."""
    found = {step.entry.session for step in ends(history)} - named(history)
    return min(found, default=None)


@breaks("held")
def erased_under_hold(history):
    session = _undecided(history)
    if session is None:
        return None
    hold = Sign(HoldStatement(heading(history, 18), OTHER, (session,)), current(history))
    body = IntentStatement(heading(history, 19), "erasure", OTHER, (session,))
    intent = Sign(body, current(history))
    append(history, hold, intent)
    return [intent]


@breaks("held")
def held_in_between(history):
    step = first(history.of(Done))
    if step is None:
        return None
    hold = HoldStatement(heading(history, 20), OTHER, step.intent.body.sessions[:1])
    # Signed by administrators of the shard in which the end stands.
    at = history.steps.index(step)
    keys = [s for s in history.steps[:at] if isinstance(s, Sign) and s.body.kind == "policy"]
    if not keys or any(
        isinstance(s, (Begin, Sign)) and _changes_keys(s)
        for s in history.steps[history.steps.index(keys[-1]) : at]
    ):
        return None
    later = [s for s in history.steps[at:] if isinstance(s, (Sign, Done))]
    if any(
        set(getattr(s.body, "sessions", ())) & set(hold.sessions)
        for s in later
        if isinstance(s, Sign)
    ):
        return None
    hold = replace(hold, heading=replace(hold.heading, at_ns=step.at_ns))
    history.before(step, Sign(hold, keys[-1].signers))
    return [step]


def _changes_keys(step):
    return isinstance(step, Begin) or isinstance(getattr(step, "body", None), KeyStatement)


@breaks("early")
def too_young(history):
    session = _undecided(history)
    reaper = _reaper(history)
    if session is None:
        return None
    terms = [s for s in opens(history, of="session") if s.entry.session == session]
    if not terms:
        return None
    tenant, name = terms[0].entry.tenant, terms[0].entry.retention.name
    longer = PolicyStatement(
        heading(history, 21), tenant, RetentionClass(name, 3_000_000, 3_000_000), OTHER
    )
    body = IntentStatement(heading(history, 22), "expired", bytes(32), (session,))
    intent = Sign(body, [reaper])
    append(history, Sign(longer, current(history)), intent)
    return [intent]


@breaks("early")
def not_sealed(history):
    reaper = _reaper(history)
    sealed = {(s.entry.session, s.entry.epoch) for s in history.of(Seal)}
    step = first(
        s for s in history.of(SessionOpen) if (s.entry.session, s.entry.epoch) not in sealed
    )
    if step is None or step.entry.session in named(history):
        return None
    body = IntentStatement(heading(history, 23), "expired", bytes(32), (step.entry.session,))
    return append(history, Sign(body, [reaper]))


def _reaper(history):
    return current(history, "reaper")[0]


@breaks("done")
def done_twice(history):
    step = first(history.of(Done))
    if step is None:
        return None
    again = replace(
        step,
        at_ns=history.steps[-1].at_ns,
        id=b"\x24" * 16,
        signers=[_reaper(history)],
        objects=[],
        change={},
    )
    return append(history, again)


@breaks("done")
def of_another_place(history):
    step = first(history.of(Done))
    if step is None:
        return None
    step.change["index"] = 0
    return [step]


@breaks("done")
def before_it_was_witnessed(history):
    session, reaper = _undecided(history), _reaper(history)
    if session is None:
        return None
    body = IntentStatement(heading(history, 25), "erasure", OTHER, (session,))
    intent = Sign(body, current(history))
    done = Done(intent, history.steps[-1].at_ns, b"\x26" * 16, [reaper], [])
    append(history, intent, done)
    return [done]


@breaks("objects")
def others_live_in_it(history):
    step = first(history.of(Done))
    cut = first(cut for cut in plain_cuts(history) if not _within(cut, named(history)))
    if step is None or cut is None or history.steps.index(cut) > history.steps.index(step):
        return None
    step.objects.append(cut)
    return [step]


@breaks("objects")
def no_segment(history):
    step = first(history.of(Done))
    if step is None:
        return None
    step.change["objects"] = (OTHER,)
    return [step]


def _within(cut, sessions):
    return {item.session for item in cut.fragments} <= sessions
