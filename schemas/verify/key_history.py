"""Whose signatures count at which index of the log, as far as a bundle's `key` entries say.

The policy's administrators are the root; whatever they have not signed is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sealtape.schemas.errors import FormatError
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.notes import Verifier, open_note
from sealtape.schemas.tlog.statements import KeyStatement, Statement

ALWAYS = -1
"""The index at which a key of the policy was introduced."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A counting entry at `index` says that a key's signatures count from `since` on no more."""

    index: int
    since: int


class KeyHistory:
    """What the `key` entries of a bundle, in ascending order of their index, add up to."""

    def __init__(self, policy: EvidencePolicy, entries: Mapping[int, Statement]) -> None:
        """Judge the entries one after another."""
        self._threshold = policy.admin_threshold
        self._introduced: dict[str, dict[str, int]] = {
            role: {verifier.vkey: ALWAYS for verifier in verifiers}
            for role, verifiers in (("admin", policy.admins), ("node", policy.nodes))
        }
        self._endings: dict[str, list[Ending]] = {}
        self.ignored: list[int] = []
        """Entries that too few administrators signed."""
        for index, statement in sorted(entries.items()):
            body = statement.body
            if isinstance(body, KeyStatement) and self.by_admins(statement.note, index):
                self._take(index, body)
            else:
                self.ignored.append(index)

    def _take(self, index: int, body: KeyStatement) -> None:
        if body.action == "revoke" and body.since is not None:
            self._endings.setdefault(body.key, []).append(Ending(index, body.since))
            return
        self._introduced.setdefault(body.role, {}).setdefault(body.key, index)
        if body.action == "rotate":
            self._endings.setdefault(body.replaces, []).append(Ending(index, index))

    def by_admins(self, note: bytes, index: int, least: int = 1) -> bool:
        """Whether as many administrators as the policy asks for, and `least`, signed."""
        admins = self.verifiers("admin", index)
        return signed_by(note, admins) >= max(self._threshold, least)

    def verifiers(self, role: str, index: int) -> list[Verifier]:
        """The keys whose signatures count at an index for a role.

        For administrators only what was said before the index ends a key: else a key that ends
        could decide on its own ending.
        """
        found = []
        for key, begin in self._introduced.get(role, {}).items():
            if begin >= index:
                continue
            ends = [
                ending.since
                for ending in self._endings.get(key, ())
                if role != "admin" or ending.index < index
            ]
            if min(ends, default=index + 1) > index:
                found += _verifier(key)
        return found


def signed_by(note: bytes, verifiers: Sequence[Verifier]) -> int:
    """How many different keys of these signed a note; 0 where one of their signatures is bad."""
    keys = {(verifier.name, verifier.key_id): verifier.public for verifier in verifiers}
    try:
        opened = open_note(note, verifiers)
    except FormatError:
        return 0
    return len({keys[item.name, item.key_id] for item in opened.verified})


def _verifier(key: str) -> list[Verifier]:
    """The key as a verifier; keys that are none, as an auditor's, verify nothing."""
    try:
        return [Verifier.from_vkey(key)]
    except FormatError:
        return []
