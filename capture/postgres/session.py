"""One client's way through the gateway: AUTHENTICATE, AUTHORIZE, HOLD, CONNECT, RELAY, CLOSE.

Each stage either goes on or raises `Refused`, which the client is told in PostgreSQL's words and
the journal as a fact. HOLD is where an approval will be waited for: nothing asks for one yet.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from sealtape.capture.identity import Identity
from sealtape.capture.postgres import refusals
from sealtape.capture.postgres.cancel import CancelKey
from sealtape.capture.postgres.codec import messages, startup
from sealtape.capture.postgres.codec.snapshot import CODEC, dump
from sealtape.capture.postgres.codec.startup import Admission, CancelRequest, Startup
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.capture.postgres.handshake import Hello, greet, is_loopback, say_goodbye
from sealtape.capture.postgres.limits import Seat
from sealtape.capture.postgres.refusals import fatal, refusal
from sealtape.capture.postgres.relay import Relay
from sealtape.capture.postgres.target import Greeting, TargetDialer
from sealtape.capture.postgres.wire import Disconnected, Wire
from sealtape.schemas.bodies import Agent, Ident
from sealtape.schemas.errors import Refused, StoreError, TargetError
from sealtape.schemas.settings import TargetSettings

if TYPE_CHECKING:
    from sealtape.capture.postgres.gateway import Gateway
    from sealtape.capture.postgres.listener import Peer

PASSWORD_LIMIT: Final = 64 << 10
_TIMER_S: Final = 60.0  # longest sleep before the wall clock is looked at again


@dataclass(frozen=True, slots=True)
class Admitted:
    """What AUTHORIZE decided."""

    name: str
    target: TargetSettings
    database: str
    admission: Admission


class Session:
    """One connection.

    Args:
        gateway: what the sessions of a worker share.
        peer: address and port the client comes from.
        seat: its place among the connections.
    """

    def __init__(self, *, gateway: Gateway, peer: Peer, seat: Seat) -> None:
        self._gateway = gateway
        self._peer = peer
        self._seat = seat
        self._user = ""
        self._target = ""
        self._relay: Relay | None = None
        self._tracker: Tracker | None = None
        self._reason = ""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._upstream: tuple[TargetDialer, Greeting] | None = None

    async def run(self, sock: socket.socket) -> None:
        """Serve the connection until it is closed.

        Raises:
            ProtocolViolation, OSError: it was no session; nothing has to be told to anyone.
        """
        timeout_s = self._gateway.settings.auth_timeout_s
        async with asyncio.timeout(timeout_s) as limit:
            hello = await greet(sock, self._gateway.context)
            wire = hello.wire
            try:
                if isinstance(hello.first, CancelRequest):
                    if self._gateway.registry.knows(hello.first.process, hello.first.key):
                        limit.reschedule(None)
                        self._seat.authenticated()  # others stay strangers: anybody can ask
                    await self._gateway.switch.request(hello.first.process, hello.first.key)
                    await say_goodbye(wire, b"")  # nothing is ever answered
                    return
                identity, asked = await self._authenticate(hello)
                limit.reschedule(None)
                self._seat.authenticated()
                await self._admit(wire, identity, asked)
            except Refused as exc:
                limit.reschedule(None)
                await self._refuse(wire, refusals.in_protocol(exc))
            finally:
                if self._relay is None:
                    wire.transport.close()

    def shut_down(self, *, force: bool) -> bool:
        """End an open session because the node stops; without `force` only when it is at rest.

        Answers whether it is ending.
        """
        if self._relay is None or not (force or self._relay.idle):
            return False
        self._end("shutdown", "shutdown")
        return True

    # -- AUTHENTICATE ------------------------------------------------------------------------------

    async def _authenticate(self, hello: Hello) -> tuple[Identity, Startup]:
        first = hello.first
        if isinstance(first, Refused):
            raise first
        assert isinstance(first, Startup)
        if not hello.tls and not (self._gateway.plaintext and is_loopback(self._peer[0])):
            raise refusal("tls-required")
        self._gateway.check_open()
        hello.wire.transport.write(first.negotiation + messages.AUTHENTICATION_CLEARTEXT)
        header, body = await hello.wire.message(PASSWORD_LIMIT)
        if header[:1] == b"X":
            raise Disconnected("The client left instead of giving a password.")
        if header[:1] != b"p":
            raise refusal("protocol", what="a password message was expected")
        token = body.rstrip(b"\0").decode("latin-1").strip()
        if not token:
            raise refusal("token-missing")
        identity = await self._gateway.verifier.verify(token)
        self._user = identity.user
        return identity, first

    # -- AUTHORIZE ---------------------------------------------------------------------------------

    def _authorize(self, identity: Identity, asked: Startup) -> Admitted:
        parameters = asked.parameters
        try:
            name, other = startup.target_of(parameters)
        except messages.ProtocolViolation:
            shown = (parameters.get("database") or parameters.get("user", ""))[:63]
            raise refusal("no-target", target=shown) from None
        self._target = name
        target = self._gateway.targets.get(name)
        if target is None:
            raise refusal("no-target", target=name)
        if "*" not in target.groups and not set(target.groups) & set(identity.groups):
            raise refusal("not-allowed", target=name)
        database = other or target.database
        if database != target.database and not {"*", database} & set(target.databases):
            raise refusal("database-not-allowed", target=name, database=database)
        try:
            admission = startup.admit(
                asked, allowed=target.startup_parameters, replication=target.replication
            )
        except startup.ParameterRefused as exc:
            raise refusal("parameter-not-allowed", what=exc.message, target=name) from None
        return Admitted(name, target, database, admission)

    def _ident(self, identity: Identity, admitted: Admitted) -> Ident:
        agent, run = identity.agent, identity.run or admitted.admission.run
        named = agent.id if agent else ""
        acting = Agent(named, agent.on_behalf_of if agent else (), run) if named or run else None
        return Ident(
            user=identity.user,
            subject=identity.subject,
            groups=identity.groups,
            issuer=identity.issuer,
            token_id=identity.token_id,
            agent=acting,
            source_ip=self._peer[0],
            source_port=self._peer[1],
            application=admitted.admission.application[:256],
            parameters=admitted.admission.parameters,
            target=admitted.name,
            protocol="postgres",
            database=admitted.database,
            node=self._gateway.node,
            expires_ns=identity.expires_ns,
        )

    # -- CONNECT, RELAY, CLOSE ---------------------------------------------------------------------

    async def _admit(self, wire: Wire, identity: Identity, asked: Startup) -> None:
        """Go on with a verified identity: to the target, and to the end."""
        admitted = self._authorize(identity, asked)
        dialer = self._gateway.dialers[admitted.name]
        upstream, greeting = await self._connect(dialer, admitted)
        try:
            recorder = await self._gateway.open_recorder(
                self._ident(identity, admitted), admitted.target, self
            )
        except BaseException as exc:
            upstream.abort()
            if isinstance(exc, StoreError):
                self._gateway.check_open()
                raise refusal("recording-unavailable") from exc
            raise
        key = self._gateway.registry.add(
            partial(dialer.cancel, greeting.process, greeting.key), long=asked.key_bytes > 4
        )
        self._upstream = dialer, greeting
        self._tracker = self._gateway.tracker(recorder, admitted.target)
        relay = self._relay = Relay(
            recorder=recorder,
            tracker=self._tracker,
            client=wire,
            target=upstream,
        )
        self._gateway.sessions.add(self)
        try:
            self._arm(identity, admitted.target)
            relay.start(greeting, _key_data(key) if greeting.key else b"")
            await relay.closed()
        finally:
            self._gateway.sessions.discard(self)
            self._gateway.registry.remove(key)
            for timer in self._timers.values():
                timer.cancel()
            try:
                relay.abort()
            finally:  # whatever happens, the recording gets its end
                reason = self._reason or relay.first_to_end or "error"
                await self._gateway.worker.close_session(recorder, reason)

    async def _connect(self, dialer: TargetDialer, admitted: Admitted) -> tuple[Wire, Greeting]:
        parameters = {"database": admitted.database, **admitted.admission.forward}
        if admitted.admission.replication:
            parameters["replication"] = admitted.admission.replication
        try:
            return await dialer.dial(parameters)
        except TargetError as exc:
            raise refusals.from_target(
                exc, target=admitted.name, database=admitted.database
            ) from exc

    def snapshot(self) -> tuple[str, bytes]:
        """Return what a decoder needs to start here: for STATE frames."""
        assert self._tracker is not None
        return CODEC, dump(self._tracker)

    def stalled(self, stalled: bool) -> None:  # noqa: FBT001 - the recorder's callback
        """Stop or go on reading: the spool says so."""
        if self._relay is not None:
            self._relay.stall(stalled=stalled)

    def recording_ended(self, reason: str) -> None:
        """The recorder gives up: nothing that it does not hold may go on."""
        self._reason = self._reason or reason
        if self._relay is not None:
            self._relay.fail(fatal(refusal("recording-failed")))

    # -- ends --------------------------------------------------------------------------------------

    def _arm(self, identity: Identity, target: TargetSettings) -> None:
        if target.on_expiry == "end":
            self._end_at(identity.expires_ns / 1e9, "expired", "expired")
        if target.max_session:
            self._end_at(time.time() + target.max_session, "max_session", "max-session")

    def _end_at(self, when_s: float, reason: str, words: str) -> None:
        """End the session at a wall-clock time; clocks get set, so look again now and then."""
        left_s = when_s - time.time()
        if left_s <= 0:
            self._end(reason, words)
            return
        loop = asyncio.get_running_loop()
        wait_s = min(left_s, _TIMER_S)
        self._timers[reason] = loop.call_later(wait_s, self._end_at, when_s, reason, words)

    def _end(self, reason: str, words: str) -> None:
        if self._relay is None or self._reason:
            return
        self._reason = reason
        self._relay.end(fatal(refusal(words, target=self._target)))
        if self._upstream is not None and self._upstream[1].key:
            dialer, greeting = self._upstream  # what it still does for the client is stopped too
            self._gateway.spawn(dialer.cancel(greeting.process, greeting.key))

    async def _refuse(self, wire: Wire, refused: Refused) -> None:
        self._gateway.refused(refused, peer=self._peer, user=self._user, target=self._target)
        await say_goodbye(wire, fatal(refused))


def _key_data(key: CancelKey) -> bytes:
    return messages.backend_key_data(key.process, key.key)
