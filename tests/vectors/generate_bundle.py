"""Writes bundle.json: evidence bundles with their policies and verdicts, and the pages' examples.

Run `python -m tests.vectors.generate_bundle` from the repository's root. `bundle_parts` puts them
together by hand. ML-DSA-44 signatures are drawn anew each time by the library: the one in the file
is kept while it verifies.
"""

import base64
import functools
import json
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from tests.vectors.bundle_parts import (
    CLASS,
    LOG,
    ORIGIN,
    SESSION,
    START_S,
    Epoch,
    Log,
    apart,
    b64,
    consistency,
    ed25519,
    frames_file,
    key_id,
    line,
    ml_dsa,
    ml_dsa_message,
    packed,
    root,
    segment_entry,
    sha,
    vkey,
    zipped,
)  # fmt: skip

FILE = Path(__file__).parent / "bundle.json"
ML_DSA = b"\6"
README = b"How to check this bundle by hand.\n"
DATA = line({"note": "a body that a verifier without keys never sees"}).encode()
YEAR_S = 365 * 86_400
SHORT = {"name": "standard", "retain_for_s": 600, "delete_after_s": 34_560_000}
BOTH = ("office.example/witness", "monitor.example/monitor")


def main():
    text = json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"
    FILE.write_text(text, encoding="utf-8")


def generate():
    plain, files = policy(), whole()
    cases = [
        {"name": name, "verdict": verdict, "step": step, "policy": rules, "bundle": b64(data)}
        for name, data, rules, verdict, step in [
            *sound(plain, files),
            *short(plain, files),
            *gone(plain),
            *wrong(plain, files),
            *malformed(plain, files),
        ]
    ]
    return {
        "policy": plain,
        "refused_policies": refused(plain),
        "files": {name: shown(data) for name, data in sorted(files.items())},
        "list": "\n".join(sorted({**files, "SHA256SUMS": b""})) + "\n",
        "first_frame": files["frames/0.bin"][:88].hex(),
        "ml_dsa_signature": ml_dsa_signature(),
        "cases": cases,
    }


def sound(plain, files):
    one = packed(whole(BOTH[:1]))
    loose = policy(require="[]")
    return [
        ("a whole session", packed(files), plain, "verified", ""),
        ("a payload withheld, one key given", packed(redacted()), plain, "verified", ""),
        ("recovered after a crash, two segments", packed(recovered()), plain, "verified", ""),
        ("no monitor cosigned", one, loose, "verified", ""),
        ("with an ML-DSA-44 line", packed(with_ml_dsa()), policy(ml_dsa=True), "verified", ""),
    ]


def short(plain, files):
    one, other = packed(whole(BOTH[:1])), packed(whole(BOTH[1:]))
    keys = policy(require='["decrypt"]')
    strict = policy(ml_dsa=True)
    return [
        ("an ML-DSA-44 line is missing", packed(files), strict, "incomplete", "ml-dsa"),
        ("the monitor is missing and required", one, plain, "incomplete", "monitor"),
        ("the quorum is short", other, plain, "incomplete", "witnesses"),
        ("no heartbeat behind", packed(whole(heartbeat=False)), plain, "incomplete", "keys"),
        ("not sealed yet", packed(unsealed()), plain, "incomplete", "seals"),
        ("frames were lost", packed(lost()), plain, "incomplete", "seals"),
        ("the node states a gap", packed(whole(gap=True)), plain, "incomplete", "frames"),
        ("keys are required and missing", packed(files), keys, "incomplete", "payloads"),
    ]


def gone(plain):
    unproven = packed(deleted(proven=False))
    early = packed(deleted(wait_s=300))
    return [
        ("deleted when its term was over", packed(deleted()), plain, "deleted", ""),
        ("erased, objects kept", packed(deleted(erasure=True)), plain, "deleted", ""),
        ("the expiry is not proven", unproven, plain, "incomplete", "lifecycle"),
        ("deleted early", early, plain, "tampered", "lifecycle"),
        ("deleted under a hold", packed(deleted(hold=True)), plain, "tampered", "lifecycle"),
        ("rows are missing", packed(without_frames()), plain, "tampered", "frames"),
    ]


