"""The relay: two protocols joined, every chunk recorded and tracked before it is sent on.

Per chunk: `recorder.data`, `tracker.client` or `.server`, `recorder.forward`. The worker calls the
other side's `write` once this loop tick's bytes are in the spool; until then they count as `held`.

Reading is paused by a set of reasons and goes on when the set is empty: the peer does not take more
(`peer`), too much is held (`held`), the recorder stalls (`spool`), the session is over (`over`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sealtape.capture.postgres.codec.messages import TERMINATE
from sealtape.capture.postgres.target import Greeting
from sealtape.capture.postgres.wire import Wire
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, MAX_REPLACES, TARGET_IN, TARGET_OUT

if TYPE_CHECKING:
    from sealtape.capture.postgres.codec.tracker import Tracker
    from sealtape.capture.recorder import SessionRecorder

HIGH_WATER: Final = 512 << 10  # bytes a transport buffers before its peer's reading is paused
HELD_HIGH: Final = 1 << 20  # bytes on their way through the spool, likewise
STATE_CHECK: Final = 1 << 20  # bytes of the target between two looks at whether a STATE is due
HELD_LOW: Final = 256 << 10
LINGER_S: Final = 2.0  # for a peer to close after it was told the end
STUCK_S: Final = 120.0  # for a peer that does not take what is left for it


class Side(asyncio.Protocol):
    """One connection of the pair.

    Attributes:
        held: bytes recorded for this side that the worker has not yet handed to `write`.
        dropping: what still arrives here is recorded, but no longer sent on.
        ended: the far end will send no more.
        lost: the connection is closed.
        half_open: it can be ended one way only (not over TLS).
    """

    peer: Side

    def __init__(self, relay: Relay, wire: Wire) -> None:
        self.relay = relay
        self.transport = wire.transport
        self.held = 0
        self.dropping = False
        self.ended = False
        self.lost = False
        self.half_open = not wire.tls
        self._finishing = False
        self._half = False
        self._shut = False
        self._reasons: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    # -- pausing -----------------------------------------------------------------------------------

    def hold(self, reason: str) -> None:
        """Stop reading from this side for a reason."""
        if not self._reasons and not self.transport.is_closing():
            self.transport.pause_reading()
        self._reasons.add(reason)

    def free(self, reason: str) -> None:
        """Take back a reason; reading goes on with the last one."""
        if reason in self._reasons:
            self._reasons.remove(reason)
            self._read_on()

    def _read_on(self) -> None:
        if not self._reasons and not self.transport.is_closing():
            self.transport.resume_reading()

    def holds(self, reason: str) -> bool:
        """Whether reading is paused for that reason."""
        return reason in self._reasons

    def pause_writing(self) -> None:
        self.peer.hold("peer")

    def resume_writing(self) -> None:
        self.peer.free("peer")

    # -- sending -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write `data` once everything recorded so far is spooled."""
        held = self.held = self.held + len(data)
        self.relay.forward(self.write, data)
        if held > HELD_HIGH:
            self.peer.hold("held")

    def write(self, data: bytes) -> None:
        """Write spooled bytes."""
        held = self.held = self.held - len(data)
        if self.lost or self.relay.failed:
            return
        self.transport.write(data)
        if held <= HELD_LOW and self.peer.holds("held"):
            self.peer.free("held")
        if not held and self._finishing:
            self._shut_down()

    # -- ending ------------------------------------------------------------------------------------

    def finish(self, *, half: bool = False) -> None:
        """Send no more than what is held, then close; `half` waits for the far end to close."""
        self._half = half and (self._half or not self._finishing)
        self._finishing = True
        if not half and self._reasons:
            self._reasons &= {
                "spool"
            }  # read to the end, so that the end is seen; if it can be kept
            self._read_on()
        if not self.held or self.relay.failed:
            self._shut_down()

    def _shut_down(self) -> None:
        """End our half, and close when the far end has too, or after a while.

        Closing with unread bytes in the kernel resets the connection, and the far end could lose
        what it was sent last.
        """
        if self.transport.is_closing():
            return
        if not self._shut and not self.ended and self.transport.can_write_eof():
            self._shut = True
            with contextlib.suppress(OSError):  # the far end has reset the connection
                self.transport.write_eof()
        if not self._shut or self.ended:
            self._close()
        elif not self._half:
            self._later(LINGER_S, self._close)

    def _close(self) -> None:
        self.transport.close()
        self._later(STUCK_S, self.transport.abort)

    def abort(self) -> None:
        """Close at once; see `Wire.abort` for why a lost connection is left alone."""
        if not self.lost:
            self.transport.abort()

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, call)

    def eof_received(self) -> bool:
        """Say whether the way back stays open: not over TLS, and not when there is no way back."""
        self.ended = True
        self.relay.ended(self)
        return self.half_open and not (self._finishing and not self.held)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        self.relay.ended(self)


class ClientSide(Side):
    """The client's connection."""

    def data_received(self, data: bytes) -> None:
        relay = self.relay
        relay.recorder.data(CLIENT_IN, data)
        if self.dropping:
            relay.changed(TARGET_OUT, b"", len(data))
            return
        relay.answered = False
        relay.goodbye = data.endswith(TERMINATE)
        relay.tracker.client(data, relay.recorder.data_ns)
        self.peer.send(data)

    def write(self, data: bytes) -> None:
        self.relay.boundaries.popleft()
        Side.write(self, data)


