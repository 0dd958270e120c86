"""The committed vectors are what their generator writes."""

import json

from tests.vectors import generate_verification


def test_vectors_are_up_to_date():
    committed = json.loads(generate_verification.FILE.read_text(encoding="utf-8"))
    assert committed == generate_verification.generate()
