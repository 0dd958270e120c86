"""Where the demo keeps its recordings: in files, or on Kafka, S3, PostgreSQL and OpenSearch."""

import asyncio
import json
import shutil
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from sealtape.ingest.parquet import read_rows
from sealtape.ingest.vault import is_swapped_key, open_vault
from sealtape.schemas.frames import Kind
from sealtape.schemas.layout import SEGMENT_PREFIX
from tests.servers import cache, registry
from tests.servers.process import Home
from tests.servers.stores import StoreSet

NAMES = ("kafka", "s3", "postgres", "opensearch")


def flipped(data, session):
    """The object with one bit of a recorded frame changed, and the frame's number; None if none."""
    changed = bytearray(data)
    for _, row in read_rows(data):
        if row.session.hex() == session and row.kind == Kind.DATA:
            changed[data.index(row.payload) + len(row.payload) // 2] ^= 1
            return bytes(changed), row.seq
    return None


class Embedded:
    """Files below the deployment's folder."""

    def start(self, folder):
        """Start nothing."""

    def settings(self):
        """What a settings file says about stores: nothing, these are the defaults."""
        return ""

    def where(self, lab):
        """Nothing that a person would not find in the folder."""
        return []

    def tampered(self, lab, folder, session):
        """Copy the evidence, and change one bit in it; returns the object's and frame's name."""
        folder.mkdir()
        for name in ("sealtape.toml", "trust.toml", "keys", "secrets"):
            source = lab / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
        for name in ("ledger.db", "keyring.db", "index.db"):
            with (
                closing(sqlite3.connect(lab / name)) as source,
                closing(sqlite3.connect(folder / name)) as target,
            ):
                source.backup(target)
        shutil.copytree(lab / "vault", folder / "vault")
        for path in sorted((folder / "vault").rglob("*.parquet")):
            if found := flipped(path.read_bytes(), session):
                path.chmod(0o644)
                path.write_bytes(found[0])
                return path.name, found[1]
        return None

    def stop(self):
        """Stop nothing."""


class OnServers:
    """Servers as child processes, from the cache that `make fetch-servers` fills."""

    def __init__(self):
        self.servers = {}
        self.home = None

    def start(self, folder):
        """Fetch what is missing, start all of them, and draw names for this demo.

        Within a run that has servers, these are used and left running.
        """
        registry.load()
        if not Home.is_named():
            Home.name_run()
            self.home = Home.current()
        for part in {part for name in NAMES for part in registry.server(name).PARTS}:
            cache.fetch(part)
        cache.say("starting", ", ".join(NAMES))
        with ThreadPoolExecutor(len(NAMES)) as pool:
            started = pool.map(lambda name: registry.server(name).shared(), NAMES)
            self.servers = dict(zip(NAMES, started, strict=True))
        self.stores = StoreSet.new(folder, **self.servers, partitions=3)

    def settings(self):
        """The `[stores]` table."""
        return "\n" + self.stores.text()

    def where(self, lab):
        """Lines that say what each server holds of this deployment now."""
        return [*self._kafka(), *asyncio.run(self._vault(lab)), *self._postgres(), *self._index()]

    def tampered(self, lab, folder, session):
        """Copy settings, and the vault into another bucket, with one bit changed in it."""
        folder.mkdir()
        for name in ("trust.toml", "keys", "secrets"):
            source = lab / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
        bucket = self._bucket()
        twin = self.servers["s3"].bucket()
        text = (lab / "sealtape.toml").read_text()
        (folder / "sealtape.toml").write_text(text.replace(bucket, twin))
        here = self.stores.urls["vault"]
        return asyncio.run(_copy(here, here.replace(bucket, twin), lab, session))

    def stop(self):
        """End them; their data goes with them."""
        if self.home is not None:
            self.home.end()

    def _bucket(self):
        return self.stores.urls["vault"].split("@")[1].split("/")[0]

    def _kafka(self):
        topics = [
            self.stores.urls[name].split("/")[3].split("?")[0] for name in ("bus", "keys", "events")
        ]
        return [f"Kafka       {self.servers['kafka'].bootstrap}: topics {', '.join(topics)}"]

    async def _vault(self, lab):
        vault = await open_vault(self.stores.urls["vault"], lab)
        try:
            keys = [key async for key in vault.keys(SEGMENT_PREFIX)]
        finally:
            await vault.close()
        address = self.servers["s3"].address
        head = f"S3          {address}: bucket {self._bucket()}, {len(keys)} objects, such as"
        return [head, *(f"              {key}" for key in keys[:2])]

    def _postgres(self):
        server, url = self.servers["postgres"], self.stores.urls["ledger"]
        database = url.split("/")[3].split("?")[0]
        counts = []
        for schema, table in (("ledger", "session"), ("ledger", "segment"), ("keyring", "wrap")):
            (row,) = server.sql(
                f"select count(*) from sealtape_{schema}.{table}", database=database
            )
            counts.append(f"sealtape_{schema}.{table} {row[0]}")
        return [f"PostgreSQL  {server.address}: rows in {', '.join(counts)}"]

    def _index(self):
        server = self.servers["opensearch"]
        server.ask("POST", f"/{self.stores.index_prefix}-*/_refresh")
        found = server.ask(
            "GET", f"/_cat/indices/{self.stores.index_prefix}-*?format=json&h=index,docs.count"
        )
        lines = [f"              {row['index']}: {row['docs.count']} documents" for row in found]
        return [f"OpenSearch  {server.address}:", *sorted(lines)]


async def _copy(source_url, target_url, base, session):
    """Copy a vault; the first object with a frame of the session is changed on the way."""
    source, target = await open_vault(source_url, base), await open_vault(target_url, base)
    changed = None
    try:
        async for key in source.keys(""):
            data = bytes(await source.get(key))
            if changed is None and key.endswith(".parquet") and (found := flipped(data, session)):
                data, changed = found[0], (key.rsplit("/", 1)[1], found[1])
            if is_swapped_key(key):
                await target.swap(key, data, None)
            else:
                await target.put_new(key, data)
    finally:
        await source.close()
        await target.close()
    return changed


def world(arguments):
    """Which of the two the command line asks for."""
    if arguments not in ([], ["--servers"]):
        sys.exit(f"usage: demo.py [--servers], not {json.dumps(arguments)}")
    return OnServers() if arguments else Embedded()
