"""The query language: text to a tree and back. Pure; no back end is named here.

A query is a list of terms that must all hold::

    update "order items" user:anna,ben -effect:read source:10.0.0.0/8 since:2h

* a bare word, a `"quoted phrase"`, either with `*` at its end: statement text, object names and
  error messages (words as in `indexer.tokens`);
* `field:value`, several values by comma meaning any of them, each quoted if it must be, each
  with `*` at its end for "begins with";
* `-` before a term: it must not hold.

`docs/query.md` has the whole language with examples. Back ends compile the tree (`Query`); they
get bounds in time as nanoseconds and networks in canonical form, never text to interpret.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

from sealtape.indexer import tokens
from sealtape.schemas.errors import QueryError

NAMES = ("user", "group", "target", "agent", "run", "protocol", "effect", "table", "error")
"""Fields that compare names; `session`, `source`, `since` and `until` have values of their own."""

FIELDS = (*NAMES, "session", "source", "since", "until")

COMMAND_FIELDS = frozenset({"effect", "table", "error"})
"""Fields of a command; all others belong to the session and are copied into its commands."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MAX_NS = (1 << 63) - 1
_FIELD = re.compile(r"([A-Za-z][A-Za-z_]*):")
_NEGATION = re.compile(r"-(?=[^\s>-])")
_BARE_VALUE = re.compile(r'[^\s",*\\]+')
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_INSTANT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2})"
    r"(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?"
)
_SESSION = re.compile(r"[0-9a-f]{1,32}")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Text:
    """These words, one after the other; with `prefix` the last one may go on."""

    words: tuple[str, ...]
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """A folded name to be equal to, or with `prefix` to begin with (an empty prefix: any)."""

    text: str
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """The field (one of `NAMES`, or `session`, whose values are prefixes) has one of the values.

    A table's value also matches behind a dot: `orders` matches `public.orders`.
    """

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The command ended with an error (`wanted`), or did not."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class Source:
    """The client's address lies in one of these networks (canonical text, `10.0.0.0/8`)."""

    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Since:
    """At or after this time, nanoseconds since the Unix epoch."""

    ns: int


@dataclass(frozen=True, slots=True)
class Until:
    """Before this time, nanoseconds since the Unix epoch."""

    ns: int


Term = Text | Match | Failed | Source | Since | Until


@dataclass(frozen=True, slots=True)
class Not:
    """The term must not hold."""

    term: Term


@dataclass(frozen=True, slots=True)
class Query:
    """All terms hold. Without terms everything matches."""

    terms: tuple[Term | Not, ...] = ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A value as it was written: where, what, and whether a star followed."""

    at: int
    text: str
    prefix: bool


def parse(text: str, *, now_ns: int) -> Query:
    """Read a query; `now_ns` is what `since:2h` counts back from.

    Raises QueryError, whose context has `position` (characters from 0).
    """
    _check_text(text)
    terms: list[Term | Not] = []
    at = _skip(text, 0)
    while at < len(text):
        term, at = _term(text, at, now_ns)
        terms.append(term)
        at = _skip(text, at)
    return Query(tuple(terms))


def form(query: Query) -> str:
    """Write a query so that `parse` reads the same tree, whatever the time is then."""
    return " ".join(_form(term) for term in query.terms)


def _check_text(text: str) -> None:
    """Refuse what no store could take: bytes of a command line that were no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        hint = "Write the query in UTF-8."
        raise _fail("There is something that is no character", error.start, hint) from None


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _fail(message: str, at: int, hint: str) -> QueryError:
    return QueryError(f"{message} (at character {at + 1} of the query).", hint=hint, position=at)


def _term(text: str, at: int, now_ns: int) -> tuple[Term | Not, int]:
    if negation := _NEGATION.match(text, at):
        term, end = _positive(text, negation.end(), now_ns)
        return Not(term), end
    return _positive(text, at, now_ns)


