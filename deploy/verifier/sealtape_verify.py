#!/usr/bin/env python3
"""Verifies an evidence bundle of Sealtape, offline.

    python3 sealtape_verify.py BUNDLE.zip --policy POLICY.toml [--json]

The second verifier: written from the pages in docs/spec alone, it shares no code with Sealtape and needs nothing but
Python 3.11 or later. "Rule" means a rule of docs/spec/bundle.md. Exit codes: 0 verified, 1 tampered, 2 incomplete,
3 deleted by policy, 64 called wrongly or policy refused.

It checks no RFC 3161 time-stamp and no ML-DSA-44 signature, and decrypts nothing. A policy that requires one of them
is refused: what is not checked is not verified.
"""

import argparse
import base64
import datetime
import functools
import hashlib
import json
import mmap
import pathlib
import re
import struct
import sys
import tomllib
import types
import zlib

EXIT = {"verified": 0, "tampered": 1, "incomplete": 2, "deleted": 3, "usage": 64}
PASS, FAIL, NOT_PROVIDED, NOT_CHECKED = "PASS", "FAIL", "NOT PROVIDED", "NOT CHECKED"
STEPS = ["form", "checkpoint", "witnesses", "ml-dsa", "monitor", "consistency", "timestamps"]
STEPS += ["inclusion", "records", "keys", "seals", "fragments", "frames", "certificate"]
STEPS += ["signatures", "epochs", "times", "lifecycle", "payloads"]
BY_EPOCH = {"fragments": "fragments/{}.jsonl", "frames": "frames/{}.bin", "certificate": "frames/{}.bin"}
BY_EPOCH |= {"signatures": "fragments/{}.jsonl", "epochs": "frames/{}.bin", "payloads": "keys/{}.jsonl"}
FINAL = {"form", "checkpoint", "inclusion", "records"}  # after a failure here nothing more is looked at
ED25519, COSIGNATURE, ML_DSA = 1, 4, 6  # types of keys
KEY_SIZES = {ED25519: 32, COSIGNATURE: 32, ML_DSA: 1312}
OPEN, IDENT, GAP, CLOSE, PUBLIC = 1, 2, 5, 8, {1, 5, 7, 8}  # kinds of frames
FRAME = struct.Struct(">8s16sIQqBBHI32s")
FULL, U32, U63 = 0xFFFFFFFF, 1 << 32, 1 << 63
FILES = {  # what files may be called, and their most bytes: the table of "The files"
    r"README\.txt": 65_536,
    r"SHA256SUMS|inclusion": 1 << 24,
    r"bundle\.json": 1024,
    r"checkpoints/N(\.mldsa)?|timestamps/N/[a-z0-9][a-z0-9_-]{0,62}\.(tsr|pem)": 1 << 20,
    r"checkpoints/N\.consistency": 4096,
    r"entries/N\.json": 65_535,
    r"fragments/N\.(jsonl|paths)": 1 << 28,
    r"keys/N\.jsonl": 1 << 30,
    r"frames/N\.bin": U63,
}
FILES = {form.replace("N", "(0|[1-9][0-9]{0,18})"): most for form, most in FILES.items()}
# Kinds of JSON objects and their members. `+` has those of; `?` or null; `*` a list of; `=` one of these words.
SHAPES = """
bundle checkpoint:u63 session:h16 type:=bundle v:one
class delete_after_s:u32 name:name retain_for_s:u32
count count:u63 root:h32
continued epoch:u32 size:p63 root:h32
epoch tenant:name session:h16 epoch:u32 v:one
node +epoch anchor_ns:i64 boot:h16 class:class continues:?continued node:label number:u63 worker:u16
log at_ns:i64 before:text log:text number:p32 type:=log v:one
segment bus:range bytes:u63 class:class fragments:few n:u63 object:text prev:h32 replaces:*h32 rows:p63 \
sealed_at_ns:i64 sha256:h32 shard:some tenant:name type:=segment v:one writer:some
range first:u63 next:u63 partition:u32 topic:short
few count:p16 root:h32
session-open +node of:=session|journal opening_sha256:h32 at_ns:i64 type:=session-open
session-seal +epoch class:class frames:p63 root:h32? lost:u63 attested:u63 checkpoint_sha256:h32 \
closed:word? first_ts_ns:i64 last_ts_ns:i64 opening_sha256:h32 \
fragments:count at_ns:i64 type:=session-seal
incident reason:word bus:place session:h16? epoch:?u32 seq:?u63 at_ns:i64 type:=incident v:one
place topic:some partition:u32 offset:i64
heartbeat index:u63 every_s:p32 keys:count shards:count nodes:count open:u63 at_ns:i64 type:=heartbeat v:one
entry statement:text v:one type:=key|policy|hold|release|tombstone-intent|tombstone-done
said at_ns:i64 id:h16 log:text v:one
key +said type:=key action:=introduce|rotate|revoke key:key+ replaces:key* since:?u63 \
role:=admin|node|log|witness|monitor|reaper|auditor|indexer
policy +said type:=policy tenant:name class:class policy_sha256:h32
hold +said type:=hold sessions:*h16 matter:h32
release +said type:=release hold:h16 sessions:*h16
tombstone-intent +said type:=tombstone-intent sessions:*h16 basis:=expired|erasure matter:h32
tombstone-done +said type:=tombstone-done intent:h16 index:u63 wraps:u63 documents:u63 objects:*h32
fragment +epoch class:name lo:u63 hi:u63 nodes:*h32 rows:*u63 first_ts_ns:i64 last_ts_ns:i64 bytes:u63 \
checkpoint:?signed gaps:*gap type:=fragment
signed note:note size:u63
gap lo:u63 hi:u63 reason:word
OPEN +node type:=session|journal log:text key:line suite:u32 salt:text ident_sha256:h32 policy_sha256:h32 \
beacon:?beacon
beacon origin:text size:u63 root:h32
CLOSE attested:?attested commands:u63 detail:code errors:u63 reason:word totals:*u63 v:one
attested epoch:u32 from:u63 to:u63
frame-key key:h32 seq:u63
policy.toml v:one log:line tlog_policy:text admins:*line admin_threshold:u32 monitors:*line require:*line \
nodes:*node.toml tsa:*tsa.toml
node.toml vkey:line
tsa.toml name:name roots:text
"""
SHAPES, TABLE = {}, SHAPES
for kind, words in re.findall(r"(\S+) (.*)\n", TABLE):
    SHAPES[kind] = {}
    for name, _, of in (word.partition(":") for word in words.split()):
        SHAPES[kind] |= {name: of} if of else SHAPES[name[1:]]
