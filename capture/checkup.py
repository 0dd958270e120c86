"""What a store says about itself when `sealtape doctor` asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Check"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, how it is, and what to do about it.

    Attributes:
        name: what was looked at, such as `bus: topic settings`.
        level: `ok`, `warning` (works, and should be changed) or `error` (does not work, or lies).
        message: what was found, in words.
        hint: what to do, empty when it is ok.
    """

    name: str
    level: Literal["ok", "warning", "error"]
    message: str
    hint: str = ""
