"""The committed vectors are what the generator makes: nobody edited one of the two alone."""

import json

import pytest

from tests.vectors import generate_a


@pytest.mark.parametrize("name", sorted(generate_a.generate()))
def test_committed_vectors_are_the_generated_ones(name):
    committed = json.loads((generate_a.FOLDER / name).read_text(encoding="utf-8"))
    assert generate_a.generate()[name] == committed
