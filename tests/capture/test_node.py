import asyncio

import pytest

from sealtape.capture.bus import open_bus
from sealtape.capture.node import start_capture
from sealtape.schemas.errors import FormatError, KeyUnavailable, SettingsError, TargetError
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.messages import KeyMessage, decode
from tests.capture.node_lab import NodeLab
from tests.capture.postgres.gateway_world import psql
from tests.capture.stage import until
from tests.conformance.bus import read_all
from tests.servers.postgres import free_port, shared_server


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "scram-secret")
    return NodeLab(tmp_path, shared_server())


async def kinds_by_session(settings):
    bus = open_bus(settings.stores.bus, settings_base(settings))
    batch = await bus.read(0, 0, max_bytes=1 << 24, wait_s=1)
    await bus.close()
    found = {}
    for record in batch.records:
        message = decode(record.value)
        if isinstance(message, Frame):
            found.setdefault(message.session, []).append(message.kind)
    return found


def settings_base(settings):
    from pathlib import Path

    return Path(settings.base)


async def test_a_node_records_ships_and_drains(lab):
    ready = []
    running = await start_capture(lab.settings, on_ready=ready.append)
    assert ready == [running.listeners]
    code, out, err = await psql(lab.dsn(running.listeners["postgres"]), "-c", "select 6*7")
    assert (code, out) == (0, "42\n"), err
    code, _, err = await psql(lab.dsn(running.listeners["postgres"], dbname="nope"), "-c", "")
    assert code == 2
    assert running.worker.health().state == "ok"
    assert await running.stop()
    sessions = await kinds_by_session(lab.settings)
    assert len(sessions) == 2  # the journal and one session
    for kinds in sessions.values():
        assert kinds[:2] == [Kind.OPEN, Kind.IDENT]
        assert kinds[-1] == Kind.CLOSE
        assert Kind.FACTS in kinds
    assert sum(Kind.DATA in kinds for kinds in sessions.values()) == 1


async def test_a_bus_that_is_given_stays_open(lab):
    settings = lab.settings
    bus = open_bus(settings.stores.bus, settings_base(settings))
    running = await start_capture(settings, bus=bus)
    await running.stop()
    assert (await bus.bounds(0))[1] > 0
    await bus.close()


def with_keys(lab, url):
    lab.path.write_text(lab.path.read_text() + f'\n[stores]\nkeys = "{url}"\n')


async def test_keys_go_to_the_bus_the_settings_name_for_them(lab):
    with_keys(lab, "dir:keys-bus?partitions=1")
    running = await start_capture(lab.settings)
    code, _, err = await psql(lab.dsn(running.listeners["postgres"]), "-c", "select 1")
    assert code == 0, err
    assert await running.stop()
    bus = open_bus("dir:keys-bus", settings_base(lab.settings))
    keys = [decode(record.value) for record in await read_all(bus)]
    await bus.close()
    assert all(isinstance(key, KeyMessage) for key in keys)
    assert {key.session for key in keys} == set(await kinds_by_session(lab.settings))


async def test_a_bus_for_keys_with_other_partitions_is_refused(lab):
    with_keys(lab, "dir:keys-bus?partitions=2")
    with pytest.raises(SettingsError, match=r"1 partitions.* 2"):
        await start_capture(lab.settings)


@pytest.mark.parametrize(
    "keys",
    [
        'auditors = ["keys/auditor.pub", "keys/indexer.pub"]',  # it would open what was answered
        'indexers = ["keys/auditor.pub"]',
        'auditors = ["keys/auditor.pub", "keys/auditor.pub"]',  # two wraps of one name conflict
    ],
)
async def test_nothing_is_wrapped_to_a_key_in_a_place_that_is_not_its_own(lab, keys):
    lab.path.write_text(lab.path.read_text() + f"\n[keys]\n{keys}\n")
    with pytest.raises(SettingsError, match=f"keys.{keys.partition(' ')[0]} names"):
        await start_capture(lab.settings)


@pytest.mark.parametrize(
    ("auditors", "encryption", "warned"),
    [("", "true", True), ("", "false", False), ('"keys/auditor.pub"', "true", False)],
)
async def test_what_nobody_will_ever_open_is_said_at_the_start(
    lab, caplog, auditors, encryption, warned
):
    more = f"\n[keys]\nauditors = [{auditors}]\n[retention.standard]\nencryption = {encryption}\n"
    lab.path.write_text(lab.path.read_text() + more)
    running = await start_capture(lab.settings)
    await running.stop()
    found = [r for r in caplog.records if "auditors" in r.getMessage()]
    assert [r.levelname for r in found] == ["WARNING"] * warned
    if warned:
        assert "Name their public keys in keys.auditors." in found[0].getMessage()
        assert "standard" in found[0].getMessage()


async def test_a_bus_that_is_away_does_not_keep_a_node_down(lab):
    with_keys(lab, f"kafka://127.0.0.1:{free_port()}/keys?partitions=1&tls=disable&timeout=1s")
    running = await start_capture(lab.settings)
    code, _, err = await psql(lab.dsn(running.listeners["postgres"]), "-c", "select 1")
    assert code == 0, err
    await until(lambda: running.worker.health().state == "bus-failing")
    await running._gateway.close()
    assert await running.worker.stop(timeout_s=0.1) is False
    await running._own.aclose()
    await running._told.close()


@pytest.mark.parametrize("name", ["node.key", "spool.key", "auditor.pub"])
async def test_a_key_that_is_not_there_is_named(lab, name):
    (lab.folder / "keys" / name).unlink()
    with pytest.raises(KeyUnavailable, match=name):
        await start_capture(lab.settings)


@pytest.mark.parametrize("text", ["", "zz", "11" * 31])
async def test_a_spool_key_must_be_one(lab, text):
    (lab.folder / "keys/spool.key").write_text(text)
    with pytest.raises(KeyUnavailable, match="64 hexadecimal"):
        await start_capture(lab.settings)


async def test_a_node_key_must_be_one(lab):
    (lab.folder / "keys/node.key").write_text("secret-text")
    with pytest.raises(FormatError) as caught:
        await start_capture(lab.settings)
    assert "secret-text" not in str(caught.value)


async def test_an_address_that_is_taken_leaves_nothing_behind(lab):
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    taken = server.sockets[0].getsockname()[1]
    text = lab.path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{taken}")
    lab.path.write_text(text)
    with pytest.raises(TargetError, match="Cannot listen"):
        await start_capture(lab.settings)
    server.close()
    lab.path.write_text(text.replace(f"127.0.0.1:{taken}", "127.0.0.1:0"))
    await (await start_capture(lab.settings)).stop()


async def test_without_identity_there_is_no_gateway(lab):
    text = lab.path.read_text()
    a, b = text.index("[identity]"), text.index("[targets.shop]")
    lab.path.write_text(text[:a] + text[b:])
    with pytest.raises(SettingsError, match="identity"):
        await start_capture(lab.settings)


async def test_a_credential_provider_that_is_not_installed_is_said_at_the_start(lab):
    lab.path.write_text(
        lab.path.read_text().replace('env = "SHOP_PASSWORD"', 'provider = "vault:x"')
    )
    with pytest.raises(SettingsError, match="provider"):
        await start_capture(lab.settings)