STATEMENTS = ("key", "policy", "hold", "release", "tombstone-intent", "tombstone-done")
RECORDS = ("log", "segment", "session-open", "session-seal", "incident", "heartbeat")
TEXTS = {"text": r"(?s).*", "line": r"[^\n]+", "name": r"[a-z0-9][a-z0-9_-]{0,62}", "h16": r"[0-9a-f]{32}"}
TEXTS |= {"h32": r"[0-9a-f]{64}", "h16?": r"([0-9a-f]{32})?", "h32?": r"([0-9a-f]{64})?"}
PEM = r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----"
TEXTS |= {"label": r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "word": "[a-z][a-z0-9_]{0,31}", "some": "(?s).+"}
TEXTS |= {"key+": "[!-~]+( [!-~]+)*", "key*": "([!-~]+( [!-~]+)*)?", "word?": "([a-z][a-z0-9_]{0,31})?"}
TEXTS |= dict.fromkeys(("short", "code", "note"), "(?s).*")
MOST = {"some": 256, "short": 256, "code": 64, "note": 16_384, "key+": 4096, "key*": 4096}  # bytes of such texts
DECIMALS = {"u63": (0, U63), "p63": (1, U63), "i64": (-U63, U63)}
NUMBERS = {"u16": (0, 65_536), "p16": (1, 65_537), "u32": (0, U32), "p32": (1, U32), "one": (1, 2)}
OBJECT = r"seg/v1/tenant=%s/class=%s/dt=([0-9]{4}-[0-9]{2}-[0-9]{2})"
OBJECT += r"/[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}-(0|[1-9][0-9]{0,18})\.parquet"


def need(condition, text):
    if not condition:
        raise ValueError(text)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# Ed25519, strict and without cofactor: tree-and-checkpoints.md, rule 12; RFC 8032.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL_ORDER = {0, 1, P - 1, ORDER_8, P - ORDER_8}


def strict_y(data):
    y = int.from_bytes(data, "little") & (1 << 255) - 1
    need(len(data) == 32 and y < P and y not in SMALL_ORDER, "a public key or R is not canonical or of small order")
    return y