def wrong(plain, files):
    revoked, unknown = packed(whole(revoked=True)), packed(whole(introduced=False))
    other_key = {**redacted(), "keys/0.jsonl": keys_file({3: bytes(32)})}
    return [
        ("the node's key was revoked before", revoked, plain, "tampered", "certificate"),
        ("nobody introduced the node's key", unknown, plain, "tampered", "certificate"),
        ("sealed twice", packed(whole(again=True)), plain, "tampered", "seals"),
        ("a key entry is left out", packed(whole(hide_key=True)), plain, "tampered", "keys"),
        ("a payload was changed", packed(changed(files)), plain, "tampered", "frames"),
        ("an entry was changed", packed(renamed(files)), plain, "tampered", "inclusion"),
        ("a key that is not the frame's", packed(other_key), plain, "tampered", "payloads"),
    ]


def malformed(plain, files):
    sums = zipped({**files, "SHA256SUMS": b"0" * 64 + b"  README.txt\n"})
    stranger_file = packed({**files, "policy.toml": b"v = 1\n"})
    foreign = plain.replace('log = "sealtape', 'log = "elsewhere')
    return [
        ("SHA256SUMS names another digest", sums, plain, "tampered", "form"),
        ("a file that no bundle has", stranger_file, plain, "tampered", "form"),
        ("an empty ZIP file", zipped({}), plain, "tampered", "form"),
        ("an empty file", b"", plain, "tampered", "form"),
        ("the policy is of another log", packed(files), foreign, "usage", ""),
    ]


def shown(data):
    """A file as text, or in hex."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.hex()


# -- policies --------------------------------------------------------------------------------------


def policy(require='["monitor"]', ml_dsa=False):
    log = vkey(ORIGIN, key=ed25519("log"))
    office, monitor = (vkey(name, b"\4", ed25519(name)) for name in BOTH)
    second = f"log {vkey(ORIGIN, ML_DSA, ml_dsa_key())}\n" if ml_dsa else ""
    admins = ", ".join(f'"{vkey(name)}"' for name in ("admin.example/ann", "admin.example/bob"))
    text = (
        f'v = 1\nlog = "{LOG}"\ntlog_policy = """\n'
        f"log {log}\n{second}witness office {office}\nwitness monitor {monitor}\n"
        f'quorum office\n"""\nmonitors = ["monitor"]\nadmins = [{admins}]\n'
        f"admin_threshold = 1\nrequire = {require}\n"
    )
    return text + ("ml_dsa_from = 0\n" if ml_dsa else "")


def ml_dsa_key():
    return ml_dsa("log")


def refused(text):
    """Policies that end a verifier with 64, by what is wrong."""
    node = '[[nodes]]\nvkey = "' + vkey("node-1") + '"\n'
    log = f'log = "{LOG}"'
    monitors = 'monitors = ["monitor"]'
    require = 'require = ["monitor"]'
    ann, bob = vkey("admin.example/ann"), vkey("admin.example/bob")
    return {
        "no TOML": text + "x =\n",
        "another version": text.replace("v = 1", "v = 2"),
        "an unknown key": text + "quorum = 2\n",
        "an unknown key of a table": text + node + 'name = "x"\n',
        "a node's key twice": text + node + node,
        "a threshold too high": text.replace("threshold = 1", "threshold = 3"),
        "an administrator twice": text.replace(bob, ann),
        "a monitor that is no witness": text.replace(monitors, 'monitors = ["judge"]'),
        "an unknown requirement": text.replace(require, 'require = ["luck"]'),
        "a requirement twice": text.replace(require, 'require = ["monitor", "monitor"]'),
        "a time-stamp of nobody": text.replace(require, 'require = ["timestamp"]'),
        "ML-DSA-44 without a key": text + "ml_dsa_from = 0\n",
        "a log of another name": text.replace(log, 'log = "other.example/log"'),
        "no quorum": text.replace("quorum office\n", ""),
        "a number for a text": text.replace(log, "log = 1"),
    }


# -- bundles ---------------------------------------------------------------------------------------


def begun(*, introduced=True):
    log = Log()
    log.start()
    log.key("introduce", "admin", "admin.example/ann")
    if introduced:
        log.key("introduce", "node", "node-1")
    log.key("introduce", "reaper", "reaper")
    log.hidden = log.add(line({**log.common("heartbeat"), **stranger(log)}))
    return log


def stranger(log):
    """An early heartbeat, which no bundle needs; it is in the tree."""
    nothing = {"count": "0", "root": sha(b"").hex()}
    return {
        "index": str(len(log.entries)), "every_s": 600, "keys": nothing, "shards": nothing,
        "nodes": nothing, "open": "0",
    }  # fmt: skip


