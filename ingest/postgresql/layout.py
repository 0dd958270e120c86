"""The layout of a store's schema: numbered scripts, forward only, each applied once, and its roles.

`prepare` may run any number of times and by several people at once: it holds an advisory lock, and
everything it does is one transaction. Opening a store never changes its layout; it compares.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sealtape.ingest.postgresql.access import Server
from sealtape.ingest.postgresql.database import Database, close_quietly
from sealtape.ingest.postgresql.errors import foreign, translated
from sealtape.schemas.errors import StoreError

__all__ = ["Layout", "Script", "check_layout", "load_layout", "prepare", "role_name"]

_SCRIPT_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_GRANTS = "grants.sql"
_BOOK = """
CREATE TABLE IF NOT EXISTS migration (
  number integer PRIMARY KEY, name text NOT NULL, sha256 bytea NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_APPLIED = "SELECT number, sha256 FROM migration ORDER BY number"


@dataclass(frozen=True, slots=True)
class Script:
    """One step of a layout. Its text never changes once it was released."""

    number: int
    name: str
    text: str

    @property
    def sha256(self) -> bytes:
        """What the schema remembers it by."""
        return sha256(self.text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Layout:
    """What a store's schema consists of.

    In the texts `@schema@` stands for the schema's name, `@word@` for the role of each word of
    `roles`. `grants` says what each role may; it is run anew by every `prepare`.
    """

    scripts: tuple[Script, ...]
    roles: tuple[str, ...]
    grants: str


def load_layout(folder: Path, roles: Sequence[str]) -> Layout:
    """Read `0001_what_it_does.sql`, … and `grants.sql`. Raises `StoreError` on a hole."""
    scripts = []
    for file in sorted(folder.glob("*.sql")):
        match = _SCRIPT_NAME.fullmatch(file.name)
        if match is not None:
            scripts.append(Script(int(match[1]), match[2], file.read_text(encoding="utf-8")))
        elif file.name != _GRANTS:
            raise StoreError(f"{file.name} is not named like 0001_what_it_does.sql.")
    if [script.number for script in scripts] != list(range(1, len(scripts) + 1)):
        raise StoreError(f"The scripts in {folder.name} are not numbered 0001, 0002, ...")
    grants = (folder / _GRANTS).read_text(encoding="utf-8")
    return Layout(tuple(scripts), tuple(roles), grants)


def role_name(schema: str, word: str) -> str:
    """The role of a store's schema that may do what `word` says."""
    return f"{schema}_{word}"


# -- changing it -----------------------------------------------------------------------------------


async def prepare(server: Server, layout: Layout) -> list[str]:
    """Make schema, tables and roles, or bring them up to date; says what it did.

    The URL's user becomes the owner; it must be allowed to make schemas in the database, and roles
    where they are not there yet. Raises `StoreError`.
    """
    connection = await server.connect(unlimited=True)
    try:
        async with connection.transaction():
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('sealtape ' || $1, 0))",
                server.schema,
            )
            return await _prepare(connection, server.schema, layout)
    except Exception as error:
        if not foreign(error):
            raise
        raise translated(error, server.place) from error
    finally:
        await close_quietly(connection)


async def _prepare(connection: Any, schema: str, layout: Layout) -> list[str]:
    done = [await _make_role(connection, role_name(schema, word)) for word in layout.roles]
    if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", schema):
        await connection.execute(f"CREATE SCHEMA {schema}")
        done.append(f"made schema {schema}")
    await connection.execute(f"SET LOCAL search_path = {schema}")
    await connection.execute(_BOOK)
    applied = await _applied(connection)
    _compare(schema, layout, applied)
    for script in layout.scripts[len(applied) :]:
        await connection.execute(_filled(script.text, schema, layout.roles))
        await connection.execute(
            "INSERT INTO migration (number, name, sha256) VALUES ($1, $2, $3)",
            script.number,
            script.name,
            script.sha256,
        )
        done.append(f"brought {schema} to layout {script.number} ({script.name})")
    await connection.execute(_filled(layout.grants, schema, layout.roles))
    return [words for words in done if words]


async def _make_role(connection: Any, name: str) -> str:
    """Make a role that nobody logs in as. Roles belong to the whole server, so another may too."""
    if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
        return ""
    await connection.execute(
        f"DO $$ BEGIN CREATE ROLE {name} NOLOGIN;"
        " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
    return f"made role {name}"


def _filled(text: str, schema: str, roles: Sequence[str]) -> str:
    """A script with the names it stands for; they are of `[a-z0-9_]` alone."""
    for word in roles:
        text = text.replace(f"@{word}@", role_name(schema, word))
    return text.replace("@schema@", schema)


# -- comparing it ----------------------------------------------------------------------------------


async def check_layout(database: Database, layout: Layout) -> None:
    """Raise `StoreError` unless the schema has exactly this layout."""
    schema = database.server.schema
    rows = await database.fetch(_APPLIED)
    _compare(schema, layout, [(row[0], row[1]) for row in rows])
    if len(rows) < len(layout.scripts):
        raise StoreError(
            f"Schema {schema} has layout {len(rows)}, this version needs {len(layout.scripts)}.",
            hint="Run sealtape setup as the schema's owner.",
        )


async def _applied(connection: Any) -> list[tuple[int, bytes]]:
    rows = await connection.fetch(_APPLIED)
    return [(row[0], row[1]) for row in rows]


def _compare(schema: str, layout: Layout, applied: Sequence[tuple[int, bytes]]) -> None:
    """`prepare` brings an older layout up to date; whatever else differs nobody may touch."""
    known = {script.number: script.sha256 for script in layout.scripts}
    for number, digest in applied:
        if number not in known:
            raise StoreError(
                f"Schema {schema} has layout {number}, this version knows {len(known)}.",
                hint="Use the version of Sealtape that brought it there.",
            )
        if known[number] != digest:
            raise StoreError(f"Layout {number} of schema {schema} is not the one of this version.")
