"""Bundles made by somebody who holds keys: all hashes and signatures hold, something is wrong.

INSIDERS are asked of both verifiers like all others; WRONG says, besides, what each has to be.
"""

import json

from tests.factories.bundles import ANN, BOB, BOTH, PLAIN, story
from tests.vectors.bundle_parts import (
    LOG,
    ORIGIN,
    SESSION,
    Epoch,
    b64,
    cosigned,
    ed25519,
    line,
    note,
    root,
    segment_entry,
    sha,
    vkey,
)
from tests.vectors.bundle_parts import signed as signature
from tests.vectors.generate_bundle import DATA, SHORT, begun, built, files, lost
from tests.verifier.stories import epoch_of, intent, resigned

__all__ = ["INSIDERS", "WRONG"]

NULL_ROOT = "00" * 32


def erased(log):
    """The session is erased, with the objects of its segments."""
    segments = [entry for entry in log.entries if b'"type":"segment"' in entry]
    intent(log, ANN, BOB, objects=sorted(sha(entry).hex() for entry in segments))


def announce(log):
    log.announced = len(log.entries), intent(log, ANN, BOB, done=())
    log.checkpoint(100)


def carry_out(log):
    """What was announced, with the objects of all segments there are by now."""
    index, ident = log.announced
    segments = [entry for entry in log.entries if b'"type":"segment"' in entry]
    body = {"intent": ident, "index": str(index), "wraps": "1", "documents": "0"}
    body["objects"] = sorted(sha(entry).hex() for entry in segments)
    log.statement("tombstone-done", body, "reaper")


def two_epochs(
    *, closed="", sealed=(True, True), continues=None, class_=None, between=(), after=(),
    opened=None, gone=(),
):  # fmt: skip
    """Epoch 1 continues epoch 0; an epoch that is not sealed has no frames in the bundle.

    `opened` is what the second OPEN says besides; its node is then another one that the log knows.
    """
    log, parts, prev = begun(), {}, bytes(32)
    log.key("introduce", "node", "reaper")
    options = {} if class_ is None else {"class_": dict(class_)}
    first = Epoch(0, start_s=1_795_392_004, **options).begin().add(3, DATA)
    first = first.close(closed) if closed else first
    follows = {"epoch": 0, "size": str(len(first.frames)), "root": root(first.leaves()).hex()}
    second = Epoch(1, continues=follows, start_s=1_795_392_005, **options)
    signers = [opened["node"]] if "node" in (opened or {}) else []
    second.begin(*signers, **(opened or {})).close("aborted")
    for number, (epoch, end) in enumerate(((first, closed), (second, "aborted"))):
        for step in between if number else ():
            step(log)
        changes = {"continues": continues[0]} if number and continues else {}
        epoch.open_entry(log, **changes)
        if sealed[number]:
            count = len(epoch.frames)
            record = epoch.fragment(0, count, signed=count)
            entry, prev, path = segment_entry(log, number, prev, record, count, epoch.class_)
            epoch.seal_entry(log, [record], end, count)
            spans = [] if number in gone else [(0, count)]
            parts[number] = (epoch, [(record, entry, path)], spans)
    for step in after:
        step(log)
    log.heartbeat()
    top = log.checkpoint(900)
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    return files(log, wanted, parts, bounds=[size for size in log.notes if size != top])


def epochs():
    yield "a closed epoch goes on", "incomplete", two_epochs(closed="client")
    for what, continues in (
        ("nothing", None),
        ("itself", {"epoch": 1, "size": "3", "root": NULL_ROOT}),
    ):
        given = two_epochs(sealed=(False, False), continues=[continues])
        yield f"an epoch that is not sealed continues {what}", "tampered", given
    for name, value in {
        "node": "reaper", "boot": "21" * 16, "worker": 1, "number": "18",
    }.items():  # fmt: skip
        given = two_epochs(opened={name: value})
        yield f"another {name} ends a session", "tampered", given
    strange = {"epoch": 7, "size": "1", "root": NULL_ROOT}
    given = story(after=[erased], spans=[], opened={"continues": strange})
    yield "gone, and the first epoch continued another", "tampered", given

    def expired(log):
        log.checkpoint(40)
        intent(log, "reaper", basis="expired")

    for at_s, verdict in ((640, "deleted"), (600, "tampered")):

        def announced(log, at_s=at_s):
            log.checkpoint(40)
            log.heartbeat()
            log.checkpoint(at_s)
            intent(log, "reaper", basis="expired")
            log.checkpoint(at_s + 10)

        given = two_epochs(class_=SHORT, between=[announced])
        yield f"its node comes back after it expired at {at_s} s", verdict, given
    for number, verdict in ((0, "deleted"), (1, "tampered")):
        given = two_epochs(between=[announce], after=[carry_out], gone=(number,))
        yield f"epoch {number} is gone, the second came behind the intent", verdict, given
    given = two_epochs(sealed=(True, False), class_=SHORT, after=[expired])
    yield "expired, and the last epoch is not sealed", "incomplete", given


