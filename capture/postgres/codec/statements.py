"""What a statement does, and what may be told of it without telling its literals.

The only module that imports `postgast` (PostgreSQL's own scanner and parser as a library).

*Effect.* `read`, `write`, `ddl`, `privilege`, `other` or `unknown`. Write is what PostgreSQL
refuses in a read-only transaction. `unknown` is an answer: DO, CALL, EXECUTE, LOAD, COPY to or
from a program, and what does not parse. Of several statements the strongest counts, in the order
of `EFFECTS`: an unknown one may do anything, so only a privilege change outranks it. What a
function does when a SELECT calls it cannot be known here.

*Normalised text.* Every literal becomes `?`, comments go, white space becomes one space. Where the
text does not parse, only its first keywords and its length are told: a password typed at the
wrong prompt does not parse either.

*Depth.* The parser recurses on the C stack, and a chain of 20,000 operators would end the
process; `_depth` bounds it from the tokens before the parser sees the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import postgast
from google.protobuf.message import DecodeError, Message
from postgast import pg_query_pb2 as pb

from sealtape.schemas.facts import encode_statement

EFFECTS = ("other", "read", "write", "ddl", "unknown", "privilege")
"""From the weakest to the strongest."""
MAX_TEXT = 64 << 10
"""Bytes of a statement that are looked at; a longer one is `unknown`."""
MAX_DEPTH = 3000
"""Tokens that may nest or chain without a comma between; 3000 cost about 20 ms and 2 MiB stack."""
MAX_OBJECTS = 64
CACHED_TEXT = 4096

_RANK = {effect: rank for rank, effect in enumerate(EFFECTS)}
_NODE = "node"


@dataclass(frozen=True, slots=True)
class Statement:
    """What is the same for every run of a statement, whatever its literals."""

    normalized: str
    fingerprint: str = ""
    effect: str = "unknown"
    objects: tuple[str, ...] = ()
    secret: bool = False
    """It speaks of passwords or the like: its literals and parameters are never told."""
    forgets: tuple[str, ...] = ()
    """Names of prepared statements it deallocates; `*` is all of them."""
    closes: bool = False
    """It may close or open portals by SQL."""
    relexes: bool = False
    """It may set `standard_conforming_strings` or `client_encoding`: later text may read
    otherwise."""
    opaque: bool = False
    """It could not be read: unless it fails, it may have done anything to names."""
    encoded: bytes = field(default=b"", compare=False)
    """The statement part of a fact (`facts.encode_statement`)."""

    @property
    def names(self) -> bool:
        """Whether it may change what the names of prepared statements or portals mean."""
        return bool(self.forgets) or self.closes or self.opaque


def _statement(**values: Any) -> Statement:
    return Statement(
        **values,
        encoded=encode_statement(
            values["normalized"],
            values.get("fingerprint", ""),
            values.get("effect", "unknown"),
            values.get("objects", ()),
        ),
    )


UNKNOWN = _statement(
    normalized="(a statement prepared before or beyond what is remembered)", relexes=True
)
MALFORMED = _statement(normalized="(a malformed message)", relexes=True)


class Classifier:
    """Statements by text, with a cache that sessions of one worker share.

    Texts are the bytes the client sent, without the NUL.
    """

    def __init__(self, *, capacity: int = 4096) -> None:
        """Keep between `capacity` and twice as many statements of up to 4 KiB."""
        self._capacity = capacity
        self._young: dict[bytes, Statement] = {}
        self._old: dict[bytes, Statement] = {}

    def statement(self, text: bytes) -> Statement:
        """Classify a whole text of any length."""
        found = self._young.get(text)
        if found is not None:
            return found
        if len(text) > CACHED_TEXT:
            return classify(text) if len(text) <= MAX_TEXT else unread(text, len(text))
        found = self._old.get(text)
        if found is None:
            shape = _shape(text)
            if shape is not None:
                return self._shaped(shape, text)
            found = classify(text)
        self._keep(text, found)
        return found

    def _shaped(self, shape: bytes, text: bytes) -> Statement:
        """Classify a text by its shape; one that is unknown is not kept: it might poison others."""
        found = self._young.get(shape)
        if found is not None:
            return found
        found = self._old.get(shape)
        if found is None:
            found = classify(text)
            if found.effect == "unknown":
                return found
        self._keep(shape, found)
        return found

    def _keep(self, key: bytes, found: Statement) -> None:
        if len(self._young) >= self._capacity:
            self._old = self._young
            self._young = {}
        self._young[key] = found


# -- the shape of a plain statement -------------------------------------------------------------
# Two texts with one shape have the same tokens but for the spelling of literals, so they have the
# same effect, objects and normalised text. Anything that would need a real scanner to tell (an
# escape, a dollar quote, a comment, U&, a second statement) has no shape and is classified in full;
# so has anything but plain DML, since elsewhere a literal can decide (EXPLAIN (ANALYZE 0)). A shape
# starts with a NUL, which no text has, so that no text can be taken for another's shape.

_DML = re.compile(
    rb"\s*(?:select|insert|update|delete|with|values|merge)\b(?!.*(?:[\\$&\x00-\x08]|--|/\*|;.*\S))",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER = rb"(?<![\w.\x80-\xff]\d)\d{0,8}(?:\.\d{1,9})?(?![\w.\x80-\xff])"
# One set in front lets the engine skip to the next candidate; what it was is looked up behind.
_LITERAL = re.compile(rb"['0-9](?:(?<=')[^']*'|(?<=\d)" + _NUMBER + rb")")
_QUOTED_NAME = re.compile(rb"(\"[^\"]*\")|'[^']*'|\d" + _NUMBER)


def _shape(text: bytes) -> bytes | None:
    if _DML.match(text) is None:
        return None
    if b'"' in text:
        return b"\0" + _QUOTED_NAME.sub(b"\\1\x01", text)
    return b"\0" + _LITERAL.sub(b"\x01", text)


# -- one statement in full ----------------------------------------------------------------------

_LITERALS = frozenset(
    pb.Token.Value(name) for name in ("SCONST", "USCONST", "BCONST", "XCONST", "ICONST", "FCONST")
)
_STRINGS = frozenset(pb.Token.Value(name) for name in ("SCONST", "USCONST"))
_COMMENTS = frozenset(pb.Token.Value(name) for name in ("SQL_COMMENT", "C_COMMENT"))
_FLAT = _LITERALS | {pb.Token.Value("PARAM")}
_SEMICOLON, _COMMA, _OPEN, _CLOSE = (pb.Token.Value(f"ASCII_{ord(c)}") for c in ";,()")
_EQUALS, _TO = pb.Token.Value("ASCII_61"), pb.Token.Value("TO")
_SETTERS = frozenset(pb.Token.Value(name) for name in ("SET", "ALTER"))
_SECRET = re.compile(
    r"passw|passphrase|secret|credential|conninfo|token|api_?key|private_?key|access_?key"
    r"|user\s+mapping|subscription|dblink|create\s+server|alter\s+server|://[^/\s:]{0,128}:[^/\s@]{0,128}@",
    re.IGNORECASE,
)
_SETTING = re.compile(r"set_config|pg_settings|u&\"", re.IGNORECASE)
"""Other ways to SET than SET; a name with Unicode escapes may be one of them."""


def classify(text: bytes) -> Statement:
    """Classify one text (at most `MAX_TEXT` bytes is meant) without a cache. Never raises."""
    query = text.decode("utf-8", "replace")
    raw = query.encode()
    try:
        tokens = postgast.scan(query).tokens
    except postgast.PgQueryError:
        return unparsed(text, len(text))
    secret = _SECRET.search(query) is not None
    normalized = _normalize(raw, tokens, secret=secret)
    tree = None
    try:
        if _depth(tokens) <= MAX_DEPTH:
            tree = postgast.parse(query)
        fingerprint = postgast.fingerprint(query).hex if len(tokens) <= MAX_DEPTH else ""
    except postgast.PgQueryError:
        return unparsed(text, len(text))
    except DecodeError:
        fingerprint = ""
    if tree is None:
        effect = _by_tokens(tokens)
        hidden = effect == "unknown"
        return _statement(
            normalized=normalized, effect=effect, secret=secret, relexes=True, opaque=hidden
        )
    found = _Findings()
    for statement in tree.stmts:
        found.top(statement.stmt)
    return _statement(
        normalized=normalized,
        fingerprint=fingerprint,
        effect=found.effect,
        objects=tuple(found.objects),
        secret=secret,
        forgets=tuple(found.forgets),
        closes=found.closes,
        relexes=found.relexes or found.effect == "unknown" or bool(_SETTING.search(query)),
    )


def function_call(oid: int) -> Statement:
    """Describe the protocol's FunctionCall message: code runs, and nobody can tell what it does."""
    return _statement(normalized=f"(function call of OID {oid})", relexes=True)


