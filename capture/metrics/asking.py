"""Asking a room how it is: the other side of `capture.metrics.endpoint`."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from sealtape.schemas.settings.values import split_address

__all__ = ["metrics_at", "readiness_at"]

TIMEOUT_S: Final = 5.0
MAX_ANSWER: Final = 8 << 20
_EVERY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not listened on


async def readiness_at(address: str) -> Mapping[str, Any] | None:
    """Return what `/readyz` says: `ready` and `checks`; None when nobody of ours answers."""
    body = await _get(address, "/readyz")
    try:
        told = json.loads(body or b"")
        return {"ready": bool(told["ready"]), "checks": dict(told["checks"])}
    except (ValueError, KeyError, TypeError):
        return None


async def metrics_at(address: str) -> Mapping[str, float] | None:
    """Return every metric, summed over its labels; None when nobody of ours answers."""
    body = await _get(address, "/metrics")
    if body is None:
        return None
    found: dict[str, float] = defaultdict(float)
    try:
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                found[sample.name] += sample.value
    except ValueError:
        return None
    return found if "sealtape_build_info" in found else None


async def _get(address: str, path: str) -> bytes | None:
    """Return the body of an answer, whatever its status; None without one."""
    host, port = split_address(address)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(_EVERY.get(host, host), port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
                answer = await reader.read(MAX_ANSWER)
                while more := await reader.read(MAX_ANSWER):
                    answer += more
                    if len(answer) > MAX_ANSWER:
                        return None
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    head, found, body = answer.partition(b"\r\n\r\n")
    return body if found and head.startswith(b"HTTP/1.1 ") else None
