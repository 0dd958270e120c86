"""The trust file."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas.errors import FormatError
from sealtape.schemas.notes import Signer
from sealtape.schemas.trust import format_trust, parse_trust

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
