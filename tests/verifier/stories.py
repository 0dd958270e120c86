"""Bundles that are signed as they are and say something that cannot be, or little.

Their entries are under a witnessed checkpoint, so no hash gives them away: what is asked is whether
both verifiers read the pages alike.
"""

from tests.factories.bundles import ANN, BOB, LOOSE, PLAIN, story, trusting
from tests.vectors.bundle_parts import CLASS, SESSION, Epoch, line
from tests.vectors.generate_bundle import DATA, built, keys_file

__all__ = ["STORIES"]

OTHER_CLASS = {**CLASS, "retain_for_s": 1}
MINE = {"sessions": [SESSION.hex()]}
NOT_MINE = {"sessions": ["00" * 16]}
MATTER = {"matter": "0a" * 32}
LEGS = {"v": 1, "reason": "spool", "legs": []}


def epoch_of(*frames, opened=None, signers=(), close="client", suffix=()):
    """An epoch with these (kind, body) between IDENT and CLOSE."""
    epoch = Epoch(0).begin(*signers, **(opened or {}))
    for kind, body in frames:
        epoch.add(kind, body)
    if close is not None:
        epoch.close(close)
    for kind, body in suffix:
        epoch.add(kind, body)
    return epoch


def restamped(number, place, value):
    """An epoch whose frame has another byte in its header."""
    epoch = built()
    header, payload = epoch.frames[number]
    epoch.frames[number] = header[:place] + value + header[place + len(value) :], payload
    return epoch


def resigned(number, body):
    """An epoch with a public frame of other bytes."""
    epoch = built()
    kind = epoch.frames[number][0][44]
    epoch.frames[number] = epoch._frame(number, kind, 0, body)
    return epoch


def seals():
    for name, value in {
        "closed": "target", "root": "00" * 32, "frames": "6", "lost": "1", "attested": "4",
        "checkpoint_sha256": "01" * 32, "first_ts_ns": "1", "last_ts_ns": "9" * 18,
        "opening_sha256": "01" * 32, "tenant": "other", "class": OTHER_CLASS, "epoch": 1,
        "session": "00" * 16, "x-note": [1, {"b": None}], "y": 1, "v": 2, "at_ns": "-1",
        "fragments": {"count": "2", "root": "00" * 32},
    }.items():  # fmt: skip
        yield f"a seal with another {name}", story(seal={name: value})
    yield "attested less than there is", story(attested=4)
    yield "attested by nothing", story(seal={"attested": "0", "checkpoint_sha256": "00" * 32})
    yield "no seal", story(seal=False)
    yield (
        "closed for a reason of the future",
        story(closed="bored", epoch=epoch_of((3, DATA), close="bored")),
    )
    rest = {name: data for name, data in story(seal=False).items() if "fragments/" not in name}
    yield "no seal, frames and no records of them", rest
    yield (
        "no seal, no records, no frames",
        {name: data for name, data in rest.items() if "frames/" not in name},
    )
    yield "not closed", story(closed="", epoch=epoch_of((3, DATA), close=None))
    yield "closed without CLOSE", story(epoch=epoch_of((3, DATA), close=None))


def openings():
    for name, value in {
        "node": "node-2", "number": "18", "tenant": "other", "boot": "21" * 16, "worker": 1,
        "anchor_ns": "1", "class": OTHER_CLASS, "of": "journal", "epoch": 1, "y": 1, "x-y": 1,
        "continues": {"epoch": 0, "size": "1", "root": "00" * 32}, "opening_sha256": "01" * 32,
    }.items():  # fmt: skip
        yield f"a session-open with another {name}", story(opened={name: value})
    for name, value in {
        "log": "other.example/log", "ident_sha256": "01" * 32, "suite": 1, "salt": "",
        "type": "journal", "session": "00" * 16, "epoch": 1, "key": "x", "y": 1, "x-y": 1,
        "node": "node-2", "beacon": {"origin": "o", "size": "1", "root": "00" * 32}, "v": 2,
    }.items():  # fmt: skip
        yield f"an OPEN with another {name}", story(epoch=epoch_of((3, DATA), opened={name: value}))
    yield "an OPEN with a flag", story(epoch=restamped(0, 46, b"\0\1"))
    yield "an OPEN by nobody known", story(epoch=epoch_of((3, DATA), signers=("reaper",)))
    yield "an OPEN by two", story(epoch=epoch_of((3, DATA), signers=("node-1", "reaper")))
    yield "an OPEN that is no note", story(epoch=resigned(0, b"{}"))
    yield "a node of the policy", story(introduced=False), trusting(PLAIN, "node-1")


