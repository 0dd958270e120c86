"""The witness over HTTP: statuses, bodies, and that a failed start leaves nothing behind."""

import asyncio
import http.client

import pytest

from sealtape.capture.outbound import destination, post
from sealtape.ingest.witness import open_witness
from sealtape.ingest.witness.memory import Memory
from sealtape.schemas.errors import SettingsError, StoreError, TargetError
from sealtape.schemas.tlog.witnessing import (
    MAX_REQUEST,
    SIZE,
    NotAdmitted,
    Seen,
    parse_cosignatures,
)
from tests.capture.metrics.http import get
from tests.factories.growing import ORIGIN, GrowingLog, witness_key, witness_keys

LOG = GrowingLog().grow(20)


class Place:
    """A witness that is asked over HTTP."""

    def __init__(self, folder):
        self.folder = folder
        self.admit = None
        self.server = None

    async def open(self, listen="127.0.0.1:0", **options):
        parts = {"keys": [witness_key()], "logs": [LOG.verifier], "admit": self._asked}
        return await open_witness(state=self.folder, listen=listen, **{**parts, **options})

    async def _asked(self, checkpoint):
        if self.admit is not None:
            raise self.admit

    async def ask(self, body, path="/add-checkpoint"):
        place = destination(self.server.url, what="url")
        return await post(
            place, body, kind="text/plain", timeout_s=10, max_answer=70_000, path=path
        )


@pytest.fixture
async def place(tmp_path):
    place = Place(tmp_path / "state")
    place.server = await place.open()
    yield place
    await place.server.close()


async def test_it_cosigns(place):
    answer = await place.ask(LOG.request(0, 7))
    assert (answer.status, answer.kind) == (200, "text/plain")
    (found,) = parse_cosignatures(answer.body, LOG.checkpoint(7).text(), [witness_key().verifier])
    assert found.line.encode() == answer.body
    assert place.server.url == f"http://{place.server.address}"
    assert place.server.witness.seen(ORIGIN) == Seen(7, LOG.checkpoint(7).root)


async def test_what_it_refuses_has_the_status_that_the_protocol_says(place):
    await place.ask(LOG.request(0, 10))
    fork = LOG.fork(4)
    stranger = GrowingLog(seed=b"\x09" * 32).grow(3)
    other = GrowingLog("example.org/log").grow(3)
    for body, status, begins in (
        (b"nothing", 400, b"malformed: "),
        (other.request(), 404, b"unknown-log: "),
        (stranger.request(), 403, b"untrusted: "),
        (LOG.request(0, 12), 409, b"10\n"),
        (fork.request(10, 10), 409, b"10\n"),
        (fork.request(10, 12), 422, b"inconsistent: "),
    ):
        answer = await place.ask(body)
        assert answer.status == status
        assert answer.body.startswith(begins)
        assert answer.body.endswith(b"\n")
        assert answer.kind == (SIZE if status == 409 else "text/plain")
    assert place.server.witness.seen(ORIGIN).size == 10


async def test_what_is_not_admitted_and_what_cannot_be_told(place, caplog):
    place.admit = NotAdmitted("entry 3: a second seal")
    answer = await place.ask(LOG.request(0, 7))
    assert (answer.status, answer.body) == (403, b"not-admitted: entry 3: a second seal\n")
    place.admit = StoreError("s3.internal does not answer")
    answer = await place.ask(LOG.request(0, 7))
    assert (answer.status, answer.body) == (503, b"Service Unavailable\n")
    place.admit = RuntimeError("nobody foresaw this")
    assert (await place.ask(LOG.request(0, 7))).status == 500
    assert "s3.internal" in caplog.text
    assert place.server.witness.seen(ORIGIN) is None
    place.admit = None
    assert (await place.ask(LOG.request(0, 7))).status == 200


async def test_it_answers_nothing_else(place):
    assert (await place.ask(b"", "/")).status == 404
    assert (await place.ask(LOG.request(), "/x/add-checkpoint")).status == 404
    answer = await get(place.server.address, "/add-checkpoint")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert (await place.ask(b"x" * (MAX_REQUEST + 1))).status == 413
    assert (await place.ask(b"x" * MAX_REQUEST)).status == 400


async def test_a_start_that_fails_lets_go_of_the_memory(place, tmp_path):
    elsewhere = Place(tmp_path / "other")
    with pytest.raises(TargetError, match="Cannot listen for requests to cosign"):
        await elsewhere.open(place.server.address)
    with pytest.raises(SettingsError):
        await elsewhere.open(keys=[])
    Memory(tmp_path / "other").close()


async def test_it_goes_on_where_it_was(place):
    await place.ask(LOG.request(0, 7))
    await place.server.close()
    place.server = await place.open(keys=witness_keys())
    answer = await place.ask(LOG.request(0, 20))
    assert (answer.status, answer.body) == (409, b"7\n")
    assert (await place.ask(LOG.request(7, 20))).status == 200


async def test_a_log_asks_again_on_the_same_connection(place):
    """As the protocol recommends; `http.client` would connect anew only if it were cut off."""

    def ask():
        host, port = place.server.address.split(":")
        client = http.client.HTTPConnection(host, int(port), timeout=10)
        found = []
        for old, size in ((0, 5), (5, 9), (9, 20)):
            client.request("POST", "/add-checkpoint", LOG.request(old, size))
            reply = client.getresponse()
            found.append((reply.status, bool(reply.read()), client.sock.getsockname()))
        client.close()
        return found

    answers = await asyncio.to_thread(ask)
    assert [item[:2] for item in answers] == [(200, True)] * 3
    assert len({port for _, _, port in answers}) == 1
