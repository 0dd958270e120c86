"""Hits compared with what the sealed record says."""

from dataclasses import replace

import pytest

from sealtape.indexer.cli.confirming import Confirming, reader_key
from sealtape.indexer.index import Page, open_index
from sealtape.indexer.node import rebuild_index
from sealtape.indexer.query import parse
from sealtape.schemas.errors import KeyUnavailable
from tests.factories.deployments import make_site, seal


async def found(site, session):
    index = await open_index(site.settings.stores.index, site.folder)
    try:
        query = parse(f"session:{session.hex()}", now_ns=0)
        commands = (await index.search_commands(query, Page(limit=50))).documents
        return await index.session(session.hex()), commands
    finally:
        await index.close()


@pytest.fixture
async def site(tmp_path):
    return make_site(tmp_path / "site")


async def confirming(site, *sessions, **options):
    made = Confirming(site.settings, reader_key(site.settings, None), **options)
    await made.read(sessions)
    return made


async def test_all_of_a_sealed_session(site):
    built = site.session(commands=3)
    recovered = site.recovered(commands=1)
    await seal(site, [built, *recovered])
    await rebuild_index(site.settings)
    for name in (built.session, recovered[0].session):
        session, commands = await found(site, name)
        made = await confirming(site, name)
        assert made.session(session).verified
        assert commands
        assert all(made.hit(command, session).verified for command in commands)
        assert made.hidden(name, commands) == []


async def test_what_was_edited_is_named(site):
    built = site.session(commands=2)
    await seal(site, [built])
    await rebuild_index(site.settings)
    session, commands = await found(site, built.session)
    made = await confirming(site, built.session)
    other = made.hit(replace(commands[0], text="select 1", rows=7), session)
    assert (other.verified, other.reason) == (False, "index differs from the record: text, rows")
    other = made.hit(commands[0], replace(session, user="eve"))
    assert (other.differs, other.reason) == (True, "index differs from the record: user")
    invented = made.command(replace(commands[0], n=77))
    assert invented.reason == "index differs from the record: it has no such command"
    (hidden,) = made.hidden(built.session, commands[:1])
    assert "1 commands are not in it" in hidden.reason
    undone = made.command(replace(commands[0], version=0, status="running"))
    assert (undone.verified, undone.differs) == (False, False)
    behind = made.session(replace(session, state="closed"))
    assert (behind.verified, behind.differs) == (False, False)
    assert made.session(replace(session, errors=4)).differs


async def test_what_is_not_sealed_is_neither(site):
    live = site.session(commands=2, close=None)
    built = site.session(commands=1)
    await seal(site, [live, built])
    await rebuild_index(site.settings)
    session, commands = await found(site, live.session)
    unknown = b"\xee" * 16
    made = await confirming(site, live.session, unknown)
    answer = made.hit(commands[0], session)
    assert (answer.verified, answer.differs) == (False, False)
    assert "its record is incomplete" in answer.reason
    later = made.command(replace(commands[0], n=99, seq=99))
    assert later.reason == "it is not sealed yet"
    assert not made.session(replace(session, session=unknown)).verified
    assert not made.command(replace(commands[0], session=unknown)).verified


async def test_a_record_that_was_tampered_with_confirms_nothing(site):
    built = site.session(commands=1)
    await seal(site, [built])
    await rebuild_index(site.settings)
    session, commands = await found(site, built.session)
    (path,) = site.objects()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    made = await confirming(site, built.session)
    answer = made.hit(commands[0], session)
    assert not answer.verified
    assert answer.reason.startswith("its record is tampered")


async def test_a_key_that_opens_nothing(site):
    built = site.session(commands=1)
    await seal(site, [built])
    await rebuild_index(site.settings)
    session, _ = await found(site, built.session)
    other = make_site(site.folder.parent / "other")
    made = Confirming(site.settings, other.indexer)
    await made.read([built.session])
    assert made.session(session).reason.startswith("its facts cannot be read")


async def test_whose_key_it_is(site):
    assert reader_key(site.settings, None).id == site.indexer.id
    assert reader_key(site.settings, str(site.folder / "keys/auditor.key")).id == site.auditor.id
    (site.folder / "keys/indexer.key").unlink()
    assert reader_key(site.settings, None).id == site.auditor.id
    (site.folder / "keys/auditor.key").unlink()
    with pytest.raises(KeyUnavailable):
        reader_key(site.settings, None)
