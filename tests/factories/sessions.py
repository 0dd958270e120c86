"""Builds whole, valid sessions as bus messages, for tests of ingest, verify and the indexer.

    built = build_session(commands=5)
    await bus.append(bus.partition_of(built.session), built.encoded())

Each command is one DATA frame (a Query on client_in; RowDescription, a DataRow of `row_bytes`
random bytes, CommandComplete and ReadyForQuery on target_in) and, with `facts`, one FACTS frame
(its COMMAND and RESULT). Messages come in the order a recorder sends them: the wraps, OPEN, IDENT,
a checkpoint at size 2, then frames with a checkpoint every `checkpoint_every` frames and at CLOSE.
Everything but the wraps is determined by the arguments.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas import facts, messages, slices, wraps
from sealtape.schemas.bodies import Close, Continues, Ident, Opening, RetentionClass, make_open
from sealtape.schemas.frames import Frame, Kind, Suite
from sealtape.schemas.keys import FrameSealer, LabelKeys, derive_label_keys
from sealtape.schemas.messages import CheckpointMessage, KeyMessage, Message
from sealtape.schemas.notes import Checkpoint, Signer, session_origin
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.wraps import PrivateKey

__all__ = ["LOG", "STANDARD", "START_NS", "BuiltSession", "build_session", "node_signer", "reader"]

LOG = "sealtape.test/log"
DAY_S = 86_400
STANDARD = RetentionClass("standard", 90 * DAY_S, 400 * DAY_S)
START_NS = 1_790_000_000_000_000_000
STEP_NS = 1_000_000


def node_signer(name: str = "node-1", seed: int = 1) -> Signer:
    """The signing key of a capture node, the same for the same arguments."""
    return Signer(name, Ed25519PrivateKey.from_private_bytes(_bytes(f"node {name} {seed}", 32)))


def reader(purpose: str, seed: int = 1) -> PrivateKey:
    """The private key of an `auditor` or `indexer`, the same for the same arguments."""
    return wraps.private_key(purpose, wraps.X25519, _bytes(f"reader {purpose} {seed}", 32))


@dataclass(frozen=True)
class BuiltSession:
    """One epoch of a session, and what is needed to read and to check it."""

    session: bytes
    epoch: int
    opening: Opening
    ident: Ident
    frames: tuple[Frame, ...]
    messages: tuple[Message, ...]
    """In bus order: wraps, frames, checkpoints."""
    tree: CompactRange
    label_keys: LabelKeys | None
    """None without encryption."""
    node: Signer
    ephemeral: Signer
    auditor: PrivateKey
    indexer: PrivateKey

    @property
    def continues(self) -> Continues:
        """What a recovery epoch after this one states (its own end)."""
        return Continues(self.epoch, self.tree.hi, self.tree.root())

    def encoded(self) -> list[tuple[bytes, bytes]]:
        """(key, value) pairs for `Bus.append`."""
        return [(self.session, messages.encode(message)) for message in self.messages]

    def checkpoint(self, size: int) -> CheckpointMessage:
        """A checkpoint at any size, signed by the epoch's key."""
        tree = CompactRange()
        for frame in self.frames[:size]:
            tree.append(frame.leaf())
        return _checkpoint(self.ephemeral, self.session, self.epoch, tree)


