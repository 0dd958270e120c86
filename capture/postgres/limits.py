"""How many connections there may be: in all, not yet authenticated, and those from one address."""

from __future__ import annotations

from collections import Counter


class Seat:
    """One connection's place; `leave` it when the connection is over."""

    __slots__ = ("_address", "_known", "_left", "_limits")

    def __init__(self, limits: Limits, address: str) -> None:
        self._limits = limits
        self._address = address
        self._known = False
        self._left = False

    def authenticated(self) -> None:
        """Count no more among those nobody knows."""
        if not self._known:
            self._known = True
            self._limits.forget_stranger(self._address)

    def leave(self) -> None:
        """Give the place back; again does nothing."""
        if not self._left:
            self._left = True
            self.authenticated()
            self._limits.total -= 1


class Limits:
    """Counts the connections of a listener.

    Args:
        connections: most in all; more are answered with 53300.
        unauthenticated: most that have not authenticated.
        per_address: most of those from one address.
    """

    def __init__(self, *, connections: int, unauthenticated: int, per_address: int) -> None:
        self.total = 0
        self._connections = connections
        self._unauthenticated = unauthenticated
        self._per_address = per_address
        self._strangers: Counter[str] = Counter()
        self._stranger_total = 0

    def enter(self, address: str) -> Seat | None:
        """Return a place for a new connection, or None when it must be closed without a word."""
        if (
            self._stranger_total >= self._unauthenticated
            or self._strangers[address] >= self._per_address
        ):
            if not self._strangers[address]:
                del self._strangers[address]
            return None
        self.total += 1
        self._stranger_total += 1
        self._strangers[address] += 1
        return Seat(self, address)

    @property
    def full(self) -> bool:
        """Whether the connection that entered last is one too many."""
        return self.total > self._connections

    @property
    def strangers(self) -> int:
        """How many have not authenticated."""
        return self._stranger_total

    def forget_stranger(self, address: str) -> None:
        """Count one stranger of that address less."""
        self._stranger_total -= 1
        self._strangers[address] -= 1
        if not self._strangers[address]:
            del self._strangers[address]
