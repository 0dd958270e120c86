"""Who rules a bucket that keeps versions: delete markers, new versions, old ones put back."""

import re
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from sealtape.ingest.tlog.store import CHECKPOINT
from sealtape.ingest.vault import open_vault
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_url
from tests.indexer.harm import tampered
from tests.stories.deployed import PATIENT, judged, numbered

PREFIX = "deep/prefix"
_VERSION = re.compile(r"<Version>.*?</Version>", re.DOTALL)


class Admin:
    """What he does to objects, by their names in the vault."""

    def __init__(self, server, bucket):
        self._server, self._bucket = server, bucket

    def _call(self, method, name, query="", body=b""):
        path = f"/{self._bucket}/{quote(f'{PREFIX}/{name}', safe='/=')}"
        return self._server.call(method, path, query, body=body)[1]

    def versions(self, name):
        """Ids of an object's versions, the newest first."""
        query = f"prefix={quote(f'{PREFIX}/{name}', safe='')}&versions="
        _, answer = self._server.call("GET", f"/{self._bucket}", query)
        found = [
            re.search("<VersionId>(.+?)</VersionId>", one)[1]
            for one in _VERSION.findall(answer.decode())
            if f"<Key>{PREFIX}/{name}</Key>" in one
        ]
        assert found, answer
        return found

    def read(self, name, version):
        return self._call("GET", name, f"versionId={quote(version, safe='')}")

    def replace(self, name, data):
        """A new version; the one before it is kept."""
        before = self.versions(name)
        self._call("PUT", name, body=data)
        assert set(before) < set(self.versions(name))

    def mark_deleted(self, name):
        before = self.versions(name)
        self._call("DELETE", name)
        assert self.versions(name) == before


@pytest.fixture
async def bucketed(tmp_path, s3_server, monkeypatch):
    """A deployment in the middle of its life, and who rules its bucket; `objects` are segments."""
    monkeypatch.setenv(SECRET_VARIABLE, s3_server.secret_key)
    bucket = s3_server.bucket(versioning=True)
    site = make_site(tmp_path / "site")
    text = site.config.read_text()
    site.config.write_text(f'{text}vault = "{s3_url(s3_server, bucket, PREFIX)}"\n')
    sessions = []
    for _ in range(2):
        sessions.append(numbered(site, commands=2))
        await seal(site, sessions[-1:], limits=PATIENT)
        await grow_log(site)
    vault = await open_vault(site.settings.stores.vault, site.folder)
    objects = [key async for key in vault.keys("seg/") if key.endswith(".parquet")]
    await vault.close()
    assert len(objects) == 2
    assert (await judged(site)).verdict == "verified"
    return SimpleNamespace(
        site=site, admin=Admin(s3_server, bucket), objects=objects, sessions=sessions
    )


async def test_he_hides_a_recording_behind_a_delete_marker(bucketed):
    name = bucketed.objects[0]
    bucketed.admin.mark_deleted(name)
    tampered(await judged(bucketed.site), layer="object", object=name, reason="it is gone")


async def test_he_replaces_a_recording_and_the_old_version_is_still_there(bucketed):
    """Nobody who verifies goes and takes the version that would fit."""
    name = bucketed.objects[0]
    data = bytearray(bucketed.admin.read(name, bucketed.admin.versions(name)[0]))
    data[len(data) // 2] ^= 1
    bucketed.admin.replace(name, bytes(data))
    tampered(await judged(bucketed.site), object=name)


async def test_he_replaces_a_recording_by_another(bucketed):
    name, other = bucketed.objects
    bucketed.admin.replace(name, bucketed.admin.read(other, bucketed.admin.versions(other)[0]))
    tampered(await judged(bucketed.site), layer="object", object=name)


async def test_he_restores_an_old_version_of_the_checkpoint(bucketed):
    name = f"log/v1/1/{CHECKPOINT}"
    oldest = bucketed.admin.versions(name)[-1]
    bucketed.admin.replace(name, bucketed.admin.read(name, oldest))
    tampered(await judged(bucketed.site), layer="log", object=name)


async def test_he_hides_a_tile_of_the_log(bucketed):
    vault = await open_vault(bucketed.site.settings.stores.vault, bucketed.site.folder)
    name = [key async for key in vault.keys("log/v1/1/tile/entries/")][-1]
    await vault.close()
    bucketed.admin.mark_deleted(name)
    tampered(await judged(bucketed.site), layer="log", object=name)
