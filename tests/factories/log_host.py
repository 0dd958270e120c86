"""A log's server in a test's hands: honest, silent, or with whatever answer a test puts there.

async with log_host() as host:
    host.log.seal(ended)                what it tells from then on; see tests/factories/witnessed.py
    host.answers["/beacon"] = b"…"      a lie; None is a 404
    view = host.view()                  a node's view of it
"""

from contextlib import asynccontextmanager
from http import HTTPStatus

from sealtape.capture.inbound import TEXT, Inbound, Reply, plain
from sealtape.capture.outbound import destination
from sealtape.capture.receipts.view import LogView
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.messages import decode
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.tlog.receipts import Ended
from sealtape.schemas.tree import CompactRange
from tests.conformance.bus import read_all
from tests.factories.witnessed import WitnessedLog


class LogHost:
    def __init__(self, name):
        self.name = name
        self.log = WitnessedLog(name)
        self.asked = []
        self.answers = {}
        self.away = False
        self.url = ""
        self._sealed = set()

    async def answer(self, asked):
        self.asked.append(asked.path)
        if self.away:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE)
        body = self.answers[asked.path] if asked.path in self.answers else self._found(asked.path)
        return plain(HTTPStatus.NOT_FOUND) if body is None else Reply(HTTPStatus.OK, TEXT, body)

    def _found(self, path):
        if path == "/beacon":
            return self.log.beacon()
        _, _, session, epoch = path.split("/")
        try:
            return self.log.receipt(Ended(bytes.fromhex(session), int(epoch), 0, b""))
        except LookupError:
            return None

    def view(self, **options):
        policy = parse_policy(self.log.policy.encode())
        place = destination(self.url, what="capture.log")
        return LogView(place, policy, self.name, **options)

    async def seal_all(self, bus, only=None, **changes):
        """Seal what is on a bus and was not sealed, as ingest would; returns it."""
        found = await ended_on(bus)
        fresh = [
            each
            for each in found
            if (each.session, each.epoch) not in self._sealed
            and (only is None or each.session in only)
        ]
        for each in fresh:
            self.log.seal(each, **changes)
            self._sealed.add((each.session, each.epoch))
        return fresh


async def ended_on(bus):
    """The epochs on a bus, as far as their frames are there."""
    trees, closed = {}, set()
    for record in await read_all(bus):
        message = decode(record.value)
        if isinstance(message, Frame):
            name = (message.session, message.epoch)
            tree = trees.setdefault(name, CompactRange())
            if message.seq == tree.hi:
                tree.append(message.leaf())
            if message.kind == Kind.CLOSE:
                closed.add(name)
    return [Ended(*name, tree.hi, tree.root(), name in closed) for name, tree in trees.items()]


@asynccontextmanager
async def log_host(name="sealtape.test/log"):
    host = LogHost(name)
    inbound = Inbound(host.answer, connections=64)
    await inbound.open("127.0.0.1:0", what="a test", hint="")
    host.url = f"http://{inbound.address}"
    try:
        yield host
    finally:
        await inbound.close()
