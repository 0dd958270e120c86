"""One append to the log in a process of its own: `python -m tests.factories.log_child FOLDER FD`.

What is sealed in FOLDER's deployment and not in its log yet is appended, signed and witnessed; then
the process ends. It may be killed at any moment, or its system calls fail: whatever a store has
confirmed it has told before on the socket FD, one line of JSON each.

Vault and signer work in one thread, the ledger in another, so that calls have the same numbers in
each run.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import SealtapeError
from tests.factories.deployments import site_at
from tests.factories.logs import writing

REFUSED = 75
"""How it ends when a store could not even be opened: it is to be started again."""


class Teller:
    """In the place of `Life`: tells what was done, once it is."""

    def __init__(self, told):
        self._told = told

    def of(self, store, *names):
        return _Telling(self._told, store, names)


class _Telling:
    def __init__(self, told, store, names):
        self._told, self._store, self._names = told, store, names

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if name not in self._names or name not in _TOLD:
            return found

        async def call(*arguments, **options):
            result = await found(*arguments, **options)
            line = {"did": name, **_TOLD[name](arguments, result)}
            # By `sendto`, which is none of the calls that are made to fail.
            self._told.sendall(json.dumps(line).encode() + b"\n")
            return result

        return call


def _appended(arguments, _):
    _, number, first, entries, _ = arguments
    hashes = [sha256(entry.entry).hexdigest() for entry in entries]
    return {"number": number, "first": first, "entries": hashes}


_TOLD = {
    "log_append": _appended,
    "log_noted": lambda arguments, _: {"witnessed": arguments[3].decode()},
    "sign": lambda _, note: {"note": note.decode()},
}


async def append(folder, told):
    """Run the worker until all is in the log; returns how the process is to end."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    site = site_at(folder)
    stores = site.settings.stores
    ledger = await open_ledger(stores.ledger, folder)
    try:
        opened = SimpleNamespace(ledger=ledger, vault=await open_vault(stores.vault, folder))
        async with writing(site, stores=opened, life=Teller(told)) as (_, worker):
            pass
        stopped = worker.snapshot().stopped
        refused = [item.reason for item in worker._parts.cosigners.snapshot() if item.findings]
        if stopped or refused:
            print(stopped, *refused)
            return 1
        return 0
    finally:
        await ledger.close()


def main():
    folder, descriptor = Path(sys.argv[1]), int(sys.argv[2])
    with socket.socket(fileno=descriptor) as told:
        try:
            return asyncio.run(append(folder, told))
        except SealtapeError as error:
            print(error)
            return REFUSED


if __name__ == "__main__":
    sys.exit(main())
