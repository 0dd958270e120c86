"""The committed vectors are what their generator writes."""

import json

import pytest

from tests.vectors import generate_files


@pytest.mark.parametrize("name", sorted(generate_files.generate()))
def test_vectors_are_up_to_date(name):
    committed = json.loads((generate_files.FOLDER / name).read_text(encoding="utf-8"))
    assert committed == generate_files.generate()[name]
