"""The schema of a keyring on PostgreSQL: its layout, its roles, and what to say about them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sealtape.capture.checkup import Check
from sealtape.ingest.postgresql.access import Server, server_of
from sealtape.ingest.postgresql.checks import check_store, excess_of
from sealtape.ingest.postgresql.database import Database
from sealtape.ingest.postgresql.layout import load_layout, prepare, role_name

__all__ = ["LAYOUT", "check_schema", "keyring_server", "prepare_schema"]

_ROLES = ("ingest", "indexer", "auditor", "reaper")
LAYOUT = load_layout(Path(__file__).with_name("sql"), roles=_ROLES)

_DOES = {"ingest": "put", "indexer": "read", "auditor": "read"}
_RIGHTS = """
SELECT (SELECT bool_or(has_function_privilege(p.oid, 'EXECUTE')) FROM pg_proc AS p
    WHERE p.pronamespace = $1::regnamespace AND p.proname = 'put'),
  has_table_privilege('wrap', 'SELECT'),
  (SELECT bool_or(has_function_privilege(p.oid, 'EXECUTE')) FROM pg_proc AS p
    WHERE p.pronamespace = $1::regnamespace AND p.proname = 'destroy')
"""
_LOGGING = """
SELECT current_setting('log_parameter_max_length') <> '0'
    AND (current_setting('log_statement') = 'all'
      OR current_setting('log_min_duration_statement') <> '-1'
      OR current_setting('log_duration') = 'on'),
  current_setting('archive_mode') <> 'off'
"""


def keyring_server(url: str, base: Path) -> Server:
    """The server that a keyring's URL names. Raises `SettingsError`."""
    return server_of(url, base, schema="sealtape_keyring")


async def prepare_schema(url: str, base: Path) -> list[str]:
    """Make the schema and its roles, or bring them up to date; says what it did."""
    return await prepare(keyring_server(url, base), LAYOUT)


async def check_schema(url: str, base: Path, room: str = "") -> list[Check]:
    """Findings about server, layout and the user's rights. Raises `SettingsError` for the URL."""
    return await check_store("keyring", keyring_server(url, base), LAYOUT, partial(_look, room))


async def _look(room: str, database: Database) -> list[Check]:
    return [await _role(room, database), *await _copies(database)]


async def _role(room: str, database: Database) -> Check:
    schema, user = database.server.schema, database.server.url.user
    wrong = await excess_of(database, ["wrap", "destroyed"], ["wrap", "destroyed"])
    words = ("put", "read", "destroy")
    ((*may,),) = await database.fetch(_RIGHTS, schema)
    able = [word for word, allowed in zip(words, may, strict=True) if allowed]
    if not wrong and len(able) != 1:
        wrong = [f"may {' and '.join(able)} wraps" if able else "may neither put nor read wraps"]
    if not wrong and room:
        wrong = await _not_of(room, able, database)
    if wrong:
        roles = [role_name(schema, word) for word in ([room] if room else _ROLES)]
        one = f"{'one of ' * (len(roles) > 1)}{', '.join(roles)}"
        hint = f"Use a user that is a member of {one}, and of nothing else."
        return Check("keyring: role", "error", f"{user} {'; '.join(wrong)}.", hint)
    return Check("keyring: role", "ok", f"{user} may {able[0]} wraps and nothing else")


async def _not_of(room: str, able: list[str], database: Database) -> list[str]:
    """What a user with one right may do that is not what the room does, in words."""
    if able != [_DOES[room]]:
        return [f"may {able[0]} wraps, and must {_DOES[room]} them"]
    auditor = role_name(database.server.schema, "auditor")
    ((every,),) = await database.fetch("SELECT pg_has_role($1, 'member')", auditor)
    if room == "indexer" and every:
        return ["may read the wraps of data, which the indexer must not"]
    if room == "auditor" and not every:
        return ["may not read the wraps of data, without which nothing is replayed"]
    return []


async def _copies(database: Database) -> list[Check]:
    """Where else the server keeps bytes of wraps."""
    ((logged, archived),) = await database.fetch(_LOGGING)
    found = []
    if logged:
        found.append(
            Check(
                "keyring: server log",
                "error",
                "The server writes the parameters of statements, wraps too, into its log.",
                "Set log_parameter_max_length = 0.",
            )
        )
    if archived:
        found.append(
            Check(
                "keyring: archive",
                "warning",
                "The server archives its log of changes; destroyed wraps stay in there.",
                "Keep archives and base backups no longer than docs/postgresql.md says.",
            )
        )
    return found
