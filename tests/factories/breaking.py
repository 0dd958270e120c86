"""What breaches of the monitor's rules (see `breaches`) are made with."""

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas.notes import Signer
from sealtape.schemas.tlog.records import (
    LogIncident,
    SessionOpen,
)
from sealtape.schemas.tlog.statements import (
    Heading,
    KeyStatement,
    PolicyStatement,
)
from tests.factories.histories import (
    CLASSES,
    LOG,
    Begin,
    Cut,
    Done,
    Say,
    Seal,
    Sign,
    Witness,
)

BREACHES = []
OTHER = b"\x5a" * 32
DAY = 86_400


def breaks(rule):
    def keep(function):
        BREACHES.append((rule, function))
        return function

    return keep


# -- finding steps ---------------------------------------------------------------------------------


def first(items):
    return next(iter(items), None)


def opens(history, *, of="session", epoch=None):
    return [
        step
        for step in history.of(SessionOpen)
        if of in (None, step.entry.of) and epoch in (None, step.entry.epoch)
    ]


def seals(history, test=lambda seal: True):
    return [step for step in history.of(Seal) if test(step.entry)]


def continued(history):
    """The (session, epoch) that a recovery epoch goes on from."""
    return {
        (step.entry.session, step.entry.epoch - 1)
        for step in opens(history, of=None)
        if step.entry.epoch
    }


def ends(history):
    """The seals of last epochs."""
    before = continued(history)
    return seals(history, lambda seal: (seal.session, seal.epoch) not in before)


def stated(history):
    """Sessions that an incident names."""
    return {step.entry.session for step in history.of(LogIncident)}


def named(history):
    """Sessions that some decision names."""
    bodies = [step.body for step in history.of(Sign)]
    return {session for body in bodies for session in getattr(body, "sessions", ())}


def used(history):
    """Cuts that other steps refer to."""
    return {id(old) for cut in history.of(Cut) for old in cut.replaces} | {
        id(cut) for done in history.of(Done) for cut in done.objects
    }


def plain_cuts(history):
    found = used(history)
    return [cut for cut in history.of(Cut) if not cut.replaces and id(cut) not in found]


def current(history, role="admin"):
    """All keys that count in a role at the end."""
    begins = [at for at, step in enumerate(history.steps) if isinstance(step, Begin)]
    keys = [
        step.body
        for step in history.steps[begins[-1] :]
        if isinstance(getattr(step, "body", None), KeyStatement)
    ]
    found = {body.key: None for body in keys if body.role == role}
    for body in keys:
        found.pop(body.replaces, None)
    return [history.signers[vkey] for vkey in found if vkey in history.signers]


def heading(history, seed):
    return Heading(LOG, bytes([seed]) * 16, history.steps[-1].at_ns)


def append(history, *steps):
    """Put steps at the end, under one more checkpoint; returns them."""
    at_ns = history.steps[-1].at_ns
    history.steps += [*steps, Witness(at_ns)]
    return list(steps)


def key(history, action, vkey, *, role="node", replaces="", since=None, seed=1):
    body = KeyStatement(heading(history, seed), action, role, vkey, replaces, since)
    return Sign(body, current(history))


def stranger(number=1):
    private = Ed25519PrivateKey.from_private_bytes(bytes([200 + number]) * 32)
    return Signer(f"stranger.example/{number}", private)


def policy(history, *, seed=2, signers=None):
    tenant, retention = CLASSES[0]
    body = PolicyStatement(heading(history, seed), tenant, retention, OTHER)
    return Sign(body, current(history) if signers is None else signers)


def opening(history, entry, seed, **changes):
    fields = {
        "session": bytes([seed]) * 16,
        "node": f"other-{seed}",
        "epoch": 0,
        "continues": None,
        "at_ns": history.steps[-1].at_ns,
    }
    return Say(replace(entry, **(fields | changes)))
