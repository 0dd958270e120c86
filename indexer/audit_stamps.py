"""The auditor's look at the log's time-stamps: each one verifies, and required ones are there.

Whose time-stamps count is in the verifier's evidence policy (docs/spec/timestamps.md).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sealtape.ingest.tlog.store import LogStore, noted_key
from sealtape.schemas.errors import FormatError, SettingsError
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.timestamps import check_verifiable, verify_timestamp
from sealtape.schemas.verify import Report

__all__ = ["STAMP_LATE_NS", "FirstStamp", "Stamps", "stamps_after"]

STAMP_LATE_NS: Final = 2 * 3600 * 1_000_000_000
"""So long a witnessed seal may be under no time-stamp, where the policy requires one: they come
hourly, and an authority may be away once."""

_LAYER: Final = "timestamp"
_PREFIX: Final = "timestamps/"
_OBJECT: Final = re.compile(
    r"timestamps/([0-9]{20})/([a-z0-9][a-z0-9_-]{0,62})\.(tsr|pem)", re.ASCII
)


@dataclass(slots=True)
class _Shard:
    """Of one shard: what was witnessed when, what was stamped, which seals it has."""

    witnessed: Mapping[int, int]
    stamped: dict[int, int] = field(default_factory=dict)
    seals: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FirstStamp:
    """A time-stamp that verifies: whose, over which kept note, and the latest time it leaves."""

    authority: str
    name: str
    note: bytes
    latest_ns: int


def stamps_after(index: int) -> str:
    """What names of time-stamps over more than `index` entries are greater than."""
    return f"{_PREFIX}{index:020d}/~"


class Stamps:
    """The time-stamps of one run over the log."""

    def __init__(self, policy: EvidencePolicy, now_ns: int, report: Report) -> None:
        """Take whose time-stamps count. Raises `SettingsError` as `check_verifiable` does."""
        self._policy = policy
        self._now_ns = now_ns
        self._report = report
        self._required = "timestamp" in policy.require
        self._shards: dict[int, _Shard] = {}
        self.able = True
        """Whether the library is there that verifies them."""
        try:
            if policy.authorities:
                check_verifiable()
        except SettingsError as error:
            if self._required:
                raise
            self.able = False
            report.note(f"the log's time-stamps were not checked: {error.message}")

    def names(self, store: LogStore, keys: Iterable[str]) -> list[str]:
        """Those of a shard, of the vault's keys; what is no time-stamp is a finding."""
        names = []
        for key in sorted(keys):
            name = key.removeprefix(store.prefix)
            if _OBJECT.fullmatch(name):
                names.append(name)
            else:
                self._report.tampered(_LAYER, key, "it is no time-stamp of the log")
        return names

    async def shard(
        self,
        number: int,
        store: LogStore,
        names: Iterable[str],
        digests: Mapping[str, bytes],
        witnessed: Mapping[int, int],
    ) -> None:
        """Check those of a shard.

        `digests` are those of its kept notes by their names, `witnessed` the times of the notes
        that hold, by size.
        """
        shard = self._shards[number] = _Shard(witnessed)
        unknown: set[str] = set()
        for name in names:
            match = _OBJECT.fullmatch(name)
            if match is None or match[3] != "tsr":
                continue
            size, authority = int(match[1]), match[2]
            digest = digests.get(noted_key(size))
            if digest is None:
                self._report.tampered(
                    _LAYER, store.prefix + name, "the checkpoint that it stamps is not there"
                )
            elif (known := self._policy.authority(authority)) is None:
                unknown.add(authority)
            elif self.able:
                await self._verify(shard, store, name, digest, known.roots)
        for authority in sorted(unknown):
            self._report.note(f"the time-stamps of {authority} are of no known authority")

    async def _verify(
        self, shard: _Shard, store: LogStore, name: str, digest: bytes, roots: bytes
    ) -> None:
        latest_ns = await self._latest_ns(store, name, digest, roots)
        if latest_ns is None:
            return
        # A note that does not hold is a finding already, and is no anchor by being stamped.
        size = int(name.split("/")[1])
        if size in shard.witnessed:
            shard.stamped[size] = min(latest_ns, shard.stamped.get(size, latest_ns))

    async def _latest_ns(
        self, store: LogStore, name: str, digest: bytes, roots: bytes
    ) -> int | None:
        token = await store.get(name)
        chain = await store.get(name.removesuffix(".tsr") + ".pem")
        try:
            return verify_timestamp(token, digest, roots, chain).latest_ns
        except FormatError as error:
            self._report.tampered(_LAYER, store.prefix + name, error.message)
            return None

    async def first(self, store: LogStore, keys: AsyncIterator[str]) -> FirstStamp | None:
        """The first of these, which are the vault's keys, that a known authority made."""
        async for key in keys:
            name = key.removeprefix(store.prefix)
            match = _OBJECT.fullmatch(name)
            if match is None or match[3] != "tsr":
                continue
            known = self._policy.authority(match[2])
            if known is None:
                continue
            noted = noted_key(int(match[1]))
            note = await store.get(noted)
            latest_ns = await self._latest_ns(store, name, sha256(note).digest(), known.roots)
            if latest_ns is not None:
                return FirstStamp(match[2], noted, note, latest_ns)
        return None

    def due(self, witnessed_ns: int) -> bool:
        """Whether the policy wants a time-stamp over what was witnessed then."""
        return self._required and self._now_ns - witnessed_ns > STAMP_LATE_NS

    def sealed(self, number: int, index: int) -> None:
        """Note a seal of the log."""
        self._shards[number].seals.append(index)

    def finish(self) -> None:
        """Where the policy requires it, a time-stamp covers every seal that is not quite new."""
        if not self._required:
            return
        later = False
        for number, shard in sorted(self._shards.items(), reverse=True):
            # A later shard's first entry is this one's last checkpoint.
            top = max(shard.stamped, default=0)
            bare = [] if later else [index for index in shard.seals if index >= top]
            if any(self._late(shard, index) for index in bare):
                self._report.incomplete(
                    _LAYER,
                    f"log/v1/{number}/{_PREFIX}",
                    f"none covers {len(bare)} seals, the first is entry {min(bare)}",
                )
            later = later or bool(shard.stamped)

    def _late(self, shard: _Shard, index: int) -> bool:
        since = [time for size, time in shard.witnessed.items() if size > index]
        return bool(since) and self._now_ns - min(since) > STAMP_LATE_NS
