import asyncio

from sealtape.ingest.tlog.witnesses import Witnesses
from sealtape.schemas.tlog.policy import parse_policy
from tests.factories.growing import GrowingLog


def client_of(log, server):
    text = f"log {log.verifier.vkey}\nwitness w {server.vkey} {server.url}\nquorum w\n"
    return Witnesses(parse_policy(text.encode()))


def test_it_remembers_while_it_is_killed_and_stopped(litewitness_alone):
    log = GrowingLog("restarts.example/log/1").grow(9)
    litewitness_alone.follow(log.origin, log.verifier.vkey)
    assert litewitness_alone.seen(log.origin) == 0
    for size, end in ((3, litewitness_alone.kill), (6, litewitness_alone.stop), (9, None)):
        client = client_of(log, litewitness_alone)
        assert len(asyncio.run(client.cosign(log.note(size), log.prove))) == 1
        if end:
            end()
            assert not litewitness_alone.running
            litewitness_alone.start()
        assert litewitness_alone.seen(log.origin) == size


def test_a_second_key_of_a_log_is_added(litewitness_server):
    first = GrowingLog("keys.example/log/1").grow(3)
    second = GrowingLog("keys.example/log/1", b"\x08" * 32).grow(3)
    for log in (first, second):
        litewitness_server.follow(log.origin, log.verifier.vkey)
    for size, log in ((2, first), (3, second)):
        client = client_of(log, litewitness_server)
        assert len(asyncio.run(client.cosign(log.note(size), log.prove))) == 1
