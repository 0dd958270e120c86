import json
from pathlib import Path

from sealtape.ingest.tlog.names import name_of
from sealtape.schemas.tlog.records import BusPlace, LogIncident, parse_entry

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/records.json").read_text())
SESSION = bytes(range(16))


def vectors():
    """The entries of the format's own vectors, by kind."""
    for item in VECTORS["entries"]:
        yield parse_entry(item["entry"].encode())


def test_every_kind_has_a_name_of_its_own():
    names = {}
    for entry in vectors():
        names.setdefault(entry.kind if hasattr(entry, "kind") else "segment", []).append(
            name_of(entry, 41, 3)
        )
    assert names["log"][0].startswith("log/")
    assert names["session-open"] == [f"open/101112131415161718191a1b1c1d1e1f/{n}" for n in (0, 1)]
    assert names["session-seal"][0] == "seal/101112131415161718191a1b1c1d1e1f/0"
    assert names["segment"][0].startswith("segment/")
    assert len(names["segment"][0]) == len("segment/") + 64
    assert names["heartbeat"] == ["heartbeat/3/41"]
    assert names["hold"] == ["statement/" + "0c" * 16]


def incident(offset, reason="gap", session=SESSION, epoch=2, seq=9):
    return LogIncident(1, reason, BusPlace("frames", 3, offset), session, epoch, seq)


def test_an_incident_is_named_by_its_place_on_the_bus_and_what_it_is_about():
    name = f"incident/frames/3/4096/gap/{SESSION.hex()}/2/9"
    assert name_of(incident(4096), 0, 1) == name_of(incident(4096), 5, 2) == name
    # Offsets begin anew on a bus that was cut off.
    assert name_of(incident(4096, seq=10), 0, 1) != name
    assert name_of(incident(-1), 0, 1) == f"incident/frames/3/-1/gap/{SESSION.hex()}/2/9"


def test_an_incident_without_a_session():
    assert name_of(incident(4, session=b"", epoch=None, seq=None), 0, 1) == (
        "incident/frames/3/4/gap//-1/-1"
    )