def _normalize(raw: bytes, tokens: Sequence[Any], *, secret: bool) -> str:
    """Join the tokens with literals as `?`, one space where there was white space or a comment."""
    parts: list[bytes] = []
    stop = 0
    hiding = False
    size = 0
    for token in tokens:
        kind = token.token
        if kind in _COMMENTS:
            continue
        if token.start > stop and parts:
            parts.append(b" ")
        stop = token.end
        if kind == _SEMICOLON:
            hiding = False
        piece = b"?" if kind in _LITERALS or hiding else raw[token.start : stop]
        parts.append(piece)
        if secret and kind in (_EQUALS, _TO) and tokens[0].token in _SETTERS:
            hiding = True  # SET app.password = hunter2: a value may also be spelt as a name
        size += len(piece) + 1
        if size > CACHED_TEXT * 2:
            break
    return b"".join(parts).decode("utf-8", "replace").rstrip("; ")


def _depth(tokens: Sequence[Any]) -> int:
    """Bound how deep the tree of these tokens can be: a comma or semicolon starts a chain anew."""
    if len(tokens) <= MAX_DEPTH:
        return len(tokens)
    deepest = above = run = 0
    runs: list[int] = []
    for token in tokens:
        kind = token.token
        if kind == _OPEN:
            runs.append(run)
            above += run + 1
            run = 0
        elif kind == _CLOSE:
            deepest = max(deepest, above + run)
            run = (runs.pop() if runs else 0) + 1
            above = max(0, above - run)
        elif kind in (_COMMA, _SEMICOLON):
            deepest = max(deepest, above + run)
            run = 0
        elif kind not in _FLAT:
            run += 1
    return max(deepest, above + run)


