"""The operators do what they say, and the same for the same seed."""

import pytest

from tests.matrix.operators import OPERATORS, mutants

NOTE = (
    "sealtape.example/log/1\n10\nrAjsLs8PVHfPnJTQnaVkvdHEEN4NFLFTJWxtbiYdpF8=\n\n"
    "\u2014 name qqqqqqqqqqqq\n\u2014 other rrrrrrrrrrrr\n"
).encode()
SAMPLES = [NOTE, b'{"a":1,"b":"x"}\n{"a":2}\n', bytes(range(200)), b"\x01"]


@pytest.mark.parametrize("data", SAMPLES)
def test_every_mutant_is_another(data):
    found = list(mutants(data, 1))
    assert found == list(mutants(data, 1))
    assert found
    assert all(other != data for _, other in found)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_does_something(name):
    assert any(list(mutants(data, 2, (name,))) for data in SAMPLES)


def test_nothing_has_no_mutants():
    assert list(mutants(b"", 3)) == []