def build_session(
    *,
    commands: int = 3,
    row_bytes: int = 100,
    facts_frames: bool = True,
    statements: Sequence[str] | None = None,
    seed: int = 0,
    session: bytes | None = None,
    epoch: int = 0,
    continues: Continues | None = None,
    user: str = "ada",
    target: str = "shop",
    tenant: str = "main",
    retention: RetentionClass = STANDARD,
    encrypt: bool = True,
    close: str | bytes | None = "client",
    checkpoint_every: int = 256,
    final_checkpoint: bool = True,
    number: int = 1,
    start_ns: int = START_NS,
    journal: bool = False,
    node: Signer | None = None,
    auditor: PrivateKey | None = None,
    indexer: PrivateKey | None = None,
) -> BuiltSession:
    """Build one (session, epoch).

    `commands` and `row_bytes` set its size: 3 frames and 1 a command, 2 with `facts_frames`.
    `statements` replaces the SQL texts. `close` None leaves the session live, bytes are CLOSE's
    body; `final_checkpoint` False leaves its last frames unsigned. For a recovery epoch give
    `session`, `epoch`, `continues` (`first.continues`) and a `seed` of its own. `journal` makes it
    a node's journal: then give `number` 0 and no `commands`.
    """
    build = _Builder(
        session=session or _bytes(f"session {seed}", 16),
        epoch=epoch,
        seed=seed,
        encrypt=encrypt,
        start_ns=start_ns,
        checkpoint_every=checkpoint_every,
    )
    node, auditor, indexer = (
        node or node_signer(),
        auditor or reader("auditor"),
        indexer or reader("indexer"),
    )
    if build.keys is not None:
        build.wrap(auditor, "data", tenant, retention.name)
        build.wrap(auditor, "facts", tenant, retention.name)
        build.wrap(indexer, "facts", tenant, retention.name)
    ident = Ident(
        user=user,
        target=target,
        protocol="postgres",
        node=node.verifier.name.rpartition("/")[2],
        groups=("dba",),
        issuer="https://issuer.test",
        source_ip="127.0.0.1",
        source_port=5,
        database=target,
    )
    opening = build.begin(
        ident,
        node,
        tenant=tenant,
        retention=retention,
        number=number,
        continues=continues,
        journal=journal,
    )
    for index in range(commands):
        text = statements[index] if statements else f"select {index} from orders"
        build.command(index, text, row_bytes, with_facts=facts_frames)
    if close is not None:
        build.frame(
            Kind.CLOSE,
            close
            if isinstance(close, bytes)
            else Close(reason=close, totals=build.totals(), commands=commands).to_json(),
        )
    if final_checkpoint:
        build.sign()
    return BuiltSession(
        session=build.session,
        epoch=epoch,
        opening=opening,
        ident=ident,
        frames=tuple(build.frames),
        messages=tuple(build.messages),
        tree=build.tree,
        label_keys=build.keys,
        node=node,
        ephemeral=build.ephemeral,
        auditor=auditor,
        indexer=indexer,
    )


