"""What proves a session to an outsider, in bytes, and how fast its bundle is verified."""

import hashlib
import os
import time

from sealtape.schemas import tree
from sealtape.schemas.bundle import encode_about, encode_hashes, pack_bundle, parts_without
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.verify.bundle import verify_bundle
from tests.bench.harness import Table, figure
from tests.factories.bundles import LOOSE, note_of, stamped, with_authority
from tests.vectors.bundle_parts import (
    ORIGIN,
    SESSION,
    START_S,
    Epoch,
    Log,
    b64,
    cosigned,
    ed25519,
    frames_file,
    leaf,
    note,
    segment_entry,
)  # fmt: skip

SIZE = 1 << 20
WITNESSES = ("office.example/witness", "monitor.example/monitor", "auditor.example/witness")
POLICY = with_authority(LOOSE)
KIB = 1024


class LargeLog(Log):
    """A log of which only the entries of one session are kept, and hashes of all."""

    def __init__(self, size):
        super().__init__()
        self.hashes = [leaf(b"entry %d" % index) for index in range(size)]
        self.kept = {}
        self.place = 0

    def add(self, value):
        super().add(value)
        self.kept[self.place] = self.entries.pop()
        self.hashes[self.place] = leaf(self.kept[self.place])
        self.place += 1
        return self.place - 1

    def root_of(self, lo, hi):
        """The root over leaves."""
        return tree.root(self.hashes[lo:hi])


def bundled(epoch, size=SIZE):
    """A bundle's files, and what of the log they are about: key, open, segment, seal, heartbeat.

    The session lies in the middle of the log, its entries hundreds of others apart.
    """
    log = LargeLog(size)
    log.start()
    log.key("introduce", "node", "node-1")
    log.place = size // 3
    places = {"key": 1, "open": epoch.open_entry(log)}
    log.place += 150
    count = len(epoch.frames)
    record = epoch.fragment(0, count, signed=count)
    places["segment"], _, path = segment_entry(log, 0, bytes(32), record, count)
    places["seal"] = epoch.seal_entry(log, [record], "client", count)
    log.place += 500
    nothing = {"count": "0", "root": tree.EMPTY_ROOT.hex()}
    keys = {"count": "1", "root": leaf(log.kept[1]).hex()}
    beat = {"index": str(log.place), "every_s": 600, "keys": keys, "shards": nothing}
    places["heartbeat"] = log.add(
        {**log.common("heartbeat"), **beat, "nodes": nothing, "open": "0"}
    )
    text = f"{ORIGIN}\n{size}\n{b64(log.root_of(0, size))}\n"
    whole = note(text, (ORIGIN, ed25519("log")))
    whole += "".join(cosigned(name, text, START_S + 40) for name in WITNESSES)
    found = {
        "README.txt": b"How to check this bundle by hand.\n",
        "bundle.json": encode_about(SESSION, size),
        "inclusion": inclusion(log, size, log.kept),
        f"checkpoints/{size}": whole.encode(),
        "fragments/0.jsonl": record + b"\n",
        "fragments/0.paths": f"{places['segment']} 1 {path}\n".encode(),
        "frames/0.bin": frames_file(epoch, [(0, count)]),
        **{f"entries/{index}.json": entry for index, entry in log.kept.items()},
    }
    return stamped(found), places, log


def inclusion(log, size, wanted):
    """The file of that name for these entries."""
    return encode_hashes(log.root_of(lo, hi) for lo, hi in parts_without(size, wanted))


def frames(count, size):
    """An epoch with so many DATA frames."""
    epoch = Epoch(0).begin()
    for _ in range(count):
        epoch.add(3, os.urandom(size))
    return epoch.close("client")


def judged(data):
    """The report on a bundle that must be good."""
    report = verify_bundle(data, parse_evidence_policy(POLICY.encode()))
    assert report.verdict == "verified", report.findings
    return report


def test_session_proof(publish):
    """Bytes that show one session to an outsider, but for its frames."""
    files, places, log = bundled(frames(3, 64))
    data = pack_bundle(files)
    judged(data)
    _, checkpoint = note_of(files)
    wanted = [places[what] for what in ("key", "open", "seal")]
    stamp = sum(len(files[item]) for item in files if item.startswith("timestamps/"))
    entries = sum(len(files[f"entries/{index}.json"]) for index in wanted)
    path = len(inclusion(log, SIZE, wanted))
    proof = len(checkpoint) + stamp + entries + path
    frames_size = len(files["frames/0.bin"])
    shown = sum(len(files[item]) for item in files if item not in ("README.txt", "frames/0.bin"))
    table = Table("what proves a session in a log of 1,048,576 entries", ("", "bytes"))
    table.row("checkpoint, signed by the log and three witnesses", figure(len(checkpoint)))
    table.row("time-stamp and the authority's certificate", figure(stamp))
    table.row("entries: the node's key, open, seal", figure(entries))
    table.row("their proof of inclusion", figure(path))
    table.row("together: the session proof", figure(proof))
    table.row("all that a bundle has but README and frames", figure(shown))
    table.row("ZIP file and sums around it", figure(len(data) - shown - frames_size))
    table.goal("session proof, KiB", proof / KIB, 6, at_most=True)
    single = frame_proof(1 << 20)
    table.goal("one frame of 1,048,576, KiB", single / KIB, 1.3, at_most=True)
    publish("evidence size", table)


def frame_proof(count):
    """Bytes that show one frame of so many: header, path, and the epoch's signed size."""
    epoch = Epoch(0).begin()
    path = 32 * len(tree.inclusion_ranges(count // 2, count))
    return 84 + path + len(epoch.signed(2).encode()) + len(str(count)) - 1


def test_bundle(effort, publish):
    """Verifying a bundle: sums, digests, leaves, tree; against SHA-256 alone."""
    rounds, seconds = effort(3, 9)
    count = 4096 if seconds == 9 else 256
    table = Table(
        "verify a bundle, one core", ("", "MB a CPU s", "raw SHA-256, MB a CPU s", "share of it")
    )
    for size in (1 << 10, 16 << 10, 64 << 10):
        files, _, _ = bundled(frames(min(count, (256 << 20) // size), size), 1 << 12)
        data = pack_bundle(files)
        mine = min(spent(lambda data=data: judged(data)) for _ in range(rounds))
        raw = min(spent(lambda data=data: hashlib.sha256(data)) for _ in range(rounds))
        megabytes = len(files["frames/0.bin"]) / 1e6
        table.row(
            f"{size >> 10} KiB frames", figure(megabytes / mine), figure(megabytes / raw),
            figure(raw / mine),
        )  # fmt: skip
    publish("evidence speed", table)


def spent(work):
    """Seconds of CPU."""
    began = time.process_time()
    work()
    return time.process_time() - began