def with_times(first, last):
    """Frames 2 and 3 are gone; their record says that they had these times."""
    epoch = built()
    plain = epoch.fragment

    def fragment(lo, hi, /, **options):
        data = plain(lo, hi, **options)
        changed = {"first_ts_ns": str(first), "last_ts_ns": str(last)}
        value = json.loads(data) | (changed if lo == 2 else {})
        return line(value).encode()

    epoch.fragment = fragment
    return story(epoch=epoch, cuts=(2, 4), after=[erased], spans=[(0, 2), (4, 5)])


def frames():
    begin = 1_795_392_000_000_000_000
    yield "gone, when the others were", "deleted", with_times(begin + 2_000_000, begin + 3_000_000)
    yield "gone, before the frames before", "tampered", with_times(1, begin + 3_000_000)
    yield "gone, after the frames behind", "tampered", with_times(begin + 2_000_000, begin + 10**9)
    epoch = built()
    header, payload = epoch.frames[2]
    epoch.frames[2] = header[:44] + b"\0\0" + header[46:], payload
    yield "a frame of kind 0 that is public", "incomplete", story(epoch=epoch)
    for what, number in (("OPEN", 0), ("CLOSE", 4)):
        epoch = resigned(number, b"of the future")
        header, payload = epoch.frames[number]
        epoch.frames[number] = header[:46] + b"\0\1" + header[48:], payload
        yield f"another {what} with a flag", "incomplete", story(epoch=epoch)
        if number:
            yield "not closed, and a CLOSE with a flag", "tampered", story(epoch=epoch, closed="")
        else:
            other = {"opening_sha256": "0a" * 32}
            given = story(epoch=epoch, opened=other, seal=other)
            yield "an OPEN with a flag that neither entry has", "tampered", given
    for suite in (0, 3):
        given = story(epoch=epoch_of((3, DATA), opened={"suite": suite, "salt": ""}))
        yield f"an OPEN of suite {suite}", "tampered", given


def stated(kind, **members):
    """A function of the log: the last entry of a kind says something else."""

    def step(log):
        at = max(n for n, entry in enumerate(log.entries) if f'"type":"{kind}"'.encode() in entry)
        log.entries[at] = line(json.loads(log.entries[at]) | members).encode()

    return step


def said(kind, body):
    return lambda log: log.statement(kind, body, ANN)


def introduced(key, replaces=None):
    action = "introduce" if replaces is None else "rotate"
    body = {"action": action, "key": key, "role": "auditor", "since": None}
    return said("key", {**body, "replaces": replaces or ""})


NOTHING = {"count": "0", "root": NULL_ROOT}
LONG = "x" * 257
STRANGE = {
    "segment": {
        "prev": "01" * 32, "n": "3", "rows": "0", "shard": "", "writer": LONG, "object": "x",
        "replaces": ["01" * 32] * 513, "fragments": {"count": 0, "root": NULL_ROOT},
        "bus": {"topic": "bus", "partition": 0, "first": "1", "next": "0"},
    },
    "session-seal": {
        "frames": "0", "lost": "6", "attested": "6", "checkpoint_sha256": NULL_ROOT, "root": "",
        "fragments": NOTHING, "last_ts_ns": "0",
    },
    "session-open": {"node": "a b", "worker": 65_536},
    "heartbeat": {"every_s": 0, "shards": NOTHING},
    "incident": {"reason": "Lost", "bus": {"topic": "", "partition": 0, "offset": "-1"}},
}  # fmt: skip


