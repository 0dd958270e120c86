"""Every message between the nodes and ingest, dropped and changed: found at the session it is of.

Each harm has a session of its own, and all are sealed by one run of ingest.
"""

import random
from types import SimpleNamespace

import pytest

from sealtape.schemas.frames import Frame
from sealtape.schemas.messages import CheckpointMessage, KeyMessage
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log
from tests.stories.deployed import judged, numbered

# What may be done to messages without a verdict that says so, and why.
NEUTRAL = {
    KeyMessage: "a wrapped key is no evidence: who reads misses it, and what is sealed stays whole",
    CheckpointMessage: "a signature that is gone, where a later one is over the same frames",
}
FOUND = {"incomplete", "tampered"}


def dropped(value, luck):
    return None


def header(value, luck):
    """Another schema's: it is no message of ours."""
    return flipped(value, luck.randrange(2, 10))


def body(value, luck):
    return flipped(value, luck.randrange(10, len(value)))


def end(value, luck):
    return flipped(value, len(value) - 2)


def cut(value, luck):
    return value[: luck.randrange(len(value))]


def longer(value, luck):
    return value + b"\0"


def flipped(value, at):
    return value[:at] + bytes([value[at] ^ 1 << 2]) + value[at + 1 :]


HARMS = (dropped, header, body, end, cut, longer)


async def missed(folder, seed):
    """What no finding names, of one harm to each message of a session."""
    site, pairs, done = make_site(folder), [], []
    shape = [type(message) for message in numbered(site, commands=2).messages]
    for place, kind in enumerate(shape):
        for harm in HARMS:
            built = numbered(site, commands=2)
            messages = built.encoded()
            key, value = messages.pop(place)
            other = harm(value, random.Random(f"{seed} {place} {harm.__name__}"))
            if other is not None:
                messages.insert(place, (key, other))
            pairs += messages
            last = place == len(shape) - 1
            done.append(SimpleNamespace(built=built, kind=kind, harm=harm, last=last, place=place))
    await seal(site, pairs=pairs)
    await grow_log(site)
    found = {}
    for finding in (await judged(site)).findings:
        found.setdefault(finding.session, set()).add(finding.verdict)
    return [
        f"{one.place} {one.kind.__name__} {one.harm.__name__}"
        for one in done
        if not found.get(one.built.session.hex(), set()) & FOUND and not neutral(one)
    ]


def neutral(one):
    return one.kind in NEUTRAL and not one.last


@pytest.mark.parametrize("seed", range(2))
async def test_every_message(tmp_path, seed):
    assert await missed(tmp_path / "site", seed) == []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 60))
async def test_every_message_soak(tmp_path, seed):
    assert await missed(tmp_path / "site", seed) == []


async def test_frames_are_located_by_their_number(tmp_path):
    """A frame that is dropped is named, and no session next to it."""
    site = make_site(tmp_path / "site")
    whole, harmed = numbered(site, commands=2), numbered(site, commands=2)
    frames = [message for message in harmed.messages if isinstance(message, Frame)]
    lost = harmed.messages.index(frames[3])
    pairs = harmed.encoded()
    del pairs[lost]
    await seal(site, pairs=whole.encoded() + pairs)
    await grow_log(site)
    findings = (await judged(site)).findings
    assert {finding.session for finding in findings} == {harmed.session.hex()}
    assert {finding.seq for finding in findings if "lost" in finding.reason} == {3}
