"""A client that speaks just enough PostgreSQL to make load, with TLS, at little cost of its own.

python tests/bench/load.py HOST:PORT DATABASE --user U [--password P] [--tls] MODE …

    select --clients 16 --seconds 5 --protocol simple|prepared --accounts N
        one lookup after the other on each connection
    drain SQL      runs one statement and throws away what comes
    idle COUNT     opens so many sessions and holds them until its standard input ends
    connect --clients 4 --seconds 5
        connects, runs one lookup, ends, and again

Prints JSON lines {"t": seconds since the first, "n": transactions or bytes so far}.
"""

import argparse
import asyncio
import json
import random
import ssl
import struct
import sys
import time

import uvloop

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
READY = b"Z\0\0\0\5I"
LOOKUP = "select abalance from pgbench_accounts where aid = "
PREPARED = b"lookup"
DIAL_S = 60


def message(kind, body):
    """Return one protocol message."""
    return kind + struct.pack(">i", len(body) + 4) + body


class Session(asyncio.Protocol):
    """One connection. After `ready`, `on_data` gets whatever arrives."""

    def __init__(self, args):
        self.args = args
        self.transport = None
        self.buffer = b""
        self.future = asyncio.get_running_loop().create_future()
        self.on_data = self._greeting
        self.on_end = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.on_data(data)

    def connection_lost(self, exc):
        if not self.future.done():
            self.future.set_exception(exc or ConnectionResetError("the server closed"))
        if self.on_end is not None:
            self.on_end()

    def wait(self):
        """Return a new future that the handler of the data will set."""
        self.future = asyncio.get_running_loop().create_future()
        return self.future

    # -- beginning -------------------------------------------------------------------------------

    async def open(self):
        """Begin TLS when asked, log in, and return when the server is ready."""
        if self.args.tls:
            waiting = self.wait()
            self.on_data = self._answer
            self.transport.write(SSL_REQUEST)
            await waiting
            self.transport = await asyncio.get_running_loop().start_tls(
                self.transport, self, TLS, server_hostname="localhost"
            )
        waiting = self.wait()
        self.on_data = self._greeting
        names = {"user": self.args.user, "database": self.args.database}
        fields = b"".join(f"{key}\0{value}\0".encode() for key, value in names.items())
        self.transport.write(message(b"", struct.pack(">i", 3 << 16) + fields + b"\0"))
        await waiting
        return self

    def _answer(self, data):
        if data == b"S":
            self.future.set_result(None)
        else:
            self.future.set_exception(ConnectionError(f"no TLS: {data!r}"))

    def _greeting(self, data):
        self.buffer += data
        while len(self.buffer) >= 5:
            kind, size = self.buffer[:1], struct.unpack_from(">i", self.buffer, 1)[0] + 1
            if len(self.buffer) < size:
                return
            body, self.buffer = self.buffer[5:size], self.buffer[size:]
            if kind == b"R" and body[:4] == b"\0\0\0\3":
                self.transport.write(message(b"p", self.args.password.encode() + b"\0"))
            elif kind == b"R" and body[:4] != b"\0\0\0\0":
                self.future.set_exception(ConnectionError("only cleartext authentication here"))
            elif kind == b"E":
                self.future.set_exception(ConnectionError(body.replace(b"\0", b" ").decode()))
            elif kind == b"Z":
                self.future.set_result(None)


class Lookups:
    """One lookup after the other on a session, and how many were answered."""

    def __init__(self, session, args):
        self.session = session
        self.accounts = args.accounts
        self.count = 0
        self.running = True
        self.tail = b""
        session.on_data = self.answered
        if args.protocol == "prepared":
            self.ask = self.ask_prepared
            session.transport.write(
                message(b"P", PREPARED + b"\0" + LOOKUP.encode() + b"$1\0\0\0") + message(b"S", b"")
            )
            self.count = -1
        else:
            self.ask()

    def ask(self):
        text = LOOKUP + str(random.randrange(1, self.accounts + 1))
        self.session.transport.write(message(b"Q", text.encode() + b"\0"))

    def ask_prepared(self):
        value = str(random.randrange(1, self.accounts + 1)).encode()
        bind = b"\0" + PREPARED + b"\0\0\0\0\1" + struct.pack(">i", len(value)) + value + b"\0\0"
        self.session.transport.write(
            message(b"B", bind) + message(b"E", b"\0\0\0\0\0") + message(b"S", b"")
        )

    def answered(self, data):
        self.tail = (self.tail + data)[-len(READY) :] if len(data) < len(READY) else data
        if self.tail.endswith(READY):
            self.count += 1
            if self.running:
                self.ask()


