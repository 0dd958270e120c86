"""One session as an evidence bundle (docs/spec/bundle.md), out of ledger, vault and log.

What stands in the stores is put in as it is, and only compared with its own hashes: whether it is
true is for the verifier to say, with a policy of its own.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import IO, Final

from sealtape.indexer.evidence.archive import BundleWriter, Spooled
from sealtape.indexer.evidence.readme import readme
from sealtape.indexer.evidence.selection import Selection, select
from sealtape.indexer.reading import Keys
from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import FragmentRow
from sealtape.ingest.parquet import Row, read_rows
from sealtape.ingest.vault import Vault
from sealtape.schemas import notes, tree
from sealtape.schemas.bundle import (
    ABOUT,
    INCLUSION,
    MAX_ENTRIES,
    README,
    FragmentPath,
    checkpoint_name,
    encode_about,
    encode_frame,
    encode_hashes,
    encode_key,
    entry_name,
    fragments_name,
    frames_name,
    keys_name,
    split_note,
    timestamp_name,
)
from sealtape.schemas.errors import (
    FormatError,
    KeyUnavailable,
    Missing,
    NotFound,
    StoreCorrupt,
    UsageError,
)
from sealtape.schemas.frames import Suite, header
from sealtape.schemas.layout import manifest_key

__all__ = ["Exported", "Exporter", "Frames"]

Progress = Callable[[int, str], None]
_VERIFY: Final = "`sealtape verify` says what is wrong."


@dataclass(frozen=True, slots=True)
class Frames:
    """A choice of frames: ranges [lo, hi) by epoch."""

    ranges: tuple[tuple[int, int, int], ...] = ()

    def has(self, epoch: int, seq: int) -> bool:
        """Whether a frame is among them."""
        return any(e == epoch and lo <= seq < hi for e, lo, hi in self.ranges)

    def check(self, present: Sequence[tuple[int, int, int]]) -> None:
        """Raise UsageError for a range of which no frame is in these ranges of a bundle."""
        for epoch, lo, hi in self.ranges:
            if not any(e == epoch and lo < end and begin < hi for e, begin, end in present):
                which = f"frame {epoch}:{lo}" if hi == lo + 1 else f"frame {epoch}:{lo}-{hi - 1}"
                raise UsageError(
                    f"The bundle has no {which}: nothing was written.",
                    hint="SEQ is of epoch 0, EPOCH:SEQ of another; `sealtape search` shows both.",
                )


@dataclass(slots=True)
class Exported:
    """What was written, and what of it a verifier will miss.

    `present` are the frames that are there, withheld or not: ranges [lo, hi) by epoch.
    """

    session: str
    size: int = 0
    frames: int = 0
    withheld: int = 0
    keys: int = 0
    log_size: int = 0
    lacking: list[str] = field(default_factory=list)
    present: list[tuple[int, int, int]] = field(default_factory=list)


class Exporter:
    """Exports sessions of one deployment."""

    def __init__(
        self, ledger: Ledger, vault: Vault, *, keys: Keys | None = None, progress: Progress
    ) -> None:
        """`keys` are the auditors', to disclose keys of frames; None discloses none."""
        self._ledger = ledger
        self._vault = vault
        self._keys = keys
        self._progress = progress
        self._object: tuple[str, bytes | None] = ("", None)

    async def settle(self, session: bytes, until: float, pause_s: float) -> None:
        """Wait until nothing of a session is lacking in the log, at most until `monotonic` says."""
        while time.monotonic() < until:
            try:
                if not (await select(self._ledger, self._vault, session)).lacking:
                    return
            except NotFound:
                pass  # said by `export`, if it stays so
            await asyncio.sleep(pause_s)

    async def export(
        self,
        session: bytes,
        place: Path,
        *,
        redact: Frames | None = None,
        disclose: Frames | None = None,
    ) -> Exported:
        """Write the bundle of a session to `place`, which must not exist.

        Args:
            session: the session.
            place: where to.
            redact: frames whose payloads are withheld.
            disclose: frames whose keys are given, None all that are not withheld; without `keys`
                none is.

        Raises:
            NotFound: nothing of it is there, or not yet, or it is too large for a bundle.
            StoreCorrupt: the stores contradict each other.
            UsageError: a frame to redact or to disclose is not in the bundle, or is public.
        """
        chosen = await select(self._ledger, self._vault, session)
        if len(chosen.entries) > MAX_ENTRIES:
            raise _too_large(session, f"{len(chosen.entries)} entries; {MAX_ENTRIES} are read")
        done = Exported(session.hex(), log_size=chosen.size, lacking=chosen.lacking)
        writer = BundleWriter(place.parent)
        partial = place.with_name(f".{place.name}.{secrets.token_hex(8)}.partial")
        try:
            _log_files(writer, chosen)
            for epoch in chosen.fragments:
                await self._epoch(writer, chosen, epoch, redact or Frames(), disclose, done)
            for frames in (redact, disclose):
                (frames or Frames()).check(done.present)
            done.size = _put(writer, partial, place, session)
        finally:
            partial.unlink(missing_ok=True)
            writer.close()
        return done

    # -- epochs ---------------------------------------------------------------------------------

    async def _epoch(
        self,
        writer: BundleWriter,
        chosen: Selection,
        epoch: int,
        redact: Frames,
        disclose: Frames | None,
        done: Exported,
    ) -> None:
        fragments = chosen.fragments[epoch]
        if not fragments:
            return
        lines, paths = [], []
        frames: Spooled | None = None
        keys: Spooled | None = None
        for row, index in fragments:
            paths.append(await self._path(row, index))
            lines.append(row.record.to_json() + b"\n")
            for stored in await self._rows(row, done):
                frames = frames or writer.spool(frames_name(epoch))
                withheld = redact.has(epoch, stored.seq)
                frames.write(_frame(stored, withheld=withheld))
                done.frames += 1
                done.withheld += withheld
                if not withheld and (disclose is None or disclose.has(epoch, stored.seq)):
                    key = await self._key(stored, asked=disclose is not None)
                    if key:
                        keys = keys or writer.spool(keys_name(epoch))
                        keys.write(key)
                        done.keys += 1
            self._progress(done.frames, "")
        writer.add(fragments_name(epoch), b"".join(lines))
        writer.add(fragments_name(epoch, "paths"), "".join(path.line() for path in paths).encode())

    async def _path(self, row: FragmentRow, index: int) -> FragmentPath:
        """How a fragment record is sealed in its segment, by the segment's manifest."""
        manifest = await self._vault.get(manifest_key(row.segment_key))
        lines = manifest.split(b"\n")[1:-1]
        if not 0 <= row.index < len(lines) or lines[row.index] != row.record.to_json():
            msg = f"The manifest of {row.segment_key} has not the fragments that the ledger names."
            raise StoreCorrupt(msg, hint=_VERIFY)
        leaves = [tree.leaf_hash(line) for line in lines]
        return FragmentPath(index, row.index, tuple(tree.inclusion_proof(leaves, row.index)))

    async def _rows(self, row: FragmentRow, done: Exported) -> Sequence[Row]:
        """A fragment's rows; none where its object is gone."""
        data = await self._segment(row.segment_key)
        if data is None:
            lo, hi = row.record.lo, row.record.hi
            done.lacking.append(f"frames {lo} to {hi - 1}: {row.segment_key} is not in the vault")
            return ()
        done.present.append((row.record.epoch, row.record.lo, row.record.hi))
        start, end = row.record.rows
        return [found for _, found in read_rows(data, start, end)]

    async def _segment(self, key: str) -> bytes | None:
        """An object, if it is the one that was sealed; the last one is kept."""
        if self._object[0] != key:
            try:
                data: bytes | None = await self._vault.get(key)
            except Missing:
                data = None
            segment = await self._ledger.segment(key)
            sealed = None if segment is None else segment.record.sha256
            if data is not None and sha256(data).digest() != sealed:
                raise StoreCorrupt(f"{key} is not the object that was sealed.", hint=_VERIFY)
            self._object = key, data
        return self._object[1]

    async def _key(self, row: Row, *, asked: bool) -> bytes:
        """The line of a frame's key; empty where there is nothing to disclose."""
        if self._keys is None or row.suite != Suite.AES256GCM:
            return b""
        try:
            key = await self._keys.of_frame(row.frame())
        except KeyUnavailable:
            if asked:
                raise
            return b""
        return encode_key(row.seq, key)