def point(data):
    """The point, in extended coordinates, that 32 bytes encode."""
    y = strict_y(data)
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P != u:
        x = x * pow(2, (P - 1) // 4, P) % P
    need(v * x * x % P == u, "a public key or R is no point of the curve")
    x = x if x & 1 == data[31] >> 7 else P - x
    return x, y, 1, x * y % P


def add(m, n):
    """The sum of two points; complete, so it doubles too."""
    a, b = (m[1] - m[0]) * (n[1] - n[0]) % P, (m[1] + m[0]) * (n[1] + n[0]) % P
    c, d = 2 * D * m[3] * n[3] % P, 2 * m[2] * n[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


BASE = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def verify_ed25519(public, message, signature):
    """Refuses unless S * BASE - k * A is R."""
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    need(len(signature) == 64 and s < L, "S of a signature is not below the group's order")
    (x, y, _, t), (rx, ry, _, _) = point(public), point(r)
    k = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % L
    minus, total = (P - x, y, 1, P - t), (0, 1, 1, 0)
    addends = (None, BASE, minus, add(BASE, minus))
    for bit in range(252, -1, -1):
        total = add(total, total)
        if which := (s >> bit & 1) + 2 * (k >> bit & 1):
            total = add(total, addends[which])
    x, y, z, _ = total
    need((x - rx * z) % P == 0 == (y - ry * z) % P, "a signature does not verify")


class Tree:
    """RFC 6962 trees; compact ranges are lists of (start, size, hash): the tree page, rules 1 to 5."""

    def included(self, leaf, index, size, path):
        """The root to which the proof of a leaf leads, with no hash left over or missing."""
        need(index < size and (size == 1) == (not path), "an inclusion proof is too short or too long")
        if size == 1:
            return leaf
        left = 1 << (size - 1).bit_length() - 1
        if index < left:
            return sha256(b"\1", self.included(leaf, index, left, path[:-1]), path[-1])
        return sha256(b"\1", path[-1], self.included(leaf, index - left, size - left, path[:-1]))

    def consistent(self, old, new, proof, root):
        """(root of old, root of new) by a proof, used up from its end; `root` is that of the old."""
        if old == new and root:
            return root, root
        need(proof, "a consistency proof is too short")
        last = proof.pop()
        if old == new:
            return last, last
        left = 1 << (new - 1).bit_length() - 1
        if old <= left:
            a, b = self.consistent(old, left, proof, root)
            return a, sha256(b"\1", b, last)
        a, b = self.consistent(old - left, new - left, proof, None)
        return sha256(b"\1", last, a), sha256(b"\1", last, b)

    def push(self, tree, start, size, digest):
        while tree and tree[-1][1] == size and tree[-1][0] % (2 * size) == 0:
            start, _, left = tree.pop()
            digest, size = sha256(b"\1", left, digest), 2 * size
        tree.append((start, size, digest))

    def extended(self, tree, lo, hi, nodes):
        """The range with [lo, hi) behind it, whose hashes are `nodes`."""
        tree = list(tree)
        for digest in nodes:
            need(lo < hi, "a compact range has hashes left over")
            size = min(lo & -lo or U63, 1 << (hi - lo).bit_length() - 1)
            self.push(tree, lo, size, digest)
            lo += size
        need(lo == hi, "a compact range lacks hashes")
        return tree

    def root(self, tree):
        digests = [digest for _, _, digest in reversed(tree)] or [sha256()]
        return functools.reduce(lambda right, left: sha256(b"\1", left, right), digests)

    def root_over(self, items):
        leaves = [sha256(b"\0", item) for item in items]
        tree = []
        for place, leaf in enumerate(leaves):
            self.push(tree, place, 1, leaf)
        return {"count": len(leaves), "root": self.root(tree).hex()}


class Notation:
    """JSON in its only spelling: bodies.md, rules 1 to 4. Notes and checkpoints: the tree page, rules 6 to 14."""

    def read(self, value, kind):
        """The value, decimals as numbers, if it is of the kind."""
        if kind[0] == "?":
            return None if value is None else self.read(value, kind[1:])
        if kind[0] == "*":
            need(isinstance(value, list), f"{value!r:.80} is no list")
            return [self.read(each, kind[1:]) for each in value]
        if kind in SHAPES:
            need(isinstance(value, dict), f"{value!r:.80} is no object")
            names = {name for name in value if kind.endswith(".toml") or not name.startswith("x-")}
            wrong = sorted(names ^ SHAPES[kind].keys())
            need(not wrong, f"{kind} lacks members or has unknown ones: {wrong}")
            value = {name: self.read(value[name], of) for name, of in SHAPES[kind].items()}
            need(kind != "class" or value["retain_for_s"] <= value["delete_after_s"], "a class's terms")
            need(kind != "count" or value["count"] or value["root"] == sha256().hex(), "the root of nothing")
            return value
        if kind in NUMBERS:
            need(type(value) is int and value in range(*NUMBERS[kind]), f"{value!r:.80} is no {kind}")
            return value
        need(isinstance(value, str), f"{value!r:.80} is no text")
        if kind in DECIMALS:
            number = int(value) if re.fullmatch("-?[0-9]{1,19}", value) else U63
            need(str(number) == value and number in range(*DECIMALS[kind]), f"{value!r:.80} is no {kind}")
            return number
        fits = value in kind[1:].split("|") if kind[0] == "=" else re.fullmatch(TEXTS[kind], value)
        need(fits and len(value.encode()) <= MOST.get(kind, U63), f"{value!r:.80} is not {kind}")
        return value

    def in_order(self, pairs):
        names = [name.encode("utf-16-be") for name, _ in pairs]
        need(names == sorted(set(names)), "names of a JSON object are not in order, or twice")
        return dict(pairs)

    def whole(self, text):
        need(re.fullmatch("-?[0-9]{1,16}", text) and abs(int(text)) < 1 << 53, f"{text!r:.20} is no whole number")
        return int(text)

    def parse(self, data, kind="", most=65_535):
        need(len(data) <= most, "a JSON object is too long")
        hooks = dict.fromkeys(("parse_int", "parse_float", "parse_constant"), self.whole)
        value = json.loads(text := str(data, "utf-8"), object_pairs_hook=self.in_order, **hooks)
        spelt = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        need(isinstance(value, dict) and spelt == text, "JSON is not in its RFC 8785 form")
        return self.read(value, kind) if kind else value

    def bytes_of(self, text):
        data = base64.b64decode(text.encode("ascii"), validate=True)
        need(base64.b64encode(data).decode() == text, "base64 is not in its only form")
        return data

    def hashes(self, words):
        found = [self.bytes_of(word) for word in words]
        need(all(len(each) == 32 for each in found), "a hash has not 32 bytes")
        return found

    def lines(self, data):
        text = str(data, "utf-8")
        need(not text or text.endswith("\n"), "the last line has no end")
        return text.split("\n")[:-1]

    def parse_key(self, text):
        """(name, key id, type, public key) of a verifier key."""
        name, ident, encoded = (*text.split("+", 2), "", "")[:3]
        data = self.bytes_of(encoded)
        need(data and KEY_SIZES.get(data[0]) == len(data) - 1, f"{text!r:.80} is no verifier key")
        need(ident == sha256(self.named(name).encode(), b"\n", data)[:4].hex(), f"{text!r:.80} has another key id")
        need(data[0] == ML_DSA or strict_y(data[1:]), "a key is weak")
        return name, bytes.fromhex(ident), data[0], data[1:]

    def named(self, name):
        need(1 <= len(name) <= 255 and name.isprintable() and not re.search(r"[\s+]", name), f"{name!r:.80}: a name")
        return name

    def parse_note(self, text):
        """(text, [(name, key id, signature)]) of a signed note."""
        body, end, lines = text.rpartition("\n\n")
        need(len(text.encode()) <= 1 << 20 and end and lines.endswith("\n"), "a note is too long or not signed")
        need(not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), "a note has control characters")
        signatures = []
        for line in lines[:-1].split("\n"):
            dash, name, encoded = (*line.split(" ", 2), "", "")[:3]
            data = self.bytes_of(encoded)
            need(dash == "\u2014" and len(data) > 4, "a signature line is malformed")
            signatures.append((self.named(name), data[:4], data[4:]))
        need(len({each[:2] for each in signatures}) == len(signatures) <= 100, "a note has too many signatures")
        return body + "\n", signatures

    def open_note(self, note, keys):
        """{key: time} of those of the keys that signed. A bad signature by one of them is refused."""
        known, signed = {key[:2]: key for key in keys if key[2] != ML_DSA}, {}
        for name, ident, signature in note[1]:
            key, text, time = known.get((name, ident)), note[0], None
            if key and key[2] == COSIGNATURE:
                time, signature = int.from_bytes(signature[:8], "big"), signature[8:]
                need(time < U63, "a cosignature's time is out of range")
                text = f"cosignature/v1\ntime {time}\n{text}"
            if key:
                verify_ed25519(key[3], text.encode(), signature)
                signed[key] = time
        need(signed, "a note has no signature by a key that counts")
        return signed

    def parse_checkpoint(self, text):
        """(origin, size, root) of a note's text."""
        lines = text.split("\n")
        need(len(lines) == 4 and not lines[3], "a checkpoint has not three lines")
        size, (root,) = self.read(lines[1], "u63"), self.hashes([lines[2]])
        need(size or root == sha256(), "an empty tree has another root")
        return self.named(lines[0]), size, root


class Policy(Notation):
    """evidence-policy.md, and tlog-policy by rules 21 to 23 of log.md; refuses with ValueError."""

    def __init__(self, data):
        need(len(data) <= 1 << 20, "it is too long")
        table = {"admin_threshold": 1, "monitors": [], "require": [], "nodes": [], "tsa": []}
        table = self.read(table | tomllib.loads(str(data, "utf-8")), "policy.toml")
        self.sha256, self.log, self.threshold = sha256(data).hex(), table["log"], table["admin_threshold"]
        self.admins, self.monitors, self.require = table["admins"], table["monitors"], table["require"]
        self.nodes, tsas = [node["vkey"] for node in table["nodes"]], [tsa["name"] for tsa in table["tsa"]]
        self.read_tlog(table["tlog_policy"])
        self.witnesses = {name: key for name, key in self.parts.items() if len(key) == 4}
        for keys, types_, most in (
            (self.logs, {ED25519, ML_DSA}, 256),
            (self.witnesses.values(), {COSIGNATURE, ML_DSA}, 256),
            ([self.parse_key(text) for text in self.admins], {ED25519}, 64),
            ([self.parse_key(text) for text in self.nodes], {ED25519}, 4096),
        ):
            need(len({key[3] for key in keys}) == len(keys) <= most, "there are too many keys, or one is twice")
            need({key[2] for key in keys} <= types_, "a key is of another type")
        for roots in (tsa["roots"] for tsa in table["tsa"]):
            need(re.search(PEM, roots) and len(roots.encode()) <= 1 << 18, "roots: no PEM certificate, or too many")
        for names in (self.monitors, self.require, tsas):
            need(len(set(names)) == len(names), f"{names} has one twice")
        need(all(map(self.is_origin, self.logs)), "the key of a log is not named LOG/N")
        need(any(key[2] == ED25519 for key in self.logs), "no log has a key of type 0x01")
        need(1 <= self.threshold <= len(self.admins), "admin_threshold is no number of admins")
        need(self.witnesses.keys() >= set(self.monitors) and len(tsas) <= 16, "monitors: no witness; or too many tsa")
        need({"monitor"}.issuperset(self.require), "require: a word unknown, or of what this program does not check")
        able = {name for name, key in self.witnesses.items() if key[2] != ML_DSA}
        need(self.met(able), "the quorum needs ML-DSA-44, which this program does not check")
        need(not self.require or able & {*self.monitors}, "a monitor is required, and none can be checked")

    def read_tlog(self, text):
        need(not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text), "tlog_policy: control characters")
        self.logs, self.parts, self.quorum, free = [], {"none": (0, ())}, None, set()
        for line in self.lines(text.encode()):
            match words := re.findall(r"[^ \t]+", line):
                case ["log", key, *url] if len(url) < 2:
                    self.logs.append(self.parse_key(key))
                case ["witness", name, key, *url] if len(url) < 2 and name not in self.parts:
                    self.parts[name] = self.parse_key(key)
                    free.add(name)
                case ["group", name, count, *of] if of and name not in self.parts:
                    count = self.read({"any": "1", "all": str(len(of))}.get(count, count), "u63")
                    fits = 1 <= count <= len({*of}) == len(of) and free.issuperset(of)
                    need(fits, f"tlog_policy: {line!r:.80} is refused")
                    self.parts[name], free = (count, of), free - {*of} | {name}
                case ["quorum", name] if not self.quorum and name in self.parts:
                    self.quorum = name
                case _:
                    need(not words or words[0][0] == "#", f"tlog_policy: {line!r:.80} is refused")
        need(self.quorum and sum(len(part) == 2 for part in self.parts.values()) <= 257, "tlog_policy: quorum, groups")

    def is_origin(self, key):
        return re.fullmatch(re.escape(self.log) + "/[1-9][0-9]{0,9}", key[0])

    def met(self, names, what=None):
        """Whether witnesses of these names make the quorum."""
        part = self.parts[what := what or self.quorum]
        return what in names if len(part) == 4 else sum(self.met(names, each) for each in part[1]) >= part[0]


