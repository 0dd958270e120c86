"""The witnesses of a policy, asked to cosign the log's checkpoints.

All are asked at once. As soon as those who have cosigned make the policy's quorum, the checkpoint
is witnessed; who is slow delays nobody. What a witness does wrong is its own state, never an error
of the log: it may be down, or refuse, or lie. Refusals that convict one of the two are *findings*.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final

from sealtape.capture.outbound import Answer, Destination, OutboundError, destination, post
from sealtape.schemas import notes
from sealtape.schemas.cosignatures import Cosigner, MlDsaCosigner
from sealtape.schemas.errors import FormatError, SealtapeError
from sealtape.schemas.tlog.policy import LogPolicy, Witness
from sealtape.schemas.tlog.witnessing import (
    MAX_ANSWER,
    Cosignature,
    NotAdmitted,
    encode_request,
    parse_cosignatures,
    parse_size,
    submitted,
)

__all__ = ["STATES", "Prove", "WitnessStatus", "Witnesses"]

STATES: Final = ("unasked", "ok", "behind", "refused", "down", "invalid")
"""unasked (yet, or it has no URL), ok (it cosigned), behind (it and others raced), refused (it
answers that it will not), down (no usable answer), invalid (it answered what proves nothing)."""

GRACE_S: Final = 0.25
_REASON: Final = 200
_BUSY: Final = HTTPStatus.TOO_MANY_REQUESTS
_NOT_ADMITTED: Final = f"{NotAdmitted.word}:".encode()

log = logging.getLogger(__name__)

Prove = Callable[[int, int], Awaitable[Sequence[bytes]]]
"""Gives the consistency proof from a size to a larger one; a `SealtapeError` of its is ours."""


@dataclass(frozen=True, slots=True)
class WitnessStatus:
    """How one witness of the policy does.

    Attributes:
        name, url: in the policy.
        state: one of `STATES`, as of its last answer.
        reason: why, where it is not `ok`; some of it may be the witness's own words.
        finding: whether its last answer means that the log or the witness has lied.
        findings: how many such answers there were since the start.
        size: the largest tree that it is known to have seen; None for nothing.
        answers: how many ended in which state since the start.
        at: POSIX seconds that its last cosignature states; None for none.
        seconds: how long its last answer took, in seconds.
    """

    name: str
    url: str
    state: str
    reason: str
    finding: bool
    findings: int
    size: int | None
    answers: Mapping[str, int]
    at: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an answer amounts to."""

    state: str
    reason: str = ""
    finding: bool = False
    lines: tuple[Cosignature, ...] = ()
    seen: int | None = None


@dataclass(slots=True)
class _Server:
    """One URL, and the witnesses of the policy that answer there."""

    place: Destination
    witnesses: list[Witness]
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    seen: dict[str, int] = field(default_factory=dict)
    last: _Outcome = field(default_factory=lambda: _Outcome("unasked"))
    answers: Counter[str] = field(default_factory=Counter)
    findings: int = 0
    times: dict[str, int] = field(default_factory=dict)
    size: int | None = None
    seconds: float = 0.0


