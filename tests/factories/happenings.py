"""What could happen in a deployment, drawn by a seed: the valid histories of `histories`.

Nodes boot, crash and come back, sessions begin and end, numbers and frames are lost, segments are
cut and merged, keys change, officers hold, release and delete, the log goes on in other shards.
"""

import random
from dataclasses import dataclass, field, replace
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas.bodies import Continues, RetentionClass
from sealtape.schemas.notes import Signer
from sealtape.schemas.segments import FragmentCheckpoint, FragmentGap, FragmentRecord
from sealtape.schemas.tlog.records import BusPlace, Listed, LogIncident, SessionOpen, SessionSeal
from sealtape.schemas.tlog.statements import (
    Heading,
    HoldStatement,
    IntentStatement,
    KeyStatement,
    PolicyStatement,
    ReleaseStatement,
)
from sealtape.schemas.tree import CompactRange
from tests.factories.histories import (
    CLASSES,
    EVERY_S,
    LOG,
    NS,
    START_NS,
    Beat,
    Begin,
    Cut,
    Done,
    History,
    Say,
    Seal,
    Sign,
    Witness,
)

PARTITIONS = 2


@dataclass(eq=False)
class Worker:
    node: str
    boot: bytes
    rank: int
    next: int = 1
    highest: int = 0
    vanished: set = field(default_factory=set)

    @property
    def name(self):
        return self.node, self.boot, self.rank


@dataclass(eq=False)
class Epoch:
    """An epoch of a session: what its node has made of it, and how far that was sealed."""

    session: bytes
    number: int
    worker: Worker
    tenant: str
    retention: RetentionClass
    of: str
    partition: int
    epoch: int = 0
    continues: Continues | None = None
    since_ns: int = 0
    tree: CompactRange = field(default_factory=CompactRange)
    lost: int = 0
    attested: tuple = (0, bytes(32))
    opened: bool = False
    ended: str | None = None
    """CLOSE's reason; empty where it ended without CLOSE; None while it lives."""
    times: list = field(default_factory=list)

    @property
    def opening(self):
        return sha256(self.session + bytes([self.epoch])).digest()

    @property
    def group(self):
        return self.partition, self.tenant, self.retention.name


def generate(seed, sessions=30, *, turns=True, start_ns=START_NS):
    """A valid history with about so many sessions; `turns` lets the log go on in other shards."""
    return World(seed, turns=turns, start_ns=start_ns).run(sessions)


def generate_until(end_ns, seed, sessions=30, *, turns=True):
    """The same, but it ends at that time."""
    last = generate(seed, sessions, turns=turns).steps[-1].at_ns
    return generate(seed, sessions, turns=turns, start_ns=START_NS + end_ns - last)


