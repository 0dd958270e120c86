"""Valid histories of a log, by seed: what nodes, ingest and officers could have done.

    history = happenings.generate(seed, sessions=30)
    for event in history.write():          # entries, witnessed checkpoints, turns of the log
        ...

A history is a list of steps, which a test may change before they are written: `write` is an honest
writer of the log that puts each step down, so heartbeats, chains and lists of fragments follow from
the steps as they then are. What a test wants a step to say against that, it puts into the step's
`change`: those fields are changed last.
"""

from dataclasses import dataclass, field, replace
from hashlib import sha256

from sealtape.schemas import canonical
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.layout import day_of, segment_key
from sealtape.schemas.notes import Checkpoint, sign_note
from sealtape.schemas.segments import (
    BusRange,
    Fragments,
    SegmentRecord,
)
from sealtape.schemas.tlog.records import (
    Heartbeat,
    Listed,
    LogIncident,
    LogStart,
    NodeCount,
    SessionOpen,
    SessionSeal,
    ShardEnd,
)
from sealtape.schemas.tlog.statements import (
    DoneStatement,
    Heading,
    KeyStatement,
    Statement,
)
from sealtape.schemas.tree import CompactRange, leaf_hash, root

LOG = "sealtape.example/log"
START_NS = 1_795_392_000_000_000_000
NS = 1_000_000_000
EVERY_S = 600
CLASSES = (
    ("main", RetentionClass("short", 900, 7_200)),
    ("main", RetentionClass("standard", 3_600, 86_400)),
    ("other", RetentionClass("standard", 1_800, 86_400)),
)


# -- steps -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class Step:
    change: dict = field(default_factory=dict, kw_only=True)


@dataclass(eq=False)
class Say(Step):
    """An entry as it is: an opening or an incident."""

    entry: SessionOpen | LogIncident


@dataclass(eq=False)
class Cut(Step):
    """A segment of these fragments, or one that takes the place of others."""

    shard: str
    tenant: str
    retention: RetentionClass
    fragments: list
    at_ns: int
    replaces: list = field(default_factory=list)
    hide: bool = False
    """Its manifest is gone."""


@dataclass(eq=False)
class Seal(Step):
    """A seal; its fragments are those that were written before it."""

    entry: SessionSeal


@dataclass(eq=False)
class Beat(Step):
    at_ns: int
    every_s: int = EVERY_S


@dataclass(eq=False)
class Sign(Step):
    """A statement, with whoever signs it."""

    body: object
    signers: list


@dataclass(eq=False)
class Done(Step):
    """The end of a deletion: `objects` are cuts."""

    intent: Sign
    at_ns: int
    id: bytes
    signers: list
    objects: list


@dataclass(eq=False)
class Raw(Step):
    """Bytes that are no entry, or a second copy of one."""

    data: bytes


@dataclass(eq=False)
class Begin(Step):
    """A shard of the log begins; the first one, or the next."""

    at_ns: int


@dataclass(eq=False)
class Witness(Step):
    """All that was written so far is under a checkpoint witnessed at that time."""

    at_ns: int


# -- what is written -------------------------------------------------------------------------------


@dataclass
class Event:
    """`step` became `entry` at `index` of shard `number`; or, without entry, is a witness's."""

    step: Step
    number: int
    index: int
    entry: bytes = b""
    manifest: bytes = b""


@dataclass
class History:
    """Steps, and the keys that are needed to write and to judge them."""

    steps: list
    admins: list
    threshold: int
    log_keys: dict
    log_verifiers: list
    signers: dict
    """Administrators and reapers by their verifier keys."""

    def write(self):
        """The events that an honest writer makes of the steps."""
        return Writer(self.log_keys).run(self.steps)

    def of(self, kind, test=lambda step: True):
        """The steps of a kind, or of an entry's kind, in their order."""
        return [
            step
            for step in self.steps
            if (
                isinstance(step, kind)
                or isinstance(getattr(step, "entry", None), kind)
                or isinstance(getattr(step, "body", None), kind)
            )
            and test(step)
        ]

    def wait(self, seconds, every_s=EVERY_S):
        """Nothing happens any more, for a while; then that is witnessed."""
        at_ns = self.steps[-1].at_ns
        for passed in range(0, seconds, every_s):
            self.steps.append(Beat(at_ns + passed * NS, every_s))
        self.steps.append(Witness(at_ns + seconds * NS))

    def before(self, step, *new):
        """Insert steps."""
        at = self.steps.index(step)
        self.steps[at:at] = new

    def after(self, step, *new):
        """Insert steps."""
        at = self.steps.index(step) + 1
        self.steps[at:at] = new


