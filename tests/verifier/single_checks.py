"""Bundles and policies in which one thing is wrong that one check alone notices.

All hashes and signatures of these hold; a verifier without the check says something else of them.
"""

import json

from tests.factories.bundles import ANN, BOB, BOTH, PLAIN, story
from tests.house.sources import ROOT
from tests.vectors.bundle_parts import (
    LOG,
    ORIGIN,
    SESSION,
    Epoch,
    b64,
    ed25519,
    line,
    ml_dsa,
    note,
    public,
    root,
    segment_entry,
    sha,
    signed,
    vkey,
)
from tests.vectors.generate_bundle import DATA, SHORT, begun, built, files, with_ml_dsa
from tests.verifier.corpus import BUNDLES
from tests.verifier.stories import epoch_of, intent

NOTES = json.loads((ROOT / "tests/vectors/notes.json").read_text(encoding="utf-8"))
__all__ = ["POLICIES", "REFUSED_NOTES", "SINGLE", "UNABLE"]

LONG = "a" * 70_000
COSIGNS = b"\4"
NOTHING_SIGNED = {"attested": "0", "checkpoint_sha256": "00" * 32}


def entries():
    def first(log):
        log.entries[0] = log.entries[0].replace(b'"before":""', b'"before":"x"')

    def unordered(log):
        log.add(log.entries[-1].replace(b'"v":1}', b'"x-b":1,"v":1}').decode())

    yield "a log that says what was before its first shard", story(before=[first])
    yield "names out of order", story(after=[unordered])
    yield "the log begins twice", story(after=[lambda log: log.add(log.entries[0].decode())])
    yield "a number that is too large for JSON", story(seal={"x-note": 2**53})
    yield "the largest number of JSON", story(seal={"x-note": 2**53 - 1})
    many = ["0a" * 32] * 501
    yield "too many objects", story(after=[lambda log: intent(log, ANN, BOB, objects=many)])

    def nothing(log):
        log.entries[:] = [entry for entry in log.entries if b'"session-' not in entry]

    bare = story(after=[nothing])

    def second_shard(log):
        ended = note(f"{ORIGIN}\n1\n{b64(bytes(32))}\n", (ORIGIN, ed25519("log")))
        first = json.loads(log.entries[0]) | {"before": ended, "number": 2}
        log.entries[0] = line(first).encode()

    def elsewhere(log):
        place = b'"index":"%d"' % (len(log.entries) - 1)
        log.add(log.entries[log.heartbeat()].replace(place, b'"index":"3"').decode())

    strange = {"matter": "0a" * 32, "sessions": [SESSION.hex()], "log": "other.example/log"}
    yield "the log of another shard", story(before=[second_shard])
    yield "a heartbeat of another place", story(after=[elsewhere])
    yield "a hold of another log", story(after=[lambda log: log.statement("hold", strange, ANN)])
    early = [lambda log: log.key("introduce", "node", "reaper", since=2)]
    yield "an introduction that says since when", story(after=early)
    key = line({"key": "00" * 32, "seq": "3"}).encode() + b"\n"
    yield "keys of an epoch beyond all epochs", {**story(), "keys/4294967296.jsonl": key}
    names = ["first", "next", "partition", "topic"]
    yield "a text for a list", story(segment={"replaces": ""})
    yield "a list for an object", story(segment={"bus": names})
    yield "no epoch at all", without(bare, "fragments/", "frames/")
    yield "a seal of records that are not there", without(story(), "fragments/", "frames/")


def files_of_proofs():
    whole = story()
    (name,) = [name for name in whole if name.startswith("checkpoints/")]
    spare = (b64(bytes(32)) + "\n").encode()
    yield "the checkpoint has a proof", {**whole, f"{name}.consistency": b""}
    yield "a hash more than entries need", {**whole, "inclusion": whole["inclusion"] + spare}
    other = {**whole, "checkpoints/8": whole[name]}
    other["bundle.json"] = whole["bundle.json"].replace(name[12:].encode(), b"8")
    del other[name]
    yield "a checkpoint of another size than its name", other
    given = story(before=[lambda log: log.checkpoint(3)])
    (proof,) = [name for name in given if name.endswith(".consistency")]
    yield "a hash more than a checkpoint needs", {**given, proof: spare + given[proof]}

    def spaced(log):
        log.add(log.entries[-1].replace(b'"v":1}', b'"v": 1}').decode())

    yield "JSON with a space", story(after=[spaced])


def with_many(witnesses=0, groups=0):
    """A policy with so many more witnesses, and with so many groups, one in the other."""
    keys = [ed25519("", n.to_bytes(32, "big")) for n in range(witnesses)]
    lines = [f"witness w{n} {vkey('w.example/w', COSIGNS, key)}\n" for n, key in enumerate(keys)]
    lines += [f"group g{n} any {f'g{n - 1}' if n else 'office'}\n" for n in range(groups)]
    return PLAIN.replace("quorum office\n", "".join([*lines, "quorum monitor\n"]))


