"""A witness that nobody here wrote: our client with it, and our witness beside it."""

import asyncio
import random
import secrets
import time

import pytest

from sealtape.capture.outbound import destination, post
from sealtape.ingest.tlog.witnesses import Witnesses
from sealtape.ingest.witness import open_witness
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.tlog.witnessing import SIZE, encode_request, parse_cosignatures
from tests.factories.growing import GrowingLog, witness_key


def new_log(size=20):
    """A log that no other test has shown to the witness."""
    return GrowingLog(f"{secrets.token_hex(8)}.example/log/1").grow(size)


def followed(server, size=20):
    log = new_log(size)
    server.follow(log.origin, log.verifier.vkey)
    return log


def policy_of(log, url, vkey, more="", quorum="lite"):
    text = f"log {log.verifier.vkey}\nwitness lite {vkey} {url}\n{more}quorum {quorum}\n"
    return parse_policy(text.encode())


@pytest.mark.parametrize("ml_dsa", [False, True])
async def test_it_cosigns_a_log_that_grows(litewitness_server, ml_dsa):
    log = followed(litewitness_server, 300)
    policy = policy_of(log, litewitness_server.url, litewitness_server.vkey)
    client = Witnesses(policy)
    for size in (1, 1, 2, 3, 64, 255, 256, 300):
        note = log.note(size, ml_dsa=ml_dsa)
        lines = await client.cosign(note, log.prove)
        witnessed = policy.open(note + "".join(lines).encode())
        assert witnessed.quorum
        assert abs(witnessed.times["lite"] - time.time()) < 60
        assert litewitness_server.seen(log.origin) == size
    (status,) = client.snapshot()
    assert (status.state, status.size, status.answers, status.findings) == ("ok", 300, {"ok": 8}, 0)


async def test_a_client_that_knows_nothing_catches_up(litewitness_server):
    log = followed(litewitness_server)
    policy = policy_of(log, litewitness_server.url, litewitness_server.vkey)
    for size in (5, 9, 9, 20):
        assert len(await Witnesses(policy).cosign(log.note(size), log.prove)) == 1


async def test_it_refuses_a_fork_and_what_was_put_back(litewitness_server):
    log = followed(litewitness_server)
    policy = policy_of(log, litewitness_server.url, litewitness_server.vkey)
    client = Witnesses(policy)
    await client.cosign(log.note(10), log.prove)
    fork = log.fork(5)
    for size in (10, 15):
        assert await client.cosign(fork.note(size), fork.prove) == []
        (status,) = client.snapshot()
        assert (status.state, status.finding) == ("refused", True)
        assert status.reason == "HTTP 422: bad consistency proof"
    restored = Witnesses(policy)
    assert await restored.cosign(log.note(7), log.prove) == []
    (status,) = restored.snapshot()
    assert (status.state, status.finding) == ("refused", True)
    assert "it has seen 10 entries" in status.reason
    assert len(await client.cosign(log.note(20), log.prove)) == 1


async def test_logs_and_keys_that_it_does_not_know(litewitness_server):
    stranger = new_log()
    policy = policy_of(stranger, litewitness_server.url, litewitness_server.vkey)
    client = Witnesses(policy)
    assert await client.cosign(stranger.note(), stranger.prove) == []
    (status,) = client.snapshot()
    assert (status.state, status.finding) == ("refused", False)
    assert status.reason == "HTTP 404: unknown log"
    litewitness_server.follow(
        stranger.origin, GrowingLog(stranger.origin, b"\x09" * 32).verifier.vkey
    )
    assert await client.cosign(stranger.note(), stranger.prove) == []
    assert client.snapshot()[0].reason == "HTTP 403: invalid signature"


async def test_a_policy_with_another_key_of_it_believes_nothing(litewitness_server):
    log = followed(litewitness_server)
    impostor = witness_key(litewitness_server.facts["witness"], b"\x0a" * 32)
    client = Witnesses(policy_of(log, litewitness_server.url, impostor.vkey))
    assert await client.cosign(log.note(), log.prove) == []
    assert client.snapshot()[0].state == "invalid"