class Writer:
    """Puts steps down as entries, and keeps what a heartbeat says."""

    def __init__(self, log_keys):
        self.log_keys = log_keys
        self.number = 0
        self.tree = CompactRange()
        self.keys = []
        self.chains = {}
        self.nodes = {}
        self.open = 0
        self.parts = {}
        self.hashes = {}
        self.places = {}

    def run(self, steps):
        events = []
        for step in steps:
            if isinstance(step, Witness):
                events.append(Event(step, self.number, self.tree.hi))
                continue
            manifest = b""
            if isinstance(step, Cut):
                entry, manifest = self.cut(step)
            else:
                entry = getattr(self, type(step).__name__.lower())(step)
            event = Event(step, self.number, self.tree.hi, entry, manifest)
            self.places[id(step)] = event
            self.tree.append(leaf_hash(entry))
            events.append(event)
        return events

    def begin(self, step):
        before = ""
        if self.number:
            key = self.log_keys[self.number]
            text = Checkpoint(key.name, self.tree.hi, self.tree.root()).text()
            before = sign_note(text, [key]).decode()
        self.number += 1
        self.tree, self.keys = CompactRange(), []
        return plain(replace(LogStart(LOG, self.number, step.at_ns, before), **step.change))

    def say(self, step):
        entry = replace(step.entry, **step.change)
        if isinstance(entry, SessionOpen):
            self.open += 1
            worker = (entry.node, entry.boot, entry.worker)
            self.nodes[worker] = max(self.nodes.get(worker, 0), entry.number)
        return plain(entry)

    def cut(self, step):
        n, prev = self.chains.get(step.shard, (-1, bytes(32)))
        lines = [item.to_json() for item in step.fragments]
        record = SegmentRecord(
            shard=step.shard,
            n=n + 1,
            prev=prev,
            tenant=step.tenant,
            retention=step.retention,
            object=object_key(step, n + 1),
            sha256=sha256(b"object").digest(),
            bytes=sum(item.bytes for item in step.fragments),
            rows=step.fragments[-1].rows[1],
            fragments=Fragments(len(lines), root([leaf_hash(line) for line in lines])),
            bus=BusRange("frames", 0, 0, 0),
            sealed_at_ns=step.at_ns,
            writer="ingest-1",
            replaces=tuple(self.hashes[id(old)] for old in step.replaces),
        )
        data = replace(record, **step.change).to_json()
        digest = sha256(data).digest()
        self.hashes[id(step)] = digest
        self.chains[step.shard] = (step.change.get("n", record.n), digest)
        gone = {id(old) for old in step.replaces}
        for item, line in zip(step.fragments, lines, strict=True):
            parts = self.parts.setdefault((item.session, item.epoch), [])
            parts[:] = [part for part in parts if part[2] not in gone]
            parts.append((item.lo, line, id(step)))
        return data, b"" if step.hide else b"".join(line + b"\n" for line in (data, *lines))

    def seal(self, step):
        self.open -= 1
        entry = step.entry
        parts = sorted(self.parts.get((entry.session, entry.epoch), []))
        listed = Listed.of(line for _, line, _ in parts)
        return plain(replace(entry, **({"fragments": listed} | step.change)))

    def beat(self, step):
        ends = [ShardEnd(shard, n, digest).line() for shard, (n, digest) in self.chains.items()]
        nodes = [NodeCount(*worker, number).line() for worker, number in self.nodes.items()]
        entry = Heartbeat(
            at_ns=step.at_ns,
            index=self.tree.hi,
            every_s=step.every_s,
            keys=Listed.of(self.keys),
            shards=Listed.of(sorted(ends)),
            nodes=Listed.of(sorted(nodes)),
            open=self.open,
        )
        return plain(replace(entry, **step.change))

    def sign(self, step):
        data = signed(replace(step.body, **step.change), step.signers)
        if isinstance(step.body, KeyStatement):
            self.keys.append(data)
        return data

    def done(self, step):
        place = self.places[id(step.intent)]
        body = DoneStatement(
            heading=Heading(LOG, step.id, step.at_ns),
            intent=step.intent.body.heading.id,
            index=place.index,
            wraps=1,
            documents=1,
            objects=tuple(self.hashes[id(cut)] for cut in step.objects),
        )
        return signed(replace(body, **step.change), step.signers)

    def raw(self, step):
        return step.data


def plain(entry):
    """An entry's bytes. They are not read again, as `encode_entry` does: that takes time."""
    return canonical.encode({"v": 1, "type": entry.kind, **entry.members()})


def signed(body, signers):
    line = canonical.encode({**body.heading.members(body.kind), **body.members()}).decode()
    return Statement(body, sign_note(line + "\n", signers)).to_json()


def object_key(step, n):
    ident = sha256(f"{step.shard} {n}".encode()).hexdigest()
    uuid = f"{ident[:12]}7{ident[13:16]}8{ident[17:32]}"
    return segment_key(step.tenant, step.retention.name, day_of(step.at_ns), uuid, 1)
