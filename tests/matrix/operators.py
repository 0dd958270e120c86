"""What can be done to the bytes of one file: each operator gives (its name, other bytes).

Which places are changed is drawn by a seed, so that a failure names what to play again.
"""

import base64
import random
import re
import unicodedata

__all__ = ["OPERATORS", "mutants"]

_NUMBER = re.compile(rb"(?<![0-9a-zA-Z+/=.-])\d+(?![0-9a-zA-Z+/=.-])")
_SIGNATURE = re.compile(rb"(?m)^\xe2\x80\x94 (\S+) (\S+)$")


def flips(data, luck):
    at = luck.randrange(len(data) * 8)
    yield f"bit {at}", _put(data, at // 8, data[at // 8] ^ 1 << at % 8)


def zeros(data, luck):
    at = luck.choice([index for index, byte in enumerate(data) if byte])
    yield f"zero {at}", _put(data, at, 0)


def cuts(data, luck):
    for end in {0, 1, len(data) - 1, luck.randrange(len(data))}:
        yield f"cut {end}", data[:end]
    yield "cut in front", data[1:]


def appended(data, luck):
    for more in (b"\n", b"\0", b" ", data[-luck.randrange(1, len(data) + 1) :], data):
        yield f"append {more[:8]!r}", data + more


def lines(data, luck):
    """Drop, double and swap lines, near and far."""
    parts = data.splitlines(keepends=True)
    if len(parts) < 2:
        return
    one, other = sorted(luck.sample(range(len(parts)), 2))
    yield f"drop line {one}", b"".join(parts[:one] + parts[one + 1 :])
    yield f"double line {one}", b"".join([*parts[: one + 1], *parts[one:]])
    for far in (other, min(one + 1, len(parts) - 1)):
        swapped = list(parts)
        swapped[one], swapped[far] = parts[far], parts[one]
        yield f"swap lines {one} {far}", b"".join(swapped)


def chunks(data, luck):
    """Drop, double and swap stretches of 32 bytes, as of hashes and rows."""
    if len(data) < 64:
        return
    count = len(data) // 32
    one, other = sorted(luck.sample(range(count), 2))
    a, b = data[one * 32 : one * 32 + 32], data[other * 32 : other * 32 + 32]
    yield f"drop chunk {one}", data[: one * 32] + data[one * 32 + 32 :]
    yield f"double chunk {one}", data[: one * 32] + a + data[one * 32 :]
    between = data[one * 32 + 32 : other * 32]
    yield f"swap chunks {one} {other}", data[: one * 32] + b + between + a + data[other * 32 + 32 :]


def texts(data, luck):
    """Other forms of the same text: what a lax parser takes for it."""
    if b"\0" in data or (not data.isascii() and _text(data) is None):
        return
    yield "CRLF", data.replace(b"\n", b"\r\n")
    yield "no newline", data.rstrip(b"\n")
    yield "tab", data.replace(b" ", b"\t", 1)
    yield "BOM", b"\xef\xbb\xbf" + data
    yield "space in JSON", data.replace(b'":', b'": ', 1)
    yield "control", data.replace(b"\n", b"\x1b\n", 1)
    text = _text(data)
    if text is not None:
        yield "NFD", unicodedata.normalize("NFD", text.replace("a", "\u00e1", 1)).encode()
    found = list(re.finditer(rb'"([a-z_0-9]+)":', data))
    if found:
        chosen = luck.choice(found)
        end = chosen.end()
        yield "doubled member", data[: chosen.start()] + b'"x":0,' + data[chosen.start() :]
        value = re.match(rb'"[^"]*"|\d+', data[end:])
        if value:
            member = data[chosen.start() : end + value.end()]
            yield (
                "same member twice",
                data[: chosen.start()] + member + b"," + data[chosen.start() :],
            )


def numbers(data, luck):
    """Sizes 0, 1, 2^63; leading zeros; signs."""
    if _text(data) is None:
        return
    found = list(_NUMBER.finditer(data))
    if not found:
        return
    chosen = luck.choice(found)
    for other in (b"0", b"1", b"2", b"%d" % 2**63, b"0" + chosen[0], b"-" + chosen[0], b""):
        if other != chosen[0]:
            yield f"number {other!r}", data[: chosen.start()] + other + data[chosen.end() :]


def signatures(data, luck):
    """Wrong name, wrong id, wrong signature, lax base64, another's place."""
    found = list(_SIGNATURE.finditer(data))
    if not found:
        return
    chosen = luck.choice(found)
    name, text = chosen[1], chosen[2]

    def line(new_name, new_text):
        new = b"\xe2\x80\x94 " + new_name + b" " + new_text
        return data[: chosen.start()] + new + data[chosen.end() :]

    try:
        raw = base64.b64decode(text)
    except ValueError:
        return
    yield "signature's name", line(name + b"x", text)
    yield "signature's id", line(name, base64.b64encode(bytes([raw[0] ^ 1]) + raw[1:]))
    yield "signature's bytes", line(name, base64.b64encode(raw[:-1] + bytes([raw[-1] ^ 1])))
    yield "signature dropped", data[: chosen.start()] + data[chosen.end() + 1 :]
    yield "signature without padding", line(name, text.rstrip(b"=") or b"x")
    yield "signature of another", line(name, luck.choice(found)[2][::-1])


OPERATORS = {
    "flip": flips,
    "zero": zeros,
    "cut": cuts,
    "append": appended,
    "lines": lines,
    "chunks": chunks,
    "texts": texts,
    "numbers": numbers,
    "signatures": signatures,
}


def mutants(data, seed, names=tuple(OPERATORS)):
    """All that the operators of these names make of the bytes; only what is different."""
    for name in names:
        luck = random.Random(f"{seed} {name}")
        for what, other in OPERATORS[name](data, luck) if data else ():
            if other != data:
                yield f"{name}: {what}", other


def _put(data, at, byte):
    return data[:at] + bytes([byte]) + data[at + 1 :]


def _text(data):
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
