"""Events about keys and terms."""

import json
from dataclasses import replace

from sealtape.ingest.notices import TermsSeen, key_event
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.ocsf import lifecycle_event
from tests.factories.ocsf import problems
from tests.factories.sessions import build_session

BUILT = [build_session(seed=seed, commands=0) for seed in range(3)]
ONE, TWO, THREE = (built.opening for built in BUILT)
LONGER = RetentionClass("standard", 100, 200)


def valid(event):
    made = lifecycle_event(event.kind, event.key, event.payload, event.at_ns)
    assert made.members["class_uid"] == 3004
    assert not problems(made.to_json())
    return made


def test_a_wrap_is_told_without_the_wrap():
    message = next(m for m in BUILT[0].messages if isinstance(m, KeyMessage))
    event = key_event(message, 7)
    body = json.loads(event.payload)
    assert (event.key, event.at_ns) == (message.session.hex(), 7)
    assert (body["label"], body["recipient"]) == (message.label, message.recipient)
    assert message.sealed.hex() not in event.payload.decode()
    assert valid(event).uid == f"{event.key}:0:{message.label}:{message.recipient}"


def test_the_first_session_of_a_class_is_news_and_then_what_differs():
    seen = TermsSeen()
    first = seen.news([ONE, TWO], 7)
    assert [event.key for event in first] == [ONE.session.hex()]
    assert seen.news([ONE, TWO], 7) == first, "it is not learned before it is published"
    seen.learn([ONE, TWO])
    assert seen.news([THREE], 7) == []
    changed = replace(THREE, retention=LONGER)
    (event,) = seen.news([changed, changed], 7)
    body = json.loads(event.payload)
    assert (body["retain_for_s"], body["delete_after_s"], body["encryption"]) == (100, 200, True)
    assert valid(event).uid == f"{THREE.session.hex()}:0:policy-applied"
    back = seen.news([changed, ONE], 7)
    assert [json.loads(e.payload)["retain_for_s"] for e in back] == [100, 90 * 86_400]


def test_tenants_and_classes_are_apart_and_encryption_and_policy_are_terms():
    seen = TermsSeen()
    seen.learn([ONE])
    others = [
        replace(ONE, tenant="acme"),
        replace(ONE, retention=replace(ONE.retention, name="short")),
        build_session(encrypt=False, commands=0).opening,
        replace(ONE, policy_sha256=b"p" * 32),
    ]
    assert [len(seen.news([other], 7)) for other in others] == [1, 1, 1, 1]


def test_a_recovery_epoch_goes_on_under_the_terms_of_its_session():
    seen = TermsSeen()
    seen.learn([replace(ONE, retention=LONGER)])
    recovery = build_session(
        session=BUILT[1].session, epoch=1, continues=BUILT[1].continues, commands=0
    ).opening
    assert seen.news([recovery], 7) == []
    seen.learn([recovery])
    assert seen.news([TWO], 7) != []