_TOKEN_READ = frozenset(pb.Token.Value(name) for name in ("SELECT", "VALUES", "TABLE"))
_TOKEN_WRITE = frozenset(
    pb.Token.Value(name) for name in ("INSERT", "UPDATE", "DELETE_P", "MERGE", "INTO", "FOR")
)
_TOKEN_DML = _TOKEN_WRITE - {pb.Token.Value("INTO"), pb.Token.Value("FOR")}


def _by_tokens(tokens: Sequence[Any]) -> str:
    """Classify a single plain SELECT or DML statement that is too deep for the parser."""
    kinds = [token.token for token in tokens if token.token not in _COMMENTS]
    if _SEMICOLON in kinds[:-1] or kinds[0] not in _TOKEN_READ | _TOKEN_DML:
        return "unknown"
    if kinds[0] in _TOKEN_DML:
        return "write"
    return "unknown" if _TOKEN_WRITE.intersection(kinds) else "read"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# -- what does not parse ------------------------------------------------------------------------

_VERBS = _words(
    "abort alter analyze analyse begin call checkpoint close cluster comment commit copy create"
    " deallocate declare delete discard do drop end execute explain fetch grant import insert"
    " listen load lock merge move notify prepare reassign refresh reindex release reset revoke"
    " rollback savepoint security select set show start table truncate unlisten update vacuum"
    " values with"
)
_NOUNS = _words(
    "aggregate all cast collation conversion database default domain event extension foreign"
    " from function group index into language local materialized on or operator owned policy"
    " procedure prepared publication role rule schema sequence server session statistics"
    " subscription system table tablespace temp temporary text transaction trigger type unique"
    " user view"
)
_WORD = re.compile(r"\s*([A-Za-z]+)(?![\w$])")


def unparsed(text: bytes, length: int) -> Statement:
    """Tell of a text that cannot be read no more than its first keywords and its length."""
    query = text[:MAX_TEXT].decode("utf-8", "replace")
    secret = _SECRET.search(query) is not None
    return _statement(
        normalized=f"{_first_words(query)}({length} bytes)",
        secret=secret,
        relexes=True,
        opaque=True,
    )


def unread(text: bytes, length: int) -> Statement:
    """Tell likewise of a text that is not read at all: it may hold anything, DEALLOCATE too."""
    return replace(unparsed(text, length), forgets=("*",), closes=True)


def _first_words(query: str) -> str:
    verb = _WORD.match(query)
    if verb is None or verb[1].lower() not in _VERBS:
        return ""
    noun = _WORD.match(query, verb.end())
    if noun is None or noun[1].lower() not in _NOUNS:
        return verb[1].upper() + " "
    return f"{verb[1].upper()} {noun[1].upper()} "


# -- redaction ----------------------------------------------------------------------------------

REDACTED = "'***'"


def mentions_secret(text: str) -> bool:
    """Whether a text speaks of passwords, keys, tokens or connection strings."""
    return _SECRET.search(text) is not None