def _put(writer: BundleWriter, partial: Path, place: Path, session: bytes) -> int:
    """Write the bundle beside its place, then put it there."""
    with open(partial, "xb", opener=_private) as out:
        size = _written(writer, out, session)
    if place.exists():
        raise UsageError(f"{place} exists.", hint="Another export has written it meanwhile.")
    partial.rename(place)
    return size


def _private(path: str, flags: int) -> int:
    """Open for the owner alone: with its keys, a bundle is what was recorded."""
    return os.open(path, flags, 0o600)


def _written(writer: BundleWriter, out: IO[bytes], session: bytes) -> int:
    try:
        return writer.write(out)
    except FormatError as exc:
        raise _too_large(session, exc.message) from exc


def _too_large(session: bytes, reason: str) -> NotFound:
    """Written all the same, every verifier would call it tampered."""
    return NotFound(
        f"Session {session.hex()} is too large for a bundle: {reason}.",
        hint="`sealtape verify SESSION` judges it where it is.",
    )


def _frame(row: Row, *, withheld: bool) -> bytes:
    if withheld and row.suite == Suite.PUBLIC:
        msg = f"Frame {row.seq} of epoch {row.epoch} is public: it cannot be redacted."
        raise UsageError(msg, hint="OPEN, GAP, CLOCK and CLOSE hold no personal data.")
    head = header(
        row.session,
        row.epoch,
        row.seq,
        row.ts_ns,
        row.kind,
        row.suite,
        row.flags,
        row.payload_len,
        row.payload_sha256,
    )
    return encode_frame(head, None if withheld else row.payload)


def _log_files(writer: BundleWriter, chosen: Selection) -> None:
    """Everything that is of the log and not of the session."""
    origin = notes.parse_checkpoint(notes.parse_note(chosen.notes[chosen.size]).text).origin
    writer.add(README, readme(chosen.session, origin, chosen.size))
    writer.add(ABOUT, encode_about(chosen.session, chosen.size))
    writer.add(INCLUSION, encode_hashes(chosen.inclusion))
    for index, entry in chosen.entries.items():
        writer.add(entry_name(index), entry)
    for size, note in chosen.notes.items():
        name = checkpoint_name(size)
        rest, apart = split_note(note)
        writer.add(name, rest)
        if apart:
            writer.add(f"{name}.mldsa", apart)
    for size, proof in chosen.consistency.items():
        writer.add(f"{checkpoint_name(size)}.consistency", encode_hashes(proof))
    for stamp in chosen.stamps:
        writer.add(timestamp_name(stamp.size, stamp.authority, "tsr"), stamp.tsr)
        writer.add(timestamp_name(stamp.size, stamp.authority, "pem"), stamp.pem)
