import struct
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.postgres.codec.messages import MAX_MESSAGE, ProtocolViolation
from sealtape.capture.postgres.codec.scanner import WINDOW, Scanner, TextDigest
from tests.capture.postgres.codec.pg_script import m


class Seen:
    """A scanner of kinds Q, P (wanted), D and d (counted), and what it handed over."""

    def __init__(self, offset=0):
        self.found = []
        self.scanner = Scanner(
            kinds=b"QPDd",
            handlers={ord("Q"): self.take, ord("P"): self.take},
            limits={ord("P"): 10_000},
            digests={ord("Q"): 0, ord("P"): 1},
            salt=b"salt",
            offset=offset,
        )

    def take(self, buffer, start, stop, offset, length):
        digest = self.scanner.digest
        told = None if digest is None else (digest.length, digest.digest())
        self.found.append((bytes(buffer[start:stop]), offset, length, told))

    def outcome(self):
        scanner = self.scanner
        return (self.found, scanner.counts, scanner.sizes, scanner.offset, scanner.at_boundary)


def feed(chunks):
    seen = Seen()
    for chunk in chunks:
        seen.scanner.feed(chunk)
    return seen.outcome()


STREAM = (
    m(b"Q", b"select 1\0")
    + m(b"D", b"row") * 3
    + m(b"d")
    + m(b"D", b"row 2") * 2
    + m(b"Q")
    + m(b"P", b"n\0text\0\0\0")
    + m(b"d", b"x" * 30)
)


def test_what_is_found():
    found, counts, sizes, offset, boundary = feed([STREAM])
    assert [item[0] for item in found] == [b"select 1\0", b"", b"n\0text\0\0\0"]
    assert [item[3] for item in found] == [None] * 3
    assert counts[ord("D")] == 5
    assert sizes[ord("D")] == 3 * 8 + 2 * 10
    assert counts[ord("d")] == 2
    assert offset == len(STREAM)
    assert boundary
    assert found[0][1:3] == (0, 14)
    assert found[1][1] == STREAM.index(m(b"Q", b""))


def test_every_split_of_the_stream_gives_the_same():
    whole = feed([STREAM])
    assert feed([STREAM[i : i + 1] for i in range(len(STREAM))]) == whole
    for cut in range(len(STREAM) + 1):
        assert feed([STREAM[:cut], STREAM[cut:]]) == whole


@given(st.lists(st.integers(1, 40)))
def test_any_cuts_give_the_same(sizes):
    chunks, start = [], 0
    for size in sizes:
        chunks.append(STREAM[start : start + size])
        start += size
    assert feed([*chunks, STREAM[start:]]) == feed([STREAM])


def long_stream():
    text = b"s" * 70_000
    return (
        m(b"Q", text + b"\0"),
        m(b"D", b"x" * 9000),
        m(b"P", b"name\0" + text + b"\0" + b"\0\x01\0\0\0\x17"),
        m(b"D", b"x" * 20),
        m(b"Q", b"q" * (WINDOW - 4)),
        m(b"Q", b"q" * (WINDOW + 1)),
    )


@pytest.mark.parametrize("size", [7, 1000, 4096, 8197, 65536, 1 << 20])
def test_long_messages_stream_through_with_a_digest(size):
    stream = b"".join(long_stream())
    found, counts, _, _, _ = feed([stream[i : i + size] for i in range(0, len(stream), size)])
    digest = (70_000, sha256(b"salt" + b"s" * 70_000).digest())
    assert [(len(body), length) for body, _, length, _ in found] == [
        (WINDOW, 70_006),
        (10_000, 70_017),
        (WINDOW - 4, WINDOW + 1),
        (WINDOW, WINDOW + 6),
    ]
    assert found[0][3] == found[1][3] == digest
    assert found[2][3] is None
    assert found[3][3][0] == WINDOW + 1
    assert counts[ord("D")] == 2


def test_a_gigabyte_is_never_held():
    seen = Seen()
    seen.scanner.feed(b"D" + struct.pack(">I", MAX_MESSAGE))
    for _ in range(8):
        seen.scanner.feed(b"x" * (1 << 20))
    assert not seen.scanner.at_boundary
    assert seen.scanner.at_rest
    assert not seen.found


@pytest.mark.parametrize("size", [0, 3, MAX_MESSAGE + 1, 0xFFFF_FFFF])
@pytest.mark.parametrize("kind", [b"Q", b"D"])
@pytest.mark.parametrize("cut", [1, 3, 5, 8])
def test_impossible_lengths(size, kind, cut):
    stream = m(kind, b"x") + kind + struct.pack(">I", size) + b"x" * 20
    seen = Seen()
    with pytest.raises(ProtocolViolation):
        for start in range(0, len(stream), cut):
            seen.scanner.feed(stream[start : start + cut])


@pytest.mark.parametrize("body", [b"", b"x" * 10, b"x" * 9000])
def test_kinds_that_cannot_come(body):
    with pytest.raises(ProtocolViolation):
        Seen().scanner.feed(m(b"?", body))
    with pytest.raises(ProtocolViolation):
        Seen().scanner.feed(m(b"?", body)[:5])


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_garbage_raises_nothing_else(chunks):
    seen = Seen()
    try:
        for chunk in chunks:
            seen.scanner.feed(chunk)
    except ProtocolViolation:
        pass


def test_state_and_resume_at_every_byte():
    whole = feed([STREAM])
    for cut in range(len(STREAM) + 1):
        before, after = Seen(), Seen()
        before.scanner.feed(STREAM[:cut])
        if not before.scanner.at_rest:
            continue
        after.scanner.resume(before.scanner.state())
        after.scanner.feed(STREAM[cut:])
        assert (before.found + after.found, *after.outcome()[1:]) == whole


def test_offsets_start_where_told():
    seen = Seen(offset=1000)
    seen.scanner.feed(m(b"D"))
    seen.scanner.feed(m(b"Q")[:2])
    seen.scanner.feed(m(b"Q")[2:])
    assert seen.found[0][1] == 1005


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_digest_of_the_string_that_is_meant(size):
    body = b"one\0two\0three\0"
    for skip, text in ((0, b"one"), (1, b"two"), (2, b"three")):
        digest = TextDigest(b"s", skip)
        for start in range(0, len(body), size):
            digest.update(body[start : start + size])
        assert (digest.length, digest.digest()) == (len(text), sha256(b"s" + text).digest())
