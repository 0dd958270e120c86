"""A capture worker put together from the settings: keys, bus, spool, worker, listeners."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from sealtape.capture.bus import Bus, open_bus
from sealtape.capture.epoch import NodeIdentity, Terms
from sealtape.capture.metrics.counts import Counts
from sealtape.capture.metrics.endpoint import Endpoint, open_endpoint
from sealtape.capture.metrics.link import Reply
from sealtape.capture.metrics.room import CaptureVitals
from sealtape.capture.postgres.gateway import Gateway
from sealtape.capture.receipts.view import LogView, open_view
from sealtape.capture.recorder import Pace
from sealtape.capture.spool.folder import Spool
from sealtape.capture.worker import Worker
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.errors import KeyUnavailable, SettingsError, StoreBusy
from sealtape.schemas.settings import RetentionSettings, Settings
from sealtape.schemas.trust import parse_node_key
from sealtape.schemas.wraps import PublicKey

BOOT_SIZE = 16
_SPOOL_KEY_SIZE = 32

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class RunningCapture:
    """A worker that takes connections.

    Attributes:
        listeners: protocol to `host:port`, as clients reach them; `metrics` where there are some.
        worker: for its health.
    """

    listeners: dict[str, str]
    worker: Worker
    _gateway: Gateway
    _own: AsyncExitStack
    _told: Endpoint | Reply

    async def stop(self) -> bool:
        """Drain: no new connections, end the sessions, ship. Say whether the bus has it all."""
        await self._gateway.close()
        shipped = await self.worker.stop()
        await self._own.aclose()
        await self._told.close()
        return shipped


async def start_capture(
    settings: Settings,
    *,
    on_ready: Callable[[dict[str, str]], None] | None = None,
    bus: Bus | None = None,
    number: int = 0,
    boot: bytes | None = None,
    shared: bool = False,
    vitals: socket.socket | None = None,
) -> RunningCapture:
    """Start a capture worker on the running loop; it takes connections when this returns.

    Args:
        settings: the deployment's.
        on_ready: called with the listeners' addresses.
        bus: to append to; opened from the settings, and closed at the end, when None. The bus for
            keys always comes from the settings, if they name one.
        number, boot: of this worker on its node; `boot` is drawn when None.
        shared: whether other workers listen on the same address.
        vitals: where a supervisor asks for metrics; without it they have an endpoint of their own,
            if the settings name one.

    Raises:
        SettingsError, KeyUnavailable, StoreError, TargetError: what is missing, by name.
    """
    identity = _identity(settings, number, boot or secrets.token_bytes(BOOT_SIZE))
    _say_unread(settings)
    key = _spool_key(settings)
    view = open_view(settings)
    about = CaptureVitals(node=identity.node, number=number)
    async with AsyncExitStack() as undo:
        told, listeners = await _tell(settings, about, vitals)
        undo.push_async_callback(told.close)
        own = AsyncExitStack()
        undo.push_async_callback(own.aclose)
        if bus is None:
            bus = await _open(settings.stores.bus, settings, own)
        keys = None
        if settings.stores.keys:
            keys = await _open(settings.stores.keys, settings, own)
            _check_alike(bus, keys)
        worker = _worker(settings, identity, key, bus, keys, view)
        about.begin(worker)
        await worker.start()
        undo.push_async_callback(worker.stop)
        gateway = Gateway(settings=settings, worker=worker, number=number, shared=shared)
        gateway.open()
        about.attach(worker, gateway, expires_s=_expiry_s(settings))
        undo.pop_all()
    listeners = {"postgres": gateway.listener.address, **listeners}
    if on_ready is not None:
        on_ready(listeners)
    return RunningCapture(
        listeners=listeners, worker=worker, _gateway=gateway, _own=own, _told=told
    )


def _worker(
    settings: Settings,
    identity: NodeIdentity,
    key: bytes,
    bus: Bus,
    keys: Bus | None,
    view: LogView | None,
) -> Worker:
    spool = Spool(
        Path(settings.base, settings.capture.spool),
        node=identity.node,
        boot=identity.boot,
        worker=identity.worker,
        key=key,
        limit=settings.capture.spool_limit,
    )
    worker = Worker(
        bus=bus,
        keys=keys,
        spool=spool,
        identity=identity,
        journal_terms=_journal_terms(settings),
        pace=_pace(settings),
        counts=Counts(settings.targets),
    )
    if view is not None:
        worker.watch(view)
    return worker


async def _tell(
    settings: Settings, about: CaptureVitals, supervisor: socket.socket | None
) -> tuple[Endpoint | Reply, dict[str, str]]:
    """Begin to tell how this worker is, before anything that may take long; say where."""
    if supervisor is not None:
        supervisor.setblocking(False)
        reply = Reply(about, supervisor)
        reply.open()
        return reply, {}
    endpoint = await open_endpoint(settings.capture.metrics, about)
    return endpoint, {"metrics": endpoint.address} if endpoint.address else {}


def _expiry_s(settings: Settings) -> float:
    """When the listener's certificate, which was read already, expires, in Unix time."""
    path = Path(settings.base, settings.capture.postgres.tls_certificate)
    return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()