def redact(text: bytes) -> str:
    """Return a text as it was typed, but every literal of one that speaks of a secret as `'***'`.

    A text that does speak of one and cannot be scanned is cut to its first keywords.
    """
    query = text.decode("utf-8", "replace")
    if _SECRET.search(query) is None:
        return query
    raw = query.encode()
    try:
        tree = postgast.scan(query)
        postgast.fingerprint(query)
    except postgast.PgQueryError:
        return f"{_first_words(query)}({len(text)} bytes)"
    parts = []
    stop = 0
    for token in tree.tokens:
        if token.token in _STRINGS or token.token in _COMMENTS:
            parts.append(raw[stop : token.start])
            parts.append(REDACTED.encode() if token.token in _STRINGS else b"")
            stop = token.end
    parts.append(raw[stop:])
    if tree.tokens[0].token in _SETTERS:
        return _normalize(raw, tree.tokens, secret=True)
    return b"".join(parts).decode("utf-8", "replace")


_QUOTED = re.compile(r"\"(?:[^\"]|\"\")*\"?|'(?:[^']|'')*'?|«[^»]*»?|„[^“]*“?|\d+")
_ECHOES = ("22", "42601", "42602", "42P02", "XX", "F0", "HV", "38", "39")


def redact_message(code: str, text: str, *, full_text: bool) -> str:
    """Return the primary message of an error without what the user typed.

    `code` is the SQLSTATE. Names of tables, columns and constraints stay where PostgreSQL itself
    wrote the message; what PL/pgSQL code raised (class P0) or an unknown class says is dropped.
    """
    if full_text and not mentions_secret(text):
        return text
    if code.startswith(_ECHOES):
        return _QUOTED.sub("?", text)
    if code[:2] in _PLAIN_CLASSES:
        return text
    return ""


_PLAIN_CLASSES = _words(
    "01 02 03 08 09 0A 0B 0L 0P 20 21 23 24 25 26 27 28 2B 2D 2F 34 3B 3D 3F 40 42 44 53 54 55 57"
    " 58"
)


# -- the tree -----------------------------------------------------------------------------------

_KINDS: dict[str, str] = {
    "select_stmt": "read",
    "insert_stmt": "write",
    "update_stmt": "write",
    "delete_stmt": "write",
    "merge_stmt": "write",
    "truncate_stmt": "write",
    "refresh_mat_view_stmt": "write",
    "fetch_stmt": "read",
    "variable_show_stmt": "read",
    "create_table_as_stmt": "ddl",
    "do_stmt": "unknown",
    "call_stmt": "unknown",
    "execute_stmt": "unknown",
    "load_stmt": "unknown",
    **dict.fromkeys(
        (
            "transaction_stmt",
            "variable_set_stmt",
            "declare_cursor_stmt",
            "close_portal_stmt",
            "prepare_stmt",
            "deallocate_stmt",
            "discard_stmt",
            "explain_stmt",
            "listen_stmt",
            "unlisten_stmt",
            "notify_stmt",
            "lock_stmt",
            "check_point_stmt",
            "constraints_set_stmt",
            "vacuum_stmt",
            "cluster_stmt",
            "reindex_stmt",
        ),
        "other",
    ),
    **dict.fromkeys(
        (
            "grant_stmt",
            "grant_role_stmt",
            "alter_default_privileges_stmt",
            "create_role_stmt",
            "alter_role_stmt",
            "alter_role_set_stmt",
            "drop_role_stmt",
            "reassign_owned_stmt",
            "drop_owned_stmt",
            "alter_owner_stmt",
            "create_policy_stmt",
            "alter_policy_stmt",
            "sec_label_stmt",
            "alter_system_stmt",
            "create_user_mapping_stmt",
            "alter_user_mapping_stmt",
            "drop_user_mapping_stmt",
        ),
        "privilege",
    ),
}
_DDL = re.compile(
    r"(?:alter|create|drop|import|define|comment|rename|rule|view|index|replica|composite)\w*_stmt"
    r"|createdb_stmt|dropdb_stmt"
)
_RUNS_INNER = frozenset(
    (
        "select_stmt",
        "insert_stmt",
        "update_stmt",
        "delete_stmt",
        "merge_stmt",
        "create_table_as_stmt",
        "declare_cursor_stmt",
        "prepare_stmt",
        "copy_stmt",
        "create_schema_stmt",
    )
)
_OWNERSHIP = frozenset(
    pb.AlterTableType.Value(name)
    for name in (
        "AT_ChangeOwner",
        "AT_EnableRowSecurity",
        "AT_DisableRowSecurity",
        "AT_ForceRowSecurity",
        "AT_NoForceRowSecurity",
    )
)
_TABLE_LIKE = frozenset(
    pb.ObjectType.Value(f"OBJECT_{name}")
    for name in ("TABLE", "VIEW", "MATVIEW", "INDEX", "SEQUENCE", "FOREIGN_TABLE")
)
_IDENTITY = ("role", "session_authorization")
_LEXING = ("standard_conforming_strings", "client_encoding")
_MAX_ROWS = 64


