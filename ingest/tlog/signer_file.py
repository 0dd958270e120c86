"""The log's keys in files, and what was signed with them in a file beside.

The key of shard 1 lies at PATH (`keys/log.key`), that of shard N at `keys/log-N.key`; the ML-DSA-44
key of each, where there is one, at `keys/log.mldsa.key` and `keys/log-N.mldsa.key`. What was signed
last, of each shard, is in `keys/log.signed`, or in another file that is named where the folder of
the keys may not be written. A lock beside it makes signers of one host take turns.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from sealtape.capture.files import locked, mapped, sync_directory
from sealtape.schemas import canonical, notes
from sealtape.schemas.cosignatures import ML_DSA_44, cosign
from sealtape.schemas.errors import (
    FormatError,
    Missing,
    SettingsError,
    SignatureError,
    StoreCorrupt,
)
from sealtape.schemas.tlog.keyfiles import PrivateHalf, parse_key
from sealtape.schemas.tlog.witnessing import Refusal, Seen, grown
from sealtape.schemas.tree import HASH_SIZE

__all__ = ["FileSigner", "key_paths", "read_key", "shard_of"]

_ORIGIN: Final = re.compile(r"(.+)/([1-9][0-9]{0,8})")
_SECOND_NS: Final = 1_000_000_000
_MAX_STATE: Final = 1 << 20


def shard_of(origin: str) -> int:
    """The number in `LOG/N`; FormatError for what is no log's origin."""
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        raise FormatError(f"{origin[:64]!r} is not the origin LOG/N of a log's shard")
    return int(match[2])


def key_paths(path: Path, number: int) -> tuple[Path, Path]:
    """Where the Ed25519 and the ML-DSA-44 key of a shard lie; `path` is that of shard 1."""
    stem = path.stem if number == 1 else f"{path.stem}-{number}"
    return path.with_name(f"{stem}{path.suffix}"), path.with_name(f"{stem}.mldsa{path.suffix}")


def read_key(path: Path) -> PrivateHalf | None:
    """The key in a file; None when there is no file. Raises `SettingsError`."""
    try:
        return parse_key(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, FormatError) as error:
        raise SettingsError(
            f"The key {path} cannot be read.", hint="Restore it from your copy.", path=str(path)
        ) from error


class FileSigner:
    """See `LogSigner` for the contract. Open with `await FileSigner.open(path)`."""

    def __init__(
        self,
        path: Path,
        state: Path | None = None,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Only `open` and tests call this."""
        self._path = path
        self._state = state or path.with_suffix(".signed")
        self._clock_ns = clock_ns
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, state: Path | None = None) -> FileSigner:
        """Sign with the keys that lie at and beside `path`; raises `SettingsError` for none.

        What was signed is kept in the file `state`, without it beside the keys.
        """
        if await asyncio.to_thread(read_key, path) is None:
            raise SettingsError(
                f"The log's key {path} is not there.",
                hint="`sealtape log init` makes the log's keys and policies; log.signer names it.",
                path=str(path),
            )
        return cls(path, state)

    async def signed(self, origin: str) -> int | None:
        number = shard_of(origin)
        if await asyncio.to_thread(read_key, key_paths(self._path, number)[0]) is None:
            return None
        return (await asyncio.to_thread(self._read)).get(origin, Seen()).size

    async def sign(self, old_size: int, proof: Sequence[bytes], text: str) -> bytes:
        async with self._turn:
            return await asyncio.to_thread(self._sign, old_size, proof, text)

    async def close(self) -> None:
        """Nothing is held."""

    def _sign(self, old_size: int, proof: Sequence[bytes], text: str) -> bytes:
        checkpoint = notes.parse_checkpoint(text)
        signer, second = self._keys(checkpoint.origin)
        with locked(self._state.with_name(self._state.name + ".lock")):
            state = self._read()
            try:
                seen = grown(state.get(checkpoint.origin), old_size, proof, checkpoint)
            except Refusal as refusal:
                raise SignatureError(
                    f"The log's signer refuses a checkpoint: {refusal.message}.",
                    hint="Its ledger may be an old copy: `sealtape ledger rebuild`.",
                ) from refusal
            if seen == state.get(checkpoint.origin):
                # Whoever wrote it may have crashed before the new name was on the disk.
                sync_directory(self._state.parent)
            else:
                self._write(state | {checkpoint.origin: seen})
        note = signer.sign(text)
        if second is not None:
            seconds = self._clock_ns() // _SECOND_NS
            note += cosign(second.name, second.private, text, seconds).encode()
        return note

    def _keys(self, origin: str) -> tuple[notes.Signer, PrivateHalf | None]:
        first, second = key_paths(self._path, shard_of(origin))
        key, other = read_key(first), read_key(second)
        if key is None:
            raise Missing(f"The signer has no key of {origin}: {first} is not there.")
        for half, path, algorithm in (
            (key, first, notes.ALGORITHM),
            (other, second, ML_DSA_44),
        ):
            if half is not None and (half.name, half.algorithm) != (origin, algorithm):
                raise SettingsError(f"{path} holds a key of {half.name}, not the one of {origin}.")
        return key.signer(), other

    def _read(self) -> dict[str, Seen]:
        with mapped("read", self._state):
            data = self._state.read_bytes() if self._state.exists() else b""
        if not data:
            return {}
        try:
            return _parse(data)
        except FormatError as error:
            raise StoreCorrupt(
                f"{self._state} is damaged, which says what the log has signed.",
                hint="Restore it; a lost one is the size and root of the newest checkpoint.",
            ) from error

    def _write(self, state: dict[str, Seen]) -> None:
        """Replace the file; it is whole at every moment, and on the disk on return."""
        fresh = self._state.with_name(self._state.name + ".new")
        with mapped("write", self._state):
            with fresh.open("wb") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(_format(state))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._state)
        sync_directory(self._state.parent)


def _format(state: dict[str, Seen]) -> bytes:
    lines: list[canonical.Json] = [
        {"origin": origin, "size": str(seen.size), "root": seen.root.hex()}
        for origin, seen in sorted(state.items())
    ]
    return canonical.encode({"v": 1, "signed": lines}) + b"\n"


def _parse(data: bytes) -> dict[str, Seen]:
    if len(data) > _MAX_STATE or not data.endswith(b"\n"):
        raise FormatError("a signer's state is one line")
    fields = canonical.fields(data[:-1], "signer's state")
    fields.version(1)
    state = {}
    for item in fields.objects("signed"):
        origin = item.text("origin")
        state[origin] = Seen(
            item.decimal("size", 0, notes.MAX_TREE_SIZE), item.hex("root", HASH_SIZE)
        )
        item.end()
    fields.end()
    return state
