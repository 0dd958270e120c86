"""One epoch of a session being sealed: its key, its tree, its checkpoints.

An epoch is begun by `begin`, which draws a secret and an ephemeral signing key that exist nowhere
else: when this object is gone, nobody can add to the epoch. What comes out are finished bus
messages, in the order in which they must reach the bus.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas.bodies import (
    NO_POLICY,
    Beacon,
    Close,
    Continues,
    Ident,
    Opening,
    RetentionClass,
    make_open,
)
from sealtape.schemas.facts import text_salt
from sealtape.schemas.frames import Frame, Kind, Suite
from sealtape.schemas.keys import FrameSealer, LabelKeys, Packer, draw_label_keys
from sealtape.schemas.messages import CheckpointMessage, KeyMessage, encode
from sealtape.schemas.notes import Checkpoint, Signer, session_origin
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.wraps import PublicKey, wrap

SALT_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdentity:
    """Who seals here: node, boot and worker, the node's key, and for whom keys are wrapped."""

    log: str
    node: str
    boot: bytes
    worker: int
    signer: Signer
    auditors: Sequence[PublicKey]
    indexers: Sequence[PublicKey]
    beacon: Beacon | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a target demands of its recordings.

    `level` is when bytes may go on (`spooled`, `durable`, `acked`), `on_failure` what happens when
    they cannot be spooled: `end` the session, or `continue` it and state the gap. `on_seal` is
    `receipt` where the spool keeps them until the log's receipt is there, else `none`.
    """

    retention: RetentionClass
    tenant: str = "main"
    encryption: bool = True
    level: str = "spooled"
    on_failure: str = "end"
    on_seal: str = "none"
    policy_sha256: bytes = NO_POLICY


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an epoch is about: which session of which boot, who, and under which terms."""

    type: str
    session: bytes
    number: int
    boot: bytes
    worker: int
    ident: Ident
    terms: Terms


class Epoch:
    """Seals the frames of one (session, epoch) and keeps its tree; one thread at a time."""

    __slots__ = ("_sealer", "_signer", "epoch", "origin", "salt", "session", "signed", "tree")

    def __init__(
        self, session: bytes, epoch: int, sealer: FrameSealer, signer: Signer, salt: bytes
    ) -> None:
        """Use `begin`."""
        self.session = session
        self.epoch = epoch
        self.origin = signer.name
        self.salt = salt
        self.tree = CompactRange()
        self.signed = 0
        self._sealer = sealer
        self._signer = signer

    @property
    def size(self) -> int:
        """Frames so far."""
        return self.tree.hi

    def seal(self, kind: int, ts_ns: int, body: bytes) -> bytes:
        """Return the message of the next frame."""
        frame, leaf = self._sealer.seal_with_leaf(self.tree.hi, ts_ns, kind, body)
        self.tree.append(leaf)
        return encode(frame)

    def checkpoint(self) -> bytes:
        """Return the message of a checkpoint over all frames so far."""
        text = Checkpoint(self.origin, self.tree.hi, self.tree.root()).text()
        self.signed = self.tree.hi
        note = self._signer.sign(text)
        return encode(CheckpointMessage(self.session, self.epoch, self.signed, note))

    def take_opening(self, sealed: Sequence[tuple[Frame, bytes]]) -> list[bytes]:
        """Count OPEN and IDENT, which were sealed together."""
        for _, leaf in sealed:
            self.tree.append(leaf)
        return [encode(frame) for frame, _ in sealed]


def begin(
    identity: NodeIdentity,
    subject: Subject,
    *,
    epoch: int,
    ts_ns: int,
    anchor_ns: int,
    continues: Continues | None,
    packer: Packer,
    random: Callable[[int], bytes],
) -> tuple[Epoch, list[bytes]]:
    """Begin an epoch; return it and its first messages: keys, OPEN, IDENT, checkpoint at size 2."""
    session, terms = subject.session, subject.terms
    salt, keys = draw_label_keys(session, epoch, random)
    origin = session_origin(identity.log, session, epoch)
    signer = Signer(origin, Ed25519PrivateKey.from_private_bytes(random(32)))
    sealer = FrameSealer(
        session, epoch, keys if terms.encryption else None, lambda: random(SALT_SIZE), packer
    )
    digest_salt = text_salt(keys.data if terms.encryption else None, session, epoch)
    opened = Epoch(session, epoch, sealer, signer, digest_salt)
    note = partial(
        _open_note,
        identity,
        subject,
        epoch=epoch,
        key=signer.vkey,
        salt=salt if terms.encryption else b"",
        anchor_ns=anchor_ns,
        continues=continues,
    )
    first = _wrapped(identity, terms, keys) if terms.encryption else []
    first += opened.take_opening(sealer.seal_opening(ts_ns, subject.ident.to_json(), note))
    first.append(opened.checkpoint())
    return opened, first


def _open_note(
    identity: NodeIdentity,
    subject: Subject,
    ident_sha256: bytes,
    *,
    epoch: int,
    key: str,
    salt: bytes,
    anchor_ns: int,
    continues: Continues | None,
) -> bytes:
    """Return OPEN's body, signed by the node."""
    terms = subject.terms
    opening = Opening(
        type=subject.type,
        log=identity.log,
        tenant=terms.tenant,
        session=subject.session,
        epoch=epoch,
        node=identity.node,
        boot=subject.boot,
        worker=subject.worker,
        number=subject.number,
        key=key,
        suite=Suite.AES256GCM if terms.encryption else Suite.SALTED,
        salt=salt,
        ident_sha256=ident_sha256,
        retention=terms.retention,
        anchor_ns=anchor_ns,
        policy_sha256=terms.policy_sha256,
        beacon=identity.beacon,
        continues=continues,
    )
    return make_open(opening, identity.signer)


def close(epoch: Epoch, ts_ns: int, ending: Close) -> list[bytes]:
    """Return the last messages of an epoch: CLOSE and the checkpoint over all of it."""
    return [epoch.seal(Kind.CLOSE, ts_ns, ending.to_json()), epoch.checkpoint()]


def _wrapped(identity: NodeIdentity, terms: Terms, keys: LabelKeys) -> list[bytes]:
    """Wrap K_data to the auditors, K_facts to auditors and indexers: the indexer sees no rows."""
    wanted = [("data", key) for key in identity.auditors]
    wanted += [("facts", key) for key in (*identity.auditors, *identity.indexers)]
    found = []
    for label, key in wanted:
        sealed = wrap(key, keys.of(label), keys.session, keys.epoch, label)
        message = KeyMessage(
            session=sealed.session,
            epoch=sealed.epoch,
            label=sealed.label,
            recipient=sealed.recipient,
            suite=sealed.suite,
            sealed=sealed.sealed,
            tenant=terms.tenant,
            retention=terms.retention.name,
        )
        found.append(encode(message))
    return found
