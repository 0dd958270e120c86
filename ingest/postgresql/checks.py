"""What `sealtape doctor` asks a store on PostgreSQL: server, durability, clock, layout, rights."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from sealtape.capture.checkup import Check
from sealtape.ingest.postgresql.access import Server
from sealtape.ingest.postgresql.database import Database
from sealtape.ingest.postgresql.layout import Layout, check_layout
from sealtape.schemas.errors import SettingsError, StoreError

__all__ = ["check_store", "excess_of"]

_SKEW_S = 2.0
_LOOPBACK = {"127.0.0.1", "[::1]", "localhost"}
_SERVER = """
SELECT current_setting('server_version'), s.ssl, s.version, current_setting('fsync'),
  current_setting('full_page_writes'), extract(epoch FROM clock_timestamp())::float8
FROM pg_stat_ssl AS s WHERE pid = pg_backend_pid()
"""
_RIGHTS = """
SELECT name, privilege FROM unnest($1::text[]) AS name,
  unnest(ARRAY['DELETE', 'TRUNCATE']) AS privilege
WHERE has_table_privilege(name, privilege)
UNION ALL SELECT name, 'UPDATE' FROM unnest($2::text[]) AS name
WHERE has_any_column_privilege(name, 'UPDATE')
"""


async def check_store(
    name: str,
    server: Server,
    layout: Layout,
    rights: Callable[[Database], Awaitable[list[Check]]],
) -> list[Check]:
    """All findings about one store; `rights` adds what its user may and may not."""
    try:
        database = await Database.open(server, read_only=True)
    except (SettingsError, StoreError) as error:
        return [Check(f"{name}: connection", "error", error.message, error.hint)]
    try:
        found = await _check_server(name, server, database)
        try:
            await check_layout(database, layout)
        except StoreError as error:
            return [*found, Check(f"{name}: layout", "error", error.message, error.hint)]
        found.append(Check(f"{name}: layout", "ok", f"{server.schema}: {len(layout.scripts)}"))
        return [*found, *await rights(database)]
    except StoreError as error:
        return [Check(f"{name}: connection", "error", error.message, error.hint)]
    finally:
        await database.close()


async def _check_server(name: str, server: Server, database: Database) -> list[Check]:
    asked = time.time()
    ((version, tls, protocol, fsync, pages, clock),) = await database.fetch(_SERVER)
    return [
        _connection(name, server, f"PostgreSQL {version}", protocol if tls else ""),
        _durability(name, fsync, pages),
        _clock(name, clock - (asked + time.time()) / 2),
    ]


def _connection(name: str, server: Server, product: str, protocol: str) -> Check:
    local = all(host.rsplit(":", 1)[0] in _LOOPBACK for host in server.url.hosts)
    if not protocol and not local:
        return Check(
            f"{name}: connection",
            "warning",
            f"{product} without TLS.",
            "Leave out tls=disable and name the server's CA with ca=FILE.",
        )
    if protocol and server.url.text("tls") == "require":
        return Check(
            f"{name}: connection",
            "warning",
            f"{product}, {protocol}, but nobody looks who the server is.",
            "Leave out tls=require and name the server's CA with ca=FILE.",
        )
    return Check(f"{name}: connection", "ok", f"{product}, {protocol or 'on this machine'}")


def _durability(name: str, fsync: str, pages: str) -> Check:
    if (fsync, pages) != ("on", "on"):
        return Check(
            f"{name}: durability",
            "error",
            f"The server may lose commits: fsync is {fsync}, full_page_writes is {pages}.",
            "Set both to on.",
        )
    return Check(f"{name}: durability", "ok", "commits survive a crash of the host")


def _clock(name: str, skew_s: float) -> Check:
    if abs(skew_s) > _SKEW_S:
        return Check(
            f"{name}: clock",
            "warning",
            f"The server's clock is {skew_s:+.1f} s from ours.",
            "Keep both by NTP.",
        )
    return Check(f"{name}: clock", "ok", f"{skew_s:+.1f} s")


async def excess_of(
    database: Database, tables: Sequence[str], constant: Sequence[str]
) -> list[str]:
    """What the user may do and nobody who uses the store should, in words.

    `tables` are those it may never delete from, `constant` those whose rows never change.
    """
    ((superuser,),) = await database.fetch(
        "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
    )
    if superuser:
        return ["is a superuser"]
    rows = await database.fetch(_RIGHTS, list(tables), list(constant))
    found: dict[str, list[str]] = {}
    for table, privilege in rows:
        found.setdefault(privilege, []).append(table)
    return [f"may {privilege} {', '.join(sorted(found[privilege]))}" for privilege in sorted(found)]
