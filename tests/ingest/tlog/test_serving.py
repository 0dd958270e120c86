"""The log over HTTP: tiles as the vault has them, the beacon, receipts; and nothing else."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from sealtape.ingest.ledger.rows import LogEntry
from sealtape.ingest.tlog.names import seal_name
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.serving import LogServer, Receipts, serve_log
from sealtape.ingest.tlog.store import CHECKPOINT, PENDING, LogStore
from sealtape.ingest.tlog.worker import LogWorker
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import SettingsError, StoreCorrupt, TargetError
from sealtape.schemas.settings import LogSettings
from sealtape.schemas.tlog.receipts import Ended, contradiction, verify_receipt
from sealtape.schemas.tlog.records import SessionSeal
from tests.capture.metrics.http import get
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, log_of, read_log


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


@asynccontextmanager
async def served(site, **changes):
    """A server of the site's log; `changes` replace what the ledger or the vault answer."""
    async with log_of(site) as (stores, _):
        ledger = changes.get("ledger", lambda found: found)(stores.ledger)
        server = await serve_log(
            site.settings.log, site.folder, ledger, stores.vault, address="127.0.0.1:0"
        )
        try:
            yield server
        finally:
            await server.close()


def ended(built):
    return Ended(built.session, built.epoch, built.tree.hi, built.tree.root())


async def test_a_receipt_proves_a_sealed_session_to_its_node(site):
    built = site.session(commands=3)
    await seal(site, [built])
    await grow_log(site)
    policy, log = read_policy(site.settings), site.settings.deployment.log
    async with served(site) as server:
        answer = await get(server.address, f"/receipt/{built.session.hex()}/0")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    found = verify_receipt(answer.body, ended(built), policy, log)
    assert contradiction(found, ended(built)) == ""


async def test_the_beacon_is_the_newest_witnessed_checkpoint(site):
    async with served(site) as server:
        assert (await get(server.address, "/beacon")).status == 404
    await seal(site, [site.session()])
    await grow_log(site)
    entries, checkpoint = await read_log(site)
    async with served(site) as server:
        beacon = (await get(server.address, "/beacon")).body
        assert beacon == (await get(server.address, "/log/1/checkpoint")).body
    assert read_policy(site.settings).open(beacon).checkpoint == checkpoint
    assert checkpoint.size == len(entries)


async def test_what_is_only_signed_has_no_receipt_yet(site):
    first, second = site.session(), site.session()
    await seal(site, [first])
    await grow_log(site)
    _, before = await read_log(site)
    await seal(site, [second])
    async with log_of(site) as (_, parts):
        keyless = replace(parts.policy, quorum="nobody")  # no witness will do
        pending = replace(parts, policy=keyless, cosigners=None)
        worker = LogWorker(pending, owner="dev-1", ttl_s=5.0)
        task = asyncio.create_task(worker.run())
        await asyncio.sleep(0.5)
        worker.leave()
        await task
    async with served(site) as server:
        assert (await get(server.address, f"/receipt/{first.session.hex()}/0")).status == 200
        assert (await get(server.address, f"/receipt/{second.session.hex()}/0")).status == 404
        beacon = (await get(server.address, "/beacon")).body
    assert read_policy(site.settings).open(beacon).checkpoint == before
    vault = await open_vault(site.settings.stores.vault, site.folder)
    pending = await LogStore(vault, 1).get(PENDING)
    await vault.close()
    assert read_policy(site.settings).open(pending).checkpoint.size > before.size


async def test_tiles_are_the_vaults_objects(site):
    await seal(site, [site.session()])
    await grow_log(site)
    _, checkpoint = await read_log(site)
    width = checkpoint.size
    folder = site.folder / "vault/log/v1/1"
    async with served(site) as server:
        for name in (f"tile/0/000.p/{width}", f"tile/entries/000.p/{width}"):
            answer = await get(server.address, f"/log/1/{name}")
            assert answer.status == 200
            assert answer.headers["content-type"] == "application/octet-stream"
            assert answer.body == (folder / name).read_bytes()
            head = await get(server.address, f"/log/1/{name}", "HEAD")
            assert int(head.headers["content-length"]) == len(answer.body)
            assert head.body == b""


