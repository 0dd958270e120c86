"""Asking witnesses: ours, and ones that are slow, behind, down, forgetful, or lie."""

import asyncio
import contextlib
import ssl
import time
from contextlib import asynccontextmanager

import pytest

from sealtape.ingest.tlog.witnesses import Witnesses
from sealtape.ingest.witness import open_witness
from sealtape.schemas.cosignatures import cosign
from sealtape.schemas.errors import FormatError, SettingsError, StoreError
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.tlog.witnessing import NotAdmitted, parse_request
from tests.factories.growing import ORIGIN, GrowingLog, witness_key, witness_keys
from tests.servers.tls import write_certificate

NAMES = ("office", "auditor", "partner")
KEYS = {
    name: witness_key(f"{name}.example/w", bytes([number]) * 32)
    for number, name in enumerate(NAMES, 20)
}
AT = 1_795_392_000


def line(name, log, size=None, *, key=None, at=AT):
    """A cosignature by a witness of these tests; `key` signs in its place."""
    text = log.checkpoint(size).text()
    return cosign(KEYS[name].name, (key or KEYS[name]).private, text, at)


def http(status, body=b"", kind="text/plain"):
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Double:
    """A witness that answers what a test says: `answer(body)` gives the bytes, or None to hang."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = []
        self.heads = []
        self.serving = set()

    async def serve(self, reader, writer):
        self.serving.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            self.heads.append(head)
            self.asked.append(body)
            answer = self.answer(body)
            if asyncio.iscoroutine(answer):
                answer = await answer
            if callable(answer):
                await answer(writer)
            elif answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def ended(self):
        """Cut off who is still being served."""
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)


@asynccontextmanager
async def double(answer):
    one = Double(answer)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()
        await one.ended()
        await asyncio.sleep(0)  # what was closed goes away in the next turn of the loop


class Party:
    """Real witnesses on free ports, and clients of policies that name some of them."""

    def __init__(self, folder, log):
        self.folder = folder
        self.log = log
        self.stack = contextlib.AsyncExitStack()
        self.urls = {}
        self.servers = {}

    async def witness(self, name, **options):
        server = await open_witness(
            state=self.folder / name,
            listen="127.0.0.1:0",
            keys=[KEYS[name]],
            logs=[self.log.verifier],
            **options,
        )
        self.stack.push_async_callback(server.close)
        self.urls[name] = server.url
        self.servers[name] = server
        return server

    async def double(self, name, answer):
        one = await self.stack.enter_async_context(double(answer))
        self.urls[name] = one.url
        return one

    def policy(self, quorum="any"):
        lines = [f"log {self.log.verifier.vkey}"]
        lines += [f"witness {name} {KEYS[name].vkey} {url}" for name, url in self.urls.items()]
        lines += [f"group enough {quorum} {' '.join(self.urls)}", "quorum enough", ""]
        return parse_policy("\n".join(lines).encode())

    def client(self, quorum="any", **options):
        client = Witnesses(self.policy(quorum), **options)
        self.stack.push_async_callback(client.close)
        return client


@pytest.fixture
def log():
    return GrowingLog().grow(20)


@pytest.fixture
async def party(tmp_path, log):
    party = Party(tmp_path, log)
    yield party
    await party.stack.aclose()


def states(client):
    return {status.name: status.state for status in client.snapshot()}


async def test_witnesses_make_a_checkpoint_witnessed(party, log):
    for name in NAMES:
        await party.witness(name, clock_s=lambda: AT)
    client = party.client("all")
    assert states(client) == dict.fromkeys(NAMES, "unasked")
    for size in (0, 1, 7, 7, 20):
        lines = await client.cosign(log.note(size), log.prove)
        assert lines == [line(name, log, size) for name in NAMES]
        witnessed = party.policy("all").open(log.note(size) + "".join(lines).encode())
        assert witnessed.quorum
        assert witnessed.checkpoint.size == size
    office = client.snapshot()[0]
    assert (office.state, office.size, office.at) == ("ok", 20, AT)
    assert (office.answers, office.findings, office.reason) == ({"ok": 5}, 0, "")
    assert 0 < office.seconds < 5


async def test_only_the_logs_own_signatures_are_sent(party, log):
    one = await party.double("office", lambda _: http(200, line("office", log).encode()))
    client = party.client()
    strangers = line("auditor", log) + line("partner", log)
    await client.cosign(log.note(ml_dsa=True) + strangers.encode(), log.prove)
    request = parse_request(one.asked[0])
    own, second = request.note.decode().splitlines()[4:]
    assert own.startswith(f"— {ORIGIN} ")
    assert second.startswith(f"— {ORIGIN} ")
    assert one.heads[0].startswith(b"POST /add-checkpoint HTTP/1.1\r\n")


async def test_one_that_has_seen_another_size_is_asked_once_more(party, log):
    server = await party.witness("office")
    first = party.client()
    await first.cosign(log.note(7), log.prove)
    # Another client of the same log, which does not know.
    second = party.client()
    assert len(await second.cosign(log.note(12), log.prove)) == 1
    assert server.witness.snapshot().refused == {"old-size": 1}
    # The first one knows too little now.
    assert len(await first.cosign(log.note(20), log.prove)) == 1
    assert states(first) == {"office": "ok"}
    assert server.witness.snapshot().refused == {"old-size": 2}
    assert first.snapshot()[0].findings == 0


async def test_a_lost_answer_does_no_harm(party, log):
    server = await party.witness("office")
    # The witness has cosigned, and its answer never came.
    await server.witness.cosign(log.request(0, 7))
    client = party.client()
    for size in (7, 8):
        assert len(await client.cosign(log.note(size), log.prove)) == 1


async def test_one_that_is_behind_twice_is_left_for_the_next_time(party, log):
    told = iter([3, 4, 5])
    one = await party.double("office", lambda _: http(409, b"%d\n" % next(told)))
    client = party.client()
    assert await client.cosign(log.note(), log.prove) == []
    assert [parse_request(body).old_size for body in one.asked] == [0, 3]
    (status,) = client.snapshot()
    assert (status.state, status.finding, status.size) == ("behind", False, 4)
    one.answer = lambda _: http(200, line("office", log).encode())
    assert len(await client.cosign(log.note(), log.prove)) == 1
    assert parse_request(one.asked[-1]).old_size == 4


async def test_two_keys_at_one_address_are_asked_once(party, log, tmp_path):
    keys = witness_keys("both.example/w")
    server = await open_witness(
        state=tmp_path / "both", listen="127.0.0.1:0", keys=keys, logs=[log.verifier]
    )
    party.stack.push_async_callback(server.close)
    policy = parse_policy(
        f"log {log.verifier.vkey}\n"
        f"witness first {keys[0].vkey} {server.url}\n"
        f"witness second {keys[1].vkey} {server.url}\n"
        "group both all first second\nquorum both\n".encode()
    )
    client = Witnesses(policy)
    lines = await client.cosign(log.note(), log.prove)
    assert policy.open(log.note() + "".join(lines).encode()).quorum
    assert server.witness.snapshot().cosigned == {ORIGIN: 1}
    assert states(client) == {"first": "ok", "second": "ok"}


async def test_who_is_slow_delays_nobody(party, log):
    gate = asyncio.Event()

    async def slow(_):
        await gate.wait()
        return http(200, line("partner", log).encode())

    await party.witness("office")
    await party.witness("auditor")
    await party.double("partner", slow)
    client = party.client("2")
    started = time.monotonic()
    lines = await client.cosign(log.note(), log.prove)
    assert time.monotonic() - started < 4.5
    assert len(lines) == 2
    assert states(client)["partner"] == "unasked"
    gate.set()
    async with asyncio.timeout(60):
        while states(client)["partner"] != "ok":
            await asyncio.sleep(0.01)


async def test_what_comes_a_moment_later_is_taken(party, log):
    async def late(_):
        await asyncio.sleep(0.1)
        return http(200, line("office", log).encode())

    await party.double("office", late)
    await party.witness("auditor")
    client = party.client("any", grace_s=10.0)
    assert len(await client.cosign(log.note(), log.prove)) == 2


async def test_late_answers_are_not_waited_for_in_the_end(party, log):
    await party.double("office", lambda _: None)
    await party.witness("auditor")
    client = party.client("any", grace_s=0.0, timeout_s=60.0)
    assert len(await client.cosign(log.note(), log.prove)) == 1
    await client.close()
    assert states(client) == {"office": "unasked", "auditor": "ok"}


async def test_one_that_is_down_is_passed_over(party, log):
    server = await party.witness("office")
    await party.witness("auditor")
    client = party.client("any")
    await server.close()
    assert len(await client.cosign(log.note(7), log.prove)) == 1
    office = client.snapshot()[0]
    assert (office.state, office.finding) == ("down", False)
    assert office.reason == "connection refused"
    assert len(await party.client("all").cosign(log.note(8), log.prove)) == 1


async def endless(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(100_000):
        writer.write(b"x" * 65_536)
        await writer.drain()


async def dripping(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    for _ in range(6_000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(500, b"internal\nmore"), "HTTP 500: internal"),
        (http(503), "HTTP 503"),
        (http(429), "HTTP 429"),
        (http(204), "HTTP 204"),
        (http(302, b"go\x1b[2Jaway"), "HTTP 302: go?[2Jaway"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "an answer that is not HTTP"),
        (b"", "the connection ended inside the answer"),
        (None, "no answer in time"),
        (endless, "an answer of more than 65536 bytes"),
        (dripping, "no answer in time"),
    ],
)
async def test_no_usable_answer_is_as_good_as_none(party, log, answer, reason):
    await party.double("office", lambda _: answer)
    client = party.client(timeout_s=1.0)
    assert await client.cosign(log.note(), log.prove) == []
    (status,) = client.snapshot()
    assert (status.state, status.reason, status.finding) == ("down", reason, False)
    assert status.answers == {"down": 1}


async def test_a_redirect_is_not_followed(party, log):
    async with double(lambda _: http(200, line("office", log).encode())) as elsewhere:
        moved = f"HTTP/1.1 307 X\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n"
        await party.double("office", lambda _: moved.encode())
        assert await party.client().cosign(log.note(), log.prove) == []
        assert elsewhere.asked == []


def other(log):
    return log.fork(5)


@pytest.mark.parametrize(
    "lie",
    [
        lambda log: b"",
        lambda log: b"thank you\n",
        lambda log: b"\xff\xfe\n",
        lambda log: line("office", log).encode()[:-1],
        lambda log: line("office", log, 19).encode(),
        lambda log: line("office", other(log)).encode(),
        lambda log: line("office", log, key=KEYS["auditor"]).encode(),
        lambda log: line("auditor", log).encode(),
        lambda log: line("office", log).encode() * 2,
        lambda log: line("office", log).replace("office", "partner").encode(),
        lambda log: (line("office", log) + "\n").encode(),
        lambda log: log.note(),
    ],
)
async def test_an_answer_that_proves_nothing_does_not_count(party, log, lie):
    await party.double("office", lambda _: http(200, lie(log)))
    await party.witness("auditor")
    client = party.client("all")
    lines = await client.cosign(log.note(), log.prove)
    assert len(lines) == 1
    assert not party.policy("all").open(log.note() + lines[0].encode()).quorum
    office, auditor = client.snapshot()
    assert (office.state, office.finding, office.findings) == ("invalid", True, 1)
    assert office.reason
    assert auditor.state == "ok"


async def test_a_good_line_beside_a_bad_one_is_not_believed_either(party, log, tmp_path, caplog):
    first, second = witness_keys("both.example/w")
    text = log.checkpoint().text()
    good = cosign(first.name, first.private, text, AT)
    bad = cosign(second.name, second.private, other(log).checkpoint().text(), AT)
    one = await party.double("office", lambda _: http(200, (good + bad).encode()))
    policy = parse_policy(
        f"log {log.verifier.vkey}\nwitness a {first.vkey} {one.url}\n"
        f"witness b {second.vkey} {one.url}\nquorum a\n".encode()
    )
    client = Witnesses(policy)
    assert await client.cosign(log.note(), log.prove) == []
    assert states(client) == {"a": "invalid", "b": "invalid"}
    assert "witness a, b: invalid" in caplog.text
    one.answer = lambda _: http(200, (good + line("partner", log)).encode())
    assert await client.cosign(log.note(), log.prove) == [good]
    assert client.snapshot()[0].findings == 1


@pytest.mark.parametrize(
    ("answer", "state", "reason", "finding"),
    [
        (http(422, b"inconsistent: no"), "refused", "HTTP 422: inconsistent: no", True),
        (http(403, b"not-admitted: two seals\n"), "refused",
         "HTTP 403: not-admitted: two seals", True),
        (http(403, b"untrusted: x\n"), "refused", "HTTP 403: untrusted: x", False),
        (http(404, b"unknown-log: x\n"), "refused", "HTTP 404: unknown-log: x", False),
        (http(400), "refused", "HTTP 400", False),
        (http(409, b"0\n"), "refused", "it has seen another tree of 0", True),
        (http(409, b"21\n"), "refused",
         f"it has seen 21 entries of {ORIGIN}, which has 20", True),
        (http(409, b"many\n"), "invalid", "size told by a witness is not a decimal number", True),
        (http(409), "invalid",
         "a size told by a witness does not end with a newline", True),
        (http(400, b"x" * 60_000), "refused", "HTTP 400: " + "x" * 200, False),
    ],
)  # fmt: skip
async def test_refusals_and_which_of_them_are_findings(party, log, answer, state, reason, finding):
    one = await party.double("office", lambda _: answer)
    client = party.client()
    assert await client.cosign(log.note(), log.prove) == []
    (status,) = client.snapshot()
    assert (status.state, status.reason, status.finding) == (state, reason, finding)
    assert status.findings == finding
    assert len(one.asked) == 1


async def test_our_witness_refuses_a_fork_and_a_log_that_was_put_back(party, log, caplog):
    await party.witness("office")
    client = party.client()
    await client.cosign(log.note(10), log.prove)
    fork = log.fork(5)
    assert await client.cosign(fork.note(20), fork.prove) == []
    (status,) = client.snapshot()
    assert (status.state, status.finding) == ("refused", True)
    assert status.reason.startswith("HTTP 422: inconsistent: ")
    assert await client.cosign(fork.note(10), fork.prove) == []
    assert client.snapshot()[0].reason == "it has seen another tree of 10"
    # A worker that begins anew with an old copy of its ledger.
    restored = party.client()
    assert await restored.cosign(log.note(7), log.prove) == []
    (status,) = restored.snapshot()
    assert (status.state, status.finding) == ("refused", True)
    assert status.reason == f"it has seen 10 entries of {ORIGIN}, which has 7"
    assert "witness office: refused" in caplog.text
    # The real one goes on.
    assert len(await client.cosign(log.note(20), log.prove)) == 1
    assert client.snapshot()[0].state == "ok"
    assert client.snapshot()[0].findings == 2


async def test_a_witness_that_forgets_is_found_out(party, log, tmp_path, caplog):
    server = await party.witness("office")
    client = party.client()
    await client.cosign(log.note(10), log.prove)
    await server.close()
    # Put back to before it had seen anything.
    for path in (tmp_path / "office" / "seen").iterdir():
        path.unlink()
    port = int(server.address.rpartition(":")[2])
    again = await open_witness(
        state=tmp_path / "office",
        listen=f"127.0.0.1:{port}",
        keys=[KEYS["office"]],
        logs=[log.verifier],
    )
    party.stack.push_async_callback(again.close)
    assert len(await client.cosign(log.note(20), log.prove)) == 1
    assert client.snapshot()[0].findings == 1
    assert "forgot: it had seen 10 and tells 0" in caplog.text


async def test_a_monitor_that_does_not_admit(party, log):
    async def admit(checkpoint):
        if checkpoint.size > 5:
            raise NotAdmitted("entry 6: a second seal")
        if checkpoint.size > 3:
            raise StoreError("the log's store does not answer")

    await party.witness("office", admit=admit)
    client = party.client()
    assert len(await client.cosign(log.note(3), log.prove)) == 1
    assert await client.cosign(log.note(4), log.prove) == []
    assert client.snapshot()[0].state == "down"
    assert client.snapshot()[0].reason == "HTTP 503: Service Unavailable"
    assert await client.cosign(log.note(9), log.prove) == []
    (status,) = client.snapshot()
    assert (status.state, status.finding) == ("refused", True)
    assert status.reason == "HTTP 403: not-admitted: entry 6: a second seal"


async def test_checkpoints_asked_for_at_once_take_turns(party, log):
    server = await party.witness("office")
    client = party.client()
    results = await asyncio.gather(
        *(client.cosign(log.note(size), log.prove) for size in (5, 9, 7, 20))
    )
    # 7 comes after 9 and is not asked for any more.
    assert [len(lines) for lines in results] == [1, 1, 0, 1]
    assert server.witness.snapshot().refused == {}
    assert states(client) == {"office": "ok"}


async def test_an_error_of_our_own_is_raised_only_where_it_matters(party, log):
    async def broken(old, new):
        raise StoreError("the vault does not answer")

    await party.witness("office")
    with pytest.raises(StoreError, match="the vault does not answer"):
        await party.client().cosign(log.note(), broken)
    policy = party.policy()
    free = parse_policy(
        f"log {log.verifier.vkey}\nwitness office {KEYS['office'].vkey} "
        f"{policy.witnesses[0].url}\nquorum none\n".encode()
    )
    assert await Witnesses(free).cosign(log.note(), broken) == []


async def test_an_error_of_our_own_that_comes_late_is_logged(party, log, caplog):
    gate = asyncio.Event()
    first = asyncio.Event()

    async def prove(old, new):
        if first.is_set():
            await gate.wait()
            raise StoreError("the vault does not answer")
        first.set()
        return log.proof(old, new)

    await party.witness("office")
    await party.witness("auditor")
    client = party.client("any", grace_s=0.0)
    assert len(await client.cosign(log.note(), prove)) == 1
    gate.set()
    async with asyncio.timeout(60):
        while "the vault does not answer" not in caplog.text:
            await asyncio.sleep(0.01)


async def test_what_nobody_foresaw_is_raised_and_nothing_is_left_running(party, log):
    async def broken(old, new):
        raise RuntimeError("nobody foresaw this")

    await party.double("office", lambda _: None)
    await party.witness("auditor")
    before = asyncio.all_tasks()
    with pytest.raises(RuntimeError, match="nobody foresaw this"):
        await party.client("all").cosign(log.note(), broken)
    assert asyncio.all_tasks() <= before


async def test_it_can_be_cancelled(party, log):
    one = await party.double("office", lambda _: None)
    client = party.client(timeout_s=60.0)
    asking = asyncio.create_task(client.cosign(log.note(), log.prove))
    async with asyncio.timeout(60):
        while not one.asked:
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    one.answer = lambda _: http(200, line("office", log).encode())
    assert len(await client.cosign(log.note(), log.prove)) == 1


async def test_it_speaks_tls_and_knows_whom_it_trusts(party, log, tmp_path):
    chain, key = write_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    server = await party.witness("office", tls=context)
    assert server.url.startswith("https://127.0.0.1:")
    assert len(await party.client(ca=chain).cosign(log.note(), log.prove)) == 1
    stranger = party.client()
    assert await stranger.cosign(log.note(), log.prove) == []
    assert stranger.snapshot()[0].reason == "its certificate is not trusted"


async def test_a_policy_without_witnesses_or_their_urls(log):
    alone = Witnesses(parse_policy(f"log {log.verifier.vkey}\nquorum none\n".encode()))
    assert await alone.cosign(log.note(), log.prove) == []
    assert alone.snapshot() == ()
    policy = f"log {log.verifier.vkey}\nwitness office {KEYS['office'].vkey}\nquorum office\n"
    silent = Witnesses(parse_policy(policy.encode()))
    assert await silent.cosign(log.note(), log.prove) == []
    (status,) = silent.snapshot()
    assert (status.state, status.url, status.size) == ("unasked", "", None)
    assert status.reason == "the policy names no URL of it"
    await silent.close()


async def test_what_is_wrong_with_a_policy_or_a_note_is_said(party, log):
    bad = f"log {log.verifier.vkey}\nwitness office {KEYS['office'].vkey} ftp://x\nquorum office\n"
    with pytest.raises(SettingsError, match="the policy's witness office"):
        Witnesses(parse_policy(bad.encode()))
    await party.witness("office")
    with pytest.raises(FormatError):
        await party.client().cosign(b"nothing", log.prove)
