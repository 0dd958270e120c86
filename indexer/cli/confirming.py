"""Whether hits of the index say what the sealed record says.

Whoever administers the index can edit it, so `--verify` goes by the record: the session's frames
are verified, its facts decoded as the indexer decodes them, and compared with what was found.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final

from sealtape.indexer.audit import Audit
from sealtape.indexer.cli.confirmed import DIFFERS, Confirmed
from sealtape.indexer.cli.stores import auditor_key, keyring_of, ledger_of
from sealtape.indexer.cli.verify_log import trusted_nodes
from sealtape.indexer.documents import SessionFold
from sealtape.indexer.node import indexer_key
from sealtape.indexer.reading import Keys, Recording
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.vault import Vault, open_vault
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import FormatError, KeyUnavailable, NotFound
from sealtape.schemas.frames import Kind
from sealtape.schemas.settings import Settings
from sealtape.schemas.verify.findings import Verdict
from sealtape.schemas.wraps import PrivateKey

__all__ = ["Confirming", "reader_key"]

_READ: Final = (Kind.OPEN, Kind.IDENT, Kind.FACTS, Kind.CLOSE)
_WHO: Final = (
    *("tenant", "retention", "user", "groups", "agent", "on_behalf_of", "run", "target"),
    *("protocol", "database", "source", "client", "node", "started_ns"),
)
_WHOLE: Final = (
    *("ended_ns", "close_reason", "frames", "bytes_client", "bytes_server", "commands", "errors"),
    "effects",
)
_COMMAND: Final = tuple(each.name for each in fields(CommandDocument))


@dataclass(slots=True)
class _Record:
    """A session by its record; `reason` says why what is the same is still not verified."""

    reason: str = ""
    session: SessionDocument | None = None
    commands: dict[str, CommandDocument] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)


def reader_key(settings: Settings, given: str | None) -> PrivateKey:
    """A key that opens facts: the one given, else the indexer's, else the auditors'."""
    if not given:
        with suppress(KeyUnavailable):  # an auditor's host has only his own
            return indexer_key(settings)
    return auditor_key(settings, given)


class Confirming:
    """The records of sessions, each read once."""

    def __init__(self, settings: Settings, private: PrivateKey, trust: str | None = None) -> None:
        """Take the deployment, a key that opens facts, and the trust file that counts."""
        self._settings = settings
        self._private = private
        self._trust = trusted_nodes(settings, trust)
        self._records: dict[bytes, _Record] = {}

    async def read(self, sessions: Sequence[bytes]) -> None:
        """Verify and decode these sessions as far as they are sealed."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            vault = await open_vault(settings.stores.vault, Path(settings.base))
            stack.push_async_callback(vault.close)
            keyring = await stack.enter_async_context(keyring_of(settings))
            ledger = await stack.enter_async_context(ledger_of(settings, snapshot=True))
            keys = Keys(keyring, self._private)
            for session in sessions:
                if session not in self._records:
                    self._records[session] = await self._record(session, ledger, vault, keys)

    async def _record(self, session: bytes, ledger: Ledger, vault: Vault, keys: Keys) -> _Record:
        audit = Audit(
            ledger=ledger,
            vault=vault,
            log=self._settings.deployment.log,
            trust=self._trust,
            now_ns=time.time_ns(),
        )
        report = await audit.session(session)
        why = f"its record is {report.verdict}: `sealtape verify {session.hex()}` says more"
        if report.verdict not in (Verdict.VERIFIED, Verdict.INCOMPLETE):
            return _Record(why)
        record = _Record("" if report.verdict == Verdict.VERIFIED else why)
        fold = SessionFold(session)
        try:
            async for frame in Recording(session, ledger, vault).frames():
                wanted = frame.kind in _READ
                fold.feed(frame, await keys.open(frame) if wanted else b"")
                record.read[frame.epoch] = frame.seq
        except NotFound:
            return _Record("nothing of it is sealed yet")
        except (FormatError, KeyUnavailable) as error:
            return _Record(f"its facts cannot be read: {error.message}")
        record.session, commands, _ = fold.take()
        record.commands = {command.id: command for command in commands}
        return record

    # -- what was found ----------------------------------------------------------------------------

    def session(self, found: SessionDocument) -> Confirmed:
        """Whether who it was, where to and when is as recorded."""
        record = self._records[found.session]
        if record.session is None:
            return Confirmed(verified=False, reason=record.reason)
        if found.state != "sealed":
            why = record.reason or "the index has not all of it yet"
            return _compared(found, record.session, _WHO, why)
        return _compared(found, record.session, _WHO + _WHOLE, record.reason)

    def command(self, found: CommandDocument) -> Confirmed:
        """Whether a command is as recorded."""
        record = self._records[found.session]
        if record.session is None:
            return Confirmed(verified=False, reason=record.reason)
        known = record.commands.get(found.id)
        if known is None:
            if found.seq > record.read.get(found.epoch, -1):
                return Confirmed(verified=False, reason="it is not sealed yet")
            return Confirmed(verified=False, reason=f"{DIFFERS}: it has no such command")
        if found.version < known.version:
            return Confirmed(verified=False, reason="its result is not in the index")
        return _compared(found, known, _COMMAND, record.reason)

    def hit(self, command: CommandDocument, session: SessionDocument) -> Confirmed:
        """Whether a command, and whose session it is shown with, are as recorded."""
        confirmed = self.session(session)
        return confirmed if confirmed.differs else self.command(command)

    def hidden(self, session: bytes, found: Sequence[CommandDocument]) -> list[Confirmed]:
        """What the record has of a session and the index has not; empty: nothing."""
        shown = {command.id for command in found}
        hidden = [name for name in self._records[session].commands if name not in shown]
        if not hidden:
            return []
        what = f"{DIFFERS}: {len(hidden)} commands are not in it, the first is {hidden[0]}"
        return [Confirmed(verified=False, reason=what)]


def _compared(found: object, known: object, names: Sequence[str], reason: str) -> Confirmed:
    wrong = [name for name in names if getattr(found, name) != getattr(known, name)]
    if wrong:
        return Confirmed(verified=False, reason=f"{DIFFERS}: {', '.join(wrong)}")
    return Confirmed(verified=not reason, reason=reason)
