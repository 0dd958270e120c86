import pytest

from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.rebuild.chains import chain_up
from sealtape.ingest.rebuild.objects import Leaves, list_vault, read_segment
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import StoreCorrupt
from sealtape.schemas.frames import Kind
from tests.factories.deployments import make_site, seal


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "site")


@pytest.fixture
async def vault(site):
    vault = await open_vault(site.settings.stores.vault, site.folder)
    yield vault
    await vault.close()


async def sealed(site, count=2, **options):
    sessions = [site.session(**options) for _ in range(count)]
    for built in sessions:
        await seal(site, [built])
    return sessions


async def test_the_vault_is_listed_by_its_manifests(site, vault):
    assert await list_vault(vault) == ([], [])
    await sealed(site)
    links, bare = await list_vault(vault)
    assert (len(links), bare) == (2, [])
    manifest = site.objects(".manifest.jsonl")[1]
    manifest.unlink()
    links, bare = await list_vault(vault)
    assert len(links) == 1
    assert [key.rsplit("/", 1)[-1] for key in bare] == [site.objects()[1].name]


async def test_a_manifest_that_is_none_is_refused(site, vault):
    await sealed(site, 1)
    (manifest,) = site.objects(".manifest.jsonl")
    manifest.chmod(0o644)
    manifest.write_bytes(b"{}\n")
    with pytest.raises(StoreCorrupt, match="damaged"):
        await list_vault(vault)


async def test_a_segment_says_what_its_rows_say(site, vault):
    (built,) = await sealed(site, 1, commands=4)
    ((link,), _) = await list_vault(vault)
    segment = await read_segment(vault, link)
    (seen,) = segment.seen()
    assert (seen.name, seen.closed) == ((built.session, 0), "client")
    assert seen.opening == built.frames[0].payload
    clocks = list(segment.clocks(seen.record))
    assert [kind for kind, _ in clocks] == [frame.kind for frame in built.frames]
    assert [ts for _, ts in clocks] == [frame.ts_ns for frame in built.frames]
    assert clocks[-1][0] == Kind.CLOSE


async def test_a_segment_that_changed_is_refused(site, vault):
    await sealed(site)
    links, _ = await list_vault(vault)
    first, second = chain_up(links).links[links[0].shard]
    one, two = (site.folder / "vault" / link.key for link in (first, second))
    one.chmod(0o644)
    one.write_bytes(two.read_bytes())
    with pytest.raises(StoreCorrupt, match="not those its record names"):
        await read_segment(vault, first)
    two.unlink()
    with pytest.raises(StoreCorrupt, match="not in the vault"):
        await read_segment(vault, second)


async def test_leaves_and_roots_are_those_of_the_session(site, vault, monkeypatch):
    monkeypatch.setattr("sealtape.ingest.rebuild.objects._SEGMENTS", 1)
    monkeypatch.setattr("sealtape.ingest.rebuild.objects._SESSIONS", 1)
    sessions = await sealed(site, 2, commands=6, checkpoint_every=2)
    half = site.session(commands=8, checkpoint_every=2, close=None)
    pairs = half.encoded()
    await seal(site, pairs=pairs[:12])
    await seal(site, pairs=pairs[12:])
    ledger = await open_ledger("sqlite:ledger.db", site.folder, read_only=True)
    leaves = Leaves(ledger, vault)
    for built in [*sessions, half]:
        sealed_leaves = [frame.leaf() for frame in built.frames]
        name = (built.session, 0)
        found = [await leaves.leaf(*name, seq) for seq in range(len(built.frames))]
        assert found == sealed_leaves
        for size in range(1, len(built.frames) + 1):
            expected = built.tree.copy() if size == len(built.frames) else None
            root = await leaves.root(*name, size)
            assert root is not None
            if expected is not None:
                assert root == expected.root()
        assert await leaves.leaf(*name, len(built.frames)) is None
        assert await leaves.root(*name, len(built.frames) + 1) is None
        assert await leaves.leaf(built.session, 1, 0) is None
    assert len(await ledger.fragments(half.session)) > 1
    assert await leaves.leaf(bytes(16), 0, 0) is None
    assert await leaves.fragment(bytes(16), 0, 0) is None
    await ledger.close()
