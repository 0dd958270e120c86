"""The trust file and the node's key file."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Signer
from sealtape.schemas.trust import format_node_key, format_trust, parse_node_key, parse_trust

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VKEY = Signer("node-1.sealtape", PRIVATE).vkey


def test_what_is_written_can_be_read():
    trust = parse_trust(format_trust([VKEY]))
    assert [node.name for node in trust.nodes] == ["node-1.sealtape"]


def test_an_empty_trust_file_trusts_nobody():
    assert parse_trust("").nodes == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[node", "not valid TOML"),
        ("nodes = []", "unknown entry: nodes"),
        ("node = 1", "unknown entry: node"),
        ("node = [1]", "exactly one key"),
        ("[[node]]\nvkey = 1", "exactly one key"),
        ('[[node]]\nvkey = "x"\nname = "y"', "exactly one key"),
        ('[[node]]\nvkey = "x+00+AQAA"', "verifier key"),
    ],
)
def test_a_bad_trust_file_is_a_format_error(text, says):
    with pytest.raises(FormatError, match=says):
        parse_trust(text)


def test_a_node_key_file_is_read_back():
    text = format_node_key("node-1.sealtape", PRIVATE)
    assert text.startswith("PRIVATE+KEY+node-1.sealtape+")
    assert parse_node_key(text).vkey == VKEY


def test_a_bad_key_file_is_a_format_error_that_does_not_show_it():
    good = format_node_key("node-1.sealtape", PRIVATE).strip()
    head, _, key = good.rpartition("+")
    for text in [
        "",
        "KEY+x",
        "PRIVATE+KEY+n+AAAA",
        head + "+AQAA",
        head[:-1] + "x+" + key,
        head + "+!!",
    ]:
        with pytest.raises(FormatError) as caught:
            parse_node_key(text)
        assert key not in str(caught.value)
