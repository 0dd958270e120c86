"""Inputs made of valid ones: bits, bytes, stretches and words put where they do not belong."""

import random

__all__ = ["WORDS", "changed", "inputs"]

WORDS = [
    b"\0", b"\n", b"\n\n", b'"', b"{", b"}", b"[" * 200, b"{" * 200, b"\xff" * 8, b"\x80" * 10,
    b"9" * 30, b"-1", b"0", b"1e9", b"\xe2\x80\x94 ", b"\x30\x84\xff\xff\xff\xff", b"PK\3\4",
    b"PAR1", b"\xc3\x01", b"\r\n", b"\xed\xa0\x80", b"\x7f\xff\xff\xff", b"null", b"true",
]  # fmt: skip


def inputs(samples, count, seed):
    """So many inputs; the same for the same seed."""
    luck = random.Random(seed)
    for _ in range(count):
        yield changed(luck.choice(samples), luck, samples)


def changed(data, luck, samples):
    """This input with one to sixteen changes; stretches of the samples come in."""
    data = bytearray(data)
    for _ in range(luck.choice([1, 1, 1, 2, 4, 16])):
        _change(data, luck, samples)
    return bytes(data)


def _change(data, luck, samples):
    at = luck.randrange(len(data) + 1)
    end = min(len(data), at + luck.choice([1, 2, 4, 8, 32, 256]))
    kind = luck.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << luck.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = luck.choice([0, 1, 0x7F, 0x80, 0xFF, luck.randrange(256)])
    elif kind == 2:
        del data[at:end]
    elif kind == 3:
        data[at:at] = data[at:end]
    elif kind == 4:
        data[at:at] = luck.choice(WORDS)
    elif kind == 5:
        data[at:end] = luck.choice(WORDS)
    elif kind == 6:
        other = luck.choice(samples)
        begin = luck.randrange(len(other) + 1)
        data[at:end] = other[begin : begin + luck.choice([1, 8, 64, 512])]
    else:
        del data[at:]