def zip_headers(name, size, crc, offset):
    """A file's local and central header: rule 2."""
    large, far = size >= FULL, offset >= FULL
    version, fields = 45 if large or far else 20, struct.pack("<QQ", size, size) * large
    common = (version, 0, 0, 0, 33, crc, min(size, FULL), min(size, FULL), len(name))
    local = struct.pack("<4s5H3IHH", b"PK\3\4", *common, 20 * large) + name
    local += struct.pack("<HH", 1, 16) * large + fields
    fields += struct.pack("<Q", offset) * far
    extra = struct.pack("<HH", 1, len(fields)) + fields if fields else b""
    rest = (len(extra), 0, 0, 0, 0, min(offset, FULL))
    return local, struct.pack("<4s6H3I5HII", b"PK\1\2", version, *common, *rest) + name + extra


def zip_end(count, size, offset):
    """Rule 3."""
    end = (b"PK\5\6", 0, 0, count, count, size, min(offset, FULL), 0)
    far = (b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset, b"PK\6\7", 0, offset + size, 1)
    return struct.pack("<4sQHHIIQQQQ4sIQI", *far) * (offset >= FULL) + struct.pack("<4s4HIIH", *end)


class Verifier(Notation, Tree):
    """The steps of bundle.md, each a method of its name, and what they have found so far."""

    def __init__(self, data, policy):
        self.data, self.policy, self.findings, self.steps, self.where = memoryview(data), policy, [], {}, {}
        self.files, self.session, self.size, self.head, self.heads = {}, None, None, None, []
        self.raw, self.entries, self.given, self.opened, self.sealed, self.chain = {}, {}, [], {}, {}, []
        self.node_attested, self.withheld, self.absent, self.bounds = [], [], [], []
        self.monitored = False

    def run(self):
        """The verdict: the gravest of the findings'."""
        stopped = False
        for self.step in STEPS:
            self.where, before, work = {}, len(self.findings), getattr(self, self.step.replace("-", "_"))
            steps = (self.attempt, work) if self.step not in BY_EPOCH else (self.each, BY_EPOCH[self.step], work)
            state = NOT_CHECKED if stopped else steps[0](*steps[1:]) or PASS
            failed = any(found["verdict"] in ("tampered", "incomplete") for found in self.findings[before:])
            self.steps[self.step] = FAIL if failed else state
            stopped = stopped or (failed and self.step in FINAL)
        verdicts = [found["verdict"] for found in self.findings]
        return next((each for each in ("tampered", "incomplete", "deleted") if each in verdicts), "verified")

    def find(self, verdict, text):
        where = {"session": self.session, **{name: self.where.get(name) for name in ("object", "epoch", "frames")}}
        self.findings.append({"verdict": verdict, "step": self.step, **where, "reason": text})

    def attempt(self, work, *arguments):
        try:
            return work(*arguments)
        except (ValueError, RecursionError) as error:
            self.find("tampered", str(error))
            return FAIL

    def each(self, file, work):
        """Does the work for each epoch that has passed the steps before."""
        states = {}
        for epoch in self.chain:
            self.where = {"object": file.format(epoch.n), "epoch": epoch.n}
            states[epoch.n] = self.attempt(work, epoch) or PASS
        self.chain = [epoch for epoch in self.chain if states[epoch.n] != FAIL]
        least = [state for state in (NOT_CHECKED, NOT_PROVIDED, PASS) if state in states.values()]
        return least[0] if least else NOT_CHECKED

    def of(self, *kinds):
        return [(index, entry) for index, entry in self.entries.items() if entry["type"] in kinds]

    def form(self):
        data, at, last, central = self.data, 0, b"", b""
        while len(data) - at >= 30 and data[at : at + 4] == b"PK\3\4":
            size, length, extra = struct.unpack_from("<IHH", data, at + 22)
            begin = at + 30 + length + extra
            name = bytes(data[at + 30 : begin - extra])
            size = int.from_bytes(data[begin - 8 : begin], "little") if size == FULL else size
            content = data[begin : begin + size]
            local, header = zip_headers(name, len(content), zlib.crc32(content), at)
            need(len(content) == size and data[at:begin] == local, f"the ZIP header of {name[:80]}")
            need(name > last and len(self.files) < 65_534, f"{name[:80]}: order or number of files")
            self.files[str(name, "ascii")], last, at = content, name, begin + size
            central += header
        need(data[at:] == central + zip_end(len(self.files), len(central), at), "the end of the ZIP file")
        for name in ("README.txt", "SHA256SUMS", "bundle.json", "inclusion", "entries/0.json"):
            need(name in self.files, f"{name} is missing")
        for name, content in self.files.items():
            self.where = {"object": name}
            need(any(re.fullmatch(form, name) and len(content) <= FILES[form] for form in FILES), "no file of a bundle")
            number, other = (re.findall(r"/(\d+)", name) or "0")[0], name
            for old, new in ((".jsonl", ".paths"), (".tsr", ".pem")):
                other = name.replace(old, new) if name.endswith(old) else other.replace(new, old)
            need(name[0] == "k" or other in self.files, f"{other} is missing")
            need(int(number) < (U32 if name[0] in "fk" else U63), "its number is too large")
            need(name[0] not in "ct" or (f"checkpoints/{number}" in self.files and number > "0"), "no checkpoint")
        self.where = {"object": "SHA256SUMS"}
        sums = {f"{sha256(data).hex()}  {name}": name for name, data in self.files.items() if name != "SHA256SUMS"}
        wrong = sorted(sums[line] for line in sums.keys() - {*self.lines(self.files["SHA256SUMS"])})
        need(self.lines(self.files["SHA256SUMS"]) == list(sums), f"it has other lines; for {wrong} the sums differ")
        self.where = {"object": "bundle.json"}
        about = self.parse(self.files["bundle.json"], "bundle")
        self.session, self.size = about["session"], about["checkpoint"]
        need(f"checkpoints/{self.size}" in self.files, "the checkpoint is missing")

    def read_head(self, size):
        """A checkpoint of the log that the log has signed: rules 8, 9 and 22."""
        self.where = {"object": f"checkpoints/{size}"}
        body, _, lines = str(self.files[f"checkpoints/{size}"], "utf-8").rpartition("\n\n")
        lines, places = lines.split("\n"), []
        for line in self.lines(self.files.get(f"checkpoints/{size}.mldsa", b"")):
            place, _, line = line.partition(" ")
            places.append(self.read(place, "u63"))
            lines.insert(places[-1], line)
        note = self.parse_note(f"{body}\n\n" + "\n".join(lines))
        long = [place for place, (_, _, data) in enumerate(note[1]) if len(data) == 2428]
        need(long == places, "lines of ML-DSA-44 are in the other file, or at another place")
        need(places or f"checkpoints/{size}.mldsa" not in self.files, "its .mldsa is empty")
        origin, stated, root = self.parse_checkpoint(note[0])
        need(stated == size and self.policy.is_origin([origin]), "it is of another log or size")
        signed = self.open_note(note, [*self.policy.logs, *self.policy.witnesses.values()])
        need(any(key[::2] == (origin, ED25519) for key in signed), "the log has not signed it")
        times = {name: signed[key] for name, key in self.policy.witnesses.items() if key in signed}
        by = [time for time in times.values() if self.policy.met({name for name in times if times[name] <= time})]
        time = min(by, default=None) if self.policy.quorum != "none" else None
        return types.SimpleNamespace(origin=origin, size=size, root=root, times=times, time=time)

    def checkpoint(self):
        self.head = self.read_head(self.size)
        self.heads.append(self.head)

    def witnesses(self):
        if not self.policy.met(self.head.times):
            self.find("incomplete", "the checkpoint lacks the policy's quorum")
        return NOT_PROVIDED if self.policy.quorum == "none" else PASS

    def ml_dsa(self):
        return NOT_CHECKED if f"checkpoints/{self.size}.mldsa" in self.files else NOT_PROVIDED

    def monitor(self):
        self.monitored = not self.head.times.keys().isdisjoint(self.policy.monitors)
        if self.policy.require and not self.monitored:
            self.find("incomplete", "no monitor of the policy has cosigned the checkpoint")
        return PASS if self.monitored else NOT_PROVIDED

    def consistency(self):
        sizes = {int(name[12:]) for name in self.files if re.fullmatch("checkpoints/[0-9]+", name)} - {self.size}
        for size in sorted(sizes):
            self.attempt(self.read_smaller, size)
        self.heads.sort(key=lambda head: head.size)
        need(f"checkpoints/{self.size}.consistency" not in self.files, "the checkpoint needs no proof")
        return PASS if sizes else NOT_PROVIDED

    def read_smaller(self, size):
        head, name = self.read_head(size), f"checkpoints/{size}.consistency"
        need(size < self.size and head.origin == self.head.origin, "it is not an earlier one of the checkpoint's log")
        need(name in self.files, f"{name} is missing")
        proof = self.hashes(self.lines(self.files[name]))
        need(self.consistent(size, self.size, proof, head.root) == (head.root, self.head.root), f"{name}: other roots")
        need(not proof, f"{name} has hashes left over")
        self.heads.append(head)

    def timestamps(self):
        return NOT_CHECKED if any(name.endswith(".tsr") for name in self.files) else NOT_PROVIDED

    def inclusion(self):
        found = sorted(int(name[8:-5]) for name in self.files if name.startswith("entries/"))
        self.raw = {index: bytes(self.files[f"entries/{index}.json"]) for index in found}
        need(found[-1] < self.size and len(found) <= 50_000, "entries are too many, or behind the checkpoint")
        self.where = {"object": "inclusion"}
        rest = self.hashes(self.lines(self.files["inclusion"]))[::-1]
        need(self.proven(0, self.size, found, rest) == self.head.root, "the entries are not those of the checkpoint")
        need(not rest, "there are hashes left over")

    def proven(self, lo, hi, indexes, rest):
        need(indexes or rest, "there are hashes missing")
        if not indexes:
            return rest.pop()
        if hi - lo == 1:
            return sha256(b"\0", self.raw[lo])
        middle = lo + (1 << (hi - lo - 1).bit_length() - 1)
        left = self.proven(lo, middle, [index for index in indexes if index < middle], rest)
        return sha256(b"\1", left, self.proven(middle, hi, [index for index in indexes if index >= middle], rest))

    def records(self):
        for index, raw in self.raw.items():
            self.where, kind = {"object": f"entries/{index}.json"}, self.parse(raw).get("type")
            need(kind in RECORDS + STATEMENTS, f"an entry of the type {kind!r:.80}")
            entry = self.entries[index] = self.parse(raw, kind) if kind in RECORDS else self.statement(raw, kind)
            need((kind == "log") == (index == 0), "the first entry, and no other, is of the type log")
            need(entry.get("log", self.policy.log) == self.policy.log, "it names another log")
            need(kind != "log" or f"{entry['log']}/{entry['number']}" == self.head.origin, "it is of another shard")
            self.fits(entry, kind)
            need(kind != "heartbeat" or entry["index"] == index, "it is a heartbeat of another place")
            foreign = kind in ("session-open", "session-seal", "incident") and entry["session"] != self.session
            need(not foreign, "it is of another session")
        ids = [entry["id"] for _, entry in self.of(*STATEMENTS)]
        need(len(set(ids)) == len(ids), "two statements have one id")

    def fits(self, entry, kind):
        """What members of one entry say of each other: records.md; segments.md, rules 7, 12 and 13."""
        if kind == "log":
            number, before = entry["number"], entry["before"]
            need((number == 1) == (not before), "its before")
            before = before and self.parse_checkpoint(self.parse_note(before)[0])[0]
            need(not before or before == f"{entry['log']}/{number - 1}", "its before is of another shard")
        elif kind == "segment":
            need((entry["n"] == 0) == (entry["prev"] == "0" * 64), "its prev is of another n")
            need(entry["bus"]["first"] <= entry["bus"]["next"] and len(entry["replaces"]) <= 512, "its bus or replaces")
            found = re.fullmatch(OBJECT % (entry["tenant"], entry["class"]["name"]), entry["object"])
            need(found and datetime.date.fromisoformat(found[1]) and int(found[2]) < U63, "its object")
        elif kind == "session-seal":
            need(max(entry["lost"], entry["attested"]) <= entry["frames"], "it lost or attests more than it has")
            need((entry["attested"] == 0) == (entry["checkpoint_sha256"] == "0" * 64), "its checkpoint_sha256")
            need(bool(entry["lost"]) == (not entry["root"]) and entry["fragments"]["count"], "its root or fragments")
            need(entry["first_ts_ns"] <= entry["last_ts_ns"], "its times")

    def statement(self, raw, kind):
        note = self.parse_note(self.parse(raw, "entry")["statement"])
        said = self.parse(note[0].removesuffix("\n").encode(), kind)
        sessions, objects = said.get("sessions", ["one"]), said.get("objects", [])
        need(sessions == sorted(set(sessions)) and 1 <= len(sessions) <= 1000, "its sessions are not in order")
        need(len(objects) <= 500, "it has too many objects")
        need("basis" not in said or (said["basis"] == "expired") == (said["matter"] == "0" * 64), "its matter")
        if kind == "key":
            which = said["since"] is not None, bool(said["replaces"])
            need(which == (said["action"] == "revoke", said["action"] == "rotate"), "its since or replaces")
            need(said["replaces"] != said["key"], "it replaces itself")
        return said | {"note": note}

    def counting(self, role, index):
        """The keys of a role whose signatures count at an index: rules 26 and 28."""
        texts, ended = {*{"admin": self.policy.admins, "node": self.policy.nodes}.get(role, ())}, set()
        for at, key in self.given:
            if at < index and key["role"] == role and key["action"] != "revoke":
                texts.add(key["key"])
            if (at if key["since"] is None else key["since"]) <= index and (at < index or role != "admin"):
                ended.add(key["key"] if key["action"] == "revoke" else key["replaces"])
        keys = []
        for text in texts - ended:
            try:
                keys.append(self.parse_key(text))
            except ValueError:
                continue  # what nobody can read verifies nothing
        return [key for key in keys if key[2] == ED25519]

    def counts(self, index, said):
        """Whether the statement has the signatures it needs: rules 26, 28 and 42."""
        reaper = said["type"] == "tombstone-done" or said.get("basis") == "expired"
        two = said["type"] == "release" or said.get("basis") == "erasure"
        try:
            signed = self.open_note(said["note"], self.counting("reaper" if reaper else "admin", index))
        except ValueError:
            return False
        return len({key[3] for key in signed}) >= (1 if reaper else max(self.policy.threshold, 1 + two))

    def keys(self):
        for index, key in self.of("key"):
            if self.counts(index, key):
                self.given.append((index, key))
            else:
                self.find("note", f"the key statement of entry {index} does not count")
        beats = self.of("heartbeat")[-1:]
        if not beats or beats[0][0] < max(index for index, _ in self.of("log", "session-open", "session-seal")):
            self.find("incomplete", "no heartbeat follows the session: a revocation could be left out")
        for index, beat in beats:
            self.where = {"object": f"entries/{index}.json"}
            keys = self.root_over([self.raw[at] for at, _ in self.of("key") if at < index])
            need(beat["keys"] == keys, "its keys are not the key entries of the bundle")

    def seals(self):
        for kind, found in (("session-open", self.opened), ("session-seal", self.sealed)):
            for index, entry in self.of(kind):
                if entry["epoch"] in found:
                    self.find("tampered", f"epoch {entry['epoch']} has a second {kind}, entry {index}")
                found.setdefault(entry["epoch"], (index, entry))
        numbers = {*self.opened, *self.sealed}
        for n in sorted(numbers):
            self.where = {"epoch": n}
            self.attempt(self.pair, n)
        self.where = {}
        need(numbers and numbers == {*range(len(numbers))}, "the session has no epochs, or not all")
        same = ("of", "tenant", "node", "boot", "worker", "number")
        whose = {tuple(entry[name] for name in same) for _, entry in self.opened.values()}
        need(len(whose) == 1, "its epochs are of two tenants, nodes or numbers")
        others = [name for name in self.files if name[0] in "fk" and int(re.sub(r"\D", "", name)) not in numbers]
        need(not others, f"there are files of other epochs: {others}")
        _, end = self.sealed.get(max(numbers), (0, None))
        if end and not (end["closed"] and end["attested"] == end["frames"]):
            self.find("incomplete", "the last epoch was not closed, or its key has not signed its end")

    def pair(self, n):
        (opened, entry), (sealed, seal) = self.opened.get(n, (0, None)), self.sealed.get(n, (U63, None))
        need(entry and opened < sealed, "its seal has no session-open before it")
        same = not seal or all(seal[name] == entry[name] for name in ("tenant", "class", "opening_sha256"))
        need(same, "its seal is of another OPEN")
        if not seal or seal["lost"]:
            self.find("incomplete", "frames were lost" if seal else "it is not sealed")
        epoch = types.SimpleNamespace(n=n, opened=opened, open=entry, sealed=sealed, seal=seal, records=[])
        epoch.kept, epoch.commitments, epoch.clock, epoch.closed = {}, {}, -U63, False
        epoch.key = epoch.beacon = None
        self.chain.append(epoch)

    def fragments(self, epoch):
        file, seal, end, lost, tree = self.where["object"], epoch.seal, 0, 0, []
        need(not seal or file in self.files, "it is missing")
        if file not in self.files:
            return NOT_PROVIDED
        lines, paths = bytes(self.files[file]).split(b"\n"), self.lines(self.files[f"fragments/{epoch.n}.paths"])
        need(lines.pop() == b"" and len(lines) == len(paths) > 0, "it has not a path for each record")
        for line, path in zip(lines, paths, strict=True):
            record = self.parse(line, "fragment", 65_536)
            lo, hi, signed, rows = record["lo"], record["hi"], record["checkpoint"], record["rows"]
            self.where["frames"] = [lo, hi]
            gaps = [[gap["lo"], gap["hi"]] for gap in record["gaps"]]
            need(end <= lo < hi and gaps == [[end, lo]] * (lo > end), "the record does not follow the one before")
            need(not signed or lo < signed["size"] <= hi, "its checkpoint is of a size outside of it")
            need(len(rows) == 2 and rows[1] - rows[0] == hi - lo, "its rows are not as many as its frames")
            tree = self.extended(tree if lo == end else [], lo, hi, map(bytes.fromhex, record["nodes"]))
            epoch.records.append(record | {"segment": self.segment(epoch, record, line, path), "root": None})
            end, lost = hi, lost + lo - end
        del self.where["frames"]
        if seal:
            mine = {"fragments": self.root_over(lines), "frames": end, "lost": lost}
            mine |= {"root": "" if lost else self.root(tree).hex()}
            mine |= {"first_ts_ns": epoch.records[0]["first_ts_ns"], "last_ts_ns": epoch.records[-1]["last_ts_ns"]}
            wrong = [name for name, value in mine.items() if seal[name] != value]
            need(not wrong, f"the seal states other {wrong}")
        return None

    def segment(self, epoch, record, line, path):
        """The index of the segment's entry to which a record's path leads: rules 16 and 31."""
        index, place, *path = (path + " " * (" " not in path)).split(" ")
        index, place, opened = self.read(index, "u63"), self.read(place, "u63"), epoch.open
        entry = self.entries.get(index, {"type": None})
        need(entry["type"] == "segment" and index < epoch.sealed, "its path names no segment before the seal")
        need(entry["class"] == opened["class"] and entry["tenant"] == opened["tenant"], "its segment is another's")
        mine = (self.session, epoch.n, opened["tenant"], opened["class"]["name"])
        need(tuple(record[name] for name in ("session", "epoch", "tenant", "class")) == mine, "it is another's")
        root = self.included(sha256(b"\0", line), place, entry["fragments"]["count"], self.hashes(path))
        need(root.hex() == entry["fragments"]["root"], "its path leads to another root")
        return index

    def frames(self, epoch):
        data, at, tree, end = self.files.get(f"frames/{epoch.n}.bin", b""), 0, [], 0
        for record in epoch.records:
            lo, hi, signed = record["lo"], record["hi"], record["checkpoint"]
            self.where["frames"], nodes = [lo, hi], [*map(bytes.fromhex, record["nodes"])]
            record["absent"] = at == len(data) or int.from_bytes(data[at + 28 : at + 36], "big") >= hi
            if record["absent"]:
                self.missing(epoch, record)
                cut = nodes if signed and signed["size"] == hi else None
            else:
                at, cut = self.present(epoch, record, data, at)
            tree = tree if lo == end else None
            if tree is not None:
                record["root"] = cut and self.root(self.extended(tree, lo, signed["size"], cut))
                tree = self.extended(tree, lo, hi, nodes)
            end = hi
        need(at == len(data), "something follows the frames")

    def missing(self, epoch, record):
        self.absent.append([epoch.n, record["lo"], record["hi"]])
        segment = sha256(self.raw[record["segment"]]).hex()
        gone = any(segment in done["objects"] and done["index"] > epoch.opened for done in self.deletions)
        need(gone, "the frames are missing, and no deletion names their segment")
        need(epoch.clock <= record["first_ts_ns"] <= record["last_ts_ns"], "times run backwards")
        epoch.clock = record["last_ts_ns"]

    def present(self, epoch, record, data, at):
        """Reads a fragment's frames. Where the next one's begin, and the range up to the checkpoint's size."""
        tree, total, times, cut, signed = [], 0, [], None, record["checkpoint"]
        for seq in range(record["lo"], record["hi"]):
            self.where["frames"] = [seq, seq + 1]
            time, length, leaf, at = self.frame(epoch, seq, data, at)
            need(epoch.clock <= time, "times run backwards")
            epoch.clock, total, times = time, total + length, [*times[:1], time]
            self.push(tree, seq, 1, leaf)
            cut = [digest for _, _, digest in tree] if signed and signed["size"] == seq + 1 else cut
        self.where["frames"] = [record["lo"], record["hi"]]
        need([digest.hex() for _, _, digest in tree] == record["nodes"], "the frames are not those of the record")
        stated = (record["first_ts_ns"], record["last_ts_ns"], record["bytes"])
        need((times[0], times[-1], total) == stated, "the record states other times or bytes")
        return at, cut

    def frame(self, epoch, seq, data, at):
        """The frame, its leaf, and where the next one begins: rules 17, 32 and 33."""
        header, size = bytes(data[at : at + 84]), int.from_bytes(data[at + 84 : at + 88], "big")
        need(len(data) - at >= 88, "the file ends inside of a frame")
        magic, session, n, place, ts, kind, suite, flags, length, digest = FRAME.unpack(header)
        mine = (b"SEALFRM1", self.session, epoch.n, seq)
        need((magic, session.hex(), n, place) == mine and length <= 1 << 20, "its header is of another frame")
        payload = None if size == FULL else data[at + 88 : at + 88 + size]
        if payload is None:
            need(suite, "a public payload is withheld")
            follows = self.withheld and self.withheld[-1][::2] == [epoch.n, seq]
            self.withheld.append([epoch.n, self.withheld.pop()[1] if follows else seq, seq + 1])
        else:
            need(len(payload) == size == length and sha256(payload) == digest, "its payload is not the header's")
        need((kind == OPEN) == (seq == 0) and (kind == IDENT) == (seq == 1), "OPEN, IDENT or another at a wrong place")
        need(not 0 < kind < 9 or (suite == 0) == (kind in PUBLIC), "its suite is none of its kind")
        need(length >= {1: 32, 2: 48}.get(suite, 0), "its payload is too short")
        need(not epoch.closed, "it follows CLOSE")
        if suite > 2 or flags or kind == GAP or (kind < 128 and not 0 < kind < 9):
            self.find("incomplete", f"a gap, or unknown to this program: kind {kind}, suite {suite}, flags {flags}")
        last, epoch.closed = epoch.records[-1]["hi"] - 1, kind == CLOSE
        if seq in (0, 1, last):
            text = None if flags or payload is None else bytes(payload)
            epoch.kept[seq] = types.SimpleNamespace(kind=kind, digest=digest.hex(), text=text)
        if suite == 2 and payload is not None and f"keys/{epoch.n}.jsonl" in self.files:
            epoch.commitments[seq] = bytes(payload[:32])
        return ts, length, sha256(b"\0", header), at + 88 + (0 if payload is None else size)

    def certificate(self, epoch):
        opened, first, second = epoch.open, epoch.kept.get(0), epoch.kept.get(1)
        if not first:
            return NOT_PROVIDED
        self.where["frames"] = [0, 1]
        need(first.digest == opened["opening_sha256"], "OPEN is not the one of session-open")
        if first.text is None:
            return NOT_CHECKED  # its flags forbid to read it
        need(len(first.text) <= 262_144, "OPEN is too long")
        note = self.parse_note(str(first.text, "utf-8"))
        opening = self.parse(note[0].removesuffix("\n").encode(), "OPEN", 262_144)
        mine = opened | {"type": opened["of"], "log": self.policy.log}
        mine["ident_sha256"] = second.digest if second else opening["ident_sha256"]
        wrong = [name for name in opening if opening[name] != mine.get(name, opening[name])]
        need(not wrong, f"OPEN states another {wrong}")
        need((opening["type"] == "journal") == (opening["number"] == 0), "number 0 is the journal's")
        salted = opening["suite"] in (1, 2) and len(self.bytes_of(opening["salt"])) == 32 * (opening["suite"] - 1)
        need(salted, "its suite or salt")
        key, epoch.origin = self.parse_key(opening["key"]), f"{self.policy.log}/session/{self.session}/{epoch.n}"
        need(key[::2] == (epoch.origin, ED25519), "its key is not named for the epoch")
        signed = self.open_note(note, self.counting("node", epoch.opened))
        need(any(f"/{name}".endswith(f"/{opened['node']}") for name, *_ in signed), "the node has not signed OPEN")
        epoch.key, epoch.beacon = key, opening["beacon"]
        return PASS

    def signatures(self, epoch):
        if not epoch.key:
            return NOT_PROVIDED if 0 not in epoch.kept else NOT_CHECKED
        largest, seal = (0, "0" * 64), epoch.seal
        for record in epoch.records:
            self.where["frames"], signed = [record["lo"], record["hi"]], record["checkpoint"]
            if signed:
                note = self.parse_note(signed["note"])
                origin, size, root = self.parse_checkpoint(note[0])
                need((origin, size) == (epoch.origin, signed["size"]), "its checkpoint is of another tree or size")
                self.open_note(note, [epoch.key])
                need(root == (record["root"] or root), "its checkpoint has another root than the frames")
                largest = size, sha256(signed["note"].encode()).hex()
        del self.where["frames"]
        stated = largest if not seal else (seal["attested"], seal["checkpoint_sha256"])
        need(stated == largest, "the seal's attested or checkpoint_sha256 is not the largest checkpoint's")
        return PASS

    def epochs(self, epoch):
        continues, n, seal = epoch.open["continues"], epoch.n, epoch.seal or {"frames": 0}
        end = epoch.kept.get(seal["frames"] - 1)
        if end:
            self.where["frames"] = [seal["frames"] - 1, seal["frames"]]
            need((end.kind == CLOSE) == bool(seal["closed"]), "the seal's closed and the last frame differ")
        if end and end.kind == CLOSE and end.text is not None:
            body = self.parse(end.text, "CLOSE", 262_144)
            need(body["reason"] == seal["closed"] and len(body["totals"]) == 4, "CLOSE has another reason")
            need(not body["attested"] or body["attested"]["from"] < body["attested"]["to"], "CLOSE attests nothing")
        need(bool(n) == bool(continues) and (not n or continues["epoch"] == n - 1), "continues names another epoch")
        if n and n - 1 in self.sealed:
            before = self.sealed[n - 1][1]
            same = before["lost"] or continues["root"] == before["root"]
            need(same and continues["size"] == before["frames"], "continues is not where the epoch before ends")
            if before["closed"]:
                self.find("incomplete", "it goes on after the epoch before was closed")
        if seal["frames"] > seal.get("attested", 0) and n + 1 in self.opened:
            self.node_attested.append([n, seal["attested"], seal["frames"]])

    def times(self):
        late = None
        for epoch in self.chain:
            before, self.where = None, {"epoch": epoch.n}
            for head in self.heads if epoch.beacon else []:
                if (head.origin, head.size) == (epoch.beacon["origin"], epoch.beacon["size"]):
                    need(head.root.hex() == epoch.beacon["root"], "OPEN's beacon is no checkpoint of this log")
                    before = head.time
            for record in epoch.records:
                after = next(iter(self.witnessed(record["segment"], U63)), None)
                bounds = {"epoch": epoch.n, "frames": [record["lo"], record["hi"]]}
                self.bounds.append(bounds | {"not_before": before, "not_after": after})
                late = NOT_PROVIDED if after is None else late
                self.where["frames"] = bounds["frames"]
                if after is not None and record["last_ts_ns"] > (after + 60) * 10**9:
                    self.find("note", "the node's clock was after the time when its segment was witnessed")
                if before is not None and record["first_ts_ns"] < (before - 60) * 10**9:
                    self.find("note", "the node's clock was before its beacon")
        return late if self.chain else NOT_CHECKED

    def witnessed(self, above, most):
        """The witnessed times of the checkpoints of these sizes, the smallest first."""
        return [head.time for head in self.heads if above < head.size <= most and head.time is not None]

    @functools.cached_property
    def decisions(self):
        said = self.of("hold", "release", "tombstone-intent", "tombstone-done")
        return [(index, entry) for index, entry in said if self.counts(index, entry)]

    @functools.cached_property
    def deletions(self):
        """The tombstone-done statements of deletions: rule 44."""
        intents = {said["id"]: index for index, said in self.intents()}
        done = [(index, said) for index, said in self.decisions if said["type"] == "tombstone-done"]
        return [said for index, said in done if intents.get(said["intent"], U63) == said["index"] < index]

    def intents(self):
        intents = [each for each in self.decisions if each[1]["type"] == "tombstone-intent"]
        return [(index, said) for index, said in intents if self.session in said["sessions"]]

    def held(self, index):
        """Rule 43."""
        mine = [(at, said) for at, said in self.decisions if at < index and self.session in said.get("sessions", ())]
        free = {(said["hold"], at) for at, said in mine if said["type"] == "release"}
        holds = [(said["id"], at) for at, said in mine if said["type"] == "hold"]
        return any(all(of != hold or later < at for of, later in free) for hold, at in holds)

    def lifecycle(self):
        said = self.of("hold", "release", "tombstone-intent", "tombstone-done")
        named = [{entry["id"] for _, entry in self.of(kind)} for kind in ("hold", "tombstone-intent")]
        for index, entry in said:
            self.where = {"object": f"entries/{index}.json"}
            about = self.session in entry.get("sessions", ())
            if "hold" in entry or "intent" in entry:
                about = entry.get("hold") in named[0] or entry.get("intent") in named[1]
            if not about:
                self.find("tampered", f"the {entry['type']} is not about the session")
            if (index, entry) not in self.decisions:
                self.find("note", f"the {entry['type']} does not count")
        for index, entry in self.intents():
            self.where = {"object": f"entries/{index}.json"}
            self.attempt(self.intent, index, entry)
        self.where = {}
        if self.deletions and self.monitored and self.policy.met(self.head.times):
            self.find("deleted", "the session was deleted by policy")
        elif self.deletions:
            self.find("incomplete", "the session was deleted, and quorum or monitor are missing")
        return PASS if self.decisions else NOT_PROVIDED

    def intent(self, index, said):
        """Rule 45."""
        need(not self.held(index), "the session was to be deleted while it was held")
        if said["basis"] == "expired":
            last = max((n for n, (opened, _) in self.opened.items() if opened < index), default=-1)
            at, seal = self.sealed.get(last, (U63, {"class": {}, "tenant": ""}))
            terms = [seal["class"].get("retain_for_s", 0)]
            for place, policy in self.of("policy"):
                same = (policy["tenant"], policy["class"]["name"]) == (seal["tenant"], seal["class"].get("name"))
                if same and place < index and self.counts(place, policy):
                    terms.append(policy["class"]["retain_for_s"])
            sealed, before, after = self.witnessed(at, U63), self.witnessed(0, index), self.witnessed(index, U63)
            over = sealed[0] + max(terms) if sealed else U63
            if not before or before[-1] < over:
                early = sealed and after and after[0] < over
                self.find("tampered" if early else "incomplete", "its term was not over, or nothing shows that it was")

    def payloads(self, epoch):
        """Rules 18 and 47: the keys are those to which the frames commit. Nothing is decrypted."""
        if self.where["object"] not in self.files:
            return NOT_PROVIDED
        lines, before = bytes(self.files[self.where["object"]]).split(b"\n"), -1
        need(lines.pop() == b"" and lines, "it has no lines, or the last one has no end")
        for line in lines:
            given = self.parse(line, "frame-key")
            seq, key = given["seq"], bytes.fromhex(given["key"])
            self.where["frames"] = [seq, seq + 1]
            need(seq > before and seq in epoch.commitments, "it is out of order, or not of an encrypted frame")
            need(epoch.commitments[seq] == sha256(b"sealtape/1 commit", key), "the frame commits to another key")
            before = seq
        return PASS