class _Findings:
    """What a walk over the tree of one text found."""

    def __init__(self) -> None:
        self.effect = "other"
        self.objects: dict[str, None] = {}
        self.forgets: list[str] = []
        self.closes = False
        self.relexes = False

    def top(self, node: Any) -> None:
        """Take one statement of the text."""
        kind = node.WhichOneof(_NODE)
        self._statement(kind, getattr(node, kind))

    def _raise(self, effect: str) -> None:
        if _RANK[effect] > _RANK[self.effect]:
            self.effect = effect

    def _statement(self, kind: str, node: Any) -> None:
        self._raise(_effect(kind, node))
        if kind == "explain_stmt" and _analyzes(node):
            self.top(node.query)
        elif kind == "deallocate_stmt":
            self.forgets.append("*" if node.isall else node.name)
        elif kind == "discard_stmt":
            self.forgets.append("*")
            self.closes = self.relexes = True
        elif kind in ("close_portal_stmt", "declare_cursor_stmt"):
            self.closes = True
        elif kind == "variable_set_stmt":
            self.relexes |= node.name in _LEXING or not node.name
        elif kind == "drop_stmt" and node.remove_type in _TABLE_LIKE:
            for item in node.objects:
                self._add(".".join(part.string.sval for part in item.list.items))
        self._walk(node, frozenset(), runs=kind in _RUNS_INNER)

    def _add(self, name: str) -> None:
        if len(self.objects) < MAX_OBJECTS:
            self.objects[name] = None

    def _walk(self, node: Any, hidden: frozenset[str], *, runs: bool) -> None:
        """Collect relations; where the statement `runs` what is inside it, its effects too.

        `hidden` are names that stand for a WITH query here, not for a relation.
        """
        if isinstance(node, pb.RangeVar):
            if node.schemaname or node.relname not in hidden:
                parts = (node.catalogname, node.schemaname, node.relname)
                self._add(".".join(part for part in parts if part))
            return
        if runs and isinstance(node, pb.Node):
            kind = node.WhichOneof(_NODE)
            if kind in _KINDS or kind == "copy_stmt" or _DDL.fullmatch(kind or ""):
                self._raise(_effect(str(kind), getattr(node, str(kind))))
        fields = node.ListFields()
        for name, value in _children(fields):
            if name == "with_clause":
                hidden = self._with(value[0], hidden, runs=runs)
        for name, value in _children(fields):
            if name != "with_clause":
                for child in value[:_MAX_ROWS] if name == "values_lists" else value:
                    self._walk(child, hidden, runs=runs)

    def _with(self, clause: Any, hidden: frozenset[str], *, runs: bool) -> frozenset[str]:
        names = [item.common_table_expr.ctename for item in clause.ctes]
        if clause.recursive:
            hidden = hidden.union(names)
        for name, item in zip(names, clause.ctes, strict=True):
            self._walk(item, hidden, runs=runs)
            hidden |= {name}
        return hidden


def _children(fields: Any) -> Iterator[tuple[str, Sequence[Any]]]:
    for descriptor, value in fields:
        if descriptor.message_type is not None:
            yield descriptor.name, [value] if isinstance(value, Message) else value


def _effect(kind: str, node: Any) -> str:
    """Tell the effect of one statement, not counting what it has inside."""
    if kind == "select_stmt":
        if node.HasField("into_clause"):
            return "ddl"
        return "write" if node.locking_clause else "read"
    if kind == "copy_stmt":
        if node.is_program:
            return "unknown"
        return "write" if node.is_from or node.filename else "read"
    if kind == "variable_set_stmt":
        return "privilege" if node.name in _IDENTITY else "other"
    if kind == "alter_table_stmt":
        owns = any(item.alter_table_cmd.subtype in _OWNERSHIP for item in node.cmds)
        return "privilege" if owns else "ddl"
    found = _KINDS.get(kind)
    if found is not None:
        return found
    return "ddl" if _DDL.fullmatch(kind) else "unknown"


_OFF = frozenset(("off", "false", "0"))


def _analyzes(node: Any) -> bool:
    """Whether an EXPLAIN runs its query: some ANALYZE option is not plainly off."""
    for option in node.options:
        element = option.def_elem
        if element.defname != "analyze":
            continue
        arg = element.arg
        off = arg.string.sval.lower() in _OFF or (
            arg.WhichOneof(_NODE) in ("integer", "boolean")
            and not (arg.integer.ival or arg.boolean.boolval)
        )
        if not off:
            return True
    return False
