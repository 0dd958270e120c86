"""`sealtape statement`: what administrators decide, signed, and brought into the log."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

from sealtape.indexer.cli import output
from sealtape.indexer.cli.log_files import admin_key, introductions, log_key_path
from sealtape.indexer.cli.options import read_settings
from sealtape.ingest.ledger import Ledger, open_ledger
from sealtape.ingest.ledger.rows import Submitted
from sealtape.ingest.tlog.gate import STATEMENT
from sealtape.ingest.tlog.names import statement_name
from sealtape.ingest.tlog.signer_file import key_paths
from sealtape.schemas import canonical, notes
from sealtape.schemas.bodies import NO_POLICY, RetentionClass
from sealtape.schemas.errors import FormatError, UsageError
from sealtape.schemas.settings import Settings
from sealtape.schemas.tlog.records import parse_entry
from sealtape.schemas.tlog.statements import (
    ID_SIZE,
    KEY_ACTIONS,
    KEY_ROLES,
    Body,
    Heading,
    HoldStatement,
    KeyStatement,
    PolicyStatement,
    ReleaseStatement,
    Statement,
    sign_statement,
)
from sealtape.schemas.wraps import PURPOSES, PublicKey

NAME = "statement"
HELP = "make, sign and submit statements for the log: keys, policies, holds, releases"
DESCRIPTION = """\
A statement says what somebody decided, and is signed by administrators. It is made where their keys
are, into a file of one line each, signed there by as many as must, and submitted to the log from
where the ledger can be reached. The log takes it within seconds; docs/log.md has the ceremonies.

  sealtape statement key --role node --key VKEY --sign admin.key -o node.statement
  sealtape statement key --action revoke --role node --key VKEY --since 40 --sign admin.key -o FILE
  sealtape statement policy --class standard --sign admin.key -o FILE
  sealtape statement hold --session ID --reason TEXT --sign admin.key -o FILE
  sealtape statement release --hold ID --session ID --sign ann.key -o FILE
  sealtape statement sign FILE --sign bob.key      # one more signature
  sealtape statement deployment --sign admin.key -o FILE   # introduces the keys of this folder
  sealtape statement submit FILE                   # --if-new: only what is not there yet
