import asyncio
import re
import secrets
from pathlib import Path

import pytest

from sealtape.indexer.index import check_index, open_index, prepare_index
from sealtape.indexer.index.base import Page, Update
from sealtape.indexer.index.opensearch.layout import Layout
from sealtape.indexer.index.opensearch.roles import roles
from sealtape.indexer.query import Query
from sealtape.schemas.errors import StoreError
from tests.conformance.index import command, query, session

HERE = Path("/")


@pytest.fixture
async def secure(opensearch_secure, monkeypatch):
    """A prefix in the secure OpenSearch with its roles, and a user for each."""
    prefix = opensearch_secure.prefix()
    monkeypatch.setenv("ADMIN", opensearch_secure.password)
    done = await prepare_index(opensearch_secure.index_url(prefix, password_env="ADMIN"), HERE)
    assert f"loaded the roles {prefix}_indexer and {prefix}_reader" in done
    urls = {}
    for role in ("indexer", "reader"):
        name, password = f"{prefix}-{role}", secrets.token_urlsafe(18)
        opensearch_secure.create_user(name, password, [f"{prefix}_{role}"])
        monkeypatch.setenv(f"PASSWORD_OF_{role}", password)
        urls[role] = opensearch_secure.index_url(
            prefix, user=name, password_env=f"PASSWORD_OF_{role}"
        )
    yield urls
    await asyncio.to_thread(opensearch_secure.forget, prefix)


def test_no_role_reaches_beyond_its_prefix():
    for body in roles(Layout("acme")).values():
        for part in body["index_permissions"]:
            assert all(pattern.startswith("acme-") for pattern in part["index_patterns"])
        assert not any(re.search(r"\*|put|delete", one) for one in body["cluster_permissions"])


async def test_the_indexers_role_is_enough(secure):
    index = await open_index(secure["indexer"], HERE)
    owner, other = session(1), session(2)
    update = Update(
        (owner, other), (command(owner, 0), command(other, 0)), {"bus/0": 1}, {owner.id: b"p"}
    )
    await index.put(update)
    await index.put(update)
    assert await index.progress(owner.id) == b"p"
    assert await index.positions() == {"bus/0": 1}
    assert len((await index.search_sessions(query("select -drop"), Page())).documents) == 2
    await index.drop(owner.id)
    await index.put(update)
    assert (await index.search_sessions(Query(), Page())).documents == (other,)
    await index.clear()
    assert await index.positions() == {}
    await index.close()
    assert [check for check in await check_index(secure["indexer"], HERE) if check.hint] == []


async def test_the_readers_role_reads_and_no_more(secure):
    writer = await open_index(secure["indexer"], HERE)
    owner = session(1)
    await writer.put(Update((owner,), (command(owner, 0),), {"bus/0": 1}))
    reader = await open_index(secure["reader"], HERE, read_only=True)
    assert (await reader.search_sessions(query("select"), Page())).documents == (owner,)
    assert (await reader.search_commands(Query(), Page())).documents == (command(owner, 0),)
    assert await reader.session("00") == owner
    assert await reader.command(command(owner, 0).id) == command(owner, 0)
    assert await reader.positions() == {"bus/0": 1}
    await reader.close()
    checks = await check_index(secure["reader"], HERE, writes=False)
    assert {check.level for check in checks} == {"ok"}, checks
    assert checks[-1].message == "It has 1 sessions and 1 commands."
    bold = await open_index(secure["reader"], HERE)
    for call in (bold.put(Update((session(2),))), bold.drop(owner.id), bold.clear()):
        with pytest.raises(StoreError):
            await call
    await bold.close()
    assert await writer.session(owner.id) == owner
    await writer.close()


async def test_whoever_may_not_prepare_is_told(secure):
    with pytest.raises(StoreError, match="does not permit"):
        await prepare_index(secure["indexer"], HERE)