def records():
    for name, value in {
        "bytes": "1", "rows": ["0", "4"], "class": "other", "tenant": "other", "nodes": [],
        "checkpoint": None, "first_ts_ns": "1", "last_ts_ns": "1", "epoch": 1, "lo": "1",
        "hi": "6", "session": "00" * 16, "gaps": [{"hi": "0", "lo": "0", "reason": "lost"}],
        "y": 1, "x-y": 1, "v": 2,
    }.items():  # fmt: skip
        yield f"a fragment with another {name}", story(record={name: value})
    for name, value in {
        "tenant": "other", "class": OTHER_CLASS, "bytes": "x", "y": 1, "x-y": 1,
        "fragments": {"count": 2, "root": "00" * 32}, "type": "nothing",
    }.items():  # fmt: skip
        yield f"a segment with another {name}", story(segment={name: value})
    yield "frames lost at the beginning", story(cuts=(2,), gaps={0: [(0, 1)]}, lost=1)
    yield "frames lost between", story(cuts=(2, 4), gaps={2: [(4, 4)]}, lost=0)


def frames():
    for what, number, place, value in (
        ("a flag", 2, 46, b"\0\1"), ("an unknown suite", 2, 45, b"\7"),
        ("an unknown kind", 2, 44, b"\x55"), ("an extension", 2, 44, b"\xc8"),
        ("kind 0", 2, 44, b"\0"),
        ("a public kind encrypted", 2, 44, b"\5"), ("a second OPEN", 2, 44, b"\1"),
        ("a second IDENT", 3, 44, b"\2"), ("CLOSE in the middle", 3, 44, b"\x08"),
        ("DATA that is public", 2, 45, b"\0"), ("IDENT as DATA", 1, 44, b"\3"),
        ("a time that runs backwards", 3, 36, bytes(8)), ("a time before 1970", 0, 36, b"\xff" * 8),
        ("a late time", 4, 36, b"\x7f" * 8), ("another session", 2, 8, bytes(16)),
        ("another epoch", 2, 24, b"\0\0\0\1"), ("another seq", 2, 28, b"\0" * 7 + b"\3"),
        ("another digest", 2, 52, bytes(32)), ("another length", 2, 48, b"\0\0\0\1"),
        ("another magic", 2, 0, b"SEALFRM2"), ("a flag on CLOSE", 4, 46, b"\0\1"),
    ):  # fmt: skip
        yield f"a frame with {what}", story(epoch=restamped(number, place, value))
    gap = epoch_of((3, DATA), (5, line(LEGS).encode()))
    clock = {"v": 1, "before_ns": "1", "after_ns": "2", "step_ns": "1"}
    yield "a gap", story(epoch=gap)
    yield "a clock", story(epoch=epoch_of((3, DATA), (7, line(clock).encode())))
    yield "something behind CLOSE", story(epoch=epoch_of(suffix=[(3, DATA)]))
    yield "a CLOSE that is no JSON", story(epoch=resigned(4, b"close"))
    for name, value in {"reason": "target", "totals": ["1"], "y": 1, "x-y": 1, "v": 2}.items():
        body = {
            "v": 1, "reason": "client", "detail": "", "totals": ["5", "5", "9", "9"],
            "commands": "1", "errors": "0", "attested": None, name: value,
        }  # fmt: skip
        yield f"a CLOSE with another {name}", story(epoch=resigned(4, line(body).encode()))
    yield "frames withheld", story(withheld=(2, 3))
    yield "OPEN withheld", story(withheld=(0,))
    yield "part of a fragment", story(spans=[(0, 4)])
    yield "a fragment that is not there", story(cuts=(2,), spans=[(2, 5)])
    yield "frames twice", story(spans=[(0, 5), (0, 5)])
    key = built().key(2)
    yield "a key", story(keys=keys_file({2: key}))
    yield "a key of a withheld frame", story(keys=keys_file({2: key}), withheld=(2,))
    yield "a key of a public frame", story(keys=keys_file({0: key}))
    yield "a key of no frame", story(keys=keys_file({9: key}))
    yield "another key", story(keys=keys_file({2: bytes(32)}))
    yield "keys out of order", story(keys=keys_file({3: built().key(3)}) + keys_file({2: key}))