class Witnesses:
    """Asks for cosignatures; one log at a time, checkpoints in the order of their sizes.

    Args:
        policy: whom, by which keys, and how many are enough.
        timeout_s: for one answer, in seconds.
        grace_s: how long to wait for more once there are enough.
        ca: a PEM file that `https` witnesses are verified by; None for the system's roots.

    Raises `SettingsError` for a URL that is none.
    """

    def __init__(
        self,
        policy: LogPolicy,
        *,
        timeout_s: float = 5.0,
        grace_s: float = GRACE_S,
        ca: Path | None = None,
    ) -> None:
        self._policy = policy
        self._timeout_s = timeout_s
        self._grace_s = grace_s
        self._servers: dict[str, _Server] = {}
        self._late: set[asyncio.Task[tuple[Cosignature, ...]]] = set()
        for witness in policy.witnesses:
            if witness.url and witness.url not in self._servers:
                place = destination(witness.url, ca, what=f"the policy's witness {witness.name}")
                self._servers[witness.url] = _Server(place, [])
            if witness.url:
                self._servers[witness.url].witnesses.append(witness)

    async def cosign(self, note: bytes, prove: Prove) -> list[str]:
        """Return the lines by which witnesses cosign a checkpoint that the log has signed.

        They are verified, and in the policy's order. Returns with the quorum, and a moment later
        for what else comes; without it, when everybody has answered or failed to.

        Raises FormatError when `note` is no checkpoint that the log signed, and what `prove`
        raises when there is no quorum without the proof.
        """
        note = submitted(note)
        text = notes.parse_note(note).text
        checkpoint = notes.parse_checkpoint(text)
        loop = asyncio.get_running_loop()
        asked = {
            loop.create_task(self._ask(server, note, checkpoint, prove))
            for server in self._servers.values()
        }
        try:
            found, errors = await self._gather(asked)
        except BaseException:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            raise
        if errors and not self._enough(found):
            raise errors[0]
        return [item.line for item in self._ordered(found)]

    def snapshot(self) -> tuple[WitnessStatus, ...]:
        """Say how each witness does, in the policy's order."""
        return tuple(
            _status(witness, self._servers.get(witness.url)) for witness in self._policy.witnesses
        )

    async def close(self) -> None:
        """Stop waiting for late answers."""
        late = list(self._late)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _gather(
        self, asked: set[asyncio.Task[tuple[Cosignature, ...]]]
    ) -> tuple[list[Cosignature], list[SealtapeError]]:
        found: list[Cosignature] = []
        errors: list[SealtapeError] = []
        waiting = set(asked)
        until: float | None = None
        loop = asyncio.get_running_loop()
        while waiting:
            if until is None and self._enough(found):
                until = loop.time() + self._grace_s
            left = None if until is None else max(0.0, until - loop.time())
            done, waiting = await asyncio.wait(
                waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for task in done:
                error = task.exception()
                if error is None:
                    found += task.result()
                elif isinstance(error, SealtapeError):
                    errors.append(error)
                else:
                    raise error
        for task in waiting:  # what they say still counts for their state
            self._late.add(task)
            task.add_done_callback(self._ended)
        return found, errors

    def _ended(self, task: asyncio.Task[tuple[Cosignature, ...]]) -> None:
        self._late.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a late witness could not be shown a proof: %s", error)

    def _enough(self, found: Iterable[Cosignature]) -> bool:
        keys = {(item.name, item.key_id) for item in found}
        return self._policy.enough({w.name for w in self._policy.witnesses if _key(w) in keys})

    def _ordered(self, found: Iterable[Cosignature]) -> list[Cosignature]:
        by_key = {(item.name, item.key_id): item for item in found}
        return [by_key[key] for key in map(_key, self._policy.witnesses) if key in by_key]

    async def _ask(
        self, server: _Server, note: bytes, checkpoint: notes.Checkpoint, prove: Prove
    ) -> tuple[Cosignature, ...]:
        async with server.turn:
            seen = server.seen.get(checkpoint.origin, 0)
            if seen > checkpoint.size:
                return ()  # it has cosigned a later one: this one came too late to be asked for
            started = time.monotonic()
            outcome = await self._answer(server, note, checkpoint, seen, prove)
            if outcome.state == "behind" and outcome.seen is not None:
                if outcome.seen < seen:
                    _forgot(server, seen, outcome.seen)
                server.seen[checkpoint.origin] = outcome.seen
                outcome = await self._answer(server, note, checkpoint, outcome.seen, prove)
            server.seconds = time.monotonic() - started
            if outcome.seen is not None:
                server.size = server.seen[checkpoint.origin] = outcome.seen
            _took(server, outcome)
            return outcome.lines

    async def _answer(
        self,
        server: _Server,
        note: bytes,
        checkpoint: notes.Checkpoint,
        seen: int,
        prove: Prove,
    ) -> _Outcome:
        body = encode_request(seen, await prove(seen, checkpoint.size), note)
        try:
            answer = await post(
                server.place,
                body,
                kind="text/plain; charset=utf-8",
                timeout_s=self._timeout_s,
                max_answer=MAX_ANSWER,
                path=server.place.below("add-checkpoint"),
            )
        except OutboundError as exc:
            return _Outcome("down", str(exc))
        if answer.status == HTTPStatus.OK:
            return _granted(answer, checkpoint, [item.verifier for item in server.witnesses])
        if answer.status == HTTPStatus.CONFLICT:
            return _conflict(answer, checkpoint, seen)
        return _refused(answer)


def _granted(
    answer: Answer, checkpoint: notes.Checkpoint, keys: Sequence[Cosigner | MlDsaCosigner]
) -> _Outcome:
    try:
        lines = parse_cosignatures(answer.body, checkpoint.text(), keys)
    except FormatError as exc:
        return _Outcome("invalid", exc.message, finding=True)
    return _Outcome("ok", lines=lines, seen=checkpoint.size)


def _conflict(answer: Answer, checkpoint: notes.Checkpoint, seen: int) -> _Outcome:
    try:
        told = parse_size(answer.body)
    except FormatError as exc:
        return _Outcome("invalid", exc.message, finding=True)
    size = checkpoint.size
    if told == seen:
        return _Outcome("refused", f"it has seen another tree of {told}", finding=True)
    if told > size:
        reason = f"it has seen {told} entries of {checkpoint.origin}, which has {size}"
        return _Outcome("refused", reason, finding=True)
    return _Outcome("behind", f"it has seen {told}, not {seen}", seen=told)


def _refused(answer: Answer) -> _Outcome:
    said = _said(answer)
    if answer.status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return _Outcome("refused", said, finding=True)
    if 400 <= answer.status < 500 and answer.status != _BUSY:
        return _Outcome("refused", said, finding=answer.body.startswith(_NOT_ADMITTED))
    return _Outcome("down", said)


def _said(answer: Answer) -> str:
    """The status and the first line of a body, of which nothing may steer a terminal or a log."""
    line = answer.body.partition(b"\n")[0][:_REASON].decode("ascii", "replace")
    words = "".join(c if c.isascii() and c.isprintable() else "?" for c in line)
    return f"HTTP {answer.status}: {words}" if words else f"HTTP {answer.status}"


def _forgot(server: _Server, seen: int, told: int) -> None:
    """A witness that was put back to an earlier day may cosign a second history from there."""
    server.findings += 1
    log.error("witness %s forgot: it had seen %d and tells %d", _names(server), seen, told)


def _took(server: _Server, outcome: _Outcome) -> None:
    """Write down what came of it, and log what changed."""
    before, server.last = server.last, outcome
    server.answers[outcome.state] += 1
    server.findings += outcome.finding
    for line in outcome.lines:
        server.times.update({w.name: line.at for w in server.witnesses if _key(w) == _of(line)})
    names = _names(server)
    if outcome.finding:
        log.error("witness %s: %s: %s", names, outcome.state, outcome.reason)
    elif outcome.state != before.state:
        level = logging.INFO if outcome.state == "ok" else logging.WARNING
        log.log(level, "witness %s: %s %s", names, outcome.state, outcome.reason)


def _status(witness: Witness, server: _Server | None) -> WitnessStatus:
    if server is None:
        reason = "the policy names no URL of it"
        return WitnessStatus(witness.name, "", "unasked", reason, False, 0, None, {}, None, 0.0)
    last = server.last
    return WitnessStatus(
        name=witness.name,
        url=witness.url,
        state=last.state,
        reason=last.reason,
        finding=last.finding,
        findings=server.findings,
        size=server.size,
        answers=dict(server.answers),
        at=server.times.get(witness.name),
        seconds=server.seconds,
    )


def _names(server: _Server) -> str:
    return ", ".join(witness.name for witness in server.witnesses)


def _key(witness: Witness) -> tuple[str, bytes]:
    return witness.verifier.name, witness.verifier.key_id


def _of(line: Cosignature) -> tuple[str, bytes]:
    return line.name, line.key_id