def utc(seconds):
    if seconds is None or seconds >= 1 << 37:
        return str(seconds)
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def report(verifier):
    """What rule 48 asks for."""
    verdict, head, bounds = verifier.run(), verifier.head, verifier.bounds
    for each in bounds:
        each |= {name: utc(each[name]) for name in ("not_before", "not_after")}
    return {
        "verdict": verdict,
        "policy_sha256": verifier.policy.sha256,
        "session": verifier.session,
        "checkpoint": head and {"origin": head.origin, "size": head.size, "root": head.root.hex()},
        "witnesses": {name: utc(time) for name, time in head.times.items()} if head else {},
        "steps": verifier.steps,
        "findings": verifier.findings,
        **{name: getattr(verifier, name) for name in ("node_attested", "withheld", "absent")},
        "fragments": bounds,
    }


def show(found):
    lines = [f"{name:13} {found[name]}" for name in ("policy_sha256", "session", "checkpoint", "witnesses")]
    lines += [f"  {step:13} {state}" for step, state in found["steps"].items()]
    for name in ("node_attested", "withheld", "absent", "fragments"):
        lines += [f"{name:13} {each}" for each in found[name]]
    for each in found["findings"]:
        where = [f"{name} {each[name]}" for name in ("session", "object", "epoch", "frames") if each[name] is not None]
        lines.append(f"{each['verdict'].upper()} {each['step']}: {', '.join(where)}: {each['reason']}")
    for line in [*lines, f"verdict       {found['verdict']}"]:
        print(line.encode("unicode_escape").decode())  # what comes with the evidence moves no terminal


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Verifies an evidence bundle of Sealtape, offline.")
    parser.add_argument("bundle")
    parser.add_argument("--policy", required=True, help="whose signatures count: evidence-policy.md")
    parser.add_argument("--json", action="store_true")
    try:
        options = parser.parse_args(arguments)
        policy = Policy(pathlib.Path(options.policy).read_bytes())
        with pathlib.Path(options.bundle).open("rb") as file:
            empty = not file.seek(0, 2)
            data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except SystemExit as stop:
        return EXIT["usage"] if stop.code else 0
    except (OSError, ValueError, RecursionError) as error:
        print(f"sealtape_verify: no verdict: {error}", file=sys.stderr)
        return EXIT["usage"]
    found = report(Verifier(data, policy))
    try:
        print(json.dumps(found, indent=2)) if options.json else show(found)
        sys.stdout.flush()
    except OSError:  # whoever reads it has left, or has no room: the exit code still is the verdict
        sys.stdout = None
    return EXIT[found["verdict"]]


if __name__ == "__main__":
    sys.exit(main())