def keys():
    def key(*given, **options):
        return [lambda log: log.key(*given, **options)]

    yield "a revocation from before", story(after=key("revoke", "node", "node-1", since=5))
    yield "a revocation from later", story(after=key("revoke", "node", "node-1", since=99))
    yield "a revocation of another role", story(after=key("revoke", "admin", "node-1", since=2))
    yield "a revocation by nobody", story(after=key("revoke", "node", "node-1", "reaper", since=2))
    yield "a late revocation", story(late=key("revoke", "node", "node-1", since=2))
    yield "introduced too late", story(introduced=False, after=key("introduce", "node", "node-1"))
    yield (
        "introduced for another role",
        story(introduced=False, before=key("introduce", "auditor", "node-1")),
    )
    two = PLAIN.replace("admin_threshold = 1", "admin_threshold = 2")
    yield "two administrators wanted", story(), two
    yield (
        "two administrators signed",
        story(introduced=False, before=key("introduce", "node", "node-1", ANN, BOB)),
        two,
    )
    yield (
        "an administrator revoked",
        story(
            introduced=False,
            before=[
                lambda log: log.key("revoke", "admin", ANN, BOB, since=1),
                lambda log: log.key("introduce", "node", "node-1", ANN),
            ],
        ),
    )
    yield (
        "an administrator introduced",
        story(
            introduced=False,
            before=[
                lambda log: log.key("introduce", "admin", "auditor.example/witness", ANN),
                lambda log: log.key("introduce", "node", "node-1", "auditor.example/witness"),
            ],
        ),
    )


def intent(log, *signers, done=("reaper",), basis="erasure", sessions=MINE, objects=(), **more):
    index = len(log.entries)
    matter = {"matter": "00" * 32} if basis == "expired" else MATTER
    body = {"basis": basis, **matter, **sessions, **more}
    ident = log.statement("tombstone-intent", body, *signers)
    if done:
        log.checkpoint(100)
        rest = {"wraps": "1", "documents": "0", "objects": list(objects)}
        log.statement("tombstone-done", {"intent": ident, "index": str(index), **rest}, *done)
    return ident