def members():
    """Entries whose members are not what the pages say; nothing else in the bundle needs them."""
    incident = {
        "reason": "gap", "bus": {"topic": "t", "partition": 0, "offset": str(-(2**63))},
        "session": SESSION.hex(), "epoch": 0, "seq": None,
    }  # fmt: skip

    def add(log):
        log.add({**log.common("incident"), **incident})
        log.heartbeat()

    yield "an incident far before the beginning", "verified", story(after=[add])
    for kind, changes in STRANGE.items():
        for name, value in changes.items():
            given = story(after=[erased, add, stated(kind, **{name: value})], spans=[])
            yield f"a {kind} with a strange {name}", "tampered", given
    for day, end in (("2026-02-30", "1"), ("2026-11-23", str(2**63))):
        key = f"seg/v1/tenant=main/class=standard/dt={day}/019aac8f5c007e1ea6d1000000000000-{end}"
        step = stated("segment", object=f"{key}.parquet")
        yield f"a segment of {day}, term {end}", "tampered", story(after=[erased, step], spans=[])
    for what, key in {"two spaces": "a  b", "no ASCII": "\xe9", "4,097 bytes": "x" * 4097}.items():
        yield f"a key with {what}", "tampered", story(after=[introduced(key)])
    yield "a key of 4,096 bytes", "verified", story(after=[introduced("x" * 4096)])
    for what, key in {"itself": "a", "no key": "b  c", "too much": "x" * 4097}.items():
        yield f"a key that replaces {what}", "tampered", story(after=[introduced("a", key)])
    for tenant, verdict in (("main", "verified"), ("Main", "tampered")):
        body = {"tenant": tenant, "class": SHORT, "policy_sha256": NULL_ROOT}
        yield f"a policy of the tenant {tenant}", verdict, story(after=[said("policy", body)])


def bodies():
    """The same of what is inside of frames and records."""
    for name, value in {"worker": 65_536, "node": "a/b"}.items():
        epoch = epoch_of((3, DATA), opened={name: value})
        yield f"an OPEN with a strange {name}", "tampered", story(epoch=epoch)
    far = {"origin": "o", "size": str(2**63), "root": NULL_ROOT}
    epoch = epoch_of((3, DATA), opened={"beacon": far})
    yield "an OPEN with a beacon beyond all logs", "tampered", story(epoch=epoch)
    body = {
        "v": 1, "reason": "client", "detail": "", "totals": ["5", "5", "9", "9"], "commands": "1",
        "errors": "0", "attested": None,
    }  # fmt: skip
    much = str(2**63)
    for name, value in {
        "detail": "x" * 65, "commands": much, "errors": much, "totals": ["5", "5", "9", much],
        "attested": {"epoch": 0, "from": "1", "to": much}, "reason": "Client",
    }.items():  # fmt: skip
        epoch = resigned(4, line(body | {name: value}).encode())
        yield f"a CLOSE with a strange {name}", "tampered", story(epoch=epoch)
    rows = {"rows": [str(2**63), str(2**63 + 5)]}
    yield "a fragment of rows beyond all objects", "tampered", story(record=rows)
    signed = built().signed(5)
    for count, verdict in ((48, "verified"), (60, "tampered")):
        more = "".join(
            signature(f"{n}{'y' * 200}", b"\1", ed25519("", bytes([n + 1]) * 32), bytes(64))
            for n in range(count)
        )
        given = story(
            record={"checkpoint": {"size": "5", "note": signed + more}},
            seal={"checkpoint_sha256": sha((signed + more).encode()).hex()},
        )
        yield f"a checkpoint that {count} strangers signed", verdict, given
    plain = Epoch.fragment
    try:
        Epoch.fragment = lambda *a, **o: plain(*a, **o).replace(
            b'"reason":"lost"', b'"reason":"Lost"'
        )
        yield "a gap for a reason that is no word", "tampered", lost()
    finally:
        Epoch.fragment = plain


def shards():
    """The second shard of the log, and what it says of the first."""
    second, key = f"{LOG}/2", ed25519("log")
    rules = PLAIN.replace(vkey(ORIGIN, key=key), vkey(second, key=key))
    tree = f"5\n{b64(bytes(32))}\n"
    for what, before, verdict in (
        ("the first", note(f"{ORIGIN}\n{tree}", "log"), "verified"),
        ("itself", note(f"{second}\n{tree}", "log"), "tampered"),
        ("no checkpoint", note("x\n", "log"), "tampered"),
        ("no note", "x", "tampered"),
        ("nothing", "", "tampered"),
    ):
        given = story(before=[stated("log", number=2, before=before)])
        (name,) = [name for name in given if name.startswith("checkpoints/")]
        text = given[name].decode().split("\n\n")[0].replace(ORIGIN, second, 1) + "\n"
        lines = [signature(second, b"\1", key, key.sign(text.encode()))]
        lines += [cosigned(witness, text, 1_795_392_040) for witness in BOTH]
        given = {**given, name: (text + "\n" + "".join(lines)).encode()}
        yield f"a second shard that continues {what}", verdict, given, rules


WRONG = {}
INSIDERS = {}
for part in (epochs, frames, members, bodies, shards):
    for what, verdict, given, *rules in part():
        assert what not in INSIDERS, what
        INSIDERS[what] = (given, *(rules or [PLAIN]))
        WRONG[what] = verdict
