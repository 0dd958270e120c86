"""From frames to documents: one `SessionFold` per session. Pure.

A fold takes the frames of a session, each (epoch, seq) once and in order, and keeps the session's
document and the commands that changed. What it needs to go on after a restart is small
(`progress`) and is kept in the index beside the documents, in the same write.

* `revision` is twice the frames that went by, plus one when sealed: the same frames always make the
  same document, in whatever batches they came.
* A command is `running` at its COMMAND fact and `ok` or `error` at its RESULT. A later RESULT (a
  deferred constraint) overrides. CLOSE ends what still runs, as an error without a code.
* A REFUSAL fact is a command with the effect `refused`, under the journal it stands in.
* A journal is a session with the protocol `journal`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sealtape.indexer.heard import Chain
from sealtape.schemas import canonical, facts
from sealtape.schemas.bodies import Close, Ident, Opening, parse_open
from sealtape.schemas.documents import CommandDocument, SessionDocument, command_id
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import Fact, decode_facts
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT

__all__ = ["JOURNAL", "REFUSED", "Orphan", "Reached", "SessionFold", "again_of", "finished"]

JOURNAL = "journal"
REFUSED = "refused"
UNANSWERED = "The session ended before a result."
SKIPPED = "Skipped because of an earlier error."

MAX_RUNNING = 16_384
"""Commands without a result that are kept in memory; of older ones the index is asked."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A RESULT whose command is no longer in memory: apply it with `finished`."""

    command: str
    result: Fact


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a session was folded: frames over all epochs, the last frame, and if that ended it.

    `seq` is -1 before the first frame of `epoch`.
    """

    frames: int
    epoch: int
    seq: int
    closed: bool


@dataclass(slots=True)
class _Epoch:
    """How far an epoch was read; `first_n` is the number of its first fact."""

    next_seq: int = 0
    first_n: int = -1
    closed: bool = False


class SessionFold:
    """The documents of one session while its frames go by. Not for several threads."""

    __slots__ = (
        "_changed",
        "_dirty",
        "_epochs",
        "_orphans",
        "_running",
        "again",
        "document",
        "heard",
        "session",
        "skipped",
    )

    def __init__(self, session: bytes) -> None:
        """Begin with nothing known."""
        self.session = session
        self.document: SessionDocument | None = None
        self.skipped = 0
        """Frames that could not be read (no key, or damaged), in this process."""
        self.again = 0
        """How many times it was indexed anew, since its frames were others than those sealed."""
        self.heard: dict[int, Chain] = {}
        """By epoch, what was folded before it was sealed: kept with the progress."""
        self._epochs: dict[int, _Epoch] = {}
        self._running: dict[int, CommandDocument | None] = {}
        self._changed: dict[tuple[int, int], CommandDocument] = {}
        self._orphans: list[Orphan] = []
        self._dirty = False

    # -- frames ------------------------------------------------------------------------------------

    def next_seq(self, epoch: int) -> int:
        """The seq of the frame that is expected next."""
        known = self._epochs.get(epoch)
        return known.next_seq if known else 0

    @property
    def epochs(self) -> Iterable[int]:
        """The epochs that it has frames of."""
        return self._epochs.keys()

    @property
    def closed(self) -> bool:
        """Whether the last epoch has ended."""
        return bool(self._epochs) and self._epochs[max(self._epochs)].closed

    @property
    def reached(self) -> Reached:
        """How far it has come."""
        last = max(self._epochs, default=0)
        frames = sum(epoch.next_seq for epoch in self._epochs.values())
        return Reached(frames, last, self.next_seq(last) - 1, self.closed)

    def feed(self, frame: Frame, body: bytes | None) -> bool:
        """Take a frame; `body` is None where it cannot be opened. False: it was seen before.

        Frames that were left out count as lost; the caller has tried to find them.
        """
        epoch = self._epochs.setdefault(frame.epoch, _Epoch())
        if frame.seq < epoch.next_seq:
            return False
        epoch.next_seq = frame.seq + 1
        self._dirty = True
        try:
            if body is None:
                raise FormatError("The frame cannot be opened.")
            self._read(frame, body, epoch)
        except FormatError:
            self.skipped += 1
        document = self.document
        if document is not None:
            self.document = replace(
                document,
                frames=document.frames + 1,
                state="closed" if self.closed else "live",
                ended_ns=document.ended_ns if self.closed else None,
                close_reason=document.close_reason if self.closed else "",
                revision=self._revision(),
            )
        return True

    def seal(self) -> bool:
        """Note that all frames are sealed; True if that was news."""
        document = self.document
        if document is None or document.state != "closed":
            return False
        self.document = replace(document, state="sealed", revision=self._revision() + 1)
        self._dirty = True
        return True

    def fall_silent(self) -> bool:
        """Note that its node fell silent; True if that was news. The next frame ends it."""
        document = self.document
        if document is None or document.state != "live":
            return False
        self.document = replace(document, state="incomplete", revision=self._revision() + 1)
        self._dirty = True
        return True

    @property
    def pending(self) -> int:
        """How many commands changed since the last `take`."""
        return len(self._changed) + len(self._orphans)

    def take(self) -> tuple[SessionDocument | None, list[CommandDocument], list[Orphan]]:
        """What changed since the last call: the session, commands, results for older commands.

        Each command is there once, as it is now.
        """
        document = self.document if self._dirty else None
        changed, orphans = list(self._changed.values()), self._orphans
        self._changed, self._orphans, self._dirty = {}, [], False
        return document, changed, orphans

    def _revision(self) -> int:
        return 2 * sum(epoch.next_seq for epoch in self._epochs.values())

    def _read(self, frame: Frame, body: bytes, epoch: _Epoch) -> None:
        if frame.kind == Kind.OPEN:
            self._open(frame, parse_open(body, None)[0])
        elif self.document is None:
            raise FormatError("The session has no opening.")
        elif frame.kind == Kind.IDENT:
            self.document = _identified(self.document, Ident.from_json(body))
        elif frame.kind == Kind.FACTS:
            self._facts(self.document, frame, body, epoch)
        elif frame.kind == Kind.CLOSE:
            epoch.closed = True
            self._close(self.document, frame, Close.from_json(body))

    def _open(self, frame: Frame, opening: Opening) -> None:
        if self.document is None:
            self.document = SessionDocument(
                session=self.session,
                tenant=opening.tenant,
                retention=opening.retention.name,
                user="",
                target="",
                protocol=JOURNAL if opening.type == "journal" else "",
                node=opening.node,
                started_ns=frame.ts_ns,
                revision=0,
            )

    def _close(self, document: SessionDocument, frame: Frame, close: Close) -> None:
        for command in self._running.values():
            if command is not None:
                ended = replace(
                    command, status="error", message=UNANSWERED, version=command.version + 1
                )
                self._changed[ended.epoch, ended.n] = ended
        self._running.clear()
        self.document = replace(
            document,
            ended_ns=frame.ts_ns,
            close_reason=close.reason,
            bytes_client=max(document.bytes_client, close.totals[CLIENT_IN]),
            bytes_server=max(document.bytes_server, close.totals[CLIENT_OUT]),
            commands=max(document.commands, close.commands),
            errors=max(document.errors, close.errors),
        )

    # -- facts -------------------------------------------------------------------------------------

    def _facts(self, document: SessionDocument, frame: Frame, body: bytes, epoch: _Epoch) -> None:
        read = decode_facts(body, frame.ts_ns)
        if epoch.first_n < 0:
            epoch.first_n = read.facts[0].n
        commands = errors = 0
        effects = set(document.effects)
        for fact in read.facts:
            if fact.kind == facts.COMMAND:
                commands += 1
                effects.add(fact.effect)
                self._started(_command(document, frame, fact))
            elif fact.kind == facts.RESULT:
                errors += _failed(fact)
                self._result(fact)
            elif fact.kind == facts.REFUSAL:
                effects.add(REFUSED)
                refusal = _refusal(document, frame, fact)
                self._changed[refusal.epoch, refusal.n] = refusal
        self.document = replace(
            document,
            bytes_client=max(document.bytes_client, read.totals[CLIENT_IN]),
            bytes_server=max(document.bytes_server, read.totals[CLIENT_OUT]),
            commands=document.commands + commands,
            errors=document.errors + errors,
            effects=tuple(sorted(effects - {""})),
        )

    def _started(self, command: CommandDocument) -> None:
        self._changed[command.epoch, command.n] = command
        if len(self._running) >= MAX_RUNNING:
            del self._running[next(iter(self._running))]
        self._running[command.n] = command

    def _result(self, fact: Fact) -> None:
        command = self._running.pop(fact.ref, None)
        if command is None:
            epoch = self._epoch_of(fact.ref)
            command = self._changed.get((epoch, fact.ref))
            if command is None:
                self._orphans.append(Orphan(command_id(self.session, epoch, fact.ref), fact))
                return
        self._changed[command.epoch, command.n] = finished(command, fact)

    def _epoch_of(self, n: int) -> int:
        known = [number for number, epoch in self._epochs.items() if 0 <= epoch.first_n <= n]
        return max(known, default=0)

    # -- over a restart ----------------------------------------------------------------------------

    def running(self) -> list[str]:
        """Ids of the commands without a result that a restored fold does not hold yet."""
        return [
            command_id(self.session, self._epoch_of(n), n)
            for n, command in self._running.items()
            if command is None
        ]

    def give(self, command: CommandDocument) -> None:
        """Hold a running command again, after a restart."""
        if command.status == "running":
            self._running[command.n] = command

    def progress(self) -> bytes:
        """What `restore` needs beside the document: canonical JSON without anything personal."""
        # Written for each session in each write, so not by the general encoder.
        epochs = ",".join(
            f'{{"closed":{"true" if epoch.closed else "false"},"epoch":{number},'
            f'"first_n":"{epoch.first_n}"{self._heard_of(number)},"next":"{epoch.next_seq}"}}'
            for number, epoch in sorted(self._epochs.items())
        )
        running = ",".join(f'"{n}"' for n in self._running)
        revision = 0 if self.document is None else self.document.revision
        again = f'"again":"{self.again}",' if self.again else ""
        return (
            f'{{{again}"epochs":[{epochs}],"revision":"{revision}","running":[{running}],"v":1}}'
        ).encode("ascii")

    def _heard_of(self, epoch: int) -> str:
        chain = self.heard.get(epoch)
        if chain is None:
            return ""
        digest = chain.digest.hex()
        return f',"heard":{{"digest":"{digest}","first":"{chain.first}","next":"{chain.next}"}}'

    @classmethod
    def restore(
        cls, session: bytes, progress: bytes, document: SessionDocument | None
    ) -> SessionFold:
        """A fold that goes on where another one was.

        Raises FormatError, also when the progress is not that of the document: what is counted in
        the one would be counted into the other again.
        """
        fold = cls(session)
        fold.document = document
        fields = canonical.fields(progress, "progress")
        fields.version(1)
        fold.again = _again(fields)
        if fields.decimal("revision") != (document.revision if document else 0) and document:
            raise FormatError("The progress is of another revision of the session.")
        for item in fields.objects("epochs"):
            number = item.integer("epoch")
            if item.has("heard"):
                fold.heard[number] = _chain(item.object("heard"))
            fold._epochs[number] = _Epoch(
                next_seq=item.decimal("next"),
                first_n=item.decimal("first_n", -1),
                closed=item.boolean("closed"),
            )
            item.end()
        fold._running = dict.fromkeys(
            int(n) for n in fields.decimals("running", max_items=MAX_RUNNING)
        )
        fields.end()
        return fold


def again_of(progress: bytes) -> int:
    """How many times a session was indexed anew, of progress that does not fit its document."""
    try:
        return _again(canonical.fields(progress, "progress"))
    except FormatError:
        return 0


def _again(fields: canonical.Fields) -> int:
    return fields.decimal("again") if fields.has("again") else 0


def _chain(fields: canonical.Fields) -> Chain:
    chain = Chain(fields.decimal("first"), fields.decimal("next"), fields.hex("digest", 32))
    fields.end()
    return chain


def finished(command: CommandDocument, result: Fact) -> CommandDocument:
    """The command with its result."""
    failed = _failed(result)
    skipped = result.status == "skipped"
    # Spelled out: `replace` takes three times as long, and this is done for every command.
    return CommandDocument(
        session=command.session,
        epoch=command.epoch,
        n=command.n,
        seq=command.seq,
        tenant=command.tenant,
        retention=command.retention,
        user=command.user,
        target=command.target,
        protocol=command.protocol,
        time_ns=command.time_ns,
        leg=command.leg,
        offset=command.offset,
        length=command.length,
        version=command.version + 1,
        status="error" if failed or skipped else "ok",
        groups=command.groups,
        agent=command.agent,
        run=command.run,
        source=command.source,
        text=command.text,
        fingerprint=command.fingerprint,
        effect=command.effect,
        tables=command.tables,
        rows=result.rows,
        bytes_out=result.bytes_out,
        duration_ns=result.duration_ns,
        error=result.code if failed else "",
        message=result.message or (SKIPPED if skipped else ""),
    )


def _failed(result: Fact) -> bool:
    return bool(result.code) or result.status in ("error", "cancelled")


def _identified(document: SessionDocument, ident: Ident) -> SessionDocument:
    agent = ident.agent
    return replace(
        document,
        user=ident.user,
        groups=ident.groups,
        agent=agent.id if agent else "",
        on_behalf_of=agent.on_behalf_of if agent else (),
        run=agent.run if agent else "",
        target=ident.target,
        protocol=document.protocol or ident.protocol,
        database=ident.database,
        source=_address(ident.source_ip, ident.source_port),
        client=ident.software or ident.application,
    )


def _address(host: str, port: int) -> str:
    if not host or not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _command(document: SessionDocument, frame: Frame, fact: Fact) -> CommandDocument:
    return CommandDocument(
        session=document.session,
        epoch=frame.epoch,
        n=fact.n,
        seq=frame.seq,
        tenant=document.tenant,
        retention=document.retention,
        user=document.user,
        groups=document.groups,
        agent=document.agent,
        run=document.run,
        target=document.target,
        protocol=document.protocol,
        source=document.source,
        time_ns=fact.ts_ns,
        leg=fact.leg,
        offset=fact.offset,
        length=fact.length,
        text=fact.text or fact.normalized,
        fingerprint=fact.fingerprint,
        effect=fact.effect,
        tables=fact.objects,
    )


def _refusal(document: SessionDocument, frame: Frame, fact: Fact) -> CommandDocument:
    def said(name: str) -> str:
        values: Mapping[str, str] = fact.attributes
        return values.get(name, "")

    return replace(
        _command(document, frame, fact),
        user=said("user") or document.user,
        agent=said("agent") or document.agent,
        target=said("target") or document.target,
        protocol=said("protocol") or document.protocol,
        source=said("source") or document.source,
        text=fact.text or fact.normalized or fact.message,
        effect=REFUSED,
        status="error",
        error=fact.code or fact.status,
        message=fact.message,
        duration_ns=fact.duration_ns,
        version=1,
    )
