"""The schema of a ledger on PostgreSQL: its layout, its roles, and what to say about them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sealtape.capture.checkup import Check
from sealtape.ingest.postgresql.access import Server, server_of
from sealtape.ingest.postgresql.checks import check_store, excess_of
from sealtape.ingest.postgresql.database import Database
from sealtape.ingest.postgresql.layout import load_layout, prepare, role_name
from sealtape.schemas.errors import StoreError

__all__ = ["LAYOUT", "check_schema", "ledger_server", "prepare_schema"]

LAYOUT = load_layout(Path(__file__).with_name("sql"), roles=("ingest", "reader"))

_CONSTANT = ("segment", "fragment", "incident", "quarantine", "log_entry")
_KEPT = (
    *_CONSTANT,
    "lease",
    "object",
    "shard",
    "counter",
    "head",
    "session",
    "log_state",
    "migration",
)
_CLAIM = """
INSERT INTO lease AS l VALUES ('indexer:doctor', 0, 1, '', clock_timestamp(), 0)
ON CONFLICT (topic, part) DO UPDATE SET term = l.term
"""


def ledger_server(url: str, base: Path) -> Server:
    """The server that a ledger's URL names. Raises `SettingsError`."""
    return server_of(url, base, schema="sealtape_ledger")


async def prepare_schema(url: str, base: Path) -> list[str]:
    """Make the schema and its roles, or bring them up to date; says what it did."""
    return await prepare(ledger_server(url, base), LAYOUT)


async def check_schema(url: str, base: Path, room: str = "") -> list[Check]:
    """Findings about server, layout and the user's rights. Raises `SettingsError` for the URL."""
    server = ledger_server(url, base)
    found = await check_store("ledger", server, LAYOUT, partial(_check_rights, room))
    if all(check.level != "error" for check in found):
        found.append(await _try_to_claim(server))
    return found


async def _check_rights(room: str, database: Database) -> list[Check]:
    schema, user = database.server.schema, database.server.url.user
    excess = await excess_of(database, _KEPT, _CONSTANT)
    if excess:
        return [
            Check(
                "ledger: role",
                "error",
                f"{user} {'; '.join(excess)}.",
                f"Use a user that is a member of {role_name(schema, 'ingest')} (ingest) or"
                f" {role_name(schema, 'reader')} (all others) and of nothing else.",
            )
        ]
    ((reads, publishes),) = await database.fetch(
        "SELECT has_table_privilege('segment', 'SELECT'), has_table_privilege('segment', 'INSERT')"
    )
    if not reads:
        hint = f"GRANT {role_name(schema, 'reader')} TO {user}"
        return [Check("ledger: role", "error", f"{user} may not read the ledger.", hint)]
    what = "publish and never delete" if publishes else "read and lease, and not publish"
    if room and publishes != (room == "ingest"):
        role = role_name(schema, "ingest" if room == "ingest" else "reader")
        hint = f"Use a user that is a member of {role} and of nothing else."
        message = f"{user} may {what}, which is not what the {room} room does."
        return [Check("ledger: role", "error", message, hint)]
    return [Check("ledger: role", "ok", f"{user} may {what}")]


async def _try_to_claim(server: Server) -> Check:
    """Take a lease, and undo it."""
    try:
        database = await Database.open(server)
        try:
            await database.rehearse(_CLAIM)
        finally:
            await database.close()
    except StoreError as error:
        return Check("ledger: lease", "error", error.message, error.hint)
    return Check("ledger: lease", "ok", "a lease could be taken")
