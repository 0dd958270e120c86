import pytest

from sealtape.indexer.index import fts5
from sealtape.indexer.query import parse

# What the conditions find is in tests/conformance/index.py; here: that values stay parameters.


@pytest.mark.parametrize("build", [fts5.commands, fts5.sessions])
@pytest.mark.parametrize(
    "text",
    [
        'user:"x\' OR 1=1 --"',
        'table:"a\\"b",c*',
        "group:dba*",
        "error:42p01 -error:true",
        "source:10.0.0.0/8 since:5 ".replace("since:5", "since:5s"),
        "union select",
        "session:ab until:2026-01-01",
    ],
)
def test_values_are_parameters(build, text):
    condition = build(parse(text, now_ns=10**18))
    assert condition.sql.count("?") == len(condition.parameters)
    for word in ("OR 1", "--", "42p01", "union", "dba", '"'):
        assert word not in condition.sql


@pytest.mark.parametrize(
    ("address", "packed"),
    [
        ("10.1.2.3", b"\x04\x0a\x01\x02\x03"),
        ("::ffff:10.1.2.3", b"\x04\x0a\x01\x02\x03"),
        ("10.1.2.3:5432", b"\x04\x0a\x01\x02\x03"),
        ("[::1]:5432", b"\x06" + bytes(15) + b"\x01"),
        ("[::1]", b"\x06" + bytes(15) + b"\x01"),
        ("::1", b"\x06" + bytes(15) + b"\x01"),
        ("fe80::1%eth0", b"\x06\xfe\x80" + bytes(13) + b"\x01"),
        ("", b""),
        ("unix", b""),
        ("a:b", b""),
        ("[", b""),
    ],
)
def test_addresses(address, packed):
    assert fts5.packed_address(address) == packed