class World:
    """Draws what happens. Every choice comes from the seed, none from the time or a set's order."""

    def __init__(self, seed, *, turns=True, start_ns=START_NS):
        self.rng = random.Random(seed)
        self.turns = turns
        self.now_ns = start_ns
        self.steps = []
        self.workers = []
        self.live = []
        self.crashed = []
        self.unsealed = []
        self.sealed = {}
        self.unwitnessed = {}
        self.classes = {}
        self.witnessed = {}
        self.cuts = []
        self.merged = set()
        self.holds = []
        self.terms = {}
        self.going = {}
        self.pending = []
        self.gone = set()
        self.count = 0
        self.numbers = 0
        self.signers = {}
        self.threshold = self.rng.choice((1, 1, 2))
        self.policy = [self.signer(f"admin.example/{name}") for name in ("ann", "bob", "cy")]
        self.log_keys = {number: self.signer(f"{LOG}/{number}") for number in range(1, 10)}
        self.reaper = None
        self.admins = []

    def run(self, sessions):
        self.begin()
        for number in range(self.rng.randint(1, 3)):
            self.boot(f"node-{number}", self.rng.randint(1, 2))
        acts = self.acts()
        names, weights = list(acts), [weight for weight, _ in acts.values()]
        while self.count < sessions:
            acts[self.rng.choices(names, weights)[0]][1]()
            self.tick(self.rng.randint(0, 30))
            if self.rng.random() < 0.2:
                self.witness()
        self.end()
        return History(
            self.steps,
            [key.verifier for key in self.policy],
            self.threshold,
            self.log_keys,
            [key.verifier for key in self.log_keys.values()],
            self.signers,
        )

    def acts(self):
        return {
            "start": (30, self.start),
            "cut": (25, self.cut_any),
            "seal": (8, self.seal_some),
            "crash": (2, self.crash),
            "recover": (6, self.recover),
            "stray": (1, self.stray),
            "merge": (3, self.merge),
            "found": (1, self.found),
            "policy": (1, self.new_terms),
            "hold": (1, self.hold),
            "release": (1, self.release),
            "expire": (1, self.expire),
            "erase": (0.5, self.erase),
            "done": (2, self.done),
            "keys": (0.5, self.new_keys),
            "turn": (1 if self.turns else 0, self.turn),
        }

    def end(self):
        """Everybody goes home: all is cut, most is sealed, and witnessed."""
        for epoch in self.live:
            ends = epoch.of == "session" and not epoch.epoch and epoch.ended is None
            if ends and self.rng.random() < 0.9:
                epoch.ended = "client"
        self.flush()
        while self.crashed:
            self.recover()
            self.flush()
        self.seal_some(everything=True)
        self.steps.append(Beat(self.now_ns))
        self.beaten_ns = self.now_ns
        self.witness()

    # -- time --------------------------------------------------------------------------------------

    def tick(self, seconds):
        """Time goes on, with heartbeats; no number waits too long for its session."""
        end = self.now_ns + seconds * NS
        if any(not e.opened and e.since_ns < end - 1_200 * NS for e in self.live + self.crashed):
            for epoch in [e for e in self.crashed if not e.opened]:
                self.recover(epoch)
            self.flush()
        while self.beaten_ns + EVERY_S * NS <= end:
            self.now_ns = max(self.now_ns, self.beaten_ns + EVERY_S * NS)
            self.beaten_ns = self.now_ns
            self.steps.append(Beat(self.now_ns))
        self.now_ns = end

    def witness(self):
        self.steps.append(Witness(self.now_ns))
        for session in self.unwitnessed:
            if self.sealed[session]:
                self.witnessed[session] = self.now_ns
        self.unwitnessed = {}
        for item in self.pending:
            item[1] = True

    def ident(self):
        return self.rng.randbytes(16)

    def heading(self):
        return Heading(LOG, self.ident(), self.now_ns - self.rng.randint(0, 900) * NS)

    def signer(self, name):
        signer = Signer(name, Ed25519PrivateKey.from_private_bytes(self.rng.randbytes(32)))
        self.signers[signer.vkey] = signer
        return signer

    # -- keys --------------------------------------------------------------------------------------

    def begin(self):
        self.steps.append(Begin(self.now_ns))
        self.beaten_ns = self.now_ns
        self.admins = []
        for key in self.policy:
            self.key("introduce", "admin", key.vkey, by=self.policy[: self.threshold])
            self.admins.append(key)
        self.reaper = self.signer("reaper.example")
        self.key("introduce", "reaper", self.reaper.vkey)
        self.key("introduce", "node", self.signer("node-0").vkey)
        self.key("introduce", "auditor", f"auditor x25519 {self.numbers}")

    def key(self, action, role, vkey, *, by=None, replaces="", since=None):
        body = KeyStatement(self.heading(), action, role, vkey, replaces, since)
        self.steps.append(Sign(body, by or self.some_admins(self.threshold)))

    def some_admins(self, count):
        return self.rng.sample(self.admins, self.rng.randint(count, len(self.admins)))

    def new_keys(self):
        """An administrator or the reaper gets another key, or a node's key is revoked."""
        self.numbers += 1
        choice = self.rng.randrange(3)
        if choice == 0:
            at = self.rng.randrange(len(self.admins))
            old, new = self.admins[at], self.signer(f"admin.example/new-{self.numbers}")
            self.key("rotate", "admin", new.vkey, replaces=old.vkey)
            self.admins[at] = new
        elif choice == 1:
            old, self.reaper = self.reaper, self.signer(f"reaper.example/{self.numbers}")
            self.key("rotate", "reaper", self.reaper.vkey, replaces=old.vkey)
        else:
            key = self.signer(f"node-x{self.numbers}").vkey
            self.key("introduce", "node", key)
            self.key("revoke", "node", key, since=self.rng.randrange(1_000))

    def turn(self):
        """The log goes on in another shard; deletions that were announced are done before."""
        if sum(isinstance(step, Begin) for step in self.steps) < len(self.log_keys):
            self.witness()
            self.begin()

    # -- nodes and sessions ------------------------------------------------------------------------

    def boot(self, node, workers):
        boot = self.ident()
        for rank in range(workers):
            worker = Worker(node, boot, rank)
            self.workers.append(worker)
            self.epoch(worker, 0, "journal")

    def epoch(self, worker, number, of):
        tenant, retention = self.rng.choice(CLASSES)
        epoch = Epoch(
            session=self.ident(),
            number=number,
            worker=worker,
            tenant=tenant,
            retention=retention,
            of=of,
            partition=self.rng.randrange(PARTITIONS),
            since_ns=self.now_ns,
        )
        self.live.append(epoch)
        self.count += 1
        return epoch

    def start(self):
        worker = self.rng.choice(self.workers)
        if self.rng.random() < 0.05:
            worker.vanished.add(worker.next)
            worker.next += 1
        self.epoch(worker, worker.next, "session")
        worker.next += 1

    def crash(self):
        """A worker dies; its node comes back with another boot, and takes up what it left."""
        worker = self.rng.choice(self.workers)
        self.workers.remove(worker)
        for epoch in [e for e in self.live if e.worker is worker]:
            if epoch.ended is None:
                self.live.remove(epoch)
                self.crashed.append(epoch)
        self.boot(worker.node, 1)

    def recover(self, before=None):
        """A recovery epoch of a session that a crash ended."""
        if not self.crashed:
            return
        before = before or self.rng.choice(self.crashed)
        self.crashed.remove(before)
        if not before.opened:  # nothing of it was ever cut
            before.since_ns = self.now_ns
            before.ended = "aborted"
            self.live.append(before)
            return
        tree = before.tree.copy()
        if before.lost or self.rng.random() < 0.1:  # its last frames never came
            tree = CompactRange(0, 0)
            for _ in range(before.tree.hi + self.rng.randint(1, 3)):
                tree.append(self.rng.randbytes(32))
        before.ended = ""
        self.unsealed.append(before)
        after = replace(
            before,
            epoch=before.epoch + 1,
            continues=Continues(before.epoch, tree.hi, tree.root()),
            since_ns=self.now_ns,
            tree=CompactRange(),
            lost=0,
            attested=(0, bytes(32)),
            opened=False,
            ended=self.rng.choice(("aborted", "aborted", None)),  # None: it crashes too
            times=[],
        )
        after.disagrees = tree.hi != before.tree.hi
        self.live.append(after)

    # -- sealing -----------------------------------------------------------------------------------

    def flush(self):
        for group in sorted({epoch.group for epoch in self.live}):
            self.cut(group, everything=True)

    def cut_any(self):
        if self.live:
            self.cut(self.rng.choice(self.live).group)

    def cut(self, group, *, everything=False):
        """A segment of what has come of a group's sessions."""
        chosen = [
            epoch
            for epoch in self.live
            if epoch.group == group and (everything or not epoch.opened or self.rng.random() < 0.7)
        ]
        if not chosen:
            return
        chosen.sort(key=lambda epoch: (epoch.session, epoch.epoch))
        for epoch in sorted(chosen, key=lambda epoch: epoch.since_ns):
            if not epoch.opened:
                self.open(epoch)
        row, fragments = 0, []
        for epoch in chosen:
            fragments.append(self.fragment(epoch, row))
            row = fragments[-1].rows[1]
        partition, tenant, _ = group
        cut = Cut(f"frames/{partition}", tenant, chosen[0].retention, fragments, self.now_ns)
        self.steps.append(cut)
        self.cuts.append(cut)
        for epoch in chosen:
            if epoch.epoch and epoch.ended is None:
                self.live.remove(epoch)
                self.crashed.append(epoch)
            elif epoch.of == "session" and epoch.ended is None and self.rng.random() < 0.5:
                epoch.ended = self.rng.choice(("client", "target", "expired", ""))
            if epoch.ended is not None:
                self.live.remove(epoch)
                self.unsealed.append(epoch)
        self.seal_some()

    def open(self, epoch):
        entry = SessionOpen(
            at_ns=self.now_ns,
            of=epoch.of,
            tenant=epoch.tenant,
            session=epoch.session,
            epoch=epoch.epoch,
            node=epoch.worker.node,
            boot=epoch.worker.boot,
            worker=epoch.worker.rank,
            number=epoch.number,
            retention=epoch.retention,
            anchor_ns=epoch.since_ns,
            continues=epoch.continues,
            opening_sha256=epoch.opening,
        )
        self.steps.append(Say(entry))
        epoch.opened = True
        self.sealed[epoch.session] = False
        self.classes.setdefault(epoch.session, []).append((epoch.tenant, epoch.retention))
        self.witnessed.pop(epoch.session, None)
        worker, number = epoch.worker, epoch.number
        if number > worker.highest:
            passed = set(range(worker.highest + 1, number))
            worker.highest = number
            if passed & worker.vanished:
                self.incident("session_missing", epoch)
        if getattr(epoch, "disagrees", False):
            self.incident("continuation", epoch)

    def fragment(self, epoch, row):
        gaps = ()
        tree = epoch.tree
        if tree.hi and self.rng.random() < 0.04:
            lost = self.rng.randint(1, 5)
            gaps = (FragmentGap(tree.hi, tree.hi + lost, "lost"),)
            epoch.lost += lost
            epoch.tree = tree = CompactRange(tree.hi + lost)
        lo = tree.hi
        part = CompactRange(lo)
        for _ in range(self.rng.randint(2, 6)):
            leaf = self.rng.randbytes(32)
            part.append(leaf)
            tree.append(leaf)
        checkpoint = None
        if self.rng.random() < 0.9:
            size = self.rng.choice((part.hi, part.hi, lo + 1))
            note = f"checkpoint of {epoch.session.hex()} at {size}\n"
            checkpoint = FragmentCheckpoint(size, note)
            epoch.attested = (size, sha256(note.encode()).digest())
        epoch.times += [self.now_ns - NS, self.now_ns]
        return FragmentRecord(
            tenant=epoch.tenant,
            class_name=epoch.retention.name,
            session=epoch.session,
            epoch=epoch.epoch,
            lo=lo,
            hi=part.hi,
            nodes=part.nodes,
            rows=(row, row + len(part)),
            first_ts_ns=self.now_ns - NS,
            last_ts_ns=self.now_ns,
            bytes=100 * len(part),
            checkpoint=checkpoint,
            gaps=gaps,
        )

    def seal_some(self, *, everything=False):
        """Seals of epochs that ended; some wait."""
        for epoch in list(self.unsealed):
            if everything or self.rng.random() < 0.6:
                self.unsealed.remove(epoch)
                self.seal(epoch)

    def seal(self, epoch):
        size, digest = epoch.attested
        entry = SessionSeal(
            at_ns=self.now_ns,
            tenant=epoch.tenant,
            session=epoch.session,
            epoch=epoch.epoch,
            retention=epoch.retention,
            frames=epoch.tree.hi,
            root=b"" if epoch.lost else epoch.tree.root(),
            lost=epoch.lost,
            attested=size,
            closed=epoch.ended,
            first_ts_ns=epoch.times[0],
            last_ts_ns=epoch.times[-1],
            opening_sha256=epoch.opening,
            checkpoint_sha256=digest,
            fragments=Listed(0, b""),
        )
        self.steps.append(Seal(entry))
        others = [*self.unsealed, *self.live, *self.crashed]
        self.unwitnessed[epoch.session] = None
        self.sealed[epoch.session] = not any(
            e.opened and e.session == epoch.session for e in others
        )
        self.late = epoch

    def stray(self):
        """Frames come after the seal of their epoch: they are sealed, and an incident says so."""
        epoch = getattr(self, "late", None)
        if epoch is None or epoch.ended or epoch.session in self.going:
            return
        found = self.fragment(epoch, 0)
        shard = f"frames/{epoch.partition}"
        said = [] if self.rng.random() < 0.5 else [self.incident("after_seal", epoch)]
        cut = Cut(shard, epoch.tenant, epoch.retention, [found], self.now_ns)
        self.steps.append(cut)
        self.cuts.append(cut)
        if not said:
            self.incident("after_seal", epoch)
        self.late = None

    def merge(self):
        """One segment takes the place of several of its chain, tenant and class."""
        groups = {}
        for cut in self.cuts[-60:]:
            if id(cut) not in self.merged and not self.gone.intersection(_sessions(cut)):
                name = (cut.shard, cut.tenant, cut.retention.name)
                groups.setdefault(name, []).append(cut)
        groups = [cuts for cuts in groups.values() if len(cuts) > 1]
        if not groups:
            return
        old = self.rng.choice(groups)[-3:]
        fragments = _merged([item for cut in old for item in cut.fragments])
        first = old[0]
        cut = Cut(
            first.shard, first.tenant, first.retention, fragments, self.now_ns, replaces=list(old)
        )
        self.merged.update(map(id, old))
        self.steps.append(cut)
        self.cuts.append(cut)

    # -- incidents ---------------------------------------------------------------------------------

    def incident(self, reason, epoch):
        place = BusPlace("frames", epoch.partition, -1)
        entry = LogIncident(self.now_ns, reason, place, epoch.session, epoch.epoch, None)
        self.steps.append(Say(entry))
        return entry

    def found(self):
        place = BusPlace("frames", 0, self.rng.randrange(1_000_000))
        self.steps.append(Say(LogIncident(self.now_ns, "malformed", place)))

    # -- decisions ---------------------------------------------------------------------------------

    def new_terms(self):
        tenant, old = self.rng.choice(CLASSES)
        term = self.rng.choice((60, old.retain_for_s, 2 * old.retain_for_s))
        retention = RetentionClass(old.name, term, max(term, old.delete_after_s))
        body = PolicyStatement(self.heading(), tenant, retention, self.rng.randbytes(32))
        self.steps.append(Sign(body, self.some_admins(self.threshold)))
        self.terms[tenant, old.name] = term

    def held(self):
        return {session for hold in self.holds for session in set(hold[1]) - hold[2]}

    def some_sessions(self, known):
        count = min(len(known), self.rng.randint(1, 4))
        return tuple(sorted(self.rng.sample(sorted(known), count)))

    def hold(self):
        open_ = set(self.sealed) - set(self.going)
        if open_:
            body = HoldStatement(self.heading(), self.rng.randbytes(32), self.some_sessions(open_))
            self.steps.append(Sign(body, self.some_admins(self.threshold)))
            self.holds.append((body.heading.id, body.sessions, set()))

    def release(self):
        holds = [hold for hold in self.holds if set(hold[1]) - hold[2]]
        if holds:
            ident, sessions, released = self.rng.choice(holds)
            chosen = self.some_sessions(set(sessions) - released)
            body = ReleaseStatement(self.heading(), ident, chosen)
            self.steps.append(Sign(body, self.some_admins(max(2, self.threshold))))
            released.update(chosen)

    def expire(self):
        """Sessions that are old enough, after waiting for that."""
        ready = [s for s in self.witnessed if s not in self.going and s not in self.held()]
        if not ready:
            return
        sessions = self.some_sessions(ready)
        due = max(self.witnessed[session] + self.term(session) * NS for session in sessions)
        self.tick(max(0, (due - self.now_ns) // NS + 1))
        if not all(session in self.witnessed for session in sessions):
            return  # meanwhile one of them was taken up again
        body = IntentStatement(self.heading(), "expired", bytes(32), sessions)
        self.announce(Sign(body, [self.reaper]))

    def term(self, session):
        return max(
            max(retention.retain_for_s, self.terms.get((tenant, retention.name), 0))
            for tenant, retention in self.classes[session]
        )

    def erase(self):
        ready = {s for s, done in self.sealed.items() if done} - set(self.going) - self.held()
        if ready:
            sessions = self.some_sessions(ready)
            body = IntentStatement(self.heading(), "erasure", self.rng.randbytes(32), sessions)
            self.announce(Sign(body, self.some_admins(max(2, self.threshold))))

    def announce(self, step):
        self.steps.append(step)
        for session in step.body.sessions:
            self.going[session] = len(self.classes[session])
        self.pending.append([step, False])

    def all_gone(self, cut):
        """Whether all in a segment was there when its deletion was announced."""
        return _sessions(cut) <= self.gone and all(
            item.epoch < self.going[item.session] for item in cut.fragments
        )

    def done(self):
        ready = [item for item in self.pending if item[1]]
        if not ready:
            return
        item = self.rng.choice(ready)
        self.pending.remove(item)
        self.gone.update(item[0].body.sessions)
        objects = [
            cut for cut in self.cuts[-200:] if self.all_gone(cut) and id(cut) not in self.merged
        ]
        step = Done(item[0], self.now_ns, self.ident(), [self.reaper], objects)
        self.steps.append(step)
        self.cuts = [cut for cut in self.cuts if cut not in objects]


def _sessions(cut):
    return {item.session for item in cut.fragments}


def _merged(fragments):
    """The fewest fragments of the same frames, with rows from 0 on."""
    found, row = [], 0
    for item in sorted(fragments, key=lambda item: (item.session, item.epoch, item.lo)):
        last = found[-1] if found else None
        joins = last and (last.session, last.epoch, last.hi) == (item.session, item.epoch, item.lo)
        if joins and not item.gaps:
            whole = last.range.copy()
            whole.extend(item.range)
            found[-1] = replace(
                last,
                hi=item.hi,
                nodes=whole.nodes,
                last_ts_ns=item.last_ts_ns,
                bytes=last.bytes + item.bytes,
                checkpoint=item.checkpoint or last.checkpoint,
                rows=(last.rows[0], last.rows[0] + item.hi - last.lo),
            )
        else:
            found.append(replace(item, rows=(row, row + item.hi - item.lo)))
        row = found[-1].rows[1]
    return found
