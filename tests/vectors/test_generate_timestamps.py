"""The committed vectors are what their generator writes."""

import json

from tests.vectors import generate_timestamps


def test_vectors_are_up_to_date():
    file = generate_timestamps.FOLDER / "timestamps.json"
    committed = json.loads(file.read_text(encoding="utf-8"))
    assert committed == generate_timestamps.generate()