"""

_SALT: Final = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("action", choices=tuple(_ACTIONS), help="what to do")
    parser.add_argument("file", nargs="?", metavar="FILE", help="for sign and submit")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the statement is written")
    parser.add_argument(
        "--sign", action="append", default=[], metavar="KEY", help="an administrator's key file"
    )
    parser.add_argument("--role", choices=KEY_ROLES, help="what the key is for")
    parser.add_argument("--key", metavar="VKEY", help="the public half, on one line")
    parser.add_argument(
        "--action",
        dest="verb",
        choices=KEY_ACTIONS,
        default="introduce",
        help="what becomes of the key (default introduce)",
    )
    parser.add_argument("--replaces", default="", metavar="VKEY", help="for rotate: the old key")
    parser.add_argument("--since", type=int, metavar="INDEX", help="for revoke: from which entry")
    parser.add_argument("--session", action="append", default=[], metavar="ID", help="in full")
    parser.add_argument("--reason", metavar="TEXT", help="kept out of the log; a hash is in it")
    parser.add_argument("--hold", metavar="ID", help="the id of the hold")
    parser.add_argument(
        "--tenant", default="main", metavar="NAME", help="whose policy (default main)"
    )
    parser.add_argument("--class", dest="retention", metavar="NAME", help="a retention class")
    parser.add_argument(
        "--if-new",
        action="store_true",
        help="with submit: pass over what is in the log, or waits for it, already",
    )


def run(args: argparse.Namespace) -> int:
    """Do it and say what was done."""
    return _ACTIONS[args.action](args, read_settings(args))


_Action = Callable[[argparse.Namespace, Settings], int]


# -- making ----------------------------------------------------------------------------------------


def _make(body: Callable[[argparse.Namespace, Settings, Heading], Body]) -> _Action:
    def act(args: argparse.Namespace, settings: Settings) -> int:
        heading = Heading(settings.deployment.log, secrets.token_bytes(ID_SIZE), time.time_ns())
        try:
            statement = sign_statement(body(args, settings, heading), _signers(args))
        except FormatError as error:
            msg = f"The statement makes no sense: {error.message}."
            raise UsageError(msg, hint="`sealtape statement --help` has examples.") from error
        _write(args, [statement.to_json()])
        _say(args, [statement])
        return 0

    return act


def _key(args: argparse.Namespace, _: Settings, heading: Heading) -> Body:
    key, role = _given(args.key, "--key"), _given(args.role, "--role")
    _check_public(key, role)
    if args.replaces:
        _check_public(args.replaces, role)
    return KeyStatement(heading, args.verb, role, key, args.replaces, args.since)


def _check_public(key: str, role: str) -> None:
    """Refuse what is no public half: what a statement holds is in the log, for all and for ever."""
    try:
        if role in PURPOSES:
            PublicKey.from_text(key)
        else:
            notes.split_vkey(key)
            if key.startswith("PRIVATE"):
                raise FormatError("it is a private key")
    except FormatError:
        # Not shown, and not chained: it may be a private key.
        msg = f"What was given is no public key of a {role}."
        raise UsageError(
            msg, hint="Give the public half, as its owner's program told it."
        ) from None


def _policy(args: argparse.Namespace, settings: Settings, heading: Heading) -> Body:
    name = _given(args.retention, "--class")
    terms = settings.retention.get(name)
    if terms is None:
        msg = f"The settings have no retention class {name!r}."
        raise UsageError(msg, hint=f"They have: {', '.join(sorted(settings.retention))}.")
    found = RetentionClass(name, int(terms.retain_for), int(terms.delete_after))
    return PolicyStatement(heading, args.tenant, found, NO_POLICY)


def _hold(args: argparse.Namespace, _: Settings, heading: Heading) -> Body:
    reason = _given(args.reason, "--reason")
    args.salt = secrets.token_hex(_SALT)
    matter = sha256(args.salt.encode() + reason.encode()).digest()
    return HoldStatement(heading, matter, _sessions(args))


def _release(args: argparse.Namespace, _: Settings, heading: Heading) -> Body:
    hold = canonical.hex_bytes(_given(args.hold, "--hold"), "--hold", ID_SIZE)
    return ReleaseStatement(heading, hold, _sessions(args))


def _deployment(args: argparse.Namespace, settings: Settings) -> int:
    """Statements that introduce the keys of a deployment's folder, as a lab has them."""
    entries = introductions(settings, _signers(args))(_newest_shard(settings))
    _write(args, entries)
    _say(args, [_read(entry) for entry in entries])
    return 0


def _newest_shard(settings: Settings) -> int:
    """The last shard of the log of which there is a key here: that is to be introduced."""
    number, path = 1, log_key_path(settings)
    while path is not None and key_paths(path, number + 1)[0].exists():
        number += 1
    return number


def _sign(args: argparse.Namespace, _: Settings) -> int:
    """Add signatures to statements that are made already."""
    path, signers = Path(_given(args.file, "FILE")), _signers(args)
    signed = []
    for entry in _entries(path):
        statement = _read(entry)
        text = notes.parse_note(statement.note).text
        lines = "".join(signer.line(text.encode()) for signer in signers)
        more = Statement(statement.body, statement.note + lines.encode())
        _read(more.to_json())
        signed.append(more)
    args.output = args.output or args.file
    _write(args, [statement.to_json() for statement in signed])
    _say(args, signed)
    return 0


# -- submitting ------------------------------------------------------------------------------------