def without(given, *beginnings):
    return {name: data for name, data in given.items() if not name.startswith(beginnings)}


def epochs():
    last = {"epoch": 0, "from": "2", "to": "3"}
    two_tenants = continued(attested=last, signed=2, tenant="other")
    yield "epochs of two tenants", two_tenants
    continues = {"epoch": 0, "size": "3", "root": root(first_of_two().leaves()).hex()}
    log = begun()
    second = Epoch(1, continues=continues).begin().close("aborted")
    second.open_entry(log)
    record = second.fragment(0, 3, signed=3)
    index, _, path = segment_entry(log, 0, bytes(32), record, 3)
    second.seal_entry(log, [record], "aborted", 3)
    log.heartbeat()
    log.checkpoint(60)
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    parts = {1: (second, [(record, index, path)], [(0, 3)])}
    yield "an epoch is left out", files(log, wanted, parts)

    for what, size, leaves in (("another size", "2", 3), ("another root", "3", 2)):
        yield f"an epoch that continues at {what}", continued(size, leaves)
    yield "an epoch that continues where the one before ends", continued("3", 3)
    nothing = {"epoch": 0, "from": "3", "to": "3"}
    yield "a CLOSE that attests no frame", continued("3", 3, nothing)


def first_of_two():
    """An epoch that is not closed: another goes on behind its three frames."""
    return Epoch(0, start_s=1_795_392_004).begin().add(3, DATA)


def continued(size="3", leaves=3, attested=None, signed=3, tenant="main"):
    """Two epochs, the first of three frames; the second says this of where that one ends."""
    first = first_of_two()
    log = begun()
    first.open_entry(log)
    one = first.fragment(0, 3, signed=signed)
    segment = segment_entry(log, 0, bytes(32), one, 3)
    continues = {"epoch": 0, "size": size, "root": root(first.leaves()[:leaves]).hex()}
    second = Epoch(1, continues=continues, start_s=1_795_392_005).begin(tenant=tenant)
    second.close("aborted", attested).open_entry(log)
    two = second.fragment(0, 3, signed=3, tenant=tenant)
    name = f"seg/v1/tenant={tenant}/class=standard/dt=2026-11-23/019aac8f5c007e1ea6d1000000000001-1"
    after = segment_entry(
        log, 1, segment[1], two, 3, tenant=tenant, object=f"{name}.parquet"
    )  # fmt: skip
    first.seal_entry(log, [one], "", signed)
    second.seal_entry(log, [two], "aborted", 3, tenant=tenant)
    log.heartbeat()
    log.checkpoint(60)
    parts = {
        0: (first, [(one, segment[0], segment[2])], [(0, 3)]),
        1: (second, [(two, after[0], after[2])], [(0, 3)]),
    }
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    return files(log, wanted, parts)


def checkpoints():
    given = with_ml_dsa()
    (name,) = [name for name in given if name.endswith(".mldsa")]
    yield "no line of ML-DSA-44 in its file", {**given, name: b""}
    place = name.removesuffix(".mldsa")
    moved = given[name].split(b" ", 1)[1]
    inside = {**given, place: given[place] + moved}
    del inside[name]
    yield "an ML-DSA-44 line in the other file", inside, BUNDLES["ml-dsa"][1]
    other = "sealtape.example/log/2"
    key = ed25519("", b"\x55" * 32)
    rules = PLAIN.replace("witness office", f"log {vkey(other, key=key)}\nwitness office", 1)
    given = story(before=[lambda log: log.checkpoint(3)])
    (name,) = [name for name in given if name.endswith(".consistency")]
    name = name.removesuffix(".consistency")
    text = f"{other}\n" + given[name].decode().split("\n", 1)[1].split("\n\n")[0] + "\n"
    noted = text + "\n" + signed(other, b"\1", key, key.sign(text.encode()))
    yield "an earlier checkpoint of another shard", {**given, name: noted.encode()}, rules
    whole = story()
    (name,) = [name for name in whole if name.startswith("checkpoints/")]
    body = whole[name].decode().split("\n\n")[0] + "\n"
    for what, seconds in (("beyond all time", 2**63), ("at the end of time", 2**63 - 1)):
        office = ed25519(BOTH[0])
        message = f"cosignature/v1\ntime {seconds}\n{body}".encode()
        value = seconds.to_bytes(8, "big") + office.sign(message)
        kept = [each for each in whole[name].decode().splitlines(True) if BOTH[0] not in each]
        again = "".join(kept) + signed(BOTH[0], b"\4", office, value)
        yield f"cosigned {what}", {**whole, name: again.encode()}


