"""What the PostgreSQL sessions of one worker share, put together from the settings."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sealtape.capture.epoch import Terms
from sealtape.capture.identity import KeySet, TokenVerifier
from sealtape.capture.identity.fetch import provider_context
from sealtape.capture.postgres.cancel import CancelRegistry, CancelSwitch
from sealtape.capture.postgres.codec.statements import Classifier
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.capture.postgres.credential import credential_of
from sealtape.capture.postgres.handshake import server_context
from sealtape.capture.postgres.limits import Limits, Seat
from sealtape.capture.postgres.listener import Listener, Peer, bind
from sealtape.capture.postgres.peers import Peers
from sealtape.capture.postgres.refusals import refusal
from sealtape.capture.postgres.session import Session
from sealtape.capture.postgres.target import TargetDialer
from sealtape.schemas.bodies import Ident, RetentionClass
from sealtape.schemas.errors import Refused, SettingsError
from sealtape.schemas.settings import IdentitySettings, Settings, TargetSettings
from sealtape.schemas.settings.values import split_address

if TYPE_CHECKING:
    from sealtape.capture.recorder import SessionRecorder
    from sealtape.capture.worker import Worker

_DRAIN_STEP_S: Final = 0.1
_LAST_WORDS_S: Final = 10.0  # for sessions that were told to end
_STRANGERS_S: Final = 3.0  # for connections that are no session to leave


class Gateway:
    """The PostgreSQL side of a capture worker.

    Args:
        settings: the deployment's.
        worker: records and forwards.
        number: of this worker on its node, from 0.
        shared: whether other workers listen on the same address.

    Raises:
        SettingsError: identity is not configured, or a certificate or credential cannot be used.
    """

    def __init__(
        self, *, settings: Settings, worker: Worker, number: int = 0, shared: bool = False
    ) -> None:
        base = Path(settings.base)
        listen = settings.capture.postgres
        identity = _identity(settings)
        self.settings = settings.capture
        self.node = settings.deployment.node
        self.worker = worker
        self.plaintext = listen.plaintext == "loopback"
        self.context = server_context(
            str(base / listen.tls_certificate), str(base / listen.tls_key)
        )
        self.keys = KeySet(
            source=identity.jwks, base=base, context=provider_context(identity.ca, base)
        )
        self.verifier = TokenVerifier(settings=identity, keys=self.keys)
        self.targets = _targets(settings)
        self.dialers = {name: _dialer(name, target, base) for name, target in self.targets.items()}
        self.registry = CancelRegistry(node=self.node, worker=number)
        peers = Peers(node=self.node, settings=listen, base=base)
        self.switch = CancelSwitch(
            registry=self.registry, folder=base / "run", elsewhere=peers.request
        )
        self.sessions: set[Session] = set()
        self.limits = Limits(
            connections=self.settings.max_connections,
            unauthenticated=self.settings.max_unauthenticated,
            per_address=self.settings.max_per_address,
        )
        self.closing = False
        self._retention = settings.retention
        self._classifier = Classifier()
        self._background: set[asyncio.Task[Any]] = set()
        host, port = split_address(listen.listen)
        sock = bind(host, port, shared=shared)
        count = worker.journal.count
        self.listener = Listener(sock=sock, limits=self.limits, serve=self._serve, count=count)

    # -- life --------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start to listen."""
        self.switch.open()
        self.listener.open()

    async def close(self) -> None:
        """Stop: no new sessions, those at rest end at once, the others after the grace time."""
        self.closing = True
        await self.listener.close()
        now = asyncio.get_running_loop().time
        grace = now() + self.settings.grace_s
        while self.sessions and now() < grace + _LAST_WORDS_S:
            for session in tuple(self.sessions):
                session.shut_down(force=now() >= grace)
            await asyncio.sleep(_DRAIN_STEP_S)
        try:
            async with asyncio.timeout(_STRANGERS_S):
                await self.listener.finished()
        except TimeoutError:
            self.listener.abort()
            await self.listener.finished()
        self.switch.close()
        await self.keys.close()

    async def _serve(self, sock: socket.socket, peer: Peer, seat: Seat) -> None:
        await Session(gateway=self, peer=peer, seat=seat).run(sock)

    # -- for sessions ------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise Refused when no new session can be taken."""
        if self.closing:
            raise refusal("shutting-down")
        if self.limits.full:
            raise refusal("too-many-connections")

    async def open_recorder(
        self, ident: Ident, target: TargetSettings, session: Session
    ) -> SessionRecorder:
        """Return the recorder of a new session, its opening spooled. Raises StoreError."""
        return await self.worker.open_session(
            ident,
            self._terms(target),
            on_stall=session.stalled,
            on_end=session.recording_ended,
            snapshot=session.snapshot,
        )

    def tracker(self, recorder: SessionRecorder, target: TargetSettings) -> Tracker:
        """Return the tracker that writes a session's facts to its recorder."""
        return Tracker(
            emit=recorder.fact,
            classifier=self._classifier,
            salt=recorder.text_salt,
            full_text=target.full_text,
            parameters=target.parameters,
        )

    def refused(self, refused: Refused, *, peer: Peer, user: str, target: str) -> None:
        """Put a refusal into the journal."""
        self.worker.journal.refusal(
            refused.reason,
            protocol="postgres",
            source=peer[0],
            target=target,
            user=user,
            code=refused.protocol_code,
            message=refused.message,
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the sessions."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _terms(self, target: TargetSettings) -> Terms:
        kept = self._retention[target.retention]
        return Terms(
            retention=RetentionClass(
                target.retention, int(kept.retain_for), int(kept.delete_after)
            ),
            tenant=target.tenant,
            encryption=kept.encryption,
            level=target.level,
            on_failure=target.on_failure,
            on_seal=target.on_seal,
        )


def _identity(settings: Settings) -> IdentitySettings:
    if settings.identity is None:
        raise SettingsError(
            "There is no [identity] table: the gateway would not know whom to believe.",
            hint="Name your identity provider in it.",
        )
    return settings.identity


def _dialer(name: str, target: TargetSettings, base: Path) -> TargetDialer:
    credential = credential_of(target.password, base, target=name)
    return TargetDialer(name=name, settings=target, base=base, credential=credential)


def _targets(settings: Settings) -> Mapping[str, TargetSettings]:
    return {
        name: target for name, target in settings.targets.items() if target.protocol == "postgres"
    }