NOWHERE = (
    "/",
    "/log/1",
    "/log/2/checkpoint",
    "/log/0/checkpoint",
    "/log/01/checkpoint",
    "/log/1/checkpoint.pending",
    "/log/1/state/00000000000000000001",
    "/log/1/tile/0/000.p/0",
    "/log/1/tile/0/000.p/256",
    "/log/1/tile/0/999",
    "/log/1/tile/0/../../checkpoint",
    "/log/1/tile/entries/0",
    "/receipt/" + "ab" * 16,
    "/receipt/" + "ab" * 16 + "/0",
    "/receipt/" + "AB" * 16 + "/0",
    "/receipt/" + "ab" * 15 + "/0",
    "/receipt/" + "ab" * 16 + "/00",
    "/receipt/" + "ab" * 16 + "/-1",
    "/receipt/" + "ab" * 16 + "/99999999999",
    "/beacon/",
)


async def test_nothing_else_is_there(site):
    await seal(site, [site.session()])
    await grow_log(site)
    async with served(site) as server:
        for path in NOWHERE:
            assert (await get(server.address, path)).status == 404, path


async def test_only_reading_is_allowed(site):
    async with served(site) as server:
        answer = await get(server.address, "/beacon", "POST")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_a_shard_that_has_just_begun_leaves_the_beacon_to_the_one_before(site):
    await seal(site, [site.session()])
    await grow_log(site)
    async with log_of(site) as (stores, _):
        before = await LogStore(stores.vault, 1).get(CHECKPOINT)
        state = await stores.ledger.log_state()

        class Begun:
            async def log_state(self):
                return replace(state, number=2, size=1, note=b"", witnessed=b"")

        assert await Receipts(Begun(), stores.vault).beacon() == before


class Wrong:
    """A ledger whose entries are not the log's."""

    def __init__(self, ledger):
        self._ledger = ledger

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    async def log_entries(self, number, first=0, limit=1000):
        (found,) = await self._ledger.log_entries(number, first, limit)
        return [LogEntry(found.index, found.name, found.entry + b" ")]


async def test_a_ledger_that_differs_from_the_tree_gives_no_receipt(site):
    built = site.session()
    await seal(site, [built])
    await grow_log(site)
    async with served(site, ledger=Wrong) as server:
        assert (await get(server.address, f"/receipt/{built.session.hex()}/0")).status == 503
    async with log_of(site) as (stores, _):
        with pytest.raises(StoreCorrupt, match="not the one in the"):
            await Receipts(Wrong(stores.ledger), stores.vault).receipt(built.session, 0)


async def test_every_epoch_in_a_log_of_many_tiles_has_a_receipt(site):
    built = [site.session(commands=1) for _ in range(110)]
    await seal(site, built)
    await grow_log(site)
    policy, log = read_policy(site.settings), site.settings.deployment.log
    entries, _ = await read_log(site)
    assert len(entries) > 2 * 110
    async with log_of(site) as (stores, _):
        receipts = Receipts(stores.ledger, stores.vault)
        for each in built:
            data = await receipts.receipt(each.session, 0)
            assert contradiction(verify_receipt(data, ended(each), policy, log), ended(each)) == ""
        names = [seal_name(each.session, 0) for each in built]
        assert len(await stores.ledger.log_find(names)) == len(built)
    assert sum(isinstance(entry, SessionSeal) for entry in entries) == len(built)


async def test_without_an_address_nothing_is_served(site):
    async with log_of(site) as (stores, _):
        server = await serve_log(LogSettings(), site.folder, stores.ledger, stores.vault)
        assert (server.address, server.url) == ("", "")
        await server.close()


async def test_it_speaks_tls_with_the_certificate_of_the_settings(site):
    names = {"tls_certificate": "keys/tls.crt", "tls_key": "keys/tls.key"}
    settings = LogSettings(serve="127.0.0.1:0", **names)
    await seal(site, [site.session()])
    await grow_log(site)
    async with log_of(site) as (stores, _):
        server = await serve_log(settings, site.folder, stores.ledger, stores.vault)
        try:
            assert server.url == f"https://{server.address}"
            trust = ssl.create_default_context(cafile=site.folder / "keys/tls.crt")
            trust.check_hostname = False
            host, port = server.address.rsplit(":", 1)
            reader, writer = await asyncio.open_connection(host, int(port), ssl=trust)
            writer.write(b"GET /beacon HTTP/1.1\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()
        finally:
            await server.close()


async def test_a_certificate_that_cannot_be_read_is_the_settings_fault(site):
    settings = LogSettings(serve="127.0.0.1:0", tls_certificate="keys/none.crt")
    async with log_of(site) as (stores, _):
        with pytest.raises(SettingsError, match=r"keys/none\.crt"):
            await serve_log(settings, site.folder, stores.ledger, stores.vault)


async def test_an_address_that_is_taken_is_told(site):
    async with served(site) as first:
        second = LogServer(None, None)
        with pytest.raises(TargetError, match="readers of the log") as caught:
            await second.open(first.address)
        assert "log.serve" in caught.value.hint
        await second.close()