def built(*, gap=False, class_=None):
    epoch = Epoch(0, class_=dict(class_ or CLASS)).begin()
    epoch.add(3, DATA)
    epoch.add(5, line({"v": 1, "reason": "spool", "legs": []}).encode()) if gap else epoch.add(
        4, DATA
    )
    return epoch.close("client")


def whole(  # one case more is one argument more
    witnesses=BOTH, *, heartbeat=True, gap=False, revoked=False, introduced=True, again=False,
    hide_key=False,
):  # fmt: skip
    log = begun(introduced=introduced)
    if revoked:
        log.key("revoke", "node", "node-1", since=5)
    epoch = built(gap=gap)
    epoch.open_entry(log)
    record = epoch.fragment(0, 5, signed=5)
    segment, _, path = segment_entry(log, 0, bytes(32), record, 5)
    epoch.seal_entry(log, [record], "client", 5)
    if again:
        epoch.seal_entry(log, [record], "client", 5)
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    if heartbeat:
        wanted.append(log.heartbeat())
    else:
        log.add(log.common("heartbeat"))
    log.add(line({**log.common("heartbeat"), **stranger(log)}))
    log.checkpoint(40, witnesses)
    if hide_key:
        wanted.remove(1)
    return files(log, wanted, {0: (epoch, [(record, segment, path)], [(0, 5)])})


def files(log, wanted, epochs, *, bounds=(), withheld=(), keys=None):
    size = max(log.notes)
    found = {
        "README.txt": README,
        "bundle.json": line(
            {"v": 1, "type": "bundle", "session": SESSION.hex(), "checkpoint": str(size)}
        ).encode(),
        "inclusion": lines(apart(log.leaves()[:size], wanted)),
    }
    for index in wanted:
        found[f"entries/{index}.json"] = log.entries[index]
    for at in (size, *bounds):
        text, signatures = log.notes[at]
        found[f"checkpoints/{at}"] = (text + "\n" + "".join(signatures)).encode()
        if at != size:
            proof = consistency(log.leaves()[:size], at)
            found[f"checkpoints/{at}.consistency"] = lines(proof)
    for number, (epoch, fragments, spans) in epochs.items():
        found[f"fragments/{number}.jsonl"] = b"".join(record + b"\n" for record, _, _ in fragments)
        found[f"fragments/{number}.paths"] = "".join(
            f"{entry} 1 {path}\n" for _, entry, path in fragments
        ).encode()
        if spans:
            found[f"frames/{number}.bin"] = frames_file(epoch, spans, withheld)
    return found | ({"keys/0.jsonl": keys} if keys else {})


def lines(hashes):
    return "".join(b64(item) + "\n" for item in hashes).encode()


def keys_file(keys):
    return "".join(
        line({"seq": str(seq), "key": key.hex()}) + "\n" for seq, key in sorted(keys.items())
    ).encode()


def redacted():
    found, epoch = whole(), built()
    hidden = frames_file(epoch, [(0, 5)], withheld=(2,))
    return {**found, "frames/0.bin": hidden, "keys/0.jsonl": keys_file({3: epoch.key(3)})}


def recovered():
    """Epoch 0 ends after four frames, two of them signed; epoch 1 continues it."""
    log = begun()
    early = log.checkpoint(3)
    text = log.notes[early][0].splitlines()
    beacon = {
        "origin": ORIGIN, "size": str(early), "root": base64.b64decode(text[2]).hex(),
    }  # fmt: skip
    first = Epoch(0, beacon=beacon, start_s=START_S + 4).begin().add(3, DATA).add(3, DATA)
    first.open_entry(log)
    records = [first.fragment(0, 2, signed=2), first.fragment(2, 4)]
    one = segment_entry(log, 0, bytes(32), records[0], 2)
    middle = log.checkpoint(30)
    continues = {"epoch": 0, "size": "4", "root": root(first.leaves()).hex()}
    second = Epoch(1, continues=continues, start_s=START_S + 5).begin().add(3, DATA)
    second.close("aborted", {"epoch": 0, "from": "2", "to": "4"})
    second.open_entry(log)
    two = segment_entry(log, 1, one[1], records[1], 2)
    third = second.fragment(0, 4, signed=4)
    three = segment_entry(log, 2, two[1], third, 4)
    first.seal_entry(log, records, "", 2)
    second.seal_entry(log, [third], "aborted", 4)
    log.heartbeat()
    log.checkpoint(60)
    log.add(log.common("heartbeat"))
    epochs = {
        0: (first, [(records[0], one[0], one[2]), (records[1], two[0], two[2])], [(0, 4)]),
        1: (second, [(third, three[0], three[2])], [(0, 4)]),
    }
    wanted = [index for index in range(len(log.entries) - 1) if index != log.hidden]
    return files(log, wanted, epochs, bounds=(early, middle))