async def dial(args):
    """Open one session."""
    host, _, port = args.server.rpartition(":")
    async with asyncio.timeout(DIAL_S):
        _, session = await asyncio.get_running_loop().create_connection(
            lambda: Session(args), host, int(port)
        )
        return await session.open()


def report(begin, count):
    """Print how far it is."""
    print(json.dumps({"t": round(time.monotonic() - begin, 6), "n": count}), flush=True)


async def select(args):
    """Lookups on all sessions until the time is over."""
    sessions = [await dial(args) for _ in range(args.clients)]
    lookups = [Lookups(session, args) for session in sessions]
    begin = time.monotonic()
    report(begin, 0)
    for second in range(1, args.seconds + 1):
        await asyncio.sleep(begin + second - time.monotonic())
        report(begin, sum(each.count for each in lookups))
    for each in lookups:
        each.running = False


async def connect(args):
    """Connect, look up, end, again, on several at a time until the time is over."""
    count, begin = 0, time.monotonic()

    async def again():
        nonlocal count
        while time.monotonic() - begin < args.seconds:
            session = await dial(args)
            done = session.wait()
            session.on_data = lambda data, done=done: (
                data.endswith(READY) and not done.done() and done.set_result(None)
            )
            session.transport.write(message(b"Q", LOOKUP.encode() + b"1\0"))
            await done
            count += 1
            session.transport.write(message(b"X", b""))
            session.transport.close()

    report(begin, 0)
    await asyncio.gather(*(again() for _ in range(args.clients)))
    report(begin, count)


async def drain(args):
    """Run one statement and count what comes."""
    session = await dial(args)
    seen, tail, done = 0, b"", session.wait()

    def take(data):
        nonlocal seen, tail
        seen += len(data)
        tail = (tail + data)[-len(READY) :] if len(data) < len(READY) else data[-len(READY) :]
        if tail == READY and not done.done():
            done.set_result(None)

    session.on_data = take
    begin = time.monotonic()
    report(begin, 0)
    session.transport.write(message(b"Q", args.sql.encode() + b"\0"))
    await done
    report(begin, seen)


async def idle(args):
    """Hold sessions until standard input ends."""
    slots, sessions = asyncio.Semaphore(8), []

    async def one():
        async with slots:
            sessions.append(await dial(args))

    begin = time.monotonic()
    report(begin, 0)
    await asyncio.gather(*(one() for _ in range(args.count)))
    report(begin, len(sessions))
    lost = []
    for session in sessions:
        session.on_end = lambda: lost.append(1)
    await asyncio.to_thread(sys.stdin.read)
    report(begin, len(sessions) - len(lost))


TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE


def main():
    """Read the arguments and run one mode."""
    parser = argparse.ArgumentParser()
    parser.add_argument("server")
    parser.add_argument("database")
    parser.add_argument("--user", required=True)
    parser.add_argument("--password", default="")
    parser.add_argument("--tls", action="store_true")
    modes = parser.add_subparsers(required=True)
    for run in (select, connect):
        mode = modes.add_parser(run.__name__)
        mode.set_defaults(run=run)
        mode.add_argument("--clients", type=int, default=16)
        mode.add_argument("--seconds", type=int, default=5)
        mode.add_argument("--protocol", choices=("simple", "prepared"), default="simple")
        mode.add_argument("--accounts", type=int, default=100_000)
    mode = modes.add_parser("drain")
    mode.set_defaults(run=drain)
    mode.add_argument("sql")
    mode = modes.add_parser("idle")
    mode.set_defaults(run=idle)
    mode.add_argument("count", type=int)
    args = parser.parse_args()
    uvloop.run(args.run(args))


if __name__ == "__main__":
    main()
