"""The other capture nodes behind one address: a CancelRequest for their sessions is passed on.

A load balancer deals out connections, and a CancelRequest comes on a connection of its own. Seven
bits of its process number name the node that holds the session (`cancel`); the request goes to that
node's own listener as the client sent it, over TLS unless the settings say otherwise, because the
key in it is a secret. The peer answers nothing, as ever.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from sealtape.capture.postgres.cancel import node_bits
from sealtape.capture.postgres.target import TargetDialer
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings import PostgresListenerSettings, TargetSettings
from sealtape.schemas.settings.values import address

MAX_AT_ONCE: Final = 16
"""Requests passed on at the same time: nobody has authenticated, so they must stay cheap."""


class Peers:
    """Passes cancel requests on.

    Args:
        node: this node's name.
        settings: `peers`, `peers_tls` and `peers_ca`.
        base: folder that `peers_ca` is relative to.

    Raises:
        SettingsError: a peer is not NAME=HOST:PORT, or two names share their seven bits.
        TargetError: `peers_ca` cannot be read.
    """

    def __init__(self, *, node: str, settings: PostgresListenerSettings, base: Path) -> None:
        self._room = asyncio.Semaphore(MAX_AT_ONCE)
        self._dialers: dict[int, TargetDialer] = {}
        names = {node_bits(node): node}
        for entry in settings.peers:
            name, where = _split(entry)
            bits = node_bits(name)
            if name != node and bits in names:
                raise SettingsError(
                    f"The nodes `{names[bits]}` and `{name}` cannot be told apart in cancel keys.",
                    hint="Rename one of them: 7 bits of the digest of a node's name are in a key.",
                )
            if name != node:  # one list may serve all nodes
                names[bits] = name
                self._dialers[bits] = _dialer(name, where, settings, base)

    async def request(self, process: int, key: bytes) -> None:
        """Pass a CancelRequest on to the node that its process number names, if that is a peer."""
        dialer = self._dialers.get(process >> 24)
        if dialer is not None:
            async with self._room:
                await dialer.cancel(process, key)


def _split(entry: str) -> tuple[str, str]:
    name, separator, where = entry.partition("=")
    try:
        return name, address(where if separator and name else None)
    except ValueError as exc:
        msg = f"`{entry}` in capture.postgres.peers is not NAME=HOST:PORT."
        raise SettingsError(msg, hint="Give the node's name and its own listener.") from exc


def _dialer(name: str, where: str, settings: PostgresListenerSettings, base: Path) -> TargetDialer:
    connection = TargetSettings(
        address=where,
        database="-",  # neither is sent: a CancelRequest stands alone
        user="-",
        groups=(),
        tls=settings.peers_tls,
        tls_ca=settings.peers_ca,
    )
    return TargetDialer(name=name, settings=connection, base=base, credential=_none)


async def _none() -> str | None:
    return None
