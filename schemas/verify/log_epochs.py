"""An epoch of a session between its opening and its seal, as a monitor follows it.

Its fragments come with the segments that they lie in, one after the other. What they add up to is
what the seal must say.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.canonical import Fields, Json
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.tlog.records import Listed, SessionOpen, SessionSeal
from sealtape.schemas.tree import HASH_SIZE, CompactRange, root
from sealtape.schemas.verify.packing import packed, unpacked
from sealtape.schemas.verify.violations import Place, Report, place_members, read_place

_MAX_I64: Final = 2**63 - 1
_NONE: Final = (0, bytes(32))
_PART: Final = struct.Struct(">Q32s32s")


@dataclass(frozen=True, slots=True)
class Opened:
    """What is kept of a `session-open`, and where it stands."""

    place: Place
    at_ns: int
    of: str
    tenant: str
    retention: RetentionClass
    opening_sha256: bytes

    @classmethod
    def by(cls, place: Place, entry: SessionOpen) -> Opened:
        """What is kept of an entry."""
        return cls(
            place, entry.at_ns, entry.of, entry.tenant, entry.retention, entry.opening_sha256
        )

    def members(self) -> dict[str, Json]:
        """The JSON object."""
        return {
            "place": place_members(self.place),
            "at_ns": str(self.at_ns),
            "of": self.of,
            "tenant": self.tenant,
            "class": self.retention.members(),
            "opening_sha256": self.opening_sha256.hex(),
        }

    @classmethod
    def read(cls, fields: Fields) -> Opened:
        """Read the JSON object."""
        found = cls(
            read_place(fields, "place"),
            fields.time_ns("at_ns"),
            fields.text("of"),
            fields.text("tenant"),
            RetentionClass.read(fields.object("class")),
            fields.hex("opening_sha256", HASH_SIZE),
        )
        fields.end()
        return found


@dataclass(frozen=True, slots=True)
class Continued:
    """Where the next epoch says that this one ends, and the place of that `session-open`."""

    place: Place
    size: int
    root: bytes


@dataclass(slots=True)
class Epoch:
    """What has come of an epoch.

    Attributes:
        opened: its `session-open`, None before that came.
        continued: what the next epoch says of it, None before that came.
        hi: frames so far, those lost counted in.
        lost: of these, frames in stated gaps.
        tree: the tree of all frames; None once some are lost.
        attested: the size of the last checkpoint in a fragment, and SHA-256 of its note.
        parts: the fragments: first frame, leaf, hash of the segment's record.
        blind: the manifest of a segment could not be read, so fragments may be unknown.
        heard_ns: when the last segment with frames of it was sealed; 0 before the first.
    """

    opened: Opened | None = None
    continued: Continued | None = None
    hi: int = 0
    lost: int = 0
    tree: CompactRange | None = field(default_factory=CompactRange)
    attested: tuple[int, bytes] = _NONE
    parts: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    blind: bool = False
    heard_ns: int = 0

    def add(
        self, report: Report, place: Place, item: FragmentRecord, leaf: bytes, digest: bytes
    ) -> None:
        """The next fragment, in the segment whose record has the hash `digest`."""
        gap = item.lo - self.hi
        stated = sum(hole.hi - hole.lo for hole in item.gaps if hole.lo >= self.hi)
        if (gap != stated or len(item.gaps) != bool(gap)) and not self.blind:
            reason = f"frames from {item.lo} on, {stated} lost, follow {self.hi} frames"
            report("cover", place, f"{_named(item.session, item.epoch)}: {reason}")
        if gap or self.tree is None:
            self.tree = None
            self.lost += max(gap, 0)
        else:
            self.tree.extend(item.range)
        self.hi = item.hi
        self.parts.append((item.lo, leaf, digest))
        if item.checkpoint is not None:
            note = item.checkpoint.note.encode()
            self.attested = (item.checkpoint.size, sha256(note).digest())

    def exchange(
        self, old: Collection[bytes], new: Sequence[tuple[int, bytes]], digest: bytes
    ) -> None:
        """Other fragments of the same frames take the place of those in `old` segments."""
        kept = [part for part in self.parts if part[2] not in old]
        self.parts = sorted([*kept, *((lo, leaf, digest) for lo, leaf in new)])

    def check(self, report: Report, place: Place, seal: SessionSeal) -> None:
        """Compare its seal with what has come."""
        who = _named(seal.session, seal.epoch)
        opened = self.opened
        if opened is None:
            report("seal-open", place, f"{who} is sealed, but was not opened")
            return
        if (seal.tenant, seal.retention, seal.opening_sha256) != (
            opened.tenant,
            opened.retention,
            opened.opening_sha256,
        ):
            report("seal-open", place, f"the seal of {who} has another OPEN, tenant or class")
        if self.blind:
            return
        listed = Listed(len(self.parts), root([leaf for _, leaf, _ in self.parts]))
        if seal.fragments != listed:
            reason = f"{seal.fragments.count} fragments, {listed.count} lie in segments before it"
            if seal.fragments.count == listed.count:
                reason = "other fragments than lie in segments before it"
            report("fragments", place, f"the seal of {who} counts {reason}")
        self._check_frames(report, place, seal)
        if (seal.attested, seal.checkpoint_sha256) != self.attested:
            reason = f"{seal.attested} frames signed, its fragments {self.attested[0]}"
            report("attested", place, f"the seal of {who} has {reason}, or another checkpoint")

    def _check_frames(self, report: Report, place: Place, seal: SessionSeal) -> None:
        who = _named(seal.session, seal.epoch)
        tail = seal.frames - self.hi  # lost behind the last fragment, where no gap can state it
        if tail < 0 or seal.lost != self.lost + tail:
            reason = f"{seal.frames} frames, {seal.lost} lost; its fragments end at {self.hi}"
            report("frames", place, f"the seal of {who} has {reason}, {self.lost} lost")
        elif not tail and self.tree is not None and seal.root != self.tree.root():
            report("frames", place, f"the seal of {who} has another root than its fragments give")

    # -- kept --------------------------------------------------------------------------------------

    def members(self) -> dict[str, Json]:
        """The state, as JSON."""
        following, tree = self.continued, self.tree
        return {
            "opened": None if self.opened is None else self.opened.members(),
            "continued": None
            if following is None
            else {
                "place": place_members(following.place),
                "size": str(following.size),
                "root": following.root.hex(),
            },
            "hi": str(self.hi),
            "lost": str(self.lost),
            "tree": None if tree is None else [node.hex() for node in tree.nodes],
            "attested": {"size": str(self.attested[0]), "sha256": self.attested[1].hex()},
            "parts": packed([_PART.pack(*part) for part in self.parts]),
            "blind": self.blind,
            "heard_ns": str(self.heard_ns),
        }

    @classmethod
    def read(cls, fields: Fields) -> Epoch:
        """Read what `members` gave, out of an object that has other members too."""
        opened = fields.optional_object("opened")
        following = fields.optional_object("continued")
        hi = fields.decimal("hi", 0, _MAX_I64)
        attested = fields.object("attested")
        found = cls(
            opened=None if opened is None else Opened.read(opened),
            continued=None if following is None else _continued(following),
            hi=hi,
            lost=fields.decimal("lost", 0, _MAX_I64),
            tree=None
            if fields.null("tree")
            else CompactRange(0, hi, fields.hexes("tree", HASH_SIZE)),
            attested=(attested.decimal("size", 0, _MAX_I64), attested.hex("sha256", HASH_SIZE)),
            parts=[_PART.unpack(row) for row in unpacked(fields, "parts", _PART.size)],
            blind=fields.boolean("blind"),
            heard_ns=fields.time_ns("heard_ns") if fields.has("heard_ns") else 0,  # older versions
        )
        attested.end()
        return found


def _continued(fields: Fields) -> Continued:
    found = Continued(
        read_place(fields, "place"),
        fields.decimal("size", 1, _MAX_I64),
        fields.hex("root", HASH_SIZE),
    )
    fields.end()
    return found


def _named(session: bytes, epoch: int) -> str:
    return f"session {session.hex()} epoch {epoch}"