def decisions():
    def hold(log, *signers, **more):
        return log.statement("hold", {**MATTER, **MINE, **more}, *(signers or (ANN,)))

    def release(log, ident, *signers, **more):
        log.statement("release", {"hold": ident, **MINE, **more}, *(signers or (ANN, BOB)))

    both = (ANN, BOB)
    yield "a hold", story(after=[hold])
    yield "a hold by nobody", story(after=[lambda log: hold(log, "reaper")])
    yield "a hold of another", story(after=[lambda log: hold(log, **NOT_MINE)])
    yield (
        "sessions out of order",
        story(after=[lambda log: hold(log, sessions=[SESSION.hex(), "00" * 16])]),
    )
    yield "no sessions", story(after=[lambda log: hold(log, sessions=[])])
    yield "released", story(after=[lambda log: release(log, hold(log))])
    yield (
        "released by one",
        story(after=[lambda log: release(log, hold(log), ANN), lambda log: intent(log, *both)]),
    )
    yield "a release of nothing", story(after=[lambda log: release(log, "0b" * 16)])
    yield "erased", story(after=[lambda log: intent(log, *both)])
    yield "erased by one", story(after=[lambda log: intent(log, ANN)])
    yield "erased, done by nobody", story(after=[lambda log: intent(log, *both, done=(ANN,))])
    yield "an intent alone", story(after=[lambda log: intent(log, *both, done=())])
    yield "erased under a hold", story(after=[hold, lambda log: intent(log, *both)])
    yield (
        "erased, the hold was released",
        story(after=[lambda log: release(log, hold(log)), lambda log: intent(log, *both)]),
    )
    yield "held after the intent", story(after=[lambda log: intent(log, *both), hold])
    yield "expired at once", story(after=[lambda log: intent(log, "reaper", basis="expired")])
    yield (
        "expired, with a matter",
        story(after=[lambda log: intent(log, "reaper", basis="expired", **MATTER)]),
    )
    yield "erased without a matter", story(after=[lambda log: intent(log, *both, matter="00" * 32)])
    yield (
        "expired, by an administrator",
        story(after=[lambda log: intent(log, ANN, basis="expired")]),
    )
    yield (
        "erased, unmonitored",
        story(after=[lambda log: intent(log, *both)], witnesses=("office.example/witness",)),
        LOOSE,
    )
    yield "erased, frames kept away", story(after=[lambda log: intent(log, *both)], spans=[])
    for name, value in {"retain_for_s": 10**9, "name": "other"}.items():
        class_ = {**CLASS, name: value}
        body = {"tenant": "main", "class": class_, "policy_sha256": "00" * 32}
        yield (
            f"a policy with another {name}",
            story(after=[lambda log, body=body: log.statement("policy", body, ANN)]),
        )
    yield "one id twice", story(after=[hold, lambda log: setattr(log, "ids", 0), hold])
    yield "an unknown type", story(after=[lambda log: log.statement("wish", MINE, ANN)])
    yield (
        "a statement that is no note",
        story(after=[lambda log: log.add({"v": 1, "type": "hold", "statement": "{}"})]),
    )
    incident = {
        "reason": "gap", "bus": {"topic": "t", "partition": 0, "offset": "-1"},
        "session": SESSION.hex(), "epoch": 0, "seq": None,
    }  # fmt: skip
    for name, value in {"session": "00" * 16, "epoch": None, "seq": "7", "y": 1}.items():
        changed = {**incident, name: value}
        yield (
            f"an incident with {name} {value}",
            story(
                after=[lambda log, changed=changed: log.add({**log.common("incident"), **changed})]
            ),
        )
    yield (
        "an incident of nothing",
        story(after=[lambda log: log.add({**log.common("incident"), **incident, "session": ""})]),
    )


def policies():
    group = PLAIN.replace("quorum office", "group both all office monitor\nquorum both")
    yield "a quorum of both", story(), group
    yield "half a quorum", story(witnesses=("office.example/witness",)), group
    yield "no quorum wanted", story(witnesses=()), LOOSE.replace("quorum office", "quorum none")
    yield "a bound that nobody witnessed", story(before=[lambda log: log.checkpoint(3, ())])
    yield "a bound that both witnessed", story(before=[lambda log: log.checkpoint(3)])
    yield (
        "a beacon",
        story(
            before=[lambda log: log.checkpoint(3)],
            epoch=epoch_of(
                (3, DATA),
                opened={
                    "beacon": {"origin": "sealtape.example/log/1", "size": "5", "root": "00" * 32}
                },
            ),
        ),
    )


STORIES = {}
for part in (seals, openings, records, frames, keys, decisions, policies):
    for what, files, *rules in part():
        assert what not in STORIES, what
        STORIES[what] = (files, *(rules or [PLAIN]))