def _submit(args: argparse.Namespace, settings: Settings) -> int:
    entries = _entries(Path(_given(args.file, "FILE")))
    statements = [_read(entry) for entry in entries]
    log = settings.deployment.log
    for statement in statements:
        named = statement.body.heading.log
        if named != log:
            msg = f"The {statement.kind} is for the log {named}, this one is {log}."
            raise UsageError(msg, hint="A statement counts in one log only: make another.")
    fresh = asyncio.run(_hand_in(settings, statements, entries, if_new=args.if_new))
    _say(args, fresh)
    return 0


async def _hand_in(
    settings: Settings,
    statements: Sequence[Statement],
    entries: Sequence[bytes],
    *,
    if_new: bool,
) -> list[Statement]:
    """Hand in all, or none if one is there already; `if_new` hands in the others. Returns those."""
    fresh = []
    ledger = await open_ledger(settings.stores.ledger, Path(settings.base))
    try:
        waiting = {row.payload for row in await _waiting(ledger)}
        names = [statement_name(statement.body.heading.id) for statement in statements]
        there = await ledger.log_find(names)
        for name, entry, statement in zip(names, entries, statements, strict=True):
            if not (name in there or entry in waiting):
                fresh.append((statement, entry))
            elif not if_new:
                where = "in the log" if name in there else "submitted"
                msg = f"{name} is {where} already; nothing was submitted."
                raise UsageError(msg, hint="A statement cannot be repeated: make another.")
        for _, entry in fresh:
            await ledger.submit(STATEMENT, entry)
        return [statement for statement, _ in fresh]
    finally:
        await ledger.close()


async def _waiting(ledger: Ledger) -> list[Submitted]:
    found: list[Submitted] = []
    while rows := await ledger.inbox(found[-1].id if found else 0):
        found += rows
    return found


# -- files and options -----------------------------------------------------------------------------


def _entries(path: Path) -> list[bytes]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}."
        raise UsageError(msg, hint="`sealtape statement key … -o FILE` writes one.") from error
    if not lines:
        raise UsageError(f"{path} has no statements.", hint="There is one on each line.")
    return lines


def _read(entry: bytes) -> Statement:
    try:
        found = parse_entry(entry)
    except FormatError as error:
        raise UsageError(f"This is no statement: {error.message}.") from error
    if not isinstance(found, Statement):
        raise UsageError("This is an entry of the log that is no statement.")
    return found


def _write(args: argparse.Namespace, entries: Sequence[bytes]) -> None:
    path = Path(_given(args.output, "-o"))
    try:
        path.write_bytes(b"".join(entry + b"\n" for entry in entries))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error


def _say(args: argparse.Namespace, statements: Sequence[Statement]) -> None:
    for statement in statements:
        ident = statement.body.heading.id.hex()
        signers = [item.name for item in notes.parse_note(statement.note).unverified]
        # Of a hold that is made here; without it nobody can show its reason later.
        salt = getattr(args, "salt", "")
        if args.json:
            told = {"type": statement.kind, "id": ident, "signed": signers}
            output.json_line(told | ({"salt": salt} if salt else {}))
            continue
        if salt:
            print(f"keep this salt beside the reason, to show it later: {salt}")
        print(f"{statement.kind} {ident}, signed by {', '.join(signers)}")


def _signers(args: argparse.Namespace) -> list[notes.Signer]:
    if not args.sign:
        raise UsageError("--sign is missing.", hint="Name an administrator's key: --sign KEY.")
    return [admin_key(Path(path)) for path in args.sign]


def _sessions(args: argparse.Namespace) -> tuple[bytes, ...]:
    found = {canonical.hex_bytes(text, "--session", 16) for text in args.session}
    return tuple(sorted(found))


def _given(value: str | None, option: str) -> str:
    if not value:
        raise UsageError(f"{option} is missing.", hint="`sealtape statement --help` has examples.")
    return value


_ACTIONS: Final[dict[str, _Action]] = {
    "key": _make(_key),
    "policy": _make(_policy),
    "hold": _make(_hold),
    "release": _make(_release),
    "deployment": _deployment,
    "sign": _sign,
    "submit": _submit,
}