class _Builder:
    """Frames, tree and messages of one epoch while they grow."""

    def __init__(
        self,
        *,
        session: bytes,
        epoch: int,
        seed: int,
        encrypt: bool,
        start_ns: int,
        checkpoint_every: int,
    ) -> None:
        name = f"{seed} {epoch}"
        self.session = session
        self.epoch = epoch
        self.random = random.Random(name)
        self.salt = _bytes("salt " + name, 32) if encrypt else b""
        self.keys = (
            derive_label_keys(_bytes("secret " + name, 32), self.salt, session, epoch)
            if encrypt
            else None
        )
        self.sealer = FrameSealer(session, epoch, self.keys, lambda: self.random.randbytes(32))
        self.ephemeral = Signer(
            session_origin(LOG, session, epoch),
            Ed25519PrivateKey.from_private_bytes(_bytes("ephemeral " + name, 32)),
        )
        self.start_ns = start_ns
        self.checkpoint_every = checkpoint_every
        self.tree = CompactRange()
        self.signed = 0
        self.frames: list[Frame] = []
        self.messages: list[Message] = []
        self.sent = [0, 0]

    def wrap(self, private: PrivateKey, label: str, tenant: str, retention: str) -> None:
        wrapped = wraps.wrap(private.public, self.keys.of(label), self.session, self.epoch, label)
        self.messages.append(
            KeyMessage(
                session=self.session,
                epoch=self.epoch,
                label=label,
                recipient=wrapped.recipient,
                suite=wrapped.suite,
                sealed=wrapped.sealed,
                tenant=tenant,
                retention=retention,
            )
        )

    def begin(
        self,
        ident: Ident,
        node: Signer,
        *,
        tenant: str,
        retention: RetentionClass,
        number: int,
        continues: Continues | None,
        journal: bool = False,
    ) -> Opening:
        # OPEN names the digest of IDENT as stored, so IDENT is sealed first.
        self.sealer.next_seq = 1
        identity = self.sealer.seal(1, self.start_ns, Kind.IDENT, ident.to_json())
        opening = Opening(
            type="journal" if journal else "session",
            log=LOG,
            tenant=tenant,
            session=self.session,
            epoch=self.epoch,
            node=node.verifier.name.rpartition("/")[2],
            boot=_bytes("boot", 16),
            worker=0,
            number=number,
            key=self.ephemeral.verifier.vkey,
            suite=Suite.SALTED if self.keys is None else Suite.AES256GCM,
            salt=self.salt,
            ident_sha256=sha256(identity.payload).digest(),
            retention=retention,
            anchor_ns=self.start_ns,
            continues=continues,
        )
        payload = make_open(opening, node)
        self._add(
            Frame(self.session, self.epoch, 0, self.start_ns, Kind.OPEN, Suite.PUBLIC, 0, payload)
        )
        self._add(identity)
        self.sign()
        return opening

    def frame(self, kind: int, body: bytes) -> None:
        seq = self.sealer.next_seq
        self._add(self.sealer.seal(seq, self.start_ns + seq * STEP_NS, kind, body))
        if self.tree.hi - self.signed >= self.checkpoint_every:
            self.sign()

    def command(self, index: int, text: str, row_bytes: int, *, with_facts: bool) -> None:
        query = _pg(b"Q", text.encode() + b"\0")
        value = self.random.randbytes(row_bytes)
        reply = (
            _pg(
                b"T",
                struct.pack(">h", 1) + b"value\0" + struct.pack(">ihihih", 0, 0, 17, -1, -1, 1),
            )
            + _pg(b"D", struct.pack(">hi", 1, len(value)) + value)
            + _pg(b"C", b"SELECT 1\0")
            + _pg(b"Z", b"I")
        )
        pieces = [
            slices.encode_slice(slices.CLIENT_IN, 0, self.sent[0], query),
            slices.encode_slice(slices.TARGET_IN, STEP_NS // 2, self.sent[1], reply),
        ]
        self.frame(Kind.DATA, slices.encode_data(pieces, len(pieces)))
        offset, self.sent = self.sent[0], [self.sent[0] + len(query), self.sent[1] + len(reply)]
        if with_facts:
            command = facts.encode_fact(
                facts.encode_head(
                    2 * index, facts.COMMAND, 0, slices.CLIENT_IN, offset, len(query)
                ),
                statement=facts.encode_statement(text, "f" + str(index), "read", ("orders",)),
            )
            result = facts.encode_fact(
                facts.encode_head(2 * index + 1, facts.RESULT, 1000, ref=2 * index),
                tail=facts.encode_tail(
                    status="ok", rows=1, bytes_out=len(reply), duration_ns=STEP_NS // 2
                ),
            )
            self.frame(Kind.FACTS, facts.encode_facts(self.totals(), [command, result]))

    def totals(self) -> tuple[int, int, int, int]:
        client, target = self.sent
        return client, client, target, target

    def sign(self) -> None:
        if self.signed < self.tree.hi:
            self.signed = self.tree.hi
            self.messages.append(_checkpoint(self.ephemeral, self.session, self.epoch, self.tree))

    def _add(self, frame: Frame) -> None:
        self.tree.append(frame.leaf())
        self.frames.append(frame)
        self.messages.append(frame)


def _checkpoint(
    ephemeral: Signer, session: bytes, epoch: int, tree: CompactRange
) -> CheckpointMessage:
    text = Checkpoint(session_origin(LOG, session, epoch), tree.hi, tree.root()).text()
    return CheckpointMessage(session, epoch, tree.hi, ephemeral.sign(text))


def _pg(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


def _bytes(name: str, size: int) -> bytes:
    return random.Random(name).randbytes(size)