def _positive(text: str, at: int, now_ns: int) -> tuple[Term, int]:
    if found := _FIELD.match(text, at):
        name = found[1].lower()
        if name not in FIELDS:
            raise _unknown(found[1], at)
        pieces, end = _pieces(text, found.end(), name)
        return _build(name, pieces, at, now_ns), end
    piece, end = _piece(text, at, stop="")
    split = tokens.words(piece.text)
    if not split:
        raise _fail(
            f"There is no word in {text[at:end]!r}",
            at,
            "Give letters or digits to search for, or leave the query empty to list everything.",
        )
    return Text(split, prefix=piece.prefix and tokens.ends_in_word(piece.text)), end


def _unknown(name: str, at: int) -> QueryError:
    near = difflib.get_close_matches(name.lower(), FIELDS, n=1, cutoff=0.0)[0]
    return _fail(
        f"There is no field {name!r}",
        at,
        f"The nearest is '{near}:'; fields are {', '.join(FIELDS)}. "
        "To search for text that has a colon, put it in double quotes.",
    )


def _pieces(text: str, at: int, name: str) -> tuple[list[_Piece], int]:
    pieces: list[_Piece] = []
    while True:
        piece, end = _piece(text, at, stop=",")
        if not piece.text and not piece.prefix:
            raise _fail(f"'{name}:' has no value", at, f"Write {name}:VALUE without a space.")
        pieces.append(piece)
        if end == len(text) or text[end] != ",":
            return pieces, end
        at = end + 1


def _piece(text: str, at: int, stop: str) -> tuple[_Piece, int]:
    """Read one quoted or bare value that ends at a space, the end, or a character of `stop`."""
    if text[at : at + 1] != '"':
        end = at
        while end < len(text) and not text[end].isspace() and text[end] not in stop:
            if text[end] == '"':
                raise _fail(
                    "A double quote stands inside a word",
                    end,
                    'Put the whole value in double quotes and write \\" for a quote inside.',
                )
            end += 1
        bare = text[at:end]
        prefix = bare.endswith("*")
        return _Piece(at, bare[:-1] if prefix else bare, prefix), end
    value, end = _quoted(text, at)
    prefix = text[end : end + 1] == "*"
    end += prefix
    if end < len(text) and not text[end].isspace() and text[end] not in stop:
        raise _fail(
            "Something follows the closing double quote",
            end,
            'Put a space after it, or write \\" for a quote inside.',
        )
    return _Piece(at, value, prefix), end


def _quoted(text: str, start: int) -> tuple[str, int]:
    out: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(out), at + 1
        if char == "\\" and text[at + 1 : at + 2] in ("\\", '"'):
            at += 1
            char = text[at]
        out.append(char)
        at += 1
    raise _fail("A double quote is not closed", start, 'Close it with another ".')


def _build(name: str, pieces: list[_Piece], at: int, now_ns: int) -> Term:
    if name in ("since", "until"):
        return _time(name, pieces, now_ns)
    if name == "source":
        return Source(tuple(found for piece in pieces for found in _networks(piece)))
    if name == "session":
        return Match(name, tuple(_session(piece) for piece in pieces))
    values = tuple(Value(tokens.fold(piece.text), piece.prefix) for piece in pieces)
    if name == "error":
        return _error(values, at)
    return Match(name, values)


def _error(values: tuple[Value, ...], at: int) -> Term:
    said = [value.text for value in values if value.text in ("true", "false") and not value.prefix]
    if not said:
        return Match("error", values)
    if len(values) > 1:
        raise _fail(
            "'error:' takes true, false or error codes, not a mixture",
            at,
            "Write error:true for any error, or only codes: error:42P01,23505.",
        )
    return Failed(said[0] == "true")


def _session(piece: _Piece) -> Value:
    value = piece.text.lower()
    if not _SESSION.fullmatch(value):
        raise _fail(
            f"{piece.text!r} is not the beginning of a session id",
            piece.at,
            "Session ids are 32 hexadecimal digits; give the first few.",
        )
    return Value(value, prefix=True)