def records():
    outside = {"checkpoint": {"size": "5", "note": built().signed(5)}}
    yield "a checkpoint outside of its record", story(cuts=(2,), record=outside)
    epoch = built()
    text = epoch.signed(5).replace(epoch.origin, f"{LOG}/session/{SESSION.hex()}/1", 1)
    text = note(text.split("\n\n")[0] + "\n", (epoch.origin, epoch.ephemeral))
    yield (
        "a checkpoint that the epoch's key signed for another tree",
        story(
            record={"checkpoint": {"size": "5", "note": text}},
            seal={"checkpoint_sha256": sha(text.encode()).hex()},
        ),
    )
    text = f"{epoch.origin}\n5\n{b64(root(epoch.leaves()[:4]))}\n"
    text = note(text, (epoch.origin, epoch.ephemeral))
    yield (
        "a checkpoint that the epoch's key signed over another root",
        story(
            record={"checkpoint": {"size": "5", "note": text}},
            seal={"checkpoint_sha256": sha(text.encode()).hex()},
        ),
    )
    yield "a frame lost between", story(cuts=(2,), gaps={1: [(2, 3)]}, lost=1)
    last = story()["fragments/0.jsonl"][:-1]
    paths = []

    def again(log):
        index, _, path = segment_entry(log, 1, b"\1" * 32, last, 5)
        paths.append(f"{index} 1 {path}\n".encode())

    late = story(after=[again])
    yield "a segment behind the seal", {**late, "fragments/0.paths": paths[0]}
    yield "a record that is too long", story(record={"x-long": LONG})
    room = 262_100 - len(line({**built().opening, "x-long": ""}))  # signatures come behind it
    for what, size in (("too long", room), ("as long as can be", room - 400)):
        epoch = epoch_of((3, DATA), opened={"x-long": "a" * size})
        yield f"an OPEN that is {what}", story(epoch=epoch)
    other = {"opening_sha256": "0a" * 32}
    yield "an OPEN that neither entry has", story(opened=other, seal=other)
    key = vkey(f"{LOG}/session/other", key=built().ephemeral)
    yield (
        "an OPEN whose key has another name",
        story(epoch=epoch_of((3, DATA), opened={"key": key})),
    )
    first = epoch_of((3, DATA), opened={"number": "0"})
    yield "a session with the journal's number", story(epoch=first)
    unsigned = {"record": {"checkpoint": None}, "seal": NOTHING_SIGNED}
    given = story(**unsigned)
    data = given["frames/0.bin"]
    at = data.rindex(b"SEALFRM1", 0, data.rindex(b"SEALFRM1")) + 44
    assert data[at] == 4
    given["frames/0.bin"] = data[:at] + b"\3" + data[at + 1 :]
    yield "a header that only the record has otherwise", given

    def all_of_it(log):
        segments = [entry for entry in log.entries if b'"type":"segment"' in entry]
        intent(log, ANN, BOB, objects=sorted(sha(entry).hex() for entry in segments))

    yield "erased, all of its objects are gone", story(after=[all_of_it], spans=[])
    yield (
        "gone, and signed up to a frame before the last",
        story(
            after=[all_of_it],
            spans=[],
            attested=4,
            record={"checkpoint": {"size": "4", "note": built().signed(4)}},
        ),
    )
    back = {"first_ts_ns": "9", "last_ts_ns": "1"}
    yield (
        "gone, and its times ran back",
        story(after=[all_of_it], spans=[], record=back, seal=back),
    )
    for what, suite, size in (("encrypted", 2, 47), ("salted", 1, 31)):
        epoch = Epoch(0).begin().add(3, DATA)
        seq = len(epoch.frames)
        epoch.frames.append(epoch._frame(seq, 3, suite, b"x" * size))
        yield f"a payload that is too short to be {what}", story(epoch=epoch.close("client"))
    yield "withheld, apart and together", story(withheld=(1, 3))
    beacon = {"origin": ORIGIN, "size": "5", "root": root(begun().leaves()).hex()}
    epoch = epoch_of((3, DATA), opened={"beacon": beacon})
    yield "a clock before its beacon", story(epoch=epoch, before=[lambda log: log.checkpoint(900)])


def limits():
    """What is just allowed; what is not, `policies` has."""
    yield "as many witnesses and groups as can be", story(), with_many(254, 256)