class TargetSide(Side):
    """The target's connection."""

    def eof_received(self) -> bool:
        Side.eof_received(self)
        return False  # a target that ends has nobody to read on

    def data_received(self, data: bytes) -> None:
        relay = self.relay
        clean = relay.tracker.server_at_boundary
        relay.recorder.data(TARGET_IN, data)
        relay.tracker.server(data, relay.recorder.data_ns)
        if self.dropping:
            relay.changed(CLIENT_OUT, b"", len(data))
            return
        relay.boundaries.append(clean)
        relay.answered = True
        self.peer.send(data)
        relay.unstated += len(data)
        if relay.unstated > STATE_CHECK and relay.tracker.at_rest:
            relay.unstated = 0
            relay.recorder.state_if_due()


class Relay:
    """Joins a client and a target until both are closed.

    Args:
        recorder, tracker: of this session.
        client, target: their connections; `start` takes the transports over.

    Attributes:
        boundaries: for each chunk held for the client, whether a message may be put in before it.
        failed: recording has failed, and nothing that is held may go out.
        first_to_end: `client` or `target`, empty while both are there.
        answered: the target was heard last.
        goodbye: the client's last bytes were a Terminate.
        unstated: bytes of the target since the last look at whether a STATE frame is due.
    """

    def __init__(
        self,
        *,
        recorder: SessionRecorder,
        tracker: Tracker,
        client: Wire,
        target: Wire,
    ) -> None:
        self.recorder = recorder
        self.tracker = tracker
        self.forward = recorder.forward
        self.boundaries: deque[bool] = deque()
        self.failed = False
        self.first_to_end = ""
        self.answered = True
        self.goodbye = False
        self.unstated = 0
        self._over = False
        self._changed_at: dict[int, int] = {}
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wires = client, target
        self.client = ClientSide(self, client)
        self.target = TargetSide(self, target)
        self.client.peer, self.target.peer = self.target, self.client

    def start(self, greeting: Greeting, key_data: bytes) -> None:
        """Send the target's greeting, `key_data` for its BackendKeyData, and relay from here on."""
        stream, start, stop = greeting.stream, greeting.key_start, greeting.key_stop
        if stop:
            self.recorder.data(TARGET_IN, stream[:stop])
            self.changed(CLIENT_OUT, key_data, stop - start)
            self.recorder.data(TARGET_IN, stream[stop:])
        else:
            self.recorder.data(TARGET_IN, stream)
        self.tracker.server(stream, self.recorder.data_ns)
        self._put_in(stream[:start] + key_data + stream[stop:] if stop else stream)
        for side, wire in zip((self.client, self.target), self._wires, strict=True):
            side.transport.set_write_buffer_limits(high=HIGH_WATER)
            left = wire.take_over(side)
            if left:
                side.data_received(left)
            if wire.lost:
                side.connection_lost(None)
            elif wire.ended:
                side.eof_received()

    def end(self, message: bytes) -> None:
        """Tell the client `message` where the protocol has a place for it, and close both sides."""
        if self._over:
            return
        self._over = self.client.dropping = self.target.dropping = True
        if self.tracker.server_at_boundary and not self.client.lost:
            self.changed(CLIENT_OUT, message)
            self._put_in(message)
        self.client.finish()
        self.target.finish()

    def fail(self, message: bytes) -> None:
        """Close both sides after a failure to record: what is held is never sent.

        That is recorded, and `message` too, should the spool still come back.
        """
        if self.failed:
            return
        self._unsend()
        clean = self.boundaries[0] if self.boundaries else self.tracker.server_at_boundary
        self.failed = self._over = self.client.dropping = self.target.dropping = True
        if clean and not self.client.transport.is_closing():
            self.changed(CLIENT_OUT, message)
            self.client.transport.write(message)
        self.client.finish()
        self.target.finish()

    def changed(self, leg: int, data: bytes, replaces: int = 0) -> None:
        """Record what goes out on a leg other than what came in."""
        self.recorder.data(leg, data, replaces)
        self._changed_at[leg] = self.recorder.offsets[leg]

    def _unsend(self) -> None:
        """Record that what is held is not sent, as far back as one slice can reach."""
        for side, leg in ((self.target, TARGET_OUT), (self.client, CLIENT_OUT)):
            unchanged = self.recorder.offsets[leg] - self._changed_at.get(leg, 0)
            count = min(side.held, unchanged, MAX_REPLACES)
            if count > 0:
                self.changed(leg, b"", count)

    @property
    def idle(self) -> bool:
        """Whether the client waits for nothing and no transaction is open."""
        tracker = self.tracker
        return self.answered and tracker.server_at_boundary and tracker.transaction == "I"

    def abort(self) -> None:
        """Close both sides at once."""
        self.client.abort()
        self.target.abort()

    def stall(self, *, stalled: bool) -> None:
        """Stop or go on reading from both sides: the spool cannot take more for now."""
        for side in (self.client, self.target):
            if stalled:
                side.hold("spool")
            else:
                side.free("spool")

    async def closed(self) -> None:
        """Return when both sides are closed."""
        await self._closed

    def ended(self, side: Side) -> None:
        """Take note that `side` will send no more, or is lost."""
        client, target = self.client, self.target
        if not self.first_to_end:
            # A client that said Terminate has ended, whoever closes first.
            self.first_to_end = "client" if side is client or self.goodbye else "target"
        if side is target:
            client.dropping = True
            client.finish()
        else:
            target.dropping = target.dropping or client.lost
            half = client.half_open and not client.lost and not self._over
            if half and not target.half_open:
                self._terminate()
            else:
                target.finish(half=half)
        if client.lost and target.lost and not self._closed.done():
            self._closed.set_result(None)

    def _terminate(self) -> None:
        """Pass on the end of the client's half where TLS has no such thing: in words."""
        if not self.goodbye:
            self.goodbye = True
            self.changed(TARGET_OUT, TERMINATE)
            self.target.send(TERMINATE)

    def _put_in(self, message: bytes) -> None:
        self.boundaries.append(True)
        self.client.send(message)