_ANYWHERE = ("0.0.0.0/0", "::/0")


def _networks(piece: _Piece) -> tuple[str, ...]:
    """The networks of a value: an address there is lies in one of two."""
    return _ANYWHERE if piece.prefix and not piece.text else (_network(piece),)


def _network(piece: _Piece) -> str:
    try:
        if piece.prefix:
            raise ValueError(piece.text)
        network = ipaddress.ip_network(piece.text, strict=False)
    except ValueError:
        raise _fail(
            f"{piece.text + '*' * piece.prefix!r} is not an address or network",
            piece.at,
            "Write source:192.0.2.7, source:10.0.0.0/8, source:2001:db8::/32 or source:*.",
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.scope_id:
        raise _fail("A network has no zone", piece.at, "Leave out the % and what follows.")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        # As a host that listens to both families names an IPv4 client.
        address = network.network_address.ipv4_mapped
        return str(ipaddress.ip_network((int(address or 0), network.prefixlen - 96)))
    return str(network)


def _time(name: str, pieces: list[_Piece], now_ns: int) -> Since | Until:
    piece = pieces[0]
    if len(pieces) > 1 or piece.prefix:
        raise _fail(f"'{name}:' takes one time", piece.at, "Write one time, without * or comma.")
    kind: Callable[[int], Since | Until] = Since if name == "since" else Until
    try:
        ns = _moment(piece.text, now_ns, end_of_day=name == "until")
    except (ValueError, OverflowError):
        raise _fail(
            f"{piece.text!r} is not a time",
            piece.at,
            f"Write {name}:2h (also s, m, d, w), {name}:2026-11-22 or {name}:2026-11-22T14:30Z.",
        ) from None
    return kind(min(max(ns, 0), _MAX_NS))


def _moment(text: str, now_ns: int, *, end_of_day: bool) -> int:
    if found := _DURATION.fullmatch(text):
        return now_ns - int(found[1]) * _UNITS_S[found[2]] * 1_000_000_000
    if found := _DAY.fullmatch(text):
        day = date(int(found[1]), int(found[2]), int(found[3]))
        return (day.toordinal() + end_of_day - _EPOCH.toordinal()) * 86_400_000_000_000
    if found := _INSTANT.fullmatch(text):
        return _instant(found)
    raise ValueError(text)


def _instant(found: re.Match[str]) -> int:
    year, month, day, hour, minute = (int(found[n]) for n in range(1, 6))
    zone: timezone = UTC
    if found[9]:
        ahead = timedelta(hours=int(found[10]), minutes=int(found[11]))
        zone = timezone(ahead if found[9] == "+" else -ahead)
    moment = datetime(year, month, day, hour, minute, int(found[6] or 0), tzinfo=zone)
    whole = (moment - _EPOCH) // timedelta(seconds=1)
    return whole * 1_000_000_000 + int((found[7] or "").ljust(9, "0"))


def _form(term: Term | Not) -> str:
    if isinstance(term, Not):
        return "-" + _form(term.term)
    if isinstance(term, Text):
        star = "*" * term.prefix
        return (term.words[0] if len(term.words) == 1 else f'"{" ".join(term.words)}"') + star
    if isinstance(term, Match):
        return f"{term.field}:" + ",".join(_form_value(value, term.field) for value in term.values)
    if isinstance(term, Failed):
        return "error:" + ("true" if term.wanted else "false")
    if isinstance(term, Source):
        return "source:" + ",".join(term.networks)
    name = "since" if isinstance(term, Since) else "until"
    seconds, rest = divmod(term.ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, tz=UTC)
    return f"{name}:{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _form_value(value: Value, field: str) -> str:
    if field == "session":
        return value.text
    star = "*" * value.prefix
    if _BARE_VALUE.fullmatch(value.text) or (not value.text and value.prefix):
        return value.text + star
    escaped = value.text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"{star}'
