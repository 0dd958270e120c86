"""A worker on a folder, and a reader that knows all keys: what capture's tests play on."""

import asyncio
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.capture.bus.dir import DirBus
from sealtape.capture.epoch import NodeIdentity, Terms
from sealtape.capture.files import create_file
from sealtape.capture.spool.folder import Spool
from sealtape.capture.worker import Pace, Worker
from sealtape.schemas import messages
from sealtape.schemas.bodies import Close, Ident, RetentionClass, parse_open
from sealtape.schemas.errors import StoreError
from sealtape.schemas.facts import decode_facts
from sealtape.schemas.frames import Frame, Kind, Suite
from sealtape.schemas.keys import label_of, open_payload
from sealtape.schemas.notes import Signer, Verifier, open_checkpoint
from sealtape.schemas.slices import decode_data
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.wraps import X25519, Wrap, generate, unwrap
from tests.conformance.bus import read_all

SPOOL_KEY = bytes(range(32))
CLASS = RetentionClass("standard", 86400, 864000)
TERMS = Terms(retention=CLASS)
IDENT = Ident(user="ada", target="shop", protocol="postgres", node="node-1")


class Stage:
    """Everything of a node but the process."""

    def __init__(self, root, *, seed=None, **pace):
        """`seed`: 32 bytes from which all keys are made, to be the same node in another process."""
        self.root = Path(root)
        seed = seed or os.urandom(32)
        self.signer = Signer("node-1", Ed25519PrivateKey.from_private_bytes(seed))
        self.auditor = generate("auditor", X25519, lambda _: seed)
        self.indexer = generate("indexer", X25519, lambda _: seed[::-1])
        self.pace = Pace(**pace)

    def bus(self):
        return DirBus(self.root / "bus", partitions=1)

    def identity(self, boot):
        return NodeIdentity(
            log="sealtape.test/log",
            node="node-1",
            boot=boot,
            worker=0,
            signer=self.signer,
            auditors=[self.auditor[1]],
            indexers=[self.indexer[1]],
        )

    def spool(self, boot, create=create_file, **options):
        options.setdefault("limit", 1 << 30)
        return Spool(
            self.root / "spool",
            node="node-1",
            boot=boot,
            worker=0,
            key=SPOOL_KEY,
            create=create,
            **options,
        )

    async def worker(self, bus, create=create_file, clock=None, keys=None, **options):
        boot = os.urandom(16)
        worker = Worker(
            bus=bus,
            keys=keys,
            spool=self.spool(boot, create, **options),
            identity=self.identity(boot),
            journal_terms=TERMS,
            pace=self.pace,
            clock=clock,
        )
        await worker.start()
        return worker

    async def crash(self, worker):
        """Leave a worker as a kill would: nothing is finished, its lock is free."""
        for task in worker._tasks:
            task.cancel()
        await asyncio.gather(*worker._tasks, return_exceptions=True)
        for outlet in worker._outlets.values():
            outlet.close()
            outlet.failing = StoreError("dead")
        worker._executor.shutdown()
        os.close(worker._spool._lock)

    async def recorded(self, *buses):
        """Read buses and check all that can be checked; return sessions by id."""
        tape = Tape(self)
        for bus in buses:
            for record in await read_all(bus):
                tape.take(record.key, record.value)
        return tape.finish()


class Told:
    """What one session's recording says, over all its epochs."""

    def __init__(self):
        self.frames = {}
        self.keys = {}
        self.checkpoints = {}
        self.openings = {}
        self.slices = []
        self.facts = []
        self.kinds = []
        self.closes = {}
        self.bodies = {}

    def stream(self, leg):
        """The bytes of a leg; fails unless the offsets are without hole or overlap."""
        data = b""
        for piece in self.slices:
            if piece.leg == leg:
                assert piece.offset == len(data), (piece.offset, len(data))
                data += piece.data
        return data


class Tape:
    def __init__(self, stage):
        self.stage = stage
        self.sessions = {}
        self.seen = {}
        self.commitments = {}

    def take(self, key, value):
        message = messages.decode(value)
        assert key == message.session
        told = self.sessions.setdefault(message.session, Told())
        if isinstance(message, Frame):
            name = (message.session, message.epoch, message.seq)
            assert self.seen.setdefault(name, value) == value, "two contents for one name"
            frames = told.frames.setdefault(message.epoch, [])
            if message.seq < len(frames):
                return
            assert message.seq == len(frames)
            assert message.epoch in told.keys or not message.seq or message.suite != 2
            if message.suite == Suite.AES256GCM:
                owner = self.commitments.setdefault(message.payload[:32], name)
                assert owner == name, "one key sealed two frames"
            frames.append(message)
        elif isinstance(message, messages.KeyMessage):
            self._key(told, message)
        else:
            told.checkpoints.setdefault(message.epoch, []).append(message)

    def _key(self, told, message):
        fields = ("session", "epoch", "label", "recipient", "suite", "sealed")
        wrapped = Wrap(**{name: getattr(message, name) for name in fields})
        for private, _ in (self.stage.auditor, self.stage.indexer):
            if private.id == message.recipient:
                label = unwrap(private, wrapped)
                told.keys.setdefault(message.epoch, {})[message.label] = label

    def finish(self):
        for told in self.sessions.values():
            for epoch in sorted(told.frames):
                self._epoch(told, epoch)
        return self.sessions

    def _epoch(self, told, epoch):
        frames = told.frames[epoch]
        trust = [self.stage.signer._private.public_key().public_bytes_raw()]
        opening, _ = parse_open(frames[0].payload, [Verifier("node-1", trust[0])])
        told.openings[epoch] = opening
        verifier = Verifier.from_vkey(opening.key)
        tree, roots = CompactRange(), {}
        for frame in frames:
            tree.append(frame.leaf())
            roots[frame.seq + 1] = tree.root()
            told.kinds.append(frame.kind)
            label = label_of(frame.kind)
            body = open_payload(frame, label and told.keys.get(epoch, {}).get(label))
            told.bodies[epoch, frame.seq] = body
            if frame.kind == Kind.DATA:
                told.slices += decode_data(body, frame.ts_ns)
            elif frame.kind == Kind.FACTS:
                told.facts += decode_facts(body, frame.ts_ns).facts
            elif frame.kind == Kind.CLOSE:
                told.closes[epoch] = Close.from_json(body)
        assert [f.ts_ns for f in frames] == sorted(f.ts_ns for f in frames)
        for message in told.checkpoints.get(epoch, []):
            checkpoint = open_checkpoint(message.note, verifier)
            assert (checkpoint.origin, checkpoint.size) == (opening.origin, message.size)
            assert checkpoint.root == roots[checkpoint.size]
        if opening.continues is not None:
            before = CompactRange()
            for frame in told.frames[opening.continues.epoch]:
                before.append(frame.leaf())
            assert opening.continues.size == before.hi
            assert opening.continues.root == before.root()


class Wire:
    """A transport that keeps what it was given."""

    def __init__(self):
        self.data = b""
        self.stalled = []
        self.ended = []

    def write(self, data):
        self.data += data


async def open_on(worker, terms=TERMS, snapshot=None, wire=None):
    wire = wire or Wire()
    recorder = await worker.open_session(
        IDENT, terms, on_stall=wire.stalled.append, on_end=wire.ended.append, snapshot=snapshot
    )
    return recorder, wire


async def until(condition, timeout_s=60):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
