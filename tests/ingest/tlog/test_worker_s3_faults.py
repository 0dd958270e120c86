"""The log in an S3 store that misbehaves at each object written: it comes to the same bytes.

A proxy in front of a real store spoils the first request to write each object of the log. With
patience the vault's adapter tries again; without, the failure reaches the worker, which begins anew
from what ledger and vault have.
"""

import asyncio
import re
import shutil
from contextlib import asynccontextmanager

import pytest

from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.publish import checkpoint_of
from sealtape.ingest.tlog.worker import LogWorker
from sealtape.ingest.vault import bucket, open_vault
from sealtape.schemas.tlog.tiles import Growth
from tests.factories.deployments import make_site, seal
from tests.factories.logs import kinds, log_of, read_log
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_url
from tests.factories.served import served
from tests.servers.http_faults import Rule, fault_proxy, reset

CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
SLOW_DOWN = b"<Error><Code>SlowDown</Code></Error>"


def refuses(status, body):
    """Answer so, and do not ask the store."""

    async def act(proxy, request, body_in, reader, writer):
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        return True

    return act


async def loses(proxy, request, body, reader, writer):
    """The store acts, and the answer never comes."""
    await proxy.ask(request, body)
    reset(writer)
    return False


async def repeats(proxy, request, body, reader, writer):
    """The store acts twice, and the second answer comes: 412, it is there."""
    await proxy.ask(request, body)
    head, answer = await proxy.ask(request, body)
    assert head.startswith((b"HTTP/1.1 412", b"HTTP/1.1 409")), head
    writer.write(head + answer)
    await writer.drain()
    return True


async def cuts(proxy, request, body, reader, writer):
    """The connection is reset, and the store never hears of it."""
    reset(writer)
    return False


async def breaks(proxy, request, body, reader, writer):
    """The store acts, and the answer ends inside its head."""
    head, _ = await proxy.ask(request, body)
    writer.write(head[:20])
    await writer.drain()
    reset(writer)
    return False


OBJECTS = {
    "tile/entries/000.p/",
    "tile/0/000.p/",
    "checkpoints/",
    "checkpoint",
    "checkpoint.pending",
}
FAULTS = {
    "the answer is lost": loses,
    "the answer breaks": breaks,
    "another has written the same": repeats,
    "a conflict": refuses("409 Conflict", CONFLICT),
    "too busy": refuses("503 Service Unavailable", SLOW_DOWN),
    "the request is cut": cuts,
}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A deployment in a folder, with a sealed session and no log yet."""
    site = make_site(tmp_path_factory.mktemp("sealed") / "site")
    asyncio.run(seal(site, [site.session(commands=2)]))
    return site


@pytest.fixture
async def site_on(sealed, s3_server, tmp_path, monkeypatch):
    """Copies of it with the vault in a bucket, which is asked at an endpoint."""
    monkeypatch.setenv(SECRET_VARIABLE, s3_server.secret_key)

    async def make(name, endpoint):
        site = sealed.moved(tmp_path / name)
        shutil.copytree(sealed.folder, site.folder)
        url = s3_url(s3_server, s3_server.bucket(), endpoint=endpoint, timeout="2s")
        site.config.write_text(f'{site.config.read_text()}vault = "{url}"\n')
        async with opened(site) as vault:
            for path in (site.folder / "vault").rglob("*"):
                if path.is_file():
                    key = str(path.relative_to(site.folder / "vault"))
                    await vault.put_new(key, path.read_bytes())
        return site

    return make


@asynccontextmanager
async def opened(site):
    vault = await open_vault(site.settings.stores.vault, site.folder)
    try:
        yield vault
    finally:
        await vault.close()


async def grown(site):
    """Run workers one after the other until the log is whole and witnessed; how many it took.

    One that is to end does not try again what failed: the next one does.
    """
    for turn in range(1, 40):
        async with log_of(site) as (stores, parts):
            worker = LogWorker(parts, owner="dev-1", ttl_s=5.0)
            worker.leave()
            await worker.run()
            assert not worker.snapshot().stopped
            assert not any(item.findings for item in parts.cosigners.snapshot())
            state = await stores.ledger.log_state()
        if state.witnessed and checkpoint_of(state.witnessed).size == state.size:
            return turn
    raise AssertionError


async def check_tiles(site):
    """Each tile is what the ledger's entries make, or was when the log was shorter."""
    ledger = await open_ledger(site.settings.stores.ledger, site.folder)
    entries = [row.entry for row in await ledger.log_entries(1)]
    await ledger.close()
    made = {tile.path: data for tile, data in Growth(0, {}).append(entries).items()}
    async with opened(site) as vault:
        found = {key: await vault.get(key) async for key in vault.keys("log/v1/1/tile/")}
    found = {key.removeprefix("log/v1/1/"): data for key, data in found.items()}
    assert made.items() <= found.items()
    for path in found.keys() - made.keys():
        (whole,) = [data for other, data in made.items() if other[:-3] == path[:-3]]
        assert whole.startswith(found[path])


async def fsck(site, tessera_fsck, folder):
    """What tessera says of the log, read from a bucket by its URL."""
    log = folder / "served"
    async with opened(site) as vault:
        async for key in vault.keys("log/v1/1/"):
            path = log / key.removeprefix("log/v1/1/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(await vault.get(key))
    (vkey,) = [
        key.verifier.vkey
        for key in read_policy(site.settings).logs
        if len(key.verifier.public) == 32
    ]
    with served(log) as url:
        return await asyncio.to_thread(tessera_fsck, url, vkey, folder)


@pytest.mark.parametrize("patience_s", [6.0, 0.0], ids=["patient", "hasty"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_each_object_is_written_in_spite_of_it(
    site_on, s3_server, tessera_fsck, tmp_path, monkeypatch, fault, patience_s
):
    async with fault_proxy(s3_server.endpoint) as proxy:
        site = await site_on("site", proxy.url)
        spoiled = set()

        def first(request):
            # Who begins anew adds a heartbeat: the same object is then a little wider.
            name = re.sub(r"[0-9]+$", "", request.path.partition("/log/v1/1/")[2])
            new = request.method == "PUT" and bool(name) and name not in spoiled
            if new:
                spoiled.add(name)
            return new

        proxy.rules.append(Rule(first, FAULTS[fault], times=1000))
        monkeypatch.setattr(bucket, "PATIENCE_S", patience_s)
        turns = await grown(site)
        assert turns == 1 or not patience_s
        assert spoiled == OBJECTS
        proxy.rules.clear()
        await check_tiles(site)
        entries, checkpoint = await read_log(site)
        assert len(entries) == checkpoint.size
        assert kinds(entries).count("session-seal") == 1
        assert await fsck(site, tessera_fsck, tmp_path) == ""