async def _open(url: str, settings: Settings, own: AsyncExitStack) -> Bus:
    """Open a bus; one that is away does not keep a node down, since the spool takes what comes."""
    bus = open_bus(url, Path(settings.base))
    own.push_async_callback(bus.close)
    try:
        await bus.start()
    except StoreBusy as exc:
        _log.warning("The bus cannot be reached; recordings stay in the spool: %s", exc)
    return bus


def _check_alike(bus: Bus, keys: Bus) -> None:
    """Whoever reads a partition of frames reads the same one of keys."""
    if keys.partitions != bus.partitions:
        raise SettingsError(
            f"The bus has {bus.partitions} partitions, and the one for keys {keys.partitions}.",
            hint="Make stores.keys with as many partitions as stores.bus.",
            setting="stores.keys",
        )


def _identity(settings: Settings, number: int, boot: bytes) -> NodeIdentity:
    keys = settings.keys
    return NodeIdentity(
        log=settings.deployment.log,
        node=settings.deployment.node,
        boot=boot,
        worker=number,
        signer=parse_node_key(_read(settings, keys.node, "the node's signing key")),
        auditors=_readers(settings, "auditor", keys.auditors),
        indexers=_readers(settings, "indexer", keys.indexers),
    )


def _say_unread(settings: Settings) -> None:
    """Warn when recordings are encrypted and wrapped to no auditor, as `sealtape doctor` does."""
    encrypted = sorted(name for name, kept in settings.retention.items() if kept.encryption)
    if encrypted and not settings.keys.auditors:
        _log.warning(
            "Nothing is wrapped to the auditors: nobody will ever read what is recorded in %s."
            " Name their public keys in keys.auditors.",
            ", ".join(encrypted),
        )


def _readers(settings: Settings, purpose: str, paths: Sequence[str]) -> list[PublicKey]:
    """The keys of one kind of readers: an indexer's among the auditors' would open all data."""
    found: dict[str, PublicKey] = {}
    for path in paths:
        key = _public(settings, path)
        if not key.id.startswith(f"{purpose}-") or key.id in found:
            what = "twice" if key.id in found else f"which is no key of {purpose}s"
            raise SettingsError(
                f"keys.{purpose}s names {path}, the key {key.id}, {what}.",
                hint="Each key is wrapped to once, by what it may open.",
                setting=f"keys.{purpose}s",
            )
        found[key.id] = key
    return list(found.values())


def _public(settings: Settings, path: str) -> PublicKey:
    return PublicKey.from_text(_read(settings, path, "a public key that recordings are wrapped to"))


def _spool_key(settings: Settings) -> bytes:
    text = _read(settings, settings.keys.spool, "the key that encrypts the spool")
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != _SPOOL_KEY_SIZE:
        raise KeyUnavailable(
            f"The spool key {settings.keys.spool} is not 64 hexadecimal digits.",
            hint="Restore it: what lies in the spool cannot be read without it.",
        )
    return key


def _read(settings: Settings, path: str, what: str) -> str:
    try:
        return Path(settings.base, path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or exc
        raise KeyUnavailable(
            f"{path}, {what}, cannot be read: {reason}.",
            hint="`sealtape init` makes the keys of a deployment.",
        ) from exc


def _journal_terms(settings: Settings) -> Terms:
    """The journal is kept like the longest kept class."""
    if not settings.retention:
        raise SettingsError("There is no retention class.", hint="Add [retention.standard].")
    name, kept = max(settings.retention.items(), key=lambda item: item[1].delete_after)
    return Terms(retention=retention_class(name, kept), encryption=kept.encryption)


def retention_class(name: str, kept: RetentionSettings) -> RetentionClass:
    """Return what OPEN says of a retention class, in seconds."""
    return RetentionClass(name, int(kept.retain_for), int(kept.delete_after))


def _pace(settings: Settings) -> Pace:
    capture = settings.capture
    return Pace(
        frame_bytes=capture.frame_bytes,
        frame_ms=capture.frame_ms,
        checkpoint_frames=capture.checkpoint_frames,
        checkpoint_s=capture.checkpoint_s,
        state_every=capture.state_every,
        grace_s=capture.grace_s,
        heartbeat_s=capture.heartbeat_s,
        receipt_s=capture.receipt_s,
    )
