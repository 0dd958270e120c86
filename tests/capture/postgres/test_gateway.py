import asyncio
import dataclasses

import pytest

from sealtape.capture.postgres.gateway import Gateway
from sealtape.schemas.errors import Refused, SettingsError, TargetError
from sealtape.schemas.settings import load_settings
from tests.capture.postgres.gateway_world import CollectingWorker, gateway_world, psql


async def test_what_a_target_demands_of_recordings_reaches_the_worker(tmp_path, postgres_server):
    target = 'retention = "short"\ntenant = "acme"\nlevel = "durable"\non_failure = "continue"'
    extra = '[retention.short]\nretain_for = "1d"\ndelete_after = "2d"\nencryption = false\n'
    async with gateway_world(tmp_path, postgres_server, target=target, extra=extra) as world:
        code, _, err = await psql(world.dsn(), "-c", "select 1")
        assert code == 0, err
        terms = (await world.last_session()).terms
    assert dataclasses.astuple(terms.retention) == ("short", 86400, 172800)
    assert (terms.tenant, terms.encryption, terms.level) == ("acme", False, "durable")
    assert terms.on_failure == "continue"


async def test_a_snapshot_of_the_codec_is_at_hand_for_state_frames(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        await psql(world.dsn(), "-c", "prepare p as select 1")
        codec, data = (await world.last_session()).snapshot()
    assert codec == "postgres/1"
    assert data.startswith(b"{")


async def test_a_draining_gateway_does_not_wait_for_strangers(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        await asyncio.sleep(0.1)
        async with asyncio.timeout(8):
            await world.gateway.close()
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(Refused) as caught:
            world.gateway.check_open()
        assert caught.value.reason == "shutting-down"
        assert world.gateway.limits.total == 0


async def test_two_gateways_cannot_have_one_address_unless_they_share_it(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        text = (tmp_path / "settings").read_text().replace("127.0.0.1:0", f"127.0.0.1:{world.port}")
        settings = load_settings(text, base=str(tmp_path))
        with pytest.raises(TargetError, match="Cannot listen"):
            Gateway(settings=settings, worker=CollectingWorker())
        without = dataclasses.replace(settings, identity=None)
        with pytest.raises(SettingsError, match="identity"):
            Gateway(settings=without, worker=CollectingWorker())
