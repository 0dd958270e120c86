from dataclasses import fields, replace

import pytest

from sealtape.ingest.ledger.rows import Head

HEAD = Head(b"s" * 16, 1, 0, 2, (b"n" * 32,), 5, 9, 2, 0, "client", b"opening")
OTHER = {bytes: b"other", int: 77, str: "other", tuple: (b"m" * 32,)}


@pytest.mark.parametrize("name", [field.name for field in fields(Head)])
def test_every_field_is_under_the_digest(name):
    changed = replace(HEAD, **{name: OTHER[type(getattr(HEAD, name))]})
    assert changed.digest() != HEAD.digest()


def test_the_digest_is_the_same_every_time():
    assert HEAD.digest() == replace(HEAD).digest()
    assert len(HEAD.digest()) == 32


def test_complete_is_closed_whole_and_signed():
    assert HEAD.complete
    for change in ({"closed": ""}, {"lost": 1}, {"attested": 1}):
        assert not replace(HEAD, **change).complete