def unsealed():
    log = begun()
    epoch = built()
    epoch.open_entry(log)
    record = epoch.fragment(0, 3, signed=2)
    segment, _, path = segment_entry(log, 0, bytes(32), record, 3)
    log.heartbeat()
    log.checkpoint(40)
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    return files(log, wanted, {0: (epoch, [(record, segment, path)], [(0, 3)])})


def lost():
    """Frames 2 and 3 never came."""
    log = begun()
    epoch = built()
    epoch.open_entry(log)
    records = [epoch.fragment(0, 2, signed=2), epoch.fragment(4, 5, missing=[(2, 4)])]
    one = segment_entry(log, 0, bytes(32), records[0], 2)
    two = segment_entry(log, 1, one[1], records[1], 1)
    epoch.seal_entry(log, records, "client", 2, 2)
    log.heartbeat()
    log.checkpoint(40)
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    fragments = [(records[0], one[0], one[2]), (records[1], two[0], two[2])]
    return files(log, wanted, {0: (epoch, fragments, [(0, 2), (4, 5)])})


def deleted(*, erasure=False, proven=True, wait_s=700, hold=False):
    log = begun()
    epoch = built(class_=SHORT)
    epoch.open_entry(log)
    record = epoch.fragment(0, 5, signed=5)
    segment, digest, path = segment_entry(log, 0, bytes(32), record, 5, SHORT)
    epoch.seal_entry(log, [record], "client", 5)
    bounds = [log.checkpoint(40)]
    sessions = {"sessions": [SESSION.hex()]}
    if hold:
        log.statement("hold", {"matter": "0a" * 32, **sessions}, "admin.example/ann")
    log.heartbeat()
    late = log.checkpoint(40 + wait_s)
    bounds += [late] if proven else []
    basis = ("erasure", "0a" * 32) if erasure else ("expired", "00" * 32)
    signers = ("admin.example/ann", "admin.example/bob") if erasure else ("reaper",)
    body = {"basis": basis[0], "matter": basis[1], **sessions}
    index = len(log.entries)
    intent = log.statement("tombstone-intent", body, *signers)
    bounds.append(log.checkpoint(50 + wait_s))
    done = {
        "intent": intent, "index": str(index), "wraps": "3", "documents": "2",
        "objects": [] if erasure else [digest.hex()],
    }  # fmt: skip
    log.statement("tombstone-done", done, "reaper")
    log.heartbeat()
    log.checkpoint(100 + wait_s)
    wanted = [index for index in range(len(log.entries)) if index != log.hidden]
    spans = [(0, 5)] if erasure else []
    return files(log, wanted, {0: (epoch, [(record, segment, path)], spans)}, bounds=bounds)


def without_frames():
    found = whole()
    del found["frames/0.bin"]
    return found


def changed(found):
    frames = bytearray(found["frames/0.bin"])
    frames[-1] ^= 1
    return {**found, "frames/0.bin": bytes(frames)}


def renamed(found):
    return {**found, "entries/0.json": found["entries/0.json"].replace(LOG.encode(), b"other/log")}


def with_ml_dsa():
    found = whole()
    (name,) = [name for name in found if name.startswith("checkpoints/")]
    text = found[name].decode().split("\n\n")[0] + "\n"
    signature = b64(key_id(ORIGIN, b"\6", ml_dsa_key()) + kept(text))
    return {**found, f"{name}.mldsa": f"1 — {ORIGIN} {signature}\n".encode()}


def ml_dsa_signature():
    """What is kept of one run for the next."""
    (name,) = [name for name in whole() if name.startswith("checkpoints/")]
    return b64(kept(whole()[name].decode().split("\n\n")[0] + "\n"))


@functools.cache
def kept(text):
    """Time and ML-DSA-44 signature: the file's own while it holds, else a new one."""
    key = ml_dsa_key()
    message = ml_dsa_message(ORIGIN, text, START_S + 40)
    if FILE.exists():
        value = base64.b64decode(json.loads(FILE.read_text(encoding="utf-8"))["ml_dsa_signature"])
        try:
            key.public_key().verify(value[8:], message)
        except InvalidSignature:
            pass
        else:
            return value
    return (START_S + 40).to_bytes(8, "big") + key.sign(message)


if __name__ == "__main__":
    main()