def expirations():
    def later(log):
        log.checkpoint(700)

    def expired(log):
        intent(log, "reaper", basis="expired")

    def policy(tenant="main", **members):
        body = {"tenant": tenant, "class": {**SHORT, **members}, "policy_sha256": "00" * 32}
        return lambda log: log.statement("policy", body, ANN)

    for what, steps in {
        "its term": [later, expired],
        "the term of another tenant's policy": [policy("other", retain_for_s=800), later, expired],
        "the term of another class's policy": [
            policy(name="other", retain_for_s=800), later, expired,
        ],
        "the term of a later policy": [later, expired, policy(retain_for_s=800)],
        "the term of its policy": [policy(retain_for_s=800), later, expired],
    }.items():  # fmt: skip
        sealed = [lambda log: log.checkpoint(40)]
        yield f"expired by {what}", story(open_class=SHORT, after=[*sealed, *steps])


SINGLE = {}
for part in (entries, files_of_proofs, epochs, checkpoints, records, expirations, limits):
    for what, given, *rules in part():
        assert what not in SINGLE, what
        SINGLE[what] = (given, *(rules or [PLAIN]))


def weak(name, algorithm=b"\1", raw=bytes(32)):
    """A verifier key of these bytes, whatever they are."""
    ident = sha(name.encode() + b"\n" + algorithm + raw)[:4].hex()
    return f"{name}+{ident}+{b64(algorithm + raw)}"


def policies():
    """Policies that both refuse."""
    ann = vkey(ANN)
    quorum = "quorum office\n"
    yield "an administrator whose key is weak", PLAIN.replace(ann, weak(ANN))
    yield "a key of an unknown type", PLAIN.replace(ann, weak(ANN, b"\2"))
    yield "a line of another kind", PLAIN.replace(quorum, f"wish office\n{quorum}")
    yield "a policy that is too long", PLAIN + "#" * (1 << 20)
    nobody = PLAIN.replace('monitors = ["monitor"]', 'monitors = ["judge"]')
    yield "a monitor that is no witness", nobody.replace('require = ["monitor"]', "require = []")
    yield "a key without bytes", PLAIN.replace(ann, f"{ANN}+00000000+")
    name, _, rest = ann.split("+", 2)
    yield "a key with another's id", PLAIN.replace(ann, f"{name}+00000000+{rest}")
    short = weak("pq.example/w", b"\6", public(ml_dsa("log"))[:-1])
    yield (
        "an ML-DSA-44 key that is too short",
        PLAIN.replace(quorum, f"witness pq {short}\n{quorum}"),
    )
    yield "an administrator's key of a witness", PLAIN.replace(ann, vkey(ANN, b"\4", ed25519(ANN)))
    log = vkey(ORIGIN, key=ed25519("log"))
    yield (
        "a log without a key that signs notes",
        PLAIN.replace(log, vkey(ORIGIN, b"\6", ml_dsa("log"))),
    )
    yield "control characters", PLAIN.replace("witness office", "# \\u000b\nwitness office", 1)
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    for what, roots in {
        "no certificate": "none",
        "half a certificate": begin + "AA",
        "an empty certificate": begin + end,
        "too many certificates": f"{begin}MAA={end}" + "-" * (1 << 18),
    }.items():
        yield f"an authority with {what}", f'{PLAIN}[[tsa]]\nname = "one"\nroots = "{roots}"\n'
    far = vkey(f"{LOG}/12345678901", key=ed25519("", bytes([9]) * 32))
    yield "a shard that no log has", PLAIN.replace("quorum", f"log {far}\nquorum", 1)
    for what, of in {
        "more than there are": "3 office monitor", "one twice": "2 office office",
        "none": "0 office monitor", "a stranger": "1 office stranger", "no number": "x office",
    }.items():  # fmt: skip
        group = f"group some {of}\nquorum some\n"
        yield f"a group of {what}", PLAIN.replace(quorum, group)
    yield "too many groups", with_many(groups=257)
    yield "too many witnesses", with_many(witnesses=255)
    twice = f"group one any office\ngroup two any office\n{quorum}"
    yield "a witness in two groups", PLAIN.replace(quorum, twice)


POLICIES = dict(policies())
"""By what is wrong with them."""


def unable():
    """Policies that are right and demand what the second verifier does not check."""
    pq = vkey("pq.example/w", b"\6", ml_dsa("log"))
    with_pq = PLAIN.replace("quorum office\n", f"witness pq {pq}\nquorum office\n")
    yield "a quorum by ML-DSA-44", with_pq.replace("quorum office", "quorum pq")
    yield "a monitor by ML-DSA-44", with_pq.replace('monitors = ["monitor"]', 'monitors = ["pq"]')


UNABLE = dict(unable())


def controlled(text):
    """A note that is signed as it is, with a control character."""
    name = text.rpartition("\N{EM DASH} ")[2].split(" ")[0]
    key = ed25519("", bytes.fromhex(NOTES["private_seed"]))
    return note("a\tb\n", (name, key))


REFUSED_NOTES = {
    "a control character": controlled,
    "something else than the newline at the end": lambda text: text[:-1] + " ",
    "no newline at the end": lambda text: text[:-1],
}
