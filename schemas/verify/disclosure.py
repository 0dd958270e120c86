"""Keys in a bundle: each opens the payload of its own frame, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sealtape.schemas.bundle import (
    Bundle,
    BundledFrame,
    FrameReader,
    frames_name,
    keys_name,
    parse_keys,
)
from sealtape.schemas.errors import FormatError
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.frames import DEFINED_FLAGS, KIND_NAMES, Frame, Suite
from sealtape.schemas.keys import COMMIT_SIZE, Packer, commitment, open_frame_with_key
from sealtape.schemas.verify.sealed_epochs import SealedEpoch
from sealtape.schemas.verify.steps import BundleReport

_STEP: Final = "payloads"


def check_payloads(
    bundle: Bundle, policy: EvidencePolicy, epochs: Sequence[SealedEpoch], report: BundleReport
) -> None:
    """The step `payloads`."""
    wanted = "decrypt" in policy.require
    given = [epoch.number for epoch in epochs if keys_name(epoch.number) in bundle.files]
    opened = 0
    packer = Packer()
    for epoch in epochs:
        if wanted or epoch.number in given:
            opened += _epoch(bundle, epoch.number, packer, report, wanted=wanted)
    if given or wanted:
        report.passed(_STEP, f"{opened} payloads opened")
    else:
        report.not_provided(_STEP, "no keys in the bundle")


def _epoch(
    bundle: Bundle, epoch: int, packer: Packer, report: BundleReport, *, wanted: bool
) -> int:
    """How many payloads of an epoch were opened."""
    opened = 0
    try:
        keys = _Keys(bundle.bytes_of(keys_name(epoch)))
        for frame in _frames(bundle, epoch):
            key = keys.of(frame.seq)
            if key is not None:
                _open(frame, key, packer)
                opened += 1
            elif wanted and frame.payload is not None and frame.suite == Suite.AES256GCM:
                reason = "a payload has no key"
                span = (frame.seq, frame.seq + 1)
                report.incomplete(_STEP, keys_name(epoch), reason, epoch=epoch, frames=span)
        keys.end()
    except FormatError as exc:
        report.tampered(_STEP, keys_name(epoch), exc.message, epoch=epoch)
    return opened


class _Keys:
    """The keys of an epoch, asked for in ascending order of `seq`."""

    def __init__(self, data: bytes | None) -> None:
        self._left = iter(()) if data is None else parse_keys(data)
        self._next: tuple[int, bytes] | None = next(self._left, None)

    def of(self, seq: int) -> bytes | None:
        if self._next is None or self._next[0] != seq:
            return None
        key = self._next[1]
        self._next = next(self._left, None)
        return key

    def end(self) -> None:
        if self._next is not None:
            raise FormatError(f"there is a key of frame {self._next[0]}, which is not there")


def _frames(bundle: Bundle, epoch: int) -> Iterator[BundledFrame]:
    """The frames, as far as they can be read; where they cannot is a finding already."""
    reader = FrameReader(bundle.files.get(frames_name(epoch), memoryview(b"")))
    while reader.next_seq is not None:
        try:
            frame = reader.read()
        except FormatError:
            return
        yield frame


def _open(frame: BundledFrame, key: bytes, packer: Packer) -> None:
    if frame.payload is None or frame.suite != Suite.AES256GCM:
        raise FormatError(f"frame {frame.seq} has a key and no payload that it could open")
    if frame.payload[:COMMIT_SIZE] != commitment(key):
        raise FormatError(f"frame {frame.seq} was not sealed under the key that is given for it")
    if frame.kind not in KIND_NAMES or frame.flags & ~DEFINED_FLAGS:
        return  # what is inside is not ours to read
    stored = Frame(
        frame.session,
        frame.epoch,
        frame.seq,
        frame.ts_ns,
        frame.kind,
        frame.suite,
        frame.flags,
        bytes(frame.payload),
    )
    try:
        open_frame_with_key(stored, key, packer)
    except FormatError as exc:
        raise FormatError(f"frame {frame.seq}: {exc.message}") from exc
