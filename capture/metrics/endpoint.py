"""The HTTP endpoint of a room: `/metrics`, `/healthz` and `/readyz`, and nothing else.

It serves machines of the operator's own network, GET and HEAD alone, within the bounds of
`capture.inbound`. Nothing it says holds a secret or names a person.
"""

from __future__ import annotations

from http import HTTPStatus

from sealtape.capture.inbound import TEXT, Asked, Inbound, Reply, plain
from sealtape.capture.metrics.vitals import CONTENT_TYPE, Vitals, written

__all__ = ["Endpoint", "open_endpoint"]


async def open_endpoint(address: str, vitals: Vitals) -> Endpoint:
    """Return an endpoint that answers on `address`; one that does not where that is empty.

    Raises `TargetError`: the address cannot be had.
    """
    endpoint = Endpoint(vitals)
    if address:
        await endpoint.open(address)
    return endpoint


class Endpoint:
    """Answers for one room.

    Args:
        vitals: asked at each request.
    """

    def __init__(self, vitals: Vitals) -> None:
        self._vitals = vitals
        self._inbound = Inbound(self._answer)

    @property
    def address(self) -> str:
        """Where it answers; empty while it does not."""
        return self._inbound.address

    @property
    def connections(self) -> int:
        """How many are being answered."""
        return self._inbound.connections

    async def open(self, address: str) -> None:
        """Listen on `host:port`; port 0 takes a free one.

        Raises:
            TargetError: the address cannot be had.
        """
        hint = "Change `metrics` in the room's table, or stop what uses that address."
        await self._inbound.open(address, what="metrics", hint=hint)

    async def close(self) -> None:
        """Stop listening, and cut off who is being answered."""
        await self._inbound.close()

    async def _answer(self, asked: Asked) -> Reply:
        if asked.method not in {"GET", "HEAD"}:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
        if asked.path == "/metrics":
            return Reply(HTTPStatus.OK, CONTENT_TYPE, written(await self._vitals.families()))
        if asked.path == "/healthz":  # that it answers at all is the answer
            return Reply(HTTPStatus.OK, TEXT, b"ok\n")
        if asked.path == "/readyz":
            readiness = await self._vitals.readiness()
            status = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
            return Reply(status, "application/json", readiness.to_json())
        return plain(HTTPStatus.NOT_FOUND)