async def test_it_is_killed_and_paused_and_comes_back(litewitness_alone, tmp_path):
    log = followed(litewitness_alone)
    server = await open_witness(
        state=tmp_path, listen="127.0.0.1:0", keys=[witness_key()], logs=[log.verifier]
    )
    more = f"witness ours {witness_key().vkey} {server.url}\ngroup one any lite ours\n"
    policy = policy_of(log, litewitness_alone.url, litewitness_alone.vkey, more, "one")
    client = Witnesses(policy, timeout_s=5.0)
    assert len(await client.cosign(log.note(5), log.prove)) == 2
    await asyncio.to_thread(litewitness_alone.kill)
    assert len(await client.cosign(log.note(8), log.prove)) == 1
    assert client.snapshot()[0].state == "down"
    await asyncio.to_thread(litewitness_alone.start)
    assert litewitness_alone.seen(log.origin) == 5
    assert len(await client.cosign(log.note(12), log.prove)) == 2
    await asyncio.to_thread(litewitness_alone.pause)
    started = time.monotonic()
    assert len(await client.cosign(log.note(13), log.prove)) == 1
    assert time.monotonic() - started < 4.5
    await asyncio.sleep(5.5)
    assert client.snapshot()[0].reason == "no answer in time"
    await asyncio.to_thread(litewitness_alone.resume)
    lines = []
    async with asyncio.timeout(60):
        while len(lines) < 2:  # what it was asked while it stood still may still be before this
            lines = await client.cosign(log.note(20), log.prove)
    assert client.snapshot()[0].findings == 0
    await client.close()
    await server.close()


async def test_a_network_that_breaks_costs_an_answer_and_nothing_else(
    litewitness_server, toxiproxy
):
    log = followed(litewitness_server, 60)
    proxy = toxiproxy.proxy(litewitness_server.address)
    policy = policy_of(log, f"http://{proxy.address}", litewitness_server.vkey)
    client = Witnesses(policy, timeout_s=1.0)
    size = 1
    for fault in (proxy.resetting, lambda: proxy.limited(40), proxy.half_open):
        with fault():
            assert await client.cosign(log.note(size), log.prove) == []
            assert client.snapshot()[0].state == "down"
        assert len(await client.cosign(log.note(size + 3), log.prove)) == 1
        size += 10
    proxy.cut()
    assert await client.cosign(log.note(50), log.prove) == []
    proxy.heal()
    with proxy.slow(300):
        assert len(await client.cosign(log.note(60), log.prove)) == 1
    assert client.snapshot()[0].findings == 0
    proxy.close()


class Both:
    """Our witness and theirs, asked the same."""

    def __init__(self, ours, theirs, log):
        self.ours, self.theirs, self.log = ours, theirs, log
        self.places = [destination(url, what="url") for url in (ours.url, theirs.url)]

    async def ask(self, body):
        return [
            await post(
                place, body, kind="text/plain", timeout_s=10, max_answer=10_000,
                path="/add-checkpoint",
            )
            for place in self.places
        ]  # fmt: skip


@pytest.fixture
async def both(litewitness_server, tmp_path):
    log = followed(litewitness_server, 40)
    server = await open_witness(
        state=tmp_path, listen="127.0.0.1:0", keys=[witness_key()], logs=[log.verifier]
    )
    yield Both(server, litewitness_server, log)
    await server.close()


async def test_both_answer_the_same_to_whatever_comes(both):
    """Random requests: honest, stale, of a fork, with proofs of other sizes, damaged."""
    log, fork = both.log, both.log.fork(13)
    choose = random.Random(20261129)
    granted = conflicts = 0
    for _ in range(250):
        one = choose.choice([log, log, log, fork])
        seen = both.theirs.seen(log.origin)
        old = choose.choice([seen, seen, seen, choose.randint(0, 40)])
        size = choose.choice([min(40, old + choose.randint(0, 6)), choose.randint(0, 40)])
        proof = one.proof(min(old, size), size)
        if choose.random() < 0.2:
            proof = choose.choice([proof[:-1], [*proof, bytes(32)], proof[::-1], []])
        if old == 0:
            proof = []  # from nothing: the protocol wants no proof, they do not look at it
        body = encode_request(old, proof, one.note(size))
        if choose.random() < 0.1:
            body = body.replace(b"old ", choose.choice([b"Old ", b"old -", b"old x"]), 1)
        ours, theirs = await both.ask(body)
        if (ours.status, theirs.status) == (409, 422):
            # Of the same size and with another root: the protocol says 409, they say 422.
            assert (old, size) == (seen, seen)
            conflicts += 1
            continue
        assert ours.status == theirs.status, body
        if ours.status == 409:
            assert (ours.kind, ours.body) == (theirs.kind, theirs.body)
            assert ours.kind == SIZE
        if ours.status == 200:
            granted += 1
            text = one.checkpoint(size).text()
            parse_cosignatures(ours.body, text, [witness_key().verifier])
            assert both.ours.witness.seen(log.origin).size == both.theirs.seen(log.origin) == size
    assert granted > 5
    assert conflicts
