"""Sessions put together frame by frame, for tests that need odd ones (see also `sessions`)."""

import struct

from sealtape.capture.postgres.codec import snapshot
from sealtape.capture.postgres.codec.rows import Replay
from sealtape.schemas import facts, slices
from sealtape.schemas.bodies import Close, Gap, Ident, StateBody
from sealtape.schemas.frames import Kind
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, TARGET_IN, TARGET_OUT, Hole, Slice
from tests.factories.sessions import STANDARD, START_NS, _Builder, node_signer, reader


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


def query(text: str) -> bytes:
    return message(b"Q", text.encode() + b"\0")


def answer(*values: str) -> bytes:
    column = b"name\0" + struct.pack(">ihihih", 0, 0, 25, -1, -1, 0)
    rows = [
        message(b"D", struct.pack(">hi", 1, len(value.encode())) + value.encode())
        for value in values
    ]
    tag = f"SELECT {len(values)}".encode()
    return (
        message(b"T", struct.pack(">h", 1) + column)
        + b"".join(rows)
        + message(b"C", tag + b"\0")
        + message(b"Z", b"I")
    )


class Tape:
    """A session put together frame by frame, with what crossed each leg kept beside it."""

    def __init__(self, seed=1, protocol="postgres", encrypt=True, parameters=()):
        self.build = _Builder(
            session=bytes([seed]) * 16,
            epoch=0,
            seed=seed,
            encrypt=encrypt,
            start_ns=START_NS,
            checkpoint_every=8,
        )
        if encrypt:
            for private, label in (
                (reader("auditor"), "data"),
                (reader("auditor"), "facts"),
                (reader("indexer"), "facts"),
            ):
                self.build.wrap(private, label, "main", "standard")
        ident = Ident("ada", "shop", protocol, "node-1", parameters=parameters)
        node = node_signer()
        self.build.begin(ident, node, tenant="main", retention=STANDARD, number=1, continues=None)
        self.session = self.build.session
        self.codec = Replay()
        self.legs = [b"", b"", b"", b""]
        self.statements = []
        self.n = 0

    @property
    def seq(self):
        return self.build.sealer.next_seq

    def slice(self, leg, data, replaces=0):
        piece = slices.encode_slice(leg, 0, len(self.legs[leg]), data, replaces)
        at = Slice(leg, START_NS, len(self.legs[leg]), data)
        self.codec.feed(at)
        self.legs[leg] += data
        if leg == CLIENT_IN:
            self.legs[TARGET_OUT] += data
        if leg == TARGET_IN:
            self.legs[CLIENT_OUT] += data
        return piece

    def data(self, *pieces):
        self.build.frame(Kind.DATA, slices.encode_data(pieces, len(pieces)))

    def facts(self, *encoded):
        self.build.frame(Kind.FACTS, facts.encode_facts((0, 0, 0, 0), encoded))

    def begun(self, text):
        """A COMMAND fact alone; returns its number."""
        head = facts.encode_head(self.n, facts.COMMAND, 0, CLIENT_IN, 0, len(text))
        self.facts(facts.encode_fact(head, statement=facts.encode_statement(text)))
        self.n += 1
        return self.n - 1

    def ended(self, ref, **tail):
        """A RESULT fact alone."""
        head = facts.encode_head(self.n, facts.RESULT, 0, ref=ref)
        self.facts(facts.encode_fact(head, tail=facts.encode_tail(**tail)))
        self.n += 1

    def command(self, text, *values):
        """One statement: a DATA frame, then its facts; returns the seqs of both."""
        offset = len(self.legs[CLIENT_IN])
        seq = self.seq
        sent = query(text)
        self.data(self.slice(CLIENT_IN, sent), self.slice(TARGET_IN, answer(*values)))
        head = facts.encode_head(self.n, facts.COMMAND, 0, CLIENT_IN, offset, len(sent))
        self.n += 1
        self.build.frame(Kind.FACTS, facts.encode_facts((0, 0, 0, 0), [facts.encode_fact(head)]))
        self.statements.append(text)
        return seq, self.seq - 1

    def state(self, parts=1):
        data = snapshot.dump(self.codec._watcher)
        size = -(-len(data) // parts)
        offsets = tuple(len(leg) for leg in self.legs)
        for part in range(parts):
            body = StateBody(
                "postgres/1", offsets, data[part * size : (part + 1) * size], part, parts
            )
            self.build.frame(Kind.STATE, body.to_json())

    def gap(self, **lengths):
        legs = []
        for name, length in sorted(lengths.items(), key=lambda each: each[0] != "client_in"):
            leg = slices.LEG_NAMES.index(name)
            legs.append(Hole(leg, len(self.legs[leg]), length))
        legs.sort(key=lambda hole: hole.leg)
        self.build.frame(Kind.GAP, Gap("spool", tuple(legs)).to_json())

    def close(self):
        self.build.frame(Kind.CLOSE, Close("client", (0, 0, 0, 0)).to_json())
        self.build.sign()
        self.frames = tuple(self.build.frames)
        self.messages = tuple(self.build.messages)
        return self
