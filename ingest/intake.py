"""From the bus into the sealer: what one partition's worker reads, and puts where it belongs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sealtape.capture.bus.base import Batch, Bus
from sealtape.ingest.keyring.base import Keyring
from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import FragmentRow
from sealtape.ingest.sealer import Doubt, Sealer, Taken, decode_all
from sealtape.ingest.segment_file import SegmentFile
from sealtape.ingest.vault.base import Vault
from sealtape.schemas.errors import Exists, FormatError, Missing
from sealtape.schemas.messages import KeyMessage

__all__ = ["Intake", "Stores"]

LEAF_CACHE = 64
MS = 1_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stores:
    """What ingest reads from and writes to; `keys` is the keys' own bus where they have one."""

    bus: Bus
    keyring: Keyring
    vault: Vault
    ledger: Ledger
    keys: Bus | None = None

    async def close(self) -> None:
        """Close them all."""
        for store in (self.keys, self.bus, self.keyring, self.vault, self.ledger):
            if store is not None:
                await store.close()


class Intake:
    """Takes batches of one partition.

    Where keys travel on a bus of their own, nothing else may come there (`keys_only`), and a key
    that comes among the frames is kept and reported.
    """

    def __init__(
        self,
        stores: Stores,
        partition: int,
        *,
        clock_ns: Callable[[], int],
        keys_only: bool = False,
    ) -> None:
        """Read from `stores.keys` when `keys_only`, else from `stores.bus`."""
        bus = stores.keys if keys_only else stores.bus
        assert bus is not None
        self._bus = bus
        self._stores = stores
        self._partition = partition
        self._clock_ns = clock_ns
        self._keys_only = keys_only
        self._leaves: dict[tuple[str, int], list[bytes]] = {}

    async def take(self, sealer: Sealer, batch: Batch) -> None:
        """Hand a batch to the sealer, its keys to the keyring, and settle what is in doubt."""
        records = [(record.offset, record.key, record.value) for record in batch.records]
        taken = await asyncio.to_thread(decode_all, records, self._belongs, self._keys_only)
        names = sealer.unknown(taken)
        if names:
            sealer.load(names, await self._stores.ledger.heads(sorted(names)))
        now_ns = self._clock_ns()
        keys = await asyncio.to_thread(sealer.take, taken, batch.next_offset, now_ns)
        times = {record.offset: record.ts_ms * MS for record in batch.records} if keys else {}
        for item in keys:
            await self._keep_key(sealer, item, times[item.offset])
        for doubt in list(sealer.doubts):
            await self._settle(sealer, doubt, now_ns)

    def _belongs(self, session: bytes) -> bool:
        return self._bus.partition_of(session) == self._partition

    async def _keep_key(self, sealer: Sealer, item: Taken, ts_ns: int) -> None:
        """Put a wrap that the bus took at `ts_ns` into the keyring, before the position passes."""
        message = item.message
        assert isinstance(message, KeyMessage)
        keyring = self._stores.keyring
        if self._stores.keys is not None and not self._keys_only:
            sealer.misplaced_key(item, self._clock_ns())
        try:
            await keyring.put(message)
        except Exists:
            await keyring.dispute(message)
            sealer.key_conflict(item, self._clock_ns())
        except FormatError as error:
            sealer.malformed(item, error, self._clock_ns())
        else:
            # The bus's time: a wrap that is read again after a crash makes the same event again.
            sealer.key_kept(item, ts_ns)

    async def _settle(self, sealer: Sealer, doubt: Doubt, now_ns: int) -> None:
        """Compare a frame with the sealed one; a segment that is damaged stops no recording."""
        try:
            leaf = await self._sealed_leaf(doubt)
        except (Missing, FormatError) as error:
            log.error("a sealed frame cannot be compared with: %s", error)  # noqa: TRY400
            sealer.unread(doubt, now_ns)
        else:
            sealer.resolve(doubt, leaf, now_ns)

    async def _sealed_leaf(self, doubt: Doubt) -> bytes | None:
        row = doubt.row
        for fragment in await self._stores.ledger.fragments(row.session):
            record = fragment.record
            if record.epoch == row.epoch and record.lo <= row.seq < record.hi:
                return (await self._fragment_leaves(fragment))[row.seq - record.lo]
        return None

    async def _fragment_leaves(self, fragment: FragmentRow) -> list[bytes]:
        name = (fragment.segment_key, fragment.index)
        leaves = self._leaves.get(name)
        if leaves is None:
            start, end = fragment.record.rows
            # Not the whole object: anybody who repeats old messages would have all of them fetched.
            segment = SegmentFile(self._stores.vault, fragment.segment_key)
            leaves = await segment.column("leaf", start, end)
            if len(leaves) != end - start:
                raise FormatError(f"{fragment.segment_key} has no rows {start} to {end - 1}.")
            if len(self._leaves) >= LEAF_CACHE:
                self._leaves.clear()
            self._leaves[name] = leaves
        return leaves
