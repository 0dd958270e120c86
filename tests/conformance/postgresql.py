"""Schemas on a real PostgreSQL for tests of the stores: one prepared per run, emptied per test.

Tests use the stores as the role they belong to, not as the owner: what a role may not do, the
adapter must not need.
"""

import asyncio
import contextlib
import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from sealtape.schemas.urls import parse_store_url
from tests.servers.postgres import PostgresServer

_NUMBERS = itertools.count(1)


class Schema:
    """A schema of its own with a user for each of its roles."""

    def __init__(self, server, kind):
        self.server = server
        self.name = f"{kind}_{os.getpid()}_{next(_NUMBERS)}"

    def url(self, word="", **options):
        """The URL of the store, for the user of the role `word` or for the owner."""
        user = f"{self.name}_{word}_user" if word else "postgres"
        settings = {"schema": self.name, "tls": "disable", **options}
        query = "&".join(f"{key}={value}" for key, value in settings.items())
        url = f"postgresql://{user}@{self.server.host}:{self.server.port}/postgres?{query}"
        parse_store_url(url)
        return url

    def sql(self, text):
        """Run statements as the superuser, in the schema."""
        return self.server.sql(f"SET search_path = {self.name};\n{text}")

    def make_users(self, *words):
        for word in words:
            self.sql(f"CREATE ROLE {self.name}_{word}_user LOGIN IN ROLE {self.name}_{word}")

    def empty(self, tables):
        self.sql(f"TRUNCATE {tables}")

    def drop(self):
        self.server.sql(f"DROP SCHEMA IF EXISTS {self.name} CASCADE")


class OwnServer(PostgresServer):
    """A server of one test, to be killed; it syncs what it commits."""

    def __init__(self):
        super().__init__()
        # The kernel stops a server when the thread that started it ends, so that one stays.
        self._thread = ThreadPoolExecutor(max_workers=1)

    def stop(self):
        super().stop()
        self._thread.shutdown()

    def crash_soon(self, after_s):
        """`crash` from another thread, as a future."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self.crash, after_s)

    def start(self):
        super().start()
        self.halt()
        with (self.data / "postgresql.conf").open("a") as config:
            config.write("fsync = on\nfull_page_writes = on\n")
        self.resume()
        return self

    def crash(self, after_s=0.0):
        """Kill every process of it at once, as a host that dies does, and start it again."""
        time.sleep(after_s)
        family = [*psutil.Process(self._process.pid).children(recursive=True)]
        self._process.kill()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(20)
        psutil.wait_procs(family, timeout=20)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        self.resume()


class Cutter:
    """A proxy in front of PostgreSQL that cuts a connection at a chosen word of the client's.

    `cut(word, forward=…)`: the next time the client says `word`, its connection ends, before or
    after the server has heard and answered it.
    `stall(word)`: the next time, the server hears the half of it and no more, as of a client that
    was stopped.
    """

    def __init__(self, server):
        self._server = server
        self._listener = None
        self._word = None
        self._forward = self._stall = False
        self._writers = set()
        self.cuts = 0
        self.port = 0

    async def start(self):
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def stop(self):
        self._listener.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._listener.wait_closed()

    def cut(self, word, *, forward):
        self._word, self._forward, self._stall = word.encode(), forward, False

    def stall(self, word):
        self._word, self._stall = word.encode(), True

    def url(self, url):
        """The URL of a store, through this proxy."""
        return url.replace(f":{self._server.port}/", f":{self.port}/")

    async def _serve(self, reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        both = {writer, inner_writer}
        self._writers |= both
        back = asyncio.create_task(self._answers(inner_reader, writer))
        try:
            while data := await reader.read(1 << 16):
                word = self._word
                hit = word is not None and word in data
                if hit:
                    self._word = None
                    self.cuts += 1
                    if self._stall:
                        inner_writer.write(data[: len(data) // 2])
                        await back
                        break
                    back.cancel()
                    await asyncio.gather(back, return_exceptions=True)
                if not hit or self._forward:
                    inner_writer.write(data)
                if hit:
                    if self._forward:
                        await inner_reader.read(1 << 16)
                    break
        except ConnectionError:
            pass
        finally:
            back.cancel()
            await asyncio.gather(back, return_exceptions=True)
            for end in both:
                end.transport.abort()
            self._writers -= both

    @staticmethod
    async def _answers(reader, writer):
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
            writer.transport.abort()
        except ConnectionError:
            pass
